//! What the planner of a Migration looks at.

use crate::build::agent::{self, Outcome};
use crate::labels::{self, Work};
use crate::observed::{MigrationObserved, Settings};
use crate::protocol::MigrationReport;
use crate::{ObjectRef, Step, object::Kind};
use fairway_crds::migration::MigrationStatus;
use fairway_crds::release::annotation;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::core::ObjectMeta;
use std::sync::Arc;

/// The observation of one pass.
#[derive(Clone, Copy, Debug)]
pub(super) struct World<'a> {
    pub(super) observed: &'a MigrationObserved,
    pub(super) settings: &'a Settings,
    pub(super) now: Timestamp,
}

/// What holds a name that this run wants to use.
#[derive(Clone, Debug)]
pub(super) enum Found<'a> {
    /// Nothing.
    Nothing,
    /// A Job of this run.
    Job(&'a Arc<Job>),
    /// A pod of this run.
    Pod(&'a Arc<Pod>),
    /// What another App of the same name left behind.
    Stale {
        /// Which object.
        object: Option<ObjectRef>,
        /// Whether it may still migrate.
        alive: bool,
    },
}

impl<'a> World<'a> {
    pub(super) fn name(&self) -> String {
        self.observed.migration.name_any()
    }

    pub(super) fn is_being_deleted(&self) -> bool {
        self.observed.migration.metadata.deletion_timestamp.is_some()
    }

    /// Whether the image migrates itself when it starts: then the run is a bare pod.
    pub(super) fn is_on_start(&self) -> bool {
        self.observed.migration.spec.on_start.is_some()
    }

    /// Whether anything may still be begun.
    pub(super) fn may_begin(&self) -> bool {
        self.observed.app.is_some() && !self.is_being_deleted()
    }

    /// The resolve annotation of the Release, or of a Migration applied by hand.
    pub(super) fn resolve_annotation(&self) -> Option<&'a String> {
        let release = self
            .observed
            .release
            .as_ref()
            .and_then(|release| release.annotations().get(annotation::RESOLVE));
        release.or_else(|| self.observed.migration.annotations().get(annotation::RESOLVE))
    }

    /// What holds that name.
    pub(super) fn find(&self, status: &MigrationStatus, name: &str) -> Found<'a> {
        let job = self.observed.jobs.iter().find(|job| job.name_any() == name);
        let pod = self.observed.pods.iter().find(|pod| pod.name_any() == name);
        match (job, pod) {
            (Some(job), _) if is_of(status, &job.metadata) => Found::Job(job),
            (Some(job), _) => Found::Stale {
                object: ObjectRef::of(Kind::Job, &job.metadata),
                alive: !has_ended(job),
            },
            (None, Some(pod)) if is_of(status, &pod.metadata) => Found::Pod(pod),
            (None, Some(pod)) => Found::Stale {
                object: ObjectRef::of(Kind::Pod, &pod.metadata),
                alive: !has_finished(pod),
            },
            (None, None) => Found::Nothing,
        }
    }

    /// What became of the run's Job or pod of that name, also of a pod whose Job is gone.
    pub(super) fn run_report(&self, status: &MigrationStatus, name: &str) -> Outcome<MigrationReport> {
        let job = match self.find(status, name) {
            Found::Job(job) => Some(job.as_ref()),
            _ => None,
        };
        agent::job_report(job, &self.run_pods(status), name)
    }

    /// Pods of this run.
    pub(super) fn run_pods(&self, status: &MigrationStatus) -> Vec<Arc<Pod>> {
        self.observed
            .pods
            .iter()
            .filter(|pod| is_of(status, &pod.metadata) && is_run(&pod.metadata))
            .cloned()
            .collect()
    }

    /// Jobs of this run.
    pub(super) fn run_jobs(&self, status: &MigrationStatus) -> impl Iterator<Item = &'a Arc<Job>> {
        self.observed
            .jobs
            .iter()
            .filter(move |job| is_of(status, &job.metadata) && is_run(&job.metadata))
    }

    /// Jobs and bare pods of this Migration but those of these names. What an earlier App of the same name left
    /// is only removed when it has ended.
    pub(super) fn leftovers(&self, status: &MigrationStatus, keep: &[&str]) -> Vec<Step> {
        let over = |meta: &ObjectMeta, alive: bool| {
            let name = meta.name.as_deref().unwrap_or_default();
            meta.deletion_timestamp.is_none()
                && !keep.contains(&name)
                && meta
                    .labels
                    .as_ref()
                    .and_then(|labels| labels.get(labels::WORK))
                    .is_some_and(|work| is_of_a_migration(work))
                && (is_of(status, meta) || !alive)
        };
        let jobs = self
            .observed
            .jobs
            .iter()
            .filter(|job| over(&job.metadata, !has_ended(job)));
        let jobs = jobs.filter_map(|job| ObjectRef::of(Kind::Job, &job.metadata));
        let bare = self
            .observed
            .pods
            .iter()
            .filter(|pod| pod.owner_references().is_empty());
        let pods = bare.filter(|pod| over(&pod.metadata, !has_finished(pod)));
        let pods = pods.filter_map(|pod| ObjectRef::of(Kind::Pod, &pod.metadata));
        jobs.chain(pods).map(Step::Delete).collect()
    }
}

/// Whether an object was made for the run on record.
fn is_of(status: &MigrationStatus, meta: &ObjectMeta) -> bool {
    let run = meta.labels.as_ref().and_then(|labels| labels.get(labels::RUN_ID));
    run.is_some() && run == status.run_id.as_ref()
}

/// Whether an object runs a migration, as against settling one.
fn is_run(meta: &ObjectMeta) -> bool {
    let work = meta.labels.as_ref().and_then(|labels| labels.get(labels::WORK));
    work.is_some_and(|work| work == Work::Migrate.as_str())
}

/// Whether a value of [`labels::WORK`] is of a Migration.
pub(super) fn is_of_a_migration(work: &str) -> bool {
    [Work::Migrate, Work::Settle]
        .iter()
        .any(|of_ours| of_ours.as_str() == work)
}

/// Whether a Job has ended, well or not.
pub(super) fn has_ended(job: &Job) -> bool {
    job.status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten())
        .any(|condition| {
            condition.status == "True" && ["Complete", "Failed"].contains(&condition.type_.as_str())
        })
}

/// Whether all of a pod's containers have ended for good.
pub(super) fn has_finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}
