//! Settling: a run whose pod did not report has left its outcome in the ledger, or nothing was started.

use super::conclude::{self, Source};
use super::resolve;
use super::settling;
use super::view::{View, left_behind};
use crate::attempt::{Attempt, AttemptState, DeadlineFor, Found, Impossible, Planned};
use crate::build::agent;
use crate::conditions::Progress;
use crate::kubectl::{self, Resource};
use crate::message;
use crate::readings::owned_by;
use crate::resolution;
use crate::retry::{Due, NODE_LOST};
use crate::tasks::SETTLE;
use crate::{Object, ObjectRef, Step, object::Kind};
use fairway_crds::Reason;
use fairway_crds::migration::MigrationStatus;
use fairway_crds::release::{Attempts, annotation};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::core::ObjectMeta;
use std::sync::Arc;

/// The query by which a user reads how the last migration ended.
const LAST_RUN: &str =
    "select run_id, state, message from fairway.migration_run order by ordinal desc limit 1";

/// Follows the settling.
pub(super) fn attend(view: &View, status: &mut MigrationStatus) -> Planned {
    status.pod_started |= view.has_started(status);
    if view.undone().is_some() && view.has_never_begun(status) {
        return conclude::never_began(view, status);
    }
    match settling::schedule(view).due(Some(&settling::attempts(view, status))) {
        Due::Paused { next, message } => settling::pause(view, status, next, message),
        Due::Begin(attempts) => {
            settling::record(status, &attempts);
            settling::asking(view, status)
        }
        Due::Current(attempts) => {
            can_still_begin(view, status).unwrap_or_else(|| ask(view, status, attempts))
        }
    }
}

/// Waits until nothing of the run can begin any more: a pod that never started, and an application that would go
/// on, are ended. `None` when the ledger can be read.
fn can_still_begin(view: &View, status: &MigrationStatus) -> Option<Planned> {
    let mut pods = view.run_pods(status);
    pods.retain(|pod| !agent::has_ended(pod));
    let ends = pods.iter().filter_map(|pod| end_pod(view, status, pod));
    // A Job without a pod may still create one.
    let has_pod = |job: &Job| agent::pods_of(&pods, &job.name_any()).next().is_some();
    let jobs = view
        .run_jobs(status)
        .filter(|job| !agent::has_job_ended(job, &view.observed.pods) && !has_pod(job));
    let removals = jobs.map(|job| settling::asking(view, status).with(removal(Kind::Job, &job.metadata)));
    ends.chain(removals).reduce(Planned::and)
}

fn end_pod(view: &View, status: &MigrationStatus, pod: &Arc<Pod>) -> Option<Planned> {
    if let Some(deleted) = &pod.metadata.deletion_timestamp {
        let lost = deleted.0.saturating_add(NODE_LOST).unwrap_or(Timestamp::MAX);
        return (view.now < lost).then(|| settling::asking(view, status).until(lost));
    }
    let name = pod.name_any();
    let has_started = agent::started_at(std::slice::from_ref(pod), &name).is_some();
    if has_started && !view.is_on_start() {
        // It is overdue; the ledger's lock says whether it is still at work.
        return None;
    }
    let job = view.run_jobs(status).find(|job| {
        agent::pods_of(std::slice::from_ref(pod), &job.name_any())
            .next()
            .is_some()
    });
    let removal = match job {
        Some(job) => removal(Kind::Job, &job.metadata),
        None => removal(Kind::Pod, &pod.metadata),
    };
    Some(settling::asking(view, status).with(removal))
}

fn removal(kind: Kind, meta: &ObjectMeta) -> Option<Step> {
    ObjectRef::of(kind, meta)
        .filter(|_| meta.deletion_timestamp.is_none())
        .map(Step::Delete)
}

/// Reads the ledger by a Job.
fn ask(view: &View, status: &mut MigrationStatus, mut attempts: Attempts) -> Planned {
    let attempt = attempts.current;
    let name = SETTLE.child(&view.name(), attempt);
    let child = view.child(status, name.clone());
    if let Some(wait) = left_behind(view, &child) {
        return wait;
    }
    let why = settling::message_of(&attempts);
    let working_message = message::sentences([why.as_str(), settling::what_the_job_does(status)]);
    let asks = Attempt {
        task: &SETTLE,
        namespace: view.namespace(),
        schedule: settling::schedule(view),
        deadline_for: DeadlineFor::Start,
        answers: view.answers(),
        working_reason: Reason::CheckingLedger,
        working_message: &working_message,
        blocked_reason: Reason::CheckingLedger,
        slow_start: None,
    };
    let create = || create(view, status, attempt);
    match asks.state(&mut attempts, &child, child.outcome(), create) {
        AttemptState::UnderWay(planned)
            if planned.progress.reason == Reason::WriteRefused && view.has_never_begun(status) =>
        {
            conclude::never_began(view, status)
        }
        AttemptState::UnderWay(planned) => {
            let mut planned = settling::wait(view, status, planned);
            if planned.creates() {
                let run = status.attempts.as_ref().map_or(1, |attempts| attempts.current);
                let run = view.run_task().child(&view.name(), run);
                planned = planned.after(view.leftovers(status, &[&name, &run]));
            }
            planned
        }
        AttemptState::Reported(report) => {
            let asked = match child.found {
                Found::Job(job) => job.annotations().get(annotation::RESOLVE).cloned(),
                _ => None,
            };
            conclude::conclude(view, status, report, Source::Settling { asked })
        }
        AttemptState::Lost { message } => settling::again(view, status, Reason::CheckingLedger, &message),
        AttemptState::Overdue { reason, message } => settling::again(view, status, reason, &message),
        AttemptState::Impossible(Impossible { reason, message }) => {
            Planned::new(Progress::stalled(reason, message))
        }
    }
}

fn create(view: &View, status: &MigrationStatus, attempt: u32) -> Result<Object, Impossible> {
    let Some(snapshot) = &view.observed.snapshot else {
        return Err(nothing_to_read_with(view));
    };
    // A verdict that was given before there was a question is no answer to it.
    let verdict = resolve::pending(view, status)
        .filter(|_| status.outcome.is_some())
        .and_then(resolution::parse);
    let migration = &view.observed.migration;
    let job = agent::settle_job(view.settings, migration, snapshot, verdict, attempt);
    Ok(Object::Job(job))
}

/// What a Job that reads the ledger lacks, and what a user does instead.
fn nothing_to_read_with(view: &View) -> Impossible {
    let migration = &view.observed.migration;
    let name = view.name();
    let (reason, missing, restore) = match &migration.spec.release {
        Some(release) if view.observed.app.is_some() => (
            Reason::SnapshotMissing,
            format!("ControllerRevision {release}"),
            format!("Restore ControllerRevision {release} from a backup of the cluster"),
        ),
        _ => (
            Reason::AppMissing,
            format!("App {}", migration.spec.app),
            format!("Apply App {} again", migration.spec.app),
        ),
    };
    let owner = view.observed.release.as_deref().filter(|release| {
        let uid = release.metadata.uid.as_deref().unwrap_or_default();
        owned_by(migration.owner_references(), uid)
    });
    let owner = owner.map(ResourceExt::name_any);
    let (kind, to_delete) = match &owner {
        Some(release) => ("Release", Resource::Release(release)),
        None => ("Migration", Resource::Migration(&name)),
    };
    let delete = kubectl::delete(view.namespace(), to_delete);
    let message = format!(
        "{missing} is missing, so no Job can read from the ledger how the migration ended. {restore}. If that is not \
         possible, look at the last run in the database ({LAST_RUN}), then delete this {kind}: {delete}"
    );
    Impossible { reason, message }
}
