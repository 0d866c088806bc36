//! The Job or pod of one attempt, as observed.

use crate::build::agent::{self, Outcome};
use crate::build::applied_hash;
use crate::labels::RUN_ID;
use crate::object::Kind;
use crate::{ObjectRef, tasks::Identity};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::core::ObjectMeta;
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// What holds the name that an attempt uses.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Found<'a> {
    /// No object.
    Nothing,
    /// The Job of the attempt.
    Job(&'a Arc<Job>),
    /// The pod of the attempt.
    Pod(&'a Arc<Pod>),
    /// A Job with the same name that is not the attempt's.
    OtherJob(&'a Arc<Job>),
    /// A pod with the same name that is not the attempt's.
    OtherPod(&'a Arc<Pod>),
}

/// The Job or pod of one attempt.
#[derive(Clone, Debug)]
pub(crate) struct Child<'a> {
    /// Name of the Job or pod.
    pub(crate) name: String,
    /// What holds that name.
    pub(crate) found: Found<'a>,
    /// The pods that belong to it, also those whose Job is gone.
    pub(crate) pods: Vec<Arc<Pod>>,
}

impl<'a> Child<'a> {
    /// The child of that name, recognised by its identity.
    pub(crate) fn find(identity: Identity, name: String, jobs: &'a [Arc<Job>], pods: &'a [Arc<Pod>]) -> Self {
        let job = jobs.iter().find(|job| job.name_any() == name);
        let pod = pods.iter().find(|pod| pod.name_any() == name);
        let found = match (job, pod) {
            (Some(job), _) if identity.matches(&job.metadata) => Found::Job(job),
            (Some(job), _) => Found::OtherJob(job),
            (None, Some(pod)) if identity.matches(&pod.metadata) => Found::Pod(pod),
            (None, Some(pod)) => Found::OtherPod(pod),
            (None, None) => Found::Nothing,
        };
        // A Job owns its pods, but may be gone: then the run ID tells them from those of another run.
        let is_own = |pod: &&Arc<Pod>| {
            matches!(identity, Identity::OwnerUid(_))
                || !pod.labels().contains_key(RUN_ID)
                || identity.matches(&pod.metadata)
        };
        Self {
            name,
            found,
            pods: pods.iter().filter(is_own).cloned().collect(),
        }
    }

    /// What the agent reported.
    pub(crate) fn outcome<Report: DeserializeOwned>(&self) -> Outcome<Report> {
        match self.found {
            Found::Job(job) => agent::job_report(Some(job), &self.pods, &self.name),
            Found::Nothing | Found::Pod(_) => agent::job_report(None, &self.pods, &self.name),
            Found::OtherJob(_) | Found::OtherPod(_) => Outcome::NotThere,
        }
    }

    /// When the agent began to work.
    pub(crate) fn started(&self) -> Option<Timestamp> {
        agent::started_at(&self.pods, &self.name)
    }

    /// Name of the object whose Events tell of its start: the pod, or a Job without one.
    pub(crate) fn name_of_pod(&self) -> String {
        let pod = agent::pods_of(&self.pods, &self.name).next();
        pod.map_or_else(|| self.name.clone(), ResourceExt::name_any)
    }

    /// When the Job or pod was created.
    pub(crate) fn created(&self) -> Option<Timestamp> {
        let created = self.metadata()?.creation_timestamp.as_ref()?;
        Some(created.0)
    }

    /// Whether what holds the name is being deleted.
    pub(crate) fn is_being_deleted(&self) -> bool {
        self.metadata()
            .is_some_and(|meta| meta.deletion_timestamp.is_some())
    }

    /// Reference to the Job or pod, if it is the attempt's.
    pub(crate) fn reference(&self) -> Option<ObjectRef> {
        match self.found {
            Found::Job(job) => ObjectRef::of(Kind::Job, &job.metadata),
            Found::Pod(pod) => ObjectRef::of(Kind::Pod, &pod.metadata),
            Found::Nothing | Found::OtherJob(_) | Found::OtherPod(_) => None,
        }
    }

    /// The hash with which the Job or pod was created.
    pub(crate) fn applied_hash(&self) -> Option<&'a str> {
        applied_hash(self.metadata()?)
    }

    fn metadata(&self) -> Option<&'a ObjectMeta> {
        match self.found {
            Found::Job(job) | Found::OtherJob(job) => Some(&job.metadata),
            Found::Pod(pod) | Found::OtherPod(pod) => Some(&pod.metadata),
            Found::Nothing => None,
        }
    }
}
