//! Settling: a run whose pod did not answer has left its answer in the ledger, or none was started.

use super::conclude::{self, Source};
use super::resolve;
use super::run::{START_DEADLINE, stale};
use super::world::{Found, World, has_ended, has_finished};
use crate::build::agent::{self, Outcome};
use crate::conditions::{Progress, moment};
use crate::protocol::MigrationReport;
use crate::retry::{self, UNHEARD, backoff, sentence};
use crate::stand::Stand;
use crate::{Object, ObjectRef, Step, names, object::Kind};
use fairway_crds::Reason;
use fairway_crds::migration::MigrationStatus;
use fairway_crds::release::{Attempts, annotation};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::core::ObjectMeta;
use std::sync::Arc;

/// Puts on record that the run is over and its outcome is to be read in the ledger.
pub(super) fn begin(status: &mut MigrationStatus, reason: Reason, message: &str) -> Stand {
    status.settling = true;
    status.settle_attempt = Some(status.settle_attempt.unwrap_or_default() + 1);
    if let Some(attempts) = &mut status.attempts {
        attempts.next = None;
        attempts.reason = Some(reason.into());
        attempts.message = Some(message.to_owned());
    }
    let message = format!("{} The ledger is asked how it ended.", sentence(message));
    Stand::at(Progress::running(Reason::CheckingLedger, message))
}

/// Looks after the settling.
pub(super) fn attend(world: &World, status: &mut MigrationStatus) -> Stand {
    let attempts = status
        .attempts
        .get_or_insert_with(|| retry::first(world.now))
        .clone();
    match attempts.next {
        Some(next) if world.now < next => paused(world, &attempts, next),
        Some(_) => {
            status.settle_attempt = Some(status.settle_attempt.unwrap_or_default() + 1);
            let told = told(world, &attempts);
            status.attempts = Some(Attempts {
                next: None,
                ..attempts
            });
            told
        }
        None => out_of_the_way(world, status, &attempts).unwrap_or_else(|| ask(world, status, &attempts)),
    }
}

/// Waits until nothing of the run can begin any more: a pod that never started, and an application that would go
/// on, are ended. `None` when the ledger can be asked.
fn out_of_the_way(world: &World, status: &MigrationStatus, attempts: &Attempts) -> Option<Stand> {
    let pods = world.run_pods(status);
    if let Some(pod) = pods.iter().find(|pod| !has_finished(pod)) {
        return pod_in_the_way(world, status, pod, attempts);
    }
    // A Job without a pod may still make one.
    let job = world.run_jobs(status).find(|job| !has_ended(job))?;
    Some(told(world, attempts).with(removal(Kind::Job, &job.metadata)))
}

fn pod_in_the_way(
    world: &World,
    status: &MigrationStatus,
    pod: &Arc<Pod>,
    attempts: &Attempts,
) -> Option<Stand> {
    if let Some(deleted) = &pod.metadata.deletion_timestamp {
        let given_up = deleted.0.saturating_add(UNHEARD).unwrap_or(Timestamp::MAX);
        return (world.now < given_up).then(|| told(world, attempts).until(given_up));
    }
    let name = pod.name_any();
    let started = agent::started_at(std::slice::from_ref(pod), &name).is_some();
    if started && !world.is_on_start() {
        // It is overdue; the ledger's lock says whether it is still at work.
        return None;
    }
    let job = world.run_jobs(status).find(|job| {
        agent::pods_of(std::slice::from_ref(pod), &job.name_any())
            .next()
            .is_some()
    });
    let removal = match job {
        Some(job) => removal(Kind::Job, &job.metadata),
        None => removal(Kind::Pod, &pod.metadata),
    };
    Some(told(world, attempts).with(removal))
}

fn removal(kind: Kind, meta: &ObjectMeta) -> Option<Step> {
    ObjectRef::of(kind, meta)
        .filter(|_| meta.deletion_timestamp.is_none())
        .map(Step::Delete)
}

/// Asks the ledger by a Job.
fn ask(world: &World, status: &mut MigrationStatus, attempts: &Attempts) -> Stand {
    let attempt = status.settle_attempt.unwrap_or(1);
    let name = names::settle_job(&world.name(), attempt);
    let job = match world.find(status, &name) {
        Found::Job(job) => job,
        Found::Stale { object, alive } => return stale(&name, object, alive),
        Found::Nothing | Found::Pod(_) => return start(world, status, attempts, attempt, &name),
    };
    match agent::job_report::<MigrationReport>(Some(job), &world.observed.pods, &name) {
        Outcome::NotThere | Outcome::Running { waiting: None } => told(world, attempts),
        Outcome::Running {
            waiting: Some((_, message)),
        } => told(
            world,
            &Attempts {
                message: Some(message),
                ..attempts.clone()
            },
        ),
        Outcome::Lost { reason } => again(
            world,
            status,
            Reason::PodLost,
            &format!("the settling pod ended without an answer: {reason}"),
        ),
        Outcome::Reported(report) => {
            let asked = job.annotations().get(annotation::RESOLVE).cloned();
            conclude::conclude(world, status, report, Source::Settling { asked })
        }
    }
}

fn start(world: &World, status: &MigrationStatus, attempts: &Attempts, attempt: u32, name: &str) -> Stand {
    let Some(snapshot) = &world.observed.snapshot else {
        let message = "the App and its snapshot are gone, so the ledger cannot be asked how the migration ended: look \
                       into table fairway.migration_run of the database";
        return Stand::at(Progress::waiting(Reason::AppMissing, message));
    };
    // A verdict that was given before there was a question is no answer to it.
    let verdict = resolve::pending(world, status)
        .filter(|_| status.outcome.is_some())
        .and_then(|value| resolve::parse(value));
    let migration = &world.observed.migration;
    let job = agent::settle_job(world.settings, migration, snapshot, verdict, attempt);
    let run = names::migration_run(&world.name(), attempts.current);
    told(world, attempts)
        .with(world.leftovers(status, &[name, &run]))
        .with([Step::Create(Box::new(Object::Job(job)))])
}

/// The ledger could not be asked: again after a pause.
pub(super) fn again(world: &World, status: &mut MigrationStatus, reason: Reason, message: &str) -> Stand {
    let pause = backoff(status.settle_attempt.unwrap_or(1));
    let next = world.now.saturating_add(pause).unwrap_or(Timestamp::MAX);
    let attempts = status.attempts.clone().unwrap_or_else(|| retry::first(world.now));
    let attempts = Attempts {
        next: Some(next),
        reason: Some(reason.into()),
        message: Some(message.to_owned()),
        ..attempts
    };
    status.attempts = Some(attempts.clone());
    paused(world, &attempts, next)
}

fn paused(world: &World, attempts: &Attempts, next: Timestamp) -> Stand {
    let why = sentence(attempts.message.as_deref().unwrap_or_default());
    let message = format!("{why} The ledger is asked again at {}.", moment(next));
    Stand::at(patient(world, attempts, message)).until(next)
}

fn told(world: &World, attempts: &Attempts) -> Stand {
    let why = sentence(
        attempts
            .message
            .as_deref()
            .unwrap_or("the migration's pod is gone"),
    );
    let message = format!("{why} The ledger is asked how it ended.");
    let end = overdue(world, attempts);
    let stand = Stand::at(patient(world, attempts, message));
    if world.now < end { stand.until(end) } else { stand }
}

/// It goes on asking for as long as it takes; when that is long, a person should know.
fn patient(world: &World, attempts: &Attempts, message: String) -> Progress {
    if world.now < overdue(world, attempts) {
        Progress::running(Reason::CheckingLedger, message)
    } else {
        Progress::waiting(Reason::CheckingLedger, message)
    }
}

fn overdue(world: &World, attempts: &Attempts) -> Timestamp {
    let timeout = world.observed.migration.spec.timeout.signed();
    retry::end(attempts, START_DEADLINE)
        .saturating_add(timeout)
        .unwrap_or(Timestamp::MAX)
}
