//! The run of a Migration: one Job or pod, until it reports.

use super::conclude::{self, Source};
use super::settling;
use super::view::{View, has_finished, left_behind};
use crate::attempt::{self, Attempt, Bounds, Child, Found, Impossible, Planned, SLOW_START, Standing};
use crate::build::InvalidTemplate;
use crate::build::agent::{self, Outcome};
use crate::conditions::Progress;
use crate::message::{self, moment};
use crate::names;
use crate::protocol::{MigrationOutcome as Reported, MigrationReport};
use crate::retry::Due;
use crate::{Object, ObjectRef, Step, object::Kind};
use fairway_crds::Reason;
use fairway_crds::migration::{MigrationOutcome, MigrationStatus};
use fairway_crds::release::Attempts;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;

/// Message while the run is about to start.
const STARTING: &str = "The migration is about to start.";
/// Room beside the timeout for the agent to end the run's sessions and write the ledger.
const CONCLUSION: SignedDuration = SignedDuration::from_mins(15);

/// Records the run, if it is possible at all.
pub(super) fn begin(view: &View, status: &mut MigrationStatus) -> Planned {
    let not_started = |status: &mut MigrationStatus, reason: Reason, message: &str| {
        let failed = Progress::failed(reason, message);
        conclude::end(status, MigrationOutcome::NotStarted, failed)
    };
    let spec = &view.observed.migration.spec;
    if view.observed.app.is_none() {
        let message = format!(
            "App {} does not exist. Create a Migration whose spec.app names an App of this namespace.",
            spec.app
        );
        return not_started(status, Reason::AppMissing, &message);
    }
    if let (Some(release), None) = (&spec.release, &view.observed.snapshot) {
        let missing = match view.observed.release {
            Some(_) => "ControllerRevision",
            None => "Release",
        };
        let message =
            format!("{missing} {release} does not exist, so there is no template for the migration's pod.");
        return not_started(status, Reason::AppMissing, &message);
    }
    if let Err(error) = build(view, 1) {
        return not_started(status, Reason::MigrationInvalid, &error.to_string());
    }
    status.run_id = Some(names::run_id(
        &view.observed.migration,
        view.observed.release.as_deref(),
    ));
    status.attempts = Some(view.start_schedule().first());
    Planned::new(Progress::running(Reason::Migrating, STARTING))
}

/// The Job or pod of an attempt.
fn build(view: &View, attempt: u32) -> Result<Object, InvalidTemplate> {
    let component = || view.observed.migration.spec.component.clone();
    let migration = &view.observed.migration;
    let release = view.observed.release.as_deref();
    let Some(snapshot) = &view.observed.snapshot else {
        return Err(InvalidTemplate::NoComponent {
            component: component(),
        });
    };
    if view.is_on_start() {
        agent::migration_pod(view.settings, migration, release, snapshot, attempt).map(Object::Pod)
    } else {
        agent::migration_job(view.settings, migration, release, snapshot, attempt).map(Object::Job)
    }
}

/// Follows the run.
pub(super) fn attend(view: &View, status: &mut MigrationStatus) -> Planned {
    match view.start_schedule().due(status.attempts.as_ref()) {
        Due::Paused { next, message } => attempt::paused(next, message),
        Due::Begin(attempts) => {
            status.attempts = Some(attempts);
            Planned::new(Progress::running(Reason::Migrating, STARTING))
        }
        Due::Current(attempts) => follow(view, status, attempts),
    }
}

fn follow(view: &View, status: &mut MigrationStatus, mut attempts: Attempts) -> Planned {
    let task = view.run_task();
    let name = task.child(&view.name(), attempts.current);
    let child = view.child(status, task, name.clone());
    if let Some(wait) = left_behind(view, &child) {
        return wait;
    }
    let outcome = child.outcome::<MigrationReport>();
    if let (Outcome::Running { waiting }, Some(started)) = (&outcome, child.started()) {
        let waiting = waiting.as_deref();
        return running(view, status, &child, started, waiting);
    }
    let attempt = Attempt {
        task,
        namespace: view.namespace(),
        work_for: &view.name(),
        schedule: view.start_schedule(),
        bounds: Bounds::Start,
        refused: &view.observed.refused,
        working: Reason::Migrating,
        doing: STARTING,
        not_starting: Reason::PodNotStarting,
        slow_start: Some(SLOW_START),
    };
    let (since, current) = (attempts.since, attempts.current);
    let standing = attempt.look(&mut attempts, &child, outcome, || create(view, current));
    if attempts.since != since {
        // What keeps an attempt from starting is not kept beyond its start: it would be taken for how the run ended.
        status.attempts = Some(attempts);
    }
    match standing {
        Standing::UnderWay(planned) if planned.creates() => {
            let leftovers = view.leftovers(status, &[&name]);
            planned.after(leftovers)
        }
        Standing::UnderWay(planned) => planned,
        Standing::Reported(report) if view.is_on_start() && report.outcome == Reported::Undecided => {
            undecided(view, status, &name, &report)
        }
        Standing::Reported(report) => {
            let source = if view.is_on_start() {
                Source::Guard
            } else {
                Source::Run
            };
            conclude::conclude(view, status, report, source)
        }
        Standing::Lost { message } => settling::begin(status, Reason::PodLost, &message),
        Standing::Impossible(Impossible { reason, message }) | Standing::Overdue { reason, message } => {
            settling::begin(status, reason, &message)
        }
    }
}

fn create(view: &View, attempt: u32) -> Result<Object, Impossible> {
    if !view.may_begin() {
        // It may have run and been removed since: the ledger knows.
        return Err(Impossible {
            reason: Reason::AppMissing,
            message: "The App is gone, and with it the migration's pod.".to_owned(),
        });
    }
    build(view, attempt).map_err(|error| Impossible {
        reason: Reason::MigrationInvalid,
        message: message::sentence(&error.to_string()),
    })
}

/// The guard waited for an application that never became healthy. One that Kubernetes could not start is not to
/// blame.
fn undecided(view: &View, status: &mut MigrationStatus, name: &str, report: &MigrationReport) -> Planned {
    let pods = view.run_pods(status);
    let kept = agent::pods_of(&pods, name).find_map(agent::waiting);
    match (kept, &report.failure) {
        (Some((_, why)), _) => settling::begin(status, Reason::PodNotStarting, &why),
        (None, Some(failure)) => settling::begin(status, failure.reason(), &failure.message),
        (None, None) => {
            let message = "The agent beside the application ended without a report on the migration.";
            settling::begin(status, Reason::PodLost, message)
        }
    }
}

fn running(
    view: &View,
    status: &mut MigrationStatus,
    child: &Child,
    started: Timestamp,
    waiting: Option<&str>,
) -> Planned {
    let timeout = view.observed.migration.spec.timeout;
    let end = started
        .saturating_add(timeout.signed())
        .and_then(|end| end.saturating_add(CONCLUSION));
    let end = end.unwrap_or(Timestamp::MAX);
    let since = moment(started);
    if view.now >= end {
        let message = format!(
            "{} {}, which started at {since}, did not report in time.",
            view.run_task().form.kind().as_str(),
            child.name
        );
        return settling::begin(status, Reason::PodLost, &message);
    }
    let under_way = format!("The migration has been running since {since}. Its timeout is {timeout}.");
    let progress = match waiting {
        // The guard is at work, but what it guards is not.
        Some(message) => Progress::running(Reason::PodNotStarting, message::sentences([message, &under_way])),
        None => Progress::running(Reason::Migrating, under_way),
    };
    let halted = match child.found {
        Found::Pod(pod) if is_halted(pod) => ObjectRef::of(Kind::Pod, &pod.metadata),
        _ => None,
    };
    Planned::new(progress).until(end).with(halted.map(Step::Delete))
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
    let has_ended = states.iter().any(|state| state.terminated.is_some());
    let goes_on = states.iter().any(|state| state.running.is_some());
    has_ended && goes_on && !has_finished(pod) && pod.metadata.deletion_timestamp.is_none()
}
