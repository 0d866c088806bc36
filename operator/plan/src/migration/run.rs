//! The run itself: one Job or pod, until it answers.

use super::conclude::{self, Source};
use super::settle;
use super::world::{Found, World, has_finished};
use crate::build::InvalidTemplate;
use crate::build::agent::{self, Outcome};
use crate::conditions::{Progress, moment};
use crate::protocol::{MigrationOutcome as Reported, MigrationReport};
use crate::retry;
use crate::stand::Stand;
use crate::{Object, ObjectRef, Step, names, object::Kind};
use fairway_crds::Reason;
use fairway_crds::migration::{MigrationOutcome, MigrationStatus};
use fairway_crds::release::Attempts;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

/// Time for all tries to start it.
pub(super) const START_DEADLINE: SignedDuration = SignedDuration::from_hours(1);
/// A pod that has not started by then is worth looking at, although Kubernetes says nothing of it.
const SLOW_START: SignedDuration = SignedDuration::from_mins(2);
pub(super) const NOT_STARTING: Reason = Reason::PodNotStarting;
/// Begins the message of a run whose pod is gone; how it ended follows.
pub(super) const POD_ENDED: &str = "the migration's pod ended without an answer";
/// Room beside the timeout for the agent to end the run's sessions and write the ledger.
const CONCLUSION: SignedDuration = SignedDuration::from_mins(15);

/// Puts the run on record, if it can be made at all.
pub(super) fn begin(world: &World, status: &mut MigrationStatus) -> Stand {
    let spec = &world.observed.migration.spec;
    if world.observed.app.is_none() {
        let message = format!(
            "App {} does not exist: set spec.app to the name of one in this namespace",
            spec.app
        );
        return conclude::end(
            status,
            MigrationOutcome::NotStarted,
            Progress::failed(Reason::AppMissing, message),
        );
    }
    if let (Some(release), None) = (&spec.release, &world.observed.snapshot) {
        let message =
            format!("Release {release}, or its snapshot, does not exist: nothing says how its pods look");
        return conclude::end(
            status,
            MigrationOutcome::NotStarted,
            Progress::failed(Reason::AppMissing, message),
        );
    }
    if let Err(error) = build(world, 1) {
        let failed = Progress::failed(Reason::MigrationInvalid, error.to_string());
        return conclude::end(status, MigrationOutcome::NotStarted, failed);
    }
    status.run_id = Some(super::run_id(
        &world.observed.migration,
        world.observed.release.as_deref(),
    ));
    status.attempts = Some(retry::first(world.now));
    Stand::at(Progress::running(
        Reason::Migrating,
        "the migration is about to start",
    ))
}

/// The Job or pod of a try.
fn build(world: &World, attempt: u32) -> Result<Object, InvalidTemplate> {
    let component = || world.observed.migration.spec.component.clone();
    let migration = &world.observed.migration;
    let release = world.observed.release.as_deref();
    let Some(snapshot) = &world.observed.snapshot else {
        return Err(InvalidTemplate::NoComponent {
            component: component(),
        });
    };
    if world.is_on_start() {
        agent::migration_pod(world.settings, migration, release, snapshot, attempt).map(Object::Pod)
    } else {
        agent::migration_job(world.settings, migration, release, snapshot, attempt).map(Object::Job)
    }
}

/// Looks after the run.
pub(super) fn attend(world: &World, status: &mut MigrationStatus) -> Stand {
    let attempts = status
        .attempts
        .get_or_insert_with(|| retry::first(world.now))
        .clone();
    match attempts.next {
        Some(next) if world.now < next => {
            let message = retry::pausing(&attempts, next, START_DEADLINE);
            Stand::at(Progress::running(Reason::WaitingForEnvironment, message)).until(next)
        }
        Some(_) => {
            let current = attempts.current + 1;
            status.attempts = Some(Attempts {
                current,
                next: None,
                ..attempts
            });
            Stand::at(Progress::running(
                Reason::Migrating,
                "the migration is about to start",
            ))
        }
        None => look(world, status, &attempts),
    }
}

fn look(world: &World, status: &mut MigrationStatus, attempts: &Attempts) -> Stand {
    let name = names::migration_run(&world.name(), attempts.current);
    let found = world.find(status, &name);
    if let Found::Stale { object, alive } = found {
        return stale(&name, object, alive);
    }
    match world.run_report(status, &name) {
        Outcome::NotThere => match found {
            Found::Nothing => start(world, status, attempts, &name),
            _ => starting(world, status, attempts, &name, None),
        },
        Outcome::Running { waiting } => match agent::started_at(&world.run_pods(status), &name) {
            None => starting(world, status, attempts, &name, waiting),
            Some(started) => running(world, status, &found, started, waiting),
        },
        Outcome::Reported(report) if world.is_on_start() && report.outcome == Reported::Undecided => {
            given_up(world, status, &name, &report)
        }
        Outcome::Reported(report) => {
            let source = if world.is_on_start() {
                Source::Guard
            } else {
                Source::Run
            };
            conclude::conclude(world, status, report, source)
        }
        Outcome::Lost { reason } => settle::begin(status, Reason::PodLost, &format!("{POD_ENDED}: {reason}")),
    }
}

/// The name is taken by what another App of the same name left.
pub(super) fn stale(name: &str, object: Option<ObjectRef>, alive: bool) -> Stand {
    if alive {
        let message = format!(
            "{name} of an App of the same name that was deleted is still at work; waiting for its end"
        );
        return Stand::at(Progress::running(Reason::MigrationRunning, message));
    }
    let message = format!("removing {name}, which an App of the same name left behind");
    Stand::at(Progress::running(Reason::Migrating, message)).with(object.map(Step::Delete))
}

fn start(world: &World, status: &mut MigrationStatus, attempts: &Attempts, name: &str) -> Stand {
    if !world.may_begin() {
        // It may have run and been removed since: the ledger knows.
        return settle::begin(
            status,
            Reason::AppMissing,
            "the App is gone, and with it the migration's pod",
        );
    }
    let slow = attempts
        .since
        .saturating_add(SLOW_START)
        .unwrap_or(Timestamp::MAX);
    let end = retry::end(attempts, START_DEADLINE);
    if world.now >= end && attempts.reason.as_deref() == Some(NOT_STARTING.as_str()) {
        return settle::begin(status, NOT_STARTING, &not_made(world, name));
    }
    if world.now >= end {
        // Perhaps nobody was there to make it: the time counts once more, from now on.
        status.attempts = Some(Attempts {
            since: world.now,
            reason: Some(NOT_STARTING.into()),
            message: Some(not_made(world, name)),
            ..attempts.clone()
        });
        return Stand::at(Progress::running(NOT_STARTING, not_made(world, name)));
    }
    let progress = if world.now < slow {
        Progress::running(Reason::Migrating, "the migration is about to start")
    } else {
        Progress::running(NOT_STARTING, not_made(world, name))
    };
    match build(world, attempts.current) {
        Ok(object) => Stand::at(progress)
            .until(if world.now < slow { slow } else { end })
            .with(world.leftovers(status, &[name]))
            .with([Step::Create(Box::new(object))]),
        Err(error) => settle::begin(status, Reason::MigrationInvalid, &error.to_string()),
    }
}

/// The apiserver refuses it, or it was removed.
fn not_made(world: &World, name: &str) -> String {
    let namespace = world.observed.migration.namespace().unwrap_or_default();
    format!(
        "{name} could not be made or was removed; the events say why: kubectl -n {namespace} describe migration {}",
        world.name()
    )
}

/// Its pod is not at work yet.
fn starting(
    world: &World,
    status: &mut MigrationStatus,
    attempts: &Attempts,
    name: &str,
    waiting: Option<(String, String)>,
) -> Stand {
    let slow = attempts
        .since
        .saturating_add(SLOW_START)
        .unwrap_or(Timestamp::MAX);
    let end = retry::end(attempts, START_DEADLINE);
    let (reason, message) = match waiting {
        Some((_, message)) => (NOT_STARTING, message),
        None if world.now >= slow => (NOT_STARTING, not_starting(world, name)),
        None => (Reason::Migrating, "the migration's pod is starting".to_owned()),
    };
    if world.now >= end {
        return settle::begin(status, NOT_STARTING, &message);
    }
    Stand::at(Progress::running(reason, message)).until(if world.now < slow { slow } else { end })
}

fn not_starting(world: &World, name: &str) -> String {
    let namespace = world.observed.migration.namespace().unwrap_or_default();
    format!(
        "the pod of {name} is not starting; what keeps it says: kubectl -n {namespace} describe job,pod -l fairway.dev/work-for={}",
        world.name()
    )
}

/// The guard waited in vain for an application that is to be ended now. One that Kubernetes could not start is not
/// to blame.
fn given_up(world: &World, status: &mut MigrationStatus, name: &str, report: &MigrationReport) -> Stand {
    let pods = world.run_pods(status);
    let kept = agent::pods_of(&pods, name).find_map(agent::waiting);
    match (kept, &report.failure) {
        (Some((_, why)), _) => settle::begin(status, NOT_STARTING, &why),
        (None, Some(failure)) => settle::begin(status, failure.reason(), &failure.message),
        (None, None) => settle::begin(status, Reason::PodLost, "the migration's guard gave up"),
    }
}

fn running(
    world: &World,
    status: &mut MigrationStatus,
    found: &Found,
    started: Timestamp,
    waiting: Option<(String, String)>,
) -> Stand {
    let timeout = world.observed.migration.spec.timeout;
    let end = started
        .saturating_add(timeout.signed())
        .and_then(|end| end.saturating_add(CONCLUSION));
    let end = end.unwrap_or(Timestamp::MAX);
    if world.now >= end {
        let message = format!(
            "the migration's pod, running since {}, has not answered in time",
            moment(started)
        );
        return settle::begin(status, Reason::PodLost, &message);
    }
    let under_way = format!("migrating since {}; ended after {timeout}", moment(started));
    let progress = match waiting {
        // The guard is at work, but what it guards is not.
        Some((_, message)) => Progress::running(NOT_STARTING, format!("{message}; {under_way}")),
        None => Progress::running(Reason::Migrating, under_way),
    };
    let halted = match found {
        Found::Pod(pod) if is_halted(pod) => ObjectRef::of(Kind::Pod, &pod.metadata),
        _ => None,
    };
    Stand::at(progress).until(end).with(halted.map(Step::Delete))
}

/// A container of an `onStart` migration has ended while another one keeps the pod alive: the guard only hears
/// of it when the pod ends.
fn is_halted(pod: &Pod) -> bool {
    let containers = pod
        .status
        .iter()
        .flat_map(|status| status.container_statuses.iter().flatten());
    let states: Vec<_> = containers
        .filter_map(|container| container.state.as_ref())
        .collect();
    let ended = states.iter().any(|state| state.terminated.is_some());
    let goes_on = states.iter().any(|state| state.running.is_some());
    ended && goes_on && !has_finished(pod) && pod.metadata.deletion_timestamp.is_none()
}
