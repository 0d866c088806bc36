//! What Kubernetes does by itself: Deployments and Jobs make pods, pods become ready, endpoints follow
//! selectors, what nobody owns any more is removed. One tick is one second.

use crate::database::Database;
use crate::images::Images;
use crate::pod_run::{Pace, PodRun, Sidecar, task_of};
use crate::pods;
use crate::store::{ApiServer, Objects};
use fairway_engine::kinds::Kind;
use fairway_engine::{Instant, Now};
use fairway_plan::labels;
use fairway_plan::protocol::Task;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus};
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobStatus};
use k8s_openapi::api::core::v1::{
    ObjectReference, Pod, PodSpec, ResourceQuota, ResourceQuotaSpec, ResourceQuotaStatus, Service,
};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointSlice};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use kube::ResourceExt;
use kube::core::ObjectMeta;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Name of the quota, if there is one.
const QUOTA: &str = "team";

/// What the API server and the network do not allow.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// So many pods of components may there be.
    pub pods_quota: Option<usize>,
    /// Images whose pods PodSecurity forbids; their Deployments are accepted.
    pub forbidden_pods: BTreeSet<String>,
    /// Images of whose pods PodSecurity warns.
    pub warned_pods: BTreeSet<String>,
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
    /// Every other health request fails.
    pub health_flaps: bool,
    /// Every health request fails while the database is down.
    pub health_needs_database: bool,
    /// Requests of the operator that a role or an admission rule refuses: verb and kind.
    pub refused_requests: BTreeSet<(String, String)>,
    /// The container that is injected into every pod.
    pub sidecar: Option<Sidecar>,
}

impl Rules {
    /// Whether such requests of the operator are refused. `verb` is `get`, `list`, `watch`, `create`, `apply`, `replace`,
    /// `scale`, `delete` or `status`.
    pub(crate) fn refuse(&self, verb: &str, kind: &str) -> bool {
        let mut refused = self.refused_requests.iter();
        refused.any(|(of_verb, of_kind)| of_verb == verb && of_kind == kind)
    }
}

/// What becomes of the objects that a deleted object owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// They are deleted after it.
    Background,
    /// They are deleted before it; until then it stays, with a deletion timestamp.
    Foreground,
    /// They stay, without their owner.
    Orphan,
}

/// The finalizer of an object that is deleted in the foreground.
const FOREGROUND: &str = "foregroundDeletion";

/// A cluster with one namespace, and the database beside it.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// The time.
    pub now: Timestamp,
    /// The API server.
    pub api: ApiServer,
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
            api: ApiServer::default(),
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
        self.collect_foreground();
        self.collect_garbage();
        self.run_deployments();
        self.run_jobs();
        let is_busy = self.run_pods();
        self.run_quota();
        let lags = self.run_endpoints();
        is_busy || lags || self.api.version() != before
    }

    /// Deletes an object as a user would.
    pub fn delete(&mut self, kind: Kind, name: &str) {
        if kind == Kind::Pod {
            self.end_pod(name);
        } else {
            self.api.remove(kind, name);
        }
    }

    /// Deletes an object as a user would who says what becomes of the objects that it owns.
    pub fn delete_by(&mut self, kind: Kind, name: &str, propagation: Propagation) {
        match propagation {
            Propagation::Background => self.delete(kind, name),
            Propagation::Foreground if kind == Kind::Pod => self.delete(kind, name),
            Propagation::Foreground => {
                let now = Time(self.now);
                self.api.change_meta(kind, name, |meta| {
                    meta.deletion_timestamp.get_or_insert(now);
                    let finalizers = meta.finalizers.get_or_insert_default();
                    if !finalizers.iter().any(|finalizer| finalizer == FOREGROUND) {
                        finalizers.push(FOREGROUND.to_owned());
                    }
                });
            }
            Propagation::Orphan => {
                let owner = self.objects().meta(kind, name);
                let uid = owner.and_then(|meta| meta.uid.clone()).unwrap_or_default();
                for (kind, name) in self.owned_by(&uid) {
                    self.api.change_meta(kind, &name, |meta| disown(meta, &uid));
                }
                self.delete(kind, name);
            }
        }
    }

    /// Whether another object owns an object, and is not being deleted.
    fn has_other_owner(&self, kind: Kind, name: &str, uid: &str) -> bool {
        let all = self.objects().all();
        let object = self.objects().meta(kind, name);
        let owners = object.and_then(|meta| meta.owner_references.as_ref());
        owners.into_iter().flatten().any(|owner| {
            let lives = |meta: &ObjectMeta| {
                meta.uid.as_ref() == Some(&owner.uid) && meta.deletion_timestamp.is_none()
            };
            owner.uid != uid && all.iter().any(|(_, meta)| lives(meta))
        })
    }

    /// Objects that the object with that UID owns.
    fn owned_by(&self, uid: &str) -> Vec<(Kind, String)> {
        let owned = |meta: &ObjectMeta| {
            meta.owner_references
                .iter()
                .flatten()
                .any(|owner| owner.uid == uid)
        };
        let all = self.objects().all().into_iter();
        let all = all.filter(|(_, meta)| owned(meta));
        all.filter_map(|(kind, meta)| Some((kind, meta.name.clone()?)))
            .collect()
    }

    /// Deletes one of the objects that each object which is deleted in the foreground owns, and the object itself when
    /// none is left.
    fn collect_foreground(&mut self) {
        let is_waiting = |meta: &ObjectMeta| {
            meta.finalizers
                .iter()
                .flatten()
                .any(|finalizer| finalizer == FOREGROUND)
        };
        let all = self.objects().all().into_iter();
        let waiting: Vec<(Kind, String, String)> = all
            .filter(|(_, meta)| is_waiting(meta))
            .filter_map(|(kind, meta)| Some((kind, meta.name.clone()?, meta.uid.clone()?)))
            .collect();
        for (kind, name, uid) in waiting {
            let owned = self.owned_by(&uid);
            if owned.is_empty() {
                self.api.remove(kind, &name);
                continue;
            }
            let objects = self.objects();
            let is_ending = |(kind, name): &(Kind, String)| {
                let found = objects.meta(*kind, name);
                found.is_some_and(|meta| meta.deletion_timestamp.is_some())
            };
            let next = owned.into_iter().find(|owned| !is_ending(owned));
            let Some((kind, name)) = next else { continue };
            if self.has_other_owner(kind, &name, &uid) {
                self.api.change_meta(kind, &name, |meta| disown(meta, &uid));
            } else {
                self.delete_by(kind, &name, Propagation::Foreground);
            }
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
        if deployment.metadata.deletion_timestamp.is_some() {
            return;
        }
        let desired = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or_default();
        let uid = deployment.uid().unwrap_or_default();
        self.adopt_pods(deployment);
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
        let mut count = pods.len();
        let mut refused = None;
        while count < desired {
            refused = self.refusal_of_pod(spec.template.spec.as_ref());
            if refused.is_some() {
                break;
            }
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
        let refused = refused.map(|message| DeploymentCondition {
            type_: "ReplicaFailure".to_owned(),
            status: "True".to_owned(),
            reason: Some("FailedCreate".to_owned()),
            message: Some(message),
            ..DeploymentCondition::default()
        });
        let status = DeploymentStatus {
            observed_generation: deployment.metadata.generation,
            replicas: Some(number(count.min(desired))),
            ready_replicas: Some(number(ready.min(desired))),
            conditions: refused.map(|refused| vec![refused]),
            ..DeploymentStatus::default()
        };
        if deployment.status.as_ref() != Some(&status) {
            self.api
                .change::<Deployment>(&deployment.name_any(), |found| found.status = Some(status));
        }
    }

    /// A Deployment takes over the pods that another one of its name has left without an owner.
    fn adopt_pods(&mut self, deployment: &Deployment) {
        let selector = deployment
            .spec
            .as_ref()
            .and_then(|spec| spec.selector.match_labels.clone());
        let selector = selector.unwrap_or_default();
        let orphans = self.objects().pods.values().filter(|pod| {
            let is_selected = selector
                .iter()
                .all(|(key, value)| pod.labels().get(key) == Some(value));
            pod.owner_references().is_empty()
                && pod.metadata.deletion_timestamp.is_none()
                && !selector.is_empty()
                && is_selected
        });
        for name in orphans.map(|pod| pod.name_any()).collect::<Vec<_>>() {
            let owner = owner("Deployment", &deployment.metadata);
            self.api
                .change_meta(Kind::Pod, &name, |meta| meta.owner_references = Some(vec![owner]));
        }
    }

    /// Why no pod of a component with that spec may be created, if that is so.
    pub(crate) fn refusal_of_pod(&self, spec: Option<&PodSpec>) -> Option<String> {
        if self
            .rules
            .pods_quota
            .is_some_and(|quota| self.counted_pods() >= quota)
        {
            return Some("pods are forbidden: exceeded quota: team".to_owned());
        }
        let images = spec.into_iter().flat_map(|spec| &spec.containers);
        let mut images = images.filter_map(|container| container.image.as_deref());
        let is_forbidden = images.any(|image| self.rules.forbidden_pods.contains(self.images.tag(image)));
        is_forbidden.then(|| "pods are forbidden: violates PodSecurity \"restricted:latest\"".to_owned())
    }

    /// The `Warning` header with which the API server answers a request for a pod with that spec, or a Deployment of such pods.
    pub(crate) fn warning_of_pod(&self, spec: Option<&PodSpec>) -> Option<&'static [u8]> {
        let images = spec.into_iter().flat_map(|spec| &spec.containers);
        let mut images = images.filter_map(|container| container.image.as_deref());
        let is_warned = images.any(|image| self.rules.warned_pods.contains(self.images.tag(image)));
        let warning = br#"299 - "would violate PodSecurity \"restricted:latest\": runAsNonRoot != true""#;
        is_warned.then_some(warning)
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
            if job.metadata.deletion_timestamp.is_some() {
                continue;
            }
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
        let mut status = pods::status(&self.images, &self.pace, pod, run, task.as_ref());
        if let Some(sidecar) = self.rules.sidecar {
            pods::inject(&mut status, sidecar, run);
        }
        if pod.status.as_ref() != Some(&status) {
            self.api
                .change::<Pod>(&pod.name_any(), |pod| pod.status = Some(status));
        }
        true
    }

    /// Pods that the quota counts: those of components. The agent's are left out, so that stories need no sums.
    fn counted_pods(&self) -> usize {
        let pods = self.objects().pods.values();
        let counted = pods.filter(|pod| {
            pod.labels().contains_key(labels::COMPONENT) && !fairway_plan::readings::has_finished(pod)
        });
        counted.count()
    }

    /// Keeps the quota as its controller does: it says what is in use.
    fn run_quota(&mut self) {
        let Some(hard) = self.rules.pods_quota else {
            if self.objects().quotas.contains_key(QUOTA) {
                self.api.remove(Kind::ResourceQuota, QUOTA);
            }
            return;
        };
        let pods = |count: usize| Some([("pods".to_owned(), Quantity(count.to_string()))].into());
        let (hard, used) = (pods(hard), pods(self.counted_pods()));
        let desired = ResourceQuota {
            metadata: ObjectMeta {
                name: Some(QUOTA.to_owned()),
                ..ObjectMeta::default()
            },
            spec: Some(ResourceQuotaSpec {
                hard: hard.clone(),
                ..ResourceQuotaSpec::default()
            }),
            status: Some(ResourceQuotaStatus { hard, used }),
        };
        let current = self.objects().quotas.get(QUOTA);
        if current.is_some_and(|current| current.spec == desired.spec && current.status == desired.status) {
            return;
        }
        let (spec, status) = (desired.spec.clone(), desired.status.clone());
        if self.api.create(desired, self.now).is_err() {
            self.api.change::<ResourceQuota>(QUOTA, |quota| {
                (quota.spec, quota.status) = (spec, status);
            });
        }
    }

    /// Returns whether endpoints lag behind.
    fn run_endpoints(&mut self) -> bool {
        let services: Vec<Arc<Service>> = self.objects().services.values().cloned().collect();
        let mut lags = false;
        for service in services {
            if service.metadata.deletion_timestamp.is_some() {
                continue;
            }
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
        let controller = "endpointslice-controller.k8s.io".to_owned();
        labels.insert("endpointslice.kubernetes.io/managed-by".to_owned(), controller);
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
        let is_ill = self.images.is_unhealthy(image)
            || self.rules.health_flaps && self.now.as_second() % 2 == 0
            || self.rules.health_needs_database && self.database.is_down;
        fairway_plan::readings::is_ready(pod).then_some(!is_ill)
    }
}

/// Takes away the owner with that UID.
fn disown(meta: &mut ObjectMeta, uid: &str) {
    let owners = meta.owner_references.get_or_insert_default();
    owners.retain(|owner| owner.uid != uid);
}

fn owner(kind: &str, meta: &ObjectMeta) -> OwnerReference {
    OwnerReference {
        kind: kind.to_owned(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        ..OwnerReference::default()
    }
}
