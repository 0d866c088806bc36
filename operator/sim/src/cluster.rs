//! What Kubernetes does by itself: Deployments and Jobs make pods, pods become ready, endpoints follow
//! selectors, what nobody owns any more is removed. One tick is one second.

use crate::database::Database;
use crate::images::Images;
use crate::pod_run::{Pace, PodRun, task_of};
use crate::pods;
use crate::store::{Apiserver, Objects};
use fairway_engine::kinds::Kind;
use fairway_engine::{Instant, Now};
use fairway_plan::protocol::Task;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus};
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobStatus};
use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use kube::ResourceExt;
use kube::core::ObjectMeta;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// What the apiserver and the network do not allow.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// No more pods may be made from Deployments.
    pub quota_is_used_up: bool,
    /// No Deployment that is there may be scaled.
    pub deployments_are_kept: bool,
    /// Images that an admission rule refuses in Deployments.
    pub refused_images: BTreeSet<String>,
    /// Images of Deployments that are forbidden for now, say by a quota.
    pub forbidden_images: BTreeSet<String>,
    /// Services whose selector another field manager owns.
    pub foreign_services: BTreeSet<String>,
    /// The operator's probes do not get through.
    pub probes_are_blocked: bool,
}

/// A cluster with one namespace, and the database beside it.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// The time.
    pub now: Timestamp,
    /// The apiserver.
    pub api: Apiserver,
    /// The database.
    pub database: Database,
    /// How the versions behave.
    pub images: Images,
    /// How long things take.
    pub pace: Pace,
    /// What is not allowed.
    pub rules: Rules,
    pods: BTreeMap<String, PodRun>,
    started_jobs: BTreeSet<String>,
    lags: BTreeMap<String, u32>,
    made_pods: u32,
    /// When the story began.
    begin: Timestamp,
}

impl Cluster {
    /// An empty cluster at that time.
    pub fn new(now: Timestamp) -> Self {
        Self {
            now,
            api: Apiserver::default(),
            database: Database::default(),
            images: Images::default(),
            pace: Pace::default(),
            rules: Rules::default(),
            pods: BTreeMap::new(),
            started_jobs: BTreeSet::new(),
            lags: BTreeMap::new(),
            made_pods: 0,
            begin: now,
        }
    }

    /// The time on both clocks; the monotonic one began with the story.
    pub fn clock(&self) -> Now {
        let since = Duration::try_from(self.now.duration_since(self.begin)).unwrap_or_default();
        Now {
            wall: self.now,
            monotonic: Instant::after_origin(since),
        }
    }

    /// A moment of the monotonic clock on the wall clock.
    pub(crate) fn moment(&self, instant: Instant) -> Timestamp {
        let since = SignedDuration::try_from(instant.since_origin()).unwrap_or(SignedDuration::MAX);
        self.begin.saturating_add(since).unwrap_or(Timestamp::MAX)
    }

    /// Whether there is a pod with that UID.
    pub(crate) fn has_pod(&self, uid: &str) -> bool {
        let mut pods = self.objects().pods.values();
        pods.any(|pod| pod.uid().as_deref() == Some(uid))
    }

    /// All objects.
    pub fn objects(&self) -> &Objects {
        &self.api.objects
    }

    /// Whether a pod with that UID is there and its agent has not answered.
    pub(crate) fn is_running(&self, uid: &str) -> bool {
        self.pods.get(uid).is_some_and(|run| run.answer.is_none())
    }

    /// One second of everything but the operator. Returns whether anything happened or is about to.
    pub fn tick(&mut self) -> bool {
        let before = self.api.version();
        self.collect_garbage();
        self.run_deployments();
        self.run_jobs();
        let is_busy = self.run_pods();
        let lags = self.run_endpoints();
        is_busy || lags || self.api.version() != before
    }

    /// Deletes an object as a person would.
    pub fn delete(&mut self, kind: Kind, name: &str) {
        if kind == Kind::Pod {
            self.end_pod(name);
        } else {
            self.api.remove(kind, name);
        }
    }

    /// Takes a pod away at once, as a lost node does.
    pub fn kill_pod(&mut self, name: &str) {
        if let Some(uid) = self.api.get::<Pod>(name).and_then(|pod| pod.uid()) {
            self.pods.remove(&uid);
        }
        self.api.remove(Kind::Pod, name);
    }

    fn end_pod(&mut self, name: &str) {
        let now = Time(self.now);
        self.api.change::<Pod>(name, |pod| {
            pod.metadata.deletion_timestamp.get_or_insert(now);
        });
    }

    fn collect_garbage(&mut self) {
        let uids: BTreeSet<String> = self
            .objects()
            .all()
            .into_iter()
            .filter_map(|(_, meta)| meta.uid.clone())
            .collect();
        let is_orphan = |meta: &ObjectMeta| {
            let owners = meta.owner_references.as_deref().unwrap_or_default();
            !owners.is_empty() && owners.iter().all(|owner| !uids.contains(&owner.uid))
        };
        let orphans: Vec<(Kind, String)> = self
            .objects()
            .all()
            .into_iter()
            .filter(|(_, meta)| is_orphan(meta) && meta.deletion_timestamp.is_none())
            .filter_map(|(kind, meta)| Some((kind, meta.name.clone()?)))
            .collect();
        for (kind, name) in orphans {
            self.delete(kind, &name);
        }
    }

    fn run_deployments(&mut self) {
        for deployment in self.objects().deployments.values().cloned().collect::<Vec<_>>() {
            self.run_deployment(&deployment);
        }
    }

    fn run_deployment(&mut self, deployment: &Deployment) {
        let Some(spec) = &deployment.spec else { return };
        let desired = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or_default();
        let uid = deployment.uid().unwrap_or_default();
        let owned = |pod: &&Arc<Pod>| pod.owner_references().iter().any(|owner| owner.uid == uid);
        let active = |pod: &&Arc<Pod>| {
            pod.metadata.deletion_timestamp.is_none() && !fairway_plan::readings::has_finished(pod)
        };
        let pods: Vec<Arc<Pod>> = self
            .objects()
            .pods
            .values()
            .filter(owned)
            .filter(active)
            .cloned()
            .collect();
        let is_short = pods.len() < desired;
        let is_stopped = is_short && self.rules.quota_is_used_up;
        let mut count = pods.len();
        while count < desired && !is_stopped {
            self.made_pods += 1;
            let meta = spec.template.metadata.clone().unwrap_or_default();
            let name = format!("{}-{:05}", deployment.name_any(), self.made_pods);
            self.make_pod(
                name,
                meta,
                spec.template.spec.clone(),
                owner("Deployment", &deployment.metadata),
            );
            count += 1;
        }
        for pod in pods.iter().skip(desired) {
            self.end_pod(&pod.name_any());
        }
        let ready = pods
            .iter()
            .filter(|pod| fairway_plan::readings::is_ready(pod))
            .count();
        let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
        let refused = DeploymentCondition {
            type_: "ReplicaFailure".to_owned(),
            status: "True".to_owned(),
            reason: Some("FailedCreate".to_owned()),
            message: Some("pods are forbidden: exceeded quota: team".to_owned()),
            ..DeploymentCondition::default()
        };
        let status = DeploymentStatus {
            observed_generation: deployment.metadata.generation,
            replicas: Some(number(count.min(desired))),
            ready_replicas: Some(number(ready.min(desired))),
            conditions: is_stopped.then(|| vec![refused]),
            ..DeploymentStatus::default()
        };
        if deployment.status.as_ref() != Some(&status) {
            self.api
                .change::<Deployment>(&deployment.name_any(), |found| found.status = Some(status));
        }
    }

    fn make_pod(
        &mut self,
        name: String,
        meta: ObjectMeta,
        spec: Option<k8s_openapi::api::core::v1::PodSpec>,
        owner: OwnerReference,
    ) {
        let metadata = ObjectMeta {
            name: Some(name),
            labels: meta.labels,
            annotations: meta.annotations,
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        };
        // The name is counted up, so it is free.
        let _ = self.api.create(
            Pod {
                metadata,
                spec,
                status: None,
            },
            self.now,
        );
    }

    fn run_jobs(&mut self) {
        for job in self.objects().jobs.values().cloned().collect::<Vec<_>>() {
            let uid = job.uid().unwrap_or_default();
            let Some(spec) = &job.spec else { continue };
            if self.started_jobs.insert(uid.clone()) {
                let mut meta = spec.template.metadata.clone().unwrap_or_default();
                for key in ["batch.kubernetes.io/job-name", "job-name"] {
                    meta.labels
                        .get_or_insert_default()
                        .insert(key.to_owned(), job.name_any());
                }
                let name = format!("{}-{}", job.name_any(), &uid[..5]);
                self.make_pod(
                    name,
                    meta,
                    spec.template.spec.clone(),
                    owner("Job", &job.metadata),
                );
                continue;
            }
            let mut pods = self.objects().pods.values();
            let pod = pods.find(|pod| pod.owner_references().iter().any(|owner| owner.uid == uid));
            let phase = pod.map(|pod| pod.status.as_ref().and_then(|status| status.phase.as_deref()));
            let ended = match phase {
                Some(Some("Succeeded")) => Some("Complete"),
                Some(Some("Failed")) | None => Some("Failed"),
                Some(_) => None,
            };
            if let (Some(ended), true) = (ended, job.status.is_none()) {
                let condition = JobCondition {
                    type_: ended.to_owned(),
                    status: "True".to_owned(),
                    reason: (ended == "Failed").then(|| "BackoffLimitExceeded".to_owned()),
                    ..JobCondition::default()
                };
                let status = JobStatus {
                    conditions: Some(vec![condition]),
                    ..JobStatus::default()
                };
                self.api
                    .change::<Job>(&job.name_any(), |job| job.status = Some(status));
            }
        }
    }

    /// Returns whether a pod is on its way somewhere.
    fn run_pods(&mut self) -> bool {
        let pods: Vec<Arc<Pod>> = self.objects().pods.values().cloned().collect();
        let alive: BTreeSet<String> = pods.iter().filter_map(|pod| pod.uid()).collect();
        self.pods.retain(|uid, _| alive.contains(uid));
        let mut is_busy = false;
        for pod in pods {
            let uid = pod.uid().unwrap_or_default();
            let mut run = self.pods.remove(&uid).unwrap_or_default();
            let stays = self.run_pod(&pod, &uid, &mut run, &mut is_busy);
            if stays {
                self.pods.insert(uid, run);
            } else {
                self.api.remove(Kind::Pod, &pod.name_any());
            }
        }
        is_busy
    }

    /// Returns whether the pod is still there.
    fn run_pod(&mut self, pod: &Pod, uid: &str, run: &mut PodRun, is_busy: &mut bool) -> bool {
        run.age += 1;
        if run.age == 1 {
            run.begin = self.now;
        }
        run.is_ending = pod.metadata.deletion_timestamp.is_some();
        let task = task_of(pod);
        if let Some(task) = &task
            && run.answer.is_none()
            && run.age > 1
        {
            run.answer = self.work(uid, run, task);
            *is_busy |= !matches!(task, Task::Probe(_));
        }
        if run.is_ending {
            run.ended_for += 1;
            *is_busy = true;
            // A migration is not interrupted by the deletion of its pod.
            let goes_on = matches!(task, Some(Task::Migrate(_))) && run.answer.is_none();
            if run.ended_for > self.pace.linger && !goes_on {
                return false;
            }
        }
        *is_busy |= run.age <= self.pace.ready;
        let status = pods::status(&self.images, &self.pace, pod, run, task.as_ref());
        if pod.status.as_ref() != Some(&status) {
            self.api
                .change::<Pod>(&pod.name_any(), |pod| pod.status = Some(status));
        }
        true
    }

    /// Returns whether endpoints lag behind.
    fn run_endpoints(&mut self) -> bool {
        let services: Vec<Arc<Service>> = self.objects().services.values().cloned().collect();
        let mut lags = false;
        for service in services {
            let name = service.name_any();
            let desired = self.endpoints_of(&service);
            let slice_name = format!("{name}-slice");
            let current = self.objects().endpoint_slices.get(&slice_name);
            // The controller gives slices the labels of their Service, also those that it gets later.
            let is_same = |current: &Arc<EndpointSlice>| {
                current.endpoints == desired.endpoints && current.metadata.labels == desired.metadata.labels
            };
            if current.is_some_and(is_same) {
                self.lags.remove(&name);
                continue;
            }
            let lag = self.lags.entry(name.clone()).or_default();
            *lag += 1;
            lags = true;
            if *lag > self.pace.endpoints {
                self.lags.remove(&name);
                let (endpoints, labels) = (desired.endpoints.clone(), desired.metadata.labels.clone());
                if self.api.create(desired, self.now).is_err() {
                    self.api.change::<EndpointSlice>(&slice_name, |slice| {
                        (slice.endpoints, slice.metadata.labels) = (endpoints, labels);
                    });
                }
            }
        }
        lags
    }

    fn endpoints_of(&self, service: &Service) -> EndpointSlice {
        let selector = service
            .spec
            .as_ref()
            .and_then(|spec| spec.selector.clone())
            .unwrap_or_default();
        let selected = self.objects().pods.values().filter(|pod| {
            !selector.is_empty()
                && selector
                    .iter()
                    .all(|(key, value)| pod.labels().get(key) == Some(value))
        });
        let endpoints = selected.filter_map(|pod| {
            let address = pod.status.as_ref()?.pod_ip.clone()?;
            let ready = fairway_plan::readings::is_ready(pod);
            let target = ObjectReference {
                kind: Some("Pod".to_owned()),
                name: Some(pod.name_any()),
                ..Default::default()
            };
            let conditions = EndpointConditions {
                ready: Some(ready),
                serving: Some(true),
                terminating: Some(pod.metadata.deletion_timestamp.is_some()),
            };
            Some(Endpoint {
                addresses: vec![address],
                target_ref: Some(target),
                conditions: Some(conditions),
                ..Endpoint::default()
            })
        });
        let mut labels = service.labels().clone();
        labels.insert("kubernetes.io/service-name".to_owned(), service.name_any());
        EndpointSlice {
            address_type: "IPv4".to_owned(),
            endpoints: endpoints.collect(),
            metadata: ObjectMeta {
                name: Some(format!("{}-slice", service.name_any())),
                labels: Some(labels),
                owner_references: Some(vec![owner("Service", &service.metadata)]),
                ..ObjectMeta::default()
            },
            ports: None,
        }
    }

    /// Whether a health request to that pod would pass now: `None` when there is no such pod, or it is not ready
    /// to be asked.
    pub fn health(&self, uid: &str) -> Option<bool> {
        let pod = self
            .objects()
            .pods
            .values()
            .find(|pod| pod.uid().as_deref() == Some(uid))?;
        let image = pod.spec.as_ref()?.containers.first()?.image.as_deref()?;
        fairway_plan::readings::is_ready(pod).then(|| !self.images.is_unhealthy(image))
    }
}

fn owner(kind: &str, meta: &ObjectMeta) -> OwnerReference {
    OwnerReference {
        kind: kind.to_owned(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        ..OwnerReference::default()
    }
}
