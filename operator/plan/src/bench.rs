//! A bench for the tests of the planners of attempted work: Jobs and pods that do what the test says.

use crate::labels;
use crate::observed::{Refusal, Settings};
use crate::probe_token::ProbeKey;
use crate::{Object, Step, object::Kind};
use fairway_crds::condition::{RECONCILING, STALLED, SUCCEEDED};
use fairway_crds::{App, Release};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, OwnerReference, Time};
use kube::ResourceExt;
use kube::core::ObjectMeta;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(crate) const DIGEST: &str = "sha256:1111111111111111111111111111111111111111111111111111111111111111";

pub(crate) fn settings() -> Settings {
    Settings {
        agent_image: "registry.example/fairway:0.1.0".to_owned(),
        agent_pull_secrets: Vec::new(),
        agent_pull_policy: "IfNotPresent".to_owned(),
        agent_pods: Default::default(),
        agent_of_app: Default::default(),
        probe_key: ProbeKey::new([0; 32]),
    }
}

pub(crate) fn app() -> App {
    serde_json::from_value(json!({
        "apiVersion": "fairway.dev/v1alpha1", "kind": "App",
        "metadata": {"name": "crm", "namespace": "shop", "uid": "app-uid"},
        "spec": {
            "components": [{
                "name": "web",
                "serves": {"service": "crm", "port": 80, "targetPort": 3000},
                "health": {"http": [{"path": "/health"}]},
                "template": {"spec": {"containers": [{"name": "web", "image": "ghcr.io/acme/crm:2"}]}}
            }],
            "database": {"image": "postgres:16", "connection": {"urlFrom": {"secretKeyRef": {"name": "crm-db", "key": "url"}}}},
            "backup": {"store": {"volume": {"claimName": "backups"}}}
        }
    }))
    .unwrap()
}

pub(crate) fn release() -> Release {
    serde_json::from_value(json!({
        "apiVersion": "fairway.dev/v1alpha1", "kind": "Release",
        "metadata": {"name": "crm-42", "namespace": "shop", "uid": "release-uid"},
        "spec": {"app": "crm", "revision": 42},
        "status": {"digests": {"web/web": format!("ghcr.io/acme/crm@{DIGEST}")}}
    }))
    .unwrap()
}

/// What Kubernetes holds, and the time.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) jobs: Vec<Arc<Job>>,
    pub(crate) pods: Vec<Arc<Pod>>,
    pub(crate) now: Timestamp,
    pub(crate) refused: BTreeMap<String, Refusal>,
    pub(crate) dry_run_passed: BTreeSet<String>,
    created: u32,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self {
            jobs: Vec::new(),
            pods: Vec::new(),
            now: "2026-01-01T00:00:00Z".parse().unwrap(),
            refused: BTreeMap::new(),
            dry_run_passed: BTreeSet::new(),
            created: 0,
        }
    }

    pub(crate) fn later(&mut self, span: SignedDuration) {
        self.now += span;
    }

    /// Lets the API server refuse a write.
    pub(crate) fn refuse(&mut self, step: &Step, message: &str) {
        let refusal = Refusal {
            message: message.to_owned(),
            conflicts: Vec::new(),
            may_pass: true,
        };
        self.refused.insert(step.key(), refusal);
    }

    /// Executes steps as the API server would; a Job's pods go with it.
    pub(crate) fn execute(&mut self, steps: &[Step]) {
        for step in steps {
            match step {
                Step::Create(object) => self.create(object),
                Step::Delete(target) => match target.kind {
                    Kind::Job => {
                        self.jobs.retain(|job| job.uid().as_deref() != Some(&target.uid));
                        self.pods.retain(|pod| {
                            !pod.owner_references().iter().any(|owner| owner.uid == target.uid)
                        });
                    }
                    Kind::Pod => self.pods.retain(|pod| pod.uid().as_deref() != Some(&target.uid)),
                    kind => panic!("nobody deletes a {kind:?} here"),
                },
                Step::DryRun(_) => {
                    self.dry_run_passed.insert(step.key());
                }
                step => panic!("unexpected {step:?}"),
            }
        }
    }

    fn create(&mut self, object: &Object) {
        match object {
            Object::Job(job) => {
                assert!(!self.has_job(&job.name_any()), "{} exists", job.name_any());
                let mut job = job.clone();
                self.stamp(&mut job.metadata);
                self.jobs.push(Arc::new(job));
            }
            Object::Pod(pod) => {
                assert!(
                    !self.pods.iter().any(|other| other.name_any() == pod.name_any()),
                    "{} exists",
                    pod.name_any()
                );
                let mut pod = pod.clone();
                self.stamp(&mut pod.metadata);
                self.pods.push(Arc::new(pod));
            }
            object => panic!("nobody creates a {:?} here", object.kind()),
        }
    }

    fn stamp(&mut self, meta: &mut ObjectMeta) {
        self.created += 1;
        meta.uid = Some(format!("uid-{}", self.created));
        meta.creation_timestamp = Some(Time(self.now));
    }

    pub(crate) fn has_job(&self, name: &str) -> bool {
        self.jobs.iter().any(|job| job.name_any() == name)
    }

    pub(crate) fn job(&self, name: &str) -> &Job {
        self.jobs
            .iter()
            .find(|job| job.name_any() == name)
            .unwrap_or_else(|| panic!("no {name} in {:?}", self.names()))
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.jobs
            .iter()
            .map(|job| job.name_any())
            .chain(self.pods.iter().map(|pod| pod.name_any()))
            .collect()
    }

    /// The Job's pod, in that state of its agent's container; it takes the place of an earlier one.
    pub(crate) fn pod_of(&mut self, job: &str, phase: &str, state: Value) {
        let job = self.job(job).clone();
        let template = job.spec.clone().unwrap().template;
        let name = format!("{}-x", job.name_any());
        let uid = job.uid().unwrap();
        let mut labels = template.metadata.unwrap().labels.unwrap();
        labels.insert("batch.kubernetes.io/job-name".to_owned(), job.name_any());
        labels.insert("batch.kubernetes.io/controller-uid".to_owned(), uid.clone());
        let owner = OwnerReference {
            kind: "Job".to_owned(),
            name: job.name_any(),
            uid,
            ..OwnerReference::default()
        };
        let pod = Pod {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some("shop".to_owned()),
                uid: Some(format!("{name}-uid")),
                labels: Some(labels),
                owner_references: Some(vec![owner]),
                ..ObjectMeta::default()
            },
            spec: None,
            status: Some(
                serde_json::from_value(json!({"phase": phase, "containerStatuses": [agent(state)]})).unwrap(),
            ),
        };
        self.pods.retain(|pod| pod.name_any() != name);
        self.pods.push(Arc::new(pod));
    }

    /// The Job's pod reports.
    pub(crate) fn answer(&mut self, job: &str, report: &impl Serialize) {
        let message = serde_json::to_string(report).unwrap();
        self.pod_of(
            job,
            "Succeeded",
            json!({"terminated": {"exitCode": 0, "message": message}}),
        );
        self.end_job(job);
    }

    /// The Job's pod is killed.
    pub(crate) fn kill(&mut self, job: &str) {
        self.pod_of(
            job,
            "Failed",
            json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}),
        );
        self.end_job(job);
    }

    /// The Job's pod works.
    pub(crate) fn run(&mut self, job: &str) {
        let started = self.now;
        self.pod_of(
            job,
            "Running",
            json!({"running": {"startedAt": started.to_string()}}),
        );
    }

    pub(crate) fn end_job(&mut self, name: &str) {
        let ended =
            json!({"conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}]});
        for job in self.jobs.iter_mut().filter(|job| job.name_any() == name) {
            Arc::make_mut(job).status = Some(serde_json::from_value(ended.clone()).unwrap());
        }
    }

    /// A bare pod's status.
    pub(crate) fn set_pod(&mut self, name: &str, status: Value) {
        let pod = self
            .pods
            .iter_mut()
            .find(|pod| pod.name_any() == name)
            .expect("the pod");
        Arc::make_mut(pod).status = Some(serde_json::from_value(status).unwrap());
    }

    /// Gives an object's label another value.
    pub(crate) fn relabel_job(&mut self, name: &str, value: &str) {
        for job in self.jobs.iter_mut().filter(|job| job.name_any() == name) {
            Arc::make_mut(job)
                .labels_mut()
                .insert(labels::RUN_ID.to_owned(), value.to_owned());
        }
    }
}

/// The status of the agent's container.
pub(crate) fn agent(state: Value) -> Value {
    container("agent", state)
}

pub(crate) fn container(name: &str, state: Value) -> Value {
    json!({"name": name, "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state})
}

/// `Succeeded`, `Reconciling`, `Stalled`, the reason and the message.
pub(crate) fn reported(conditions: &[Condition]) -> (String, String, String) {
    let of = |type_: &str| conditions.iter().find(|condition| condition.type_ == type_);
    let status = |type_: &str| of(type_).map_or("False", |condition| condition.status.as_str());
    let succeeded = of(SUCCEEDED).unwrap();
    let state = format!("{}/{}/{}", succeeded.status, status(RECONCILING), status(STALLED));
    (state, succeeded.reason.clone(), succeeded.message.clone())
}
