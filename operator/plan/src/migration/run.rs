//! The run of a Migration: one Job or pod, until it reports.

use super::conclude::{self, Source};
use super::settling;
use super::view::{View, left_behind};
use crate::attempt::{
    self, Attempt, AttemptState, Child, DeadlineFor, Found, Impossible, Planned, SLOW_START,
};
use crate::build::InvalidTemplate;
use crate::build::agent::{self, Initializing, Outcome};
use crate::conditions::{Progress, State};
use crate::message::{self, moment};
use crate::missing::{Comes, Missing};
use crate::names;
use crate::protocol::{MigrationOutcome as Reported, MigrationReport};
use crate::readings::has_finished;
use crate::retry::Due;
use crate::{Object, ObjectRef, Step, kubectl, object::Kind};
use fairway_crds::Reason;
use fairway_crds::migration::{MigrationOutcome, MigrationStatus, RunEnd};
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
    if let Some(undone) = view.undone() {
        return not_started(status, Reason::Aborted, &undone);
    }
    if let Some(missing) = missing(view) {
        let wait = missing.wait("Migration", &view.observed.migration.metadata, view.now);
        return wait.unwrap_or_else(|| {
            let Impossible { reason, message } = missing.into();
            not_started(status, reason, &message)
        });
    }
    if let Some(component) = view.runs_twice() {
        let message = format!(
            "Component {component} has strategy: Recreate and migrates when it starts, so its migration cannot run beside \
             its pods. Release the image instead: name it in App {}.",
            view.observed.migration.spec.app
        );
        return not_started(status, Reason::MigrationInvalid, &message);
    }
    if let Some(backup) = &view.observed.backup {
        let message = format!("Waiting for Backup {backup}: no migration begins beside a backup.");
        return Planned::new(Progress::new(State::Waiting, Reason::WaitingForBackup, message));
    }
    status.run_id = Some(names::run_id(
        &view.observed.migration,
        view.observed.release.as_deref(),
    ));
    status.attempts = Some(view.start_schedule().first());
    Planned::new(Progress::running(Reason::Migrating, STARTING))
}

/// What the run cannot begin without, and does not have.
fn missing(view: &View) -> Option<Missing> {
    let spec = &view.observed.migration.spec;
    if view.observed.app.is_none() {
        let fix = "Create a Migration whose spec.app names an App of this namespace.";
        return Some(Missing::app(&spec.app, fix));
    }
    if let Some(release) = &spec.release
        && (view.observed.snapshot.is_none() || view.outlives_its_release())
    {
        let same_name = view.observed.release.as_deref();
        let found = same_name.filter(|_| !view.outlives_its_release());
        let fix = match found {
            Some(_) => format!("Edit the App, or retry Release {release}, to release again."),
            None => "Create a Migration whose spec.release names a Release of this namespace.".to_owned(),
        };
        return Some(Missing::snapshot(&spec.app, release, found, fix));
    }
    let error = build(view, 1).err()?;
    Some(Missing {
        reason: Reason::MigrationInvalid,
        what: error.to_string(),
        fix: String::new(),
        // An edit of the App may be applied together with a Migration by hand.
        comes: match spec.release {
            None => Comes::Perhaps,
            Some(_) => Comes::Never,
        },
    })
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
    if let Some(planned) = view.undone().and_then(|undone| abandon(view, status, &undone)) {
        return planned;
    }
    match view.start_schedule().due(status.attempts.as_ref()) {
        Due::Paused { next, message } => attempt::paused(next, message),
        Due::Begin(attempts) => {
            status.attempts = Some(attempts);
            Planned::new(Progress::running(Reason::Migrating, STARTING))
        }
        Due::Current(attempts) => follow(view, status, attempts),
    }
}

/// Ends a run that has not begun, because a user has aborted its release; `None` when it may have begun. A Job or pod that
/// has not started is removed first, and what could have started meanwhile is settled.
fn abandon(view: &View, status: &mut MigrationStatus, undone: &str) -> Option<Planned> {
    let is_paused = status
        .attempts
        .as_ref()
        .is_some_and(|attempts| attempts.next.is_some());
    let not_started = |status: &mut MigrationStatus| {
        let failed = Progress::failed(Reason::Aborted, undone);
        Some(conclude::end(status, MigrationOutcome::NotStarted, failed))
    };
    if is_paused || view.has_never_begun(status) {
        return not_started(status);
    }
    if status.pod_started || view.has_started(status) {
        return None;
    }
    if !view.run_pods(status).is_empty() {
        return Some(settling::begin(status, Reason::Aborted, undone));
    }
    let jobs = view.run_jobs(status);
    let jobs = jobs.filter(|job| job.metadata.deletion_timestamp.is_none());
    let removals = jobs.filter_map(|job| ObjectRef::of(Kind::Job, &job.metadata));
    let message = "Removing the Job of the migration, which has not started.";
    let removing = Planned::new(Progress::running(Reason::Migrating, message));
    Some(removing.with(removals.map(Step::Delete)))
}

fn follow(view: &View, status: &mut MigrationStatus, attempts: Attempts) -> Planned {
    let task = view.run_task();
    let name = task.child(&view.name(), attempts.current);
    let child = view.child(status, name.clone());
    if let Some(wait) = left_behind(view, &child) {
        return wait;
    }
    let outcome = child.outcome::<MigrationReport>();
    if let Some(ended) = application_end(view, status, &name) {
        status.run_end = Some(RunEnd::new(Reason::PodLost, ended));
    }
    let may_have_begun = status.pod_started || may_have_begun(&child, &outcome);
    if let Some(aborted) = view.undone().filter(|_| !may_have_begun) {
        return settling::begin(status, Reason::Aborted, &aborted);
    }
    let pods = view.run_pods(status);
    let initializing = agent::pods_of(&pods, &name).find_map(agent::initializing);
    let outcome = match (outcome, &initializing) {
        (Outcome::Running { waiting: None }, Some(found)) if view.now >= named_at(found) => {
            Outcome::Running {
                waiting: Some(waits_for(view, found)),
            }
        }
        (outcome, _) => outcome,
    };
    let named_at = initializing.as_ref().map(named_at).filter(|at| view.now < *at);
    let planned = follow_outcome(view, status, attempts, &child, outcome);
    match named_at {
        Some(at) => planned.until(at),
        None => planned,
    }
}

/// Records the exit code of an application that has ended; how it ended, as a sentence.
fn application_end(view: &View, status: &mut MigrationStatus, name: &str) -> Option<String> {
    if !view.is_on_start() {
        // The agent is the parent of the command, and says how it ended.
        return None;
    }
    let pods = view.run_pods(status);
    let (code, how) = agent::pods_of(&pods, name).find_map(agent::application_end)?;
    status.exit_code = Some(code);
    Some(how)
}

/// Whether anything of the migration may have been executed: its agent has begun, or the application beside its guard.
fn may_have_begun(child: &Child, outcome: &Outcome<MigrationReport>) -> bool {
    match outcome {
        Outcome::Reported(_) | Outcome::Lost { .. } => true,
        // A guard that runs may have let the application start, whatever is shown of it.
        Outcome::NotThere | Outcome::Running { .. } => child.started().is_some(),
    }
}

/// Time for which an init container may run before it is named.
const INIT_EXPECTED: SignedDuration = SignedDuration::from_secs(10);

fn named_at(found: &Initializing) -> Timestamp {
    found
        .since
        .saturating_add(INIT_EXPECTED)
        .unwrap_or(Timestamp::MAX)
}

/// That the migration waits for an init container, which may wait for the migration.
fn waits_for(view: &View, found: &Initializing) -> String {
    let Initializing {
        pod,
        container,
        since,
    } = found;
    let what = format!(
        "Init container {container} of pod {pod} has been running since {}, and the migration starts only after it. If it \
         waits for the schema, remove it from component {}.",
        moment(*since),
        view.observed.migration.spec.component
    );
    match &view.observed.migration.spec.release {
        Some(release) => format!("{what} To abort: {}", kubectl::abort(view.namespace(), release)),
        None => what,
    }
}

fn follow_outcome(
    view: &View,
    status: &mut MigrationStatus,
    mut attempts: Attempts,
    child: &Child,
    outcome: Outcome<MigrationReport>,
) -> Planned {
    let task = view.run_task();
    let name = child.name.clone();
    if let Some(before) = agent::begun(&view.run_pods(status), &name) {
        conclude::record_begun(status, Some(before));
    }
    if let (Outcome::Running { waiting }, Some(started)) = (&outcome, child.started()) {
        let waiting = waiting.as_deref();
        return running(view, status, child, started, waiting);
    }
    let attempt = Attempt {
        task,
        namespace: view.namespace(),
        schedule: view.start_schedule(),
        deadline_for: DeadlineFor::Start,
        answers: view.answers(),
        working_reason: Reason::Migrating,
        working_message: STARTING,
        blocked_reason: Reason::PodNotStarting,
        slow_start: Some(SLOW_START),
    };
    let (since, current, pod_started) = (attempts.since, attempts.current, status.pod_started);
    let state = attempt.state(&mut attempts, child, outcome, || {
        create(view, current, pod_started)
    });
    if attempts.since != since {
        // What keeps an attempt from starting is not kept beyond its start: it would be taken for how the run ended.
        status.attempts = Some(attempts);
    }
    match state {
        AttemptState::UnderWay(planned) if planned.creates() => {
            let leftovers = view.leftovers(status, &[&name]);
            planned.after(leftovers)
        }
        AttemptState::UnderWay(planned) => planned,
        AttemptState::Reported(report) if view.is_on_start() && report.outcome == Reported::Undecided => {
            undecided(view, status, &name, &report)
        }
        AttemptState::Reported(report) => {
            // Whether a pass came in time to see it run says nothing of the run.
            status.pod_started = true;
            let source = if view.is_on_start() {
                Source::Guard
            } else {
                Source::Run
            };
            conclude::conclude(view, status, report, source)
        }
        AttemptState::Lost { message } => {
            status.pod_started = true;
            settling::begin(status, Reason::PodLost, &message)
        }
        AttemptState::Impossible(Impossible { reason, message })
        | AttemptState::Overdue { reason, message } => settling::begin(status, reason, &message),
    }
}

fn create(view: &View, attempt: u32, pod_started: bool) -> Result<Object, Impossible> {
    // It may have run and been removed since: the ledger knows.
    let spec = &view.observed.migration.spec;
    let impossible = |reason, message| Err(Impossible { reason, message });
    if let Some(undone) = view.undone() {
        return match pod_started {
            true => impossible(Reason::PodLost, "The migration's pod is gone.".to_owned()),
            false => impossible(Reason::Aborted, undone),
        };
    }
    if let Some(deletion) = view.deletion() {
        let message = format!("{deletion}, so the migration's pod is not created.");
        return impossible(Reason::PodLost, message);
    }
    if let Some(release) = &spec.release
        && view.outlives_its_release()
    {
        let message = format!("Release {release} was deleted, so the migration's pod is not created.");
        return impossible(Reason::PodLost, message);
    }
    if view.observed.app.is_none() {
        let message = format!(
            "App {} is gone or is being deleted, so the migration's pod is not created.",
            spec.app
        );
        return impossible(Reason::AppMissing, message);
    }
    if let (Some(release), None) = (&spec.release, &view.observed.snapshot) {
        let message =
            format!("ControllerRevision {release} was deleted, so the migration's pod cannot be created.");
        return impossible(Reason::SnapshotMissing, message);
    }
    build(view, attempt).map_err(|error| Impossible {
        reason: Reason::MigrationInvalid,
        message: message::sentence(&error.to_string()),
    })
}

/// The guard waited for an application that never became healthy. One that Kubernetes could not start is not to
/// blame.
fn undecided(view: &View, status: &mut MigrationStatus, name: &str, report: &MigrationReport) -> Planned {
    conclude::record_begun(status, report.before.clone());
    let pods = view.run_pods(status);
    let not_begun = agent::pods_of(&pods, name).filter(|pod| !agent::has_application_begun(pod));
    let kept = not_begun.into_iter().find_map(agent::waiting);
    match (kept, &report.failure) {
        (Some((_, why)), _) => settling::begin(status, Reason::PodNotStarting, &why),
        (None, Some(failure)) => settling::begin(status, failure.reason(), &failure.message),
        (None, None) => {
            let message = "The agent beside the application could not determine how the migration ended.";
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
    status.pod_started = true;
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

/// The container of an `onStart` migration that migrates has ended while another one keeps the pod alive: the guard only
/// hears of it when the pod ends. One that only helps may end.
fn is_halted(pod: &Pod) -> bool {
    let containers = pod
        .status
        .iter()
        .flat_map(|status| status.container_statuses.iter().flatten());
    let states: Vec<_> = containers
        .filter_map(|container| container.state.as_ref())
        .collect();
    let has_ended = agent::application_end(pod).is_some();
    let goes_on = states.iter().any(|state| state.running.is_some());
    has_ended && goes_on && !has_finished(pod) && pod.metadata.deletion_timestamp.is_none()
}
