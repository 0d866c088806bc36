//! What a report means for its Migration.

use super::view::View;
use super::{resolve, settling};
use crate::attempt::{self, Planned};
use crate::conditions::Progress;
use crate::message::{self, sentence};
use crate::protocol::{self, Cause, MigrationReport};
use crate::retry::Next;
use fairway_crds::Reason;
use fairway_crds::migration::{Fingerprints, MigrationOutcome, MigrationStatus};

/// Who reported how a migration ended.
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

/// Acts on a report.
pub(super) fn conclude(
    view: &View,
    status: &mut MigrationStatus,
    report: MigrationReport,
    source: Source,
) -> Planned {
    use protocol::MigrationOutcome as Reported;
    let (reason, message) = match &report.failure {
        Some(failure) => (failure.reason(), failure.message.clone()),
        None => (
            Reason::MigrationFailed,
            "The migration did not succeed.".to_owned(),
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
        (Reported::Partial, _) => unsettled(view, status, report, MigrationOutcome::Partial, source),
        // The ledger may still say that it runs.
        (Reported::Unknown | Reported::Undecided, Source::Run | Source::Guard) => {
            settling::begin(status, reason, &message)
        }
        (Reported::Unknown, Source::Settling { .. }) => {
            unsettled(view, status, report, MigrationOutcome::Unknown, source)
        }
        (Reported::Undecided, Source::Settling { .. }) => settling::again(view, status, reason, &message),
        // Whoever holds the lock may be this run's own pod, which nobody sees any more.
        (Reported::NotStarted, Source::Run | Source::Guard) if reason == Reason::MigrationRunning => {
            settling::begin(status, reason, &message)
        }
        (Reported::NotStarted | Reported::Blocked, _) => {
            not_started(view, status, &report, &source, reason, &message)
        }
    }
}

/// What kept an application from starting, if its guard waited for that until its timeout: then the version is not
/// to blame.
fn not_started_why(status: &MigrationStatus) -> Option<(Reason, String)> {
    let (reason, message) = recorded(status)?;
    (reason == Reason::PodNotStarting)
        .then(|| (reason, message::sentences([&message, "The schema is unchanged."])))
}

/// The ledger knows of a run that was cut off no more than that; how its pod ended, say out of memory, is what a
/// user can fix.
fn with_the_pods_end(status: &MigrationStatus, reason: Reason, message: String) -> String {
    match recorded(status) {
        Some((Reason::PodLost, how)) if reason == Reason::MigrationInterrupted => {
            message::sentences([message, how])
        }
        _ => message,
    }
}

/// Why the last attempt ended, as the status has recorded it.
fn recorded(status: &MigrationStatus) -> Option<(Reason, String)> {
    let attempts = status.attempts.as_ref()?;
    let reason = attempts.reason.as_deref()?.parse().ok()?;
    Some((reason, attempts.message.clone()?))
}

fn applied(
    status: &mut MigrationStatus,
    report: MigrationReport,
    outcome: MigrationOutcome,
    source: Source,
) -> Planned {
    let seconds = report
        .seconds
        .map(|seconds| format!(" in {seconds:.1} s"))
        .unwrap_or_default();
    let is_unchanged = report.before.is_some() && report.before == report.after;
    let progress = match (&report.failed_check, outcome) {
        (Some(check), _) => Progress::failed(
            Reason::MigrationCheckFailed,
            format!("The migration was applied{seconds}, but {check}"),
        ),
        (None, MigrationOutcome::AlreadyApplied) => Progress::succeeded(
            Reason::Succeeded,
            "The ledger shows that this image and command were applied before, so the migration was not run again.",
        ),
        (None, _) if is_unchanged => Progress::succeeded(
            Reason::Succeeded,
            format!(
                "Applied{seconds}. The schema is unchanged: make sure that the migration had nothing to do."
            ),
        ),
        (None, _) => Progress::succeeded(Reason::Succeeded, format!("Applied{seconds}.")),
    };
    evidence(status, report, source);
    end(status, outcome, progress)
}

/// Only a user can say what happened.
fn unsettled(
    view: &View,
    status: &mut MigrationStatus,
    report: MigrationReport,
    outcome: MigrationOutcome,
    source: Source,
) -> Planned {
    if status.outcome.is_none() {
        // A verdict that was given before there was a question is no answer to it.
        status.last_handled_resolve = view.resolve_annotation().cloned();
    }
    evidence(status, report, source);
    status.outcome = Some(outcome);
    status.settling = false;
    status.attempts = None;
    Planned::new(Progress::stalled(
        Reason::MigrationUnresolved,
        resolve::question(view, status),
    ))
}

/// Nothing was started: retried while the environment is to blame and there is time.
fn not_started(
    view: &View,
    status: &mut MigrationStatus,
    report: &MigrationReport,
    source: &Source,
    reason: Reason,
    message: &str,
) -> Planned {
    if let (Some(_), Source::Settling { asked }) = (status.outcome, source) {
        // Its row was there before, so the database was put back to a time before it.
        status.last_handled_resolve.clone_from(asked);
        let message = "The ledger no longer has a row for this run, for example because the database was restored. The \
                       migration counts as not applied.";
        return end(
            status,
            MigrationOutcome::Failed,
            Progress::failed(Reason::MigrationNotStarted, message),
        );
    }
    let schedule = view.start_schedule();
    let attempts = status.attempts.clone().unwrap_or_else(|| schedule.first());
    // Why its pod ended says more than that the ledger does not know it.
    let (reason, message) = recorded(status)
        .filter(|_| matches!(source, Source::Settling { .. }))
        .unwrap_or_else(|| (reason, sentence(message)));
    let is_final = report
        .failure
        .as_ref()
        .is_some_and(|failure| failure.cause == Cause::Version);
    if is_final || !view.may_begin() {
        return end(
            status,
            MigrationOutcome::NotStarted,
            Progress::failed(reason, message),
        );
    }
    match schedule.failed(&attempts, reason, &message) {
        Next::DeadlineExceeded { reason, message } => end(
            status,
            MigrationOutcome::NotStarted,
            Progress::failed(reason, message),
        ),
        Next::Pause {
            attempts,
            next,
            message,
        } => {
            status.settling = false;
            status.attempts = Some(attempts);
            attempt::paused(next, message)
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

/// Ends a Migration with that outcome.
pub(super) fn end(status: &mut MigrationStatus, outcome: MigrationOutcome, progress: Progress) -> Planned {
    status.outcome = Some(outcome);
    status.settling = false;
    status.attempts = None;
    Planned::new(progress)
}
