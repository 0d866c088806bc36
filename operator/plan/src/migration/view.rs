//! What the planner of a Migration looks at.

use crate::answers::Answers;
use crate::attempt::{Child, Found, Planned};
use crate::build::agent;
use crate::conditions::Progress;
use crate::observed::{MigrationObserved, Settings};
use crate::readings::owned_by;
use crate::requester;
use crate::retry::Schedule;
use crate::tasks::{self, GUARD, Identity, MIGRATE, Task};
use crate::{ObjectRef, Step, Wake, kubectl, object::Kind};
use fairway_crds::component::Strategy;
use fairway_crds::migration::MigrationStatus;
use fairway_crds::release::annotation;
use fairway_crds::{Migration, Reason, Release};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::core::ObjectMeta;
use std::sync::Arc;

/// Time for which the Job or pod of a failed run is kept after its end, so that its log can be read.
const KEPT_FOR: SignedDuration = SignedDuration::from_hours(1);
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
    /// The API server's answers to earlier writes.
    pub(super) fn answers(&self) -> Answers<'a> {
        Answers::new(&self.observed.refused, &self.observed.dry_run_passed)
    }

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

    /// What is being deleted: the Migration, or the Release for which it was created and with which it goes. The beginning of a
    /// sentence.
    pub(super) fn deletion(&self) -> Option<String> {
        let is_ending = |meta: &ObjectMeta| meta.deletion_timestamp.is_some();
        if is_ending(&self.observed.migration.metadata) {
            return Some(format!("Migration {} is being deleted", self.name()));
        }
        let release = self.owner().filter(|release| is_ending(&release.metadata))?;
        Some(format!("Release {} is being deleted", release.name_any()))
    }

    /// Whether the Release is gone for which the Migration was created: the garbage collector removes the Migration. An
    /// operator that was stopped before it created the Migration may resume after that.
    pub(super) fn outlives_its_release(&self) -> bool {
        let migration = &self.observed.migration;
        let is_owned = !migration.owner_references().is_empty();
        migration.spec.release.is_some() && is_owned && self.owner().is_none()
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
        let may_go_on = self.deletion().is_none() && !self.outlives_its_release() && self.undone().is_none();
        self.observed.app.is_some() && may_go_on
    }

    /// The Release for which this Migration was created; `None` for one applied by hand.
    pub(super) fn owner(&self) -> Option<&'a Release> {
        let release = self.observed.release.as_deref()?;
        let uid = release.metadata.uid.as_deref().unwrap_or_default();
        owned_by(self.observed.migration.owner_references(), uid).then_some(release)
    }

    /// That a user has aborted or rolled back the Release for which this Migration was created: a sentence. Such a Release
    /// begins nothing any more.
    pub(super) fn undone(&self) -> Option<String> {
        let release = self.owner()?;
        let asked = |verb: &str| release.annotations().get(verb);
        let token = asked(annotation::ABORT).or_else(|| asked(annotation::ROLLBACK))?;
        let user = requester::subject(token);
        let name = release.name_any();
        Some(format!(
            "{user} aborted {name} before its migration began, so nothing was changed."
        ))
    }

    /// The component that would run twice: a Migration applied by hand starts its application, and no release has ended the
    /// pods of a component that must never run twice.
    pub(super) fn runs_twice(&self) -> Option<&'a str> {
        let component = self
            .observed
            .snapshot
            .as_ref()?
            .component(&self.observed.migration.spec.component)?;
        let never_twice = component.strategy == Strategy::Recreate;
        (self.is_on_start() && never_twice && self.owner().is_none()).then_some(component.name.as_str())
    }

    /// Whether the agent in a pod of the run has started, or the pod has ended.
    pub(super) fn has_started(&self, status: &MigrationStatus) -> bool {
        self.run_pods(status).iter().any(|pod| {
            agent::has_ended(pod) || agent::started_at(std::slice::from_ref(pod), &pod.name_any()).is_some()
        })
    }

    /// Whether nothing of the run can have begun: no report and no observation says that its pod has started, and nothing
    /// of it is left.
    pub(super) fn has_never_begun(&self, status: &MigrationStatus) -> bool {
        let is_known = status.pod_started || status.ledger_row.is_some() || status.fingerprints.is_some();
        !is_known && self.run_pods(status).is_empty() && self.run_jobs(status).next().is_none()
    }

    /// The resolve annotation of the Release, or of a Migration applied by hand.
    pub(super) fn resolve_annotation(&self) -> Option<&'a String> {
        let release = self.observed.release.as_ref();
        let release = release.filter(|_| resolved_by(&self.observed.migration).is_some());
        release
            .and_then(|release| release.annotations().get(annotation::RESOLVE))
            .or_else(|| self.observed.migration.annotations().get(annotation::RESOLVE))
    }

    /// The Job or pod of this run with that name.
    pub(super) fn child(&self, status: &MigrationStatus, name: String) -> Child<'a> {
        Child::find(identity(status), name, &self.observed.jobs, &self.observed.pods)
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

    /// As [`leftovers`](Self::leftovers), for a Migration that has not succeeded: its own Job or pod, with the log, is kept for
    /// [`KEPT_FOR`] after its end. The moment at which there is more to remove, if there is one.
    pub(super) fn leftovers_of_failure(&self, status: &MigrationStatus) -> (Vec<Step>, Wake) {
        let pods = self.run_pods(status);
        let jobs = self
            .run_jobs(status)
            .map(|job| (job.name_any(), job_ended_at(job, &pods)));
        let bare = pods.iter().filter(|pod| pod.owner_references().is_empty());
        let bare = bare.map(|pod| (pod.name_any(), agent::ended_at(pod)));
        let kept = jobs.chain(bare).filter_map(|(name, ended)| {
            let until = ended?.checked_add(KEPT_FOR).ok()?;
            (self.now < until).then_some((name, until))
        });
        let kept: Vec<_> = kept.collect();
        let names: Vec<&str> = kept.iter().map(|(name, _)| name.as_str()).collect();
        let next = kept.iter().map(|(_, until)| *until).min();
        (
            self.leftovers(status, &names),
            next.map_or(Wake::OnChange, Wake::At),
        )
    }

    /// Removal of the Jobs and bare pods of this Migration but those of these names. What an earlier App of the same
    /// name left is only removed when it has ended.
    pub(super) fn leftovers(&self, status: &MigrationStatus, keep: &[&str]) -> Vec<Step> {
        let is_left = |meta: &ObjectMeta, has_ended: bool| {
            let name = meta.name.as_deref().unwrap_or_default();
            meta.deletion_timestamp.is_none()
                && !keep.contains(&name)
                && tasks::is_for(meta, Kind::Migration)
                && (identity(status).matches(meta) || has_ended)
        };
        let jobs = self.observed.jobs.iter();
        let jobs = jobs.filter(|job| is_left(&job.metadata, agent::has_job_ended(job, &self.observed.pods)));
        let jobs = jobs.filter_map(|job| ObjectRef::of(Kind::Job, &job.metadata));
        let bare = self
            .observed
            .pods
            .iter()
            .filter(|pod| pod.owner_references().is_empty());
        let pods = bare.filter(|pod| is_left(&pod.metadata, agent::has_ended(pod)));
        let pods = pods.filter_map(|pod| ObjectRef::of(Kind::Pod, &pod.metadata));
        jobs.chain(pods).map(Step::Delete).collect()
    }
}

/// Name of the Release whose annotation resolves a Migration: the one after which Fairway named it. One applied by hand is
/// resolved by its own annotation, also when it names a Release.
pub(super) fn resolved_by(migration: &Migration) -> Option<&str> {
    let release = migration.spec.release.as_deref();
    release.filter(|release| migration.metadata.name.as_deref() == Some(release))
}

/// What tells the Jobs and pods of this run from those of another run.
fn identity(status: &MigrationStatus) -> Identity<'_> {
    Identity::RunId(status.run_id.as_deref().unwrap_or_default())
}

/// Whether a Job or pod runs this migration, as against settling it.
fn is_of_the_run(status: &MigrationStatus, meta: &ObjectMeta) -> bool {
    tasks::does(meta, &MIGRATE) && identity(status).matches(meta)
}

/// The wait while an earlier App of the same name has left a Job or pod under the child's name; `None` when it has not.
/// It is removed once it has ended.
pub(super) fn left_behind(view: &View, child: &Child) -> Option<Planned> {
    let (kind, meta, is_alive) = match child.found {
        Found::OtherJob(job) => {
            let has_ended = agent::has_job_ended(job, &view.observed.pods);
            (Kind::Job, &job.metadata, !has_ended)
        }
        Found::OtherPod(pod) => (Kind::Pod, &pod.metadata, !agent::has_ended(pod)),
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

/// When a Job ended, if it has: as Kubernetes says, or when its agent did beside a container that goes on.
fn job_ended_at(job: &Job, pods: &[Arc<Pod>]) -> Option<Timestamp> {
    let conditions = job
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let mut ended = conditions.filter(|condition| {
        condition.status == "True" && ["Complete", "Failed"].contains(&condition.type_.as_str())
    });
    let said = ended.find_map(|condition| Some(condition.last_transition_time.as_ref()?.0));
    said.or_else(|| {
        agent::pods_of(pods, &job.name_any())
            .filter_map(agent::ended_at)
            .max()
    })
}
