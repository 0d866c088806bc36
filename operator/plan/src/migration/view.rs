//! What the planner of a Migration looks at.

use crate::attempt::{Child, Found, Planned};
use crate::conditions::Progress;
use crate::observed::{MigrationObserved, Settings};
use crate::retry::Schedule;
use crate::tasks::{self, GUARD, MIGRATE, Task};
use crate::{ObjectRef, Step, kubectl, object::Kind};
use fairway_crds::Reason;
use fairway_crds::migration::MigrationStatus;
use fairway_crds::release::annotation;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::core::ObjectMeta;
use std::sync::Arc;

/// Time for all attempts to start the run.
pub(super) const START_DEADLINE: SignedDuration = SignedDuration::from_hours(1);
/// The observation of one pass.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    pub(super) observed: &'a MigrationObserved,
    pub(super) settings: &'a Settings,
    pub(super) now: Timestamp,
}

impl<'a> View<'a> {
    pub(super) fn name(&self) -> String {
        self.observed.migration.name_any()
    }

    pub(super) fn namespace(&self) -> &'a str {
        self.observed
            .migration
            .metadata
            .namespace
            .as_deref()
            .unwrap_or_default()
    }

    pub(super) fn is_being_deleted(&self) -> bool {
        self.observed.migration.metadata.deletion_timestamp.is_some()
    }

    /// Whether the image migrates itself when it starts: then the run is a bare pod.
    pub(super) fn is_on_start(&self) -> bool {
        self.observed.migration.spec.on_start.is_some()
    }

    /// The task that runs this migration.
    pub(super) fn run_task(&self) -> &'static Task {
        if self.is_on_start() { &GUARD } else { &MIGRATE }
    }

    /// The schedule of the attempts to start the run.
    pub(super) fn start_schedule(&self) -> Schedule {
        Schedule {
            deadline: Some(START_DEADLINE),
            now: self.now,
        }
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

    /// The Job or pod of a task of this run with that name.
    pub(super) fn child(&self, status: &MigrationStatus, task: &Task, name: String) -> Child<'a> {
        Child::find(
            task,
            run_id(status),
            name,
            &self.observed.jobs,
            &self.observed.pods,
        )
    }

    /// Pods of this run.
    pub(super) fn run_pods(&self, status: &MigrationStatus) -> Vec<Arc<Pod>> {
        let pods = self.observed.pods.iter();
        pods.filter(|pod| is_of_the_run(status, &pod.metadata))
            .cloned()
            .collect()
    }

    /// Jobs of this run.
    pub(super) fn run_jobs(&self, status: &MigrationStatus) -> impl Iterator<Item = &'a Arc<Job>> {
        let jobs = self.observed.jobs.iter();
        jobs.filter(move |job| is_of_the_run(status, &job.metadata))
    }

    /// Removal of the Jobs and bare pods of this Migration but those of these names. What an earlier App of the same
    /// name left is only removed when it has ended.
    pub(super) fn leftovers(&self, status: &MigrationStatus, keep: &[&str]) -> Vec<Step> {
        let is_left = |meta: &ObjectMeta, has_ended: bool| {
            let name = meta.name.as_deref().unwrap_or_default();
            meta.deletion_timestamp.is_none()
                && !keep.contains(&name)
                && tasks::is_for(meta, Kind::Migration)
                && (MIGRATE.is_of(meta, run_id(status)) || has_ended)
        };
        let jobs = self.observed.jobs.iter();
        let jobs = jobs.filter(|job| is_left(&job.metadata, has_ended(job)));
        let jobs = jobs.filter_map(|job| ObjectRef::of(Kind::Job, &job.metadata));
        let bare = self
            .observed
            .pods
            .iter()
            .filter(|pod| pod.owner_references().is_empty());
        let pods = bare.filter(|pod| is_left(&pod.metadata, has_finished(pod)));
        let pods = pods.filter_map(|pod| ObjectRef::of(Kind::Pod, &pod.metadata));
        jobs.chain(pods).map(Step::Delete).collect()
    }
}

fn run_id(status: &MigrationStatus) -> &str {
    status.run_id.as_deref().unwrap_or_default()
}

/// Whether a Job or pod runs this migration, as against settling it.
fn is_of_the_run(status: &MigrationStatus, meta: &ObjectMeta) -> bool {
    tasks::does(meta, &MIGRATE) && MIGRATE.is_of(meta, run_id(status))
}

/// The wait while an earlier App of the same name has left a Job or pod under the child's name; `None` when it has not.
/// It is removed once it has ended.
pub(super) fn left_behind(view: &View, child: &Child) -> Option<Planned> {
    let (kind, meta, is_alive) = match child.found {
        Found::OtherJob(job) => (Kind::Job, &job.metadata, !has_ended(job)),
        Found::OtherPod(pod) => (Kind::Pod, &pod.metadata, !has_finished(pod)),
        Found::Nothing | Found::Job(_) | Found::Pod(_) => return None,
    };
    let object = format!("{} {}", kind.as_str(), child.name);
    let app = &view.observed.migration.spec.app;
    if is_alive {
        let message = format!(
            "Waiting until {object} ends, which an earlier App named {app} left running. To look at it: {}",
            kubectl::describe_object(view.namespace(), kind, &child.name)
        );
        return Some(Planned::new(Progress::running(Reason::MigrationRunning, message)));
    }
    let message = format!("Removing {object}, which an earlier App named {app} left behind.");
    let removal = ObjectRef::of(kind, meta).map(Step::Delete);
    Some(Planned::new(Progress::running(Reason::Migrating, message)).with(removal))
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
