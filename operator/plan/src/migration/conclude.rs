//! What a report means.

use super::run::{NOT_STARTING, POD_ENDED, START_DEADLINE};
use super::world::World;
use super::{resolve, settle};
use crate::conditions::Progress;
use crate::protocol::{self, Cause, MigrationReport};
use crate::retry::{self, Next, sentence};
use crate::stand::Stand;
use fairway_crds::Reason;
use fairway_crds::migration::{Fingerprints, MigrationOutcome, MigrationStatus};

/// Who reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The Job that ran the command.
    Run,
    /// The guard beside an application, which goes on.
    Guard,
    /// A settling Job.
    Settling {
        /// The resolve annotation that it answers.
        asked: Option<String>,
    },
}

/// Takes a report up.
pub(super) fn conclude(
    world: &World,
    status: &mut MigrationStatus,
    report: MigrationReport,
    source: Source,
) -> Stand {
    use protocol::MigrationOutcome as Reported;
    let (reason, message) = match &report.failure {
        Some(failure) => (failure.reason(), failure.message.clone()),
        None => (
            Reason::MigrationFailed,
            "the migration did not succeed".to_owned(),
        ),
    };
    match (report.outcome, &source) {
        (Reported::Applied, _) => applied(status, report, MigrationOutcome::Applied, source),
        (Reported::AlreadyApplied, _) => applied(status, report, MigrationOutcome::AlreadyApplied, source),
        (Reported::Failed, _) => {
            evidence(status, report, source);
            let (reason, message) = not_started_why(status).unwrap_or_else(|| {
                let message = with_the_pods_end(status, reason, message);
                (reason, message)
            });
            end(
                status,
                MigrationOutcome::Failed,
                Progress::failed(reason, message),
            )
        }
        (Reported::Partial, _) => unsettled(world, status, report, MigrationOutcome::Partial, source),
        // The ledger may still say that it runs.
        (Reported::Unknown | Reported::Undecided, Source::Run | Source::Guard) => {
            settle::begin(status, reason, &message)
        }
        (Reported::Unknown, Source::Settling { .. }) => {
            unsettled(world, status, report, MigrationOutcome::Unknown, source)
        }
        (Reported::Undecided, Source::Settling { .. }) => settle::again(world, status, reason, &message),
        // Whoever holds the lock may be this run's own pod, which nobody sees any more.
        (Reported::NotStarted, Source::Run | Source::Guard) if reason == Reason::MigrationRunning => {
            settle::begin(status, reason, &message)
        }
        (Reported::NotStarted | Reported::Blocked, _) => {
            not_started(world, status, &report, &source, reason, &message)
        }
    }
}

/// What kept an application from starting, if its guard waited for it in vain: then the version is not to blame.
fn not_started_why(status: &MigrationStatus) -> Option<(Reason, String)> {
    let attempts = status.attempts.as_ref()?;
    let reason = attempts.reason.as_deref()?.parse().ok();
    let reason = reason.filter(|reason| *reason == NOT_STARTING)?;
    let message = sentence(attempts.message.as_deref()?);
    Some((reason, format!("{message} The schema is unchanged.")))
}

/// The ledger knows of a run that was cut off no more than that; how its pod ended, say out of memory, is what a
/// person can mend.
fn with_the_pods_end(status: &MigrationStatus, reason: Reason, message: String) -> String {
    let told = status
        .attempts
        .as_ref()
        .and_then(|attempts| attempts.message.as_deref());
    match told.filter(|told| told.starts_with(POD_ENDED)) {
        Some(told) if reason == Reason::MigrationInterrupted => {
            format!("{message} {}", sentence(told))
        }
        _ => message,
    }
}

fn applied(
    status: &mut MigrationStatus,
    report: MigrationReport,
    outcome: MigrationOutcome,
    source: Source,
) -> Stand {
    let seconds = report
        .seconds
        .map(|seconds| format!(" in {seconds:.1} s"))
        .unwrap_or_default();
    let unchanged = report.before.is_some() && report.before == report.after;
    let progress = match (&report.failed_check, outcome) {
        (Some(check), _) => {
            let message = format!(
                "the migration was applied{seconds}, but what it must have done is not there: {check}"
            );
            Progress::failed(Reason::MigrationCheckFailed, message)
        }
        (None, MigrationOutcome::AlreadyApplied) => Progress::succeeded(
            Reason::Succeeded,
            "the ledger already has this image and command, so nothing was run",
        ),
        (None, _) if unchanged => Progress::succeeded(
            Reason::Succeeded,
            format!("applied{seconds}; it left the schema unchanged: make sure that it had nothing to do"),
        ),
        (None, _) => Progress::succeeded(Reason::Succeeded, format!("applied{seconds}")),
    };
    evidence(status, report, source);
    end(status, outcome, progress)
}

/// Only a person can say what happened.
fn unsettled(
    world: &World,
    status: &mut MigrationStatus,
    report: MigrationReport,
    outcome: MigrationOutcome,
    source: Source,
) -> Stand {
    if status.outcome.is_none() {
        // A verdict that was given before there was a question is no answer to it.
        status.last_handled_resolve = world.resolve_annotation().cloned();
    }
    evidence(status, report, source);
    status.outcome = Some(outcome);
    status.settling = false;
    status.attempts = None;
    Stand::at(Progress::waiting(
        Reason::MigrationUnresolved,
        resolve::question(world, status),
    ))
}

/// Nothing was started: tried again while the environment are to blame and there is time.
fn not_started(
    world: &World,
    status: &mut MigrationStatus,
    report: &MigrationReport,
    source: &Source,
    reason: Reason,
    message: &str,
) -> Stand {
    if let (Some(_), Source::Settling { asked }) = (status.outcome, source) {
        // Its row was there before, so the database was put back to a time before it.
        status.last_handled_resolve.clone_from(asked);
        let message = "the ledger has no row of this run any more, as after a restore of the database";
        return end(
            status,
            MigrationOutcome::Failed,
            Progress::failed(Reason::MigrationNotStarted, message),
        );
    }
    let attempts = status.attempts.clone().unwrap_or_else(|| retry::first(world.now));
    // Why its pod ended says more than that the ledger does not know it.
    let (reason, message) = match (source, &attempts.reason, &attempts.message) {
        (Source::Settling { .. }, Some(recorded), Some(message)) => {
            (recorded.parse().unwrap_or(reason), sentence(message))
        }
        _ => (reason, sentence(message)),
    };
    let is_final = report
        .failure
        .as_ref()
        .is_some_and(|failure| failure.cause == Cause::Version);
    if is_final || !world.may_begin() {
        return end(
            status,
            MigrationOutcome::NotStarted,
            Progress::failed(reason, message),
        );
    }
    match retry::after_failure(
        &attempts,
        attempts.current,
        START_DEADLINE,
        world.now,
        reason,
        &message,
    ) {
        Next::GiveUp { reason, message } => end(
            status,
            MigrationOutcome::NotStarted,
            Progress::failed(reason, message),
        ),
        Next::Again(again) => {
            let next = again.next.unwrap_or(world.now);
            let message = retry::pausing(&again, next, START_DEADLINE);
            status.settling = false;
            status.attempts = Some(again);
            Stand::at(Progress::running(Reason::WaitingForEnvironment, message)).until(next)
        }
    }
}

fn evidence(status: &mut MigrationStatus, report: MigrationReport, source: Source) {
    let MigrationReport {
        outcome: _,
        failure: _,
        before,
        after,
        seconds,
        exit_code,
        sqlstate,
        last_error,
        schema_ahead,
        failed_check,
    } = report;
    if before.is_some() || after.is_some() {
        status.fingerprints = Some(Fingerprints { before, after });
    }
    status.seconds = seconds;
    status.exit_code = exit_code;
    status.sqlstate = sqlstate;
    status.last_error = last_error;
    status.failed_check = failed_check;
    status.schema_ahead = schema_ahead.then_some(true);
    if let Source::Settling { asked: Some(asked) } = source {
        status.last_handled_resolve = Some(asked);
    }
}

/// It is over.
pub(super) fn end(status: &mut MigrationStatus, outcome: MigrationOutcome, progress: Progress) -> Stand {
    status.outcome = Some(outcome);
    status.settling = false;
    status.attempts = None;
    Stand::at(progress)
}
