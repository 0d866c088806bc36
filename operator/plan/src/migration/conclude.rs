//! What a report means for its Migration.

use super::view::View;
use super::{resolve, settling};
use crate::attempt::{self, Planned};
use crate::conditions::Progress;
use crate::message::{self, sentence};
use crate::protocol::{self, Cause, MigrationReport, Resolution};
use crate::resolution;
use crate::retry::Next;
use fairway_crds::Reason;
use fairway_crds::migration::{Fingerprints, LedgerRow, MigrationOutcome, MigrationStatus};

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
    if proves_begin(&report, &source) {
        status.ledger_row = Some(LedgerRow::Written);
    }
    match (report.outcome, &source) {
        (Reported::Applied, _) => applied(status, report, MigrationOutcome::Applied, source),
        (Reported::AlreadyApplied, _) => applied(status, report, MigrationOutcome::AlreadyApplied, source),
        (Reported::Failed, _) => {
            evidence(status, report, source);
            let (reason, message) = not_started_why(status).unwrap_or_else(|| {
                let message = with_the_pods_end(view, status, reason, message);
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
            record_begun(status, report.before);
            settling::begin(status, reason, &message)
        }
        (Reported::Unknown, Source::Settling { .. }) => {
            unsettled(view, status, report, MigrationOutcome::Unknown, source)
        }
        (Reported::Undecided, Source::Settling { .. }) => settling::again(view, status, reason, &message),
        // Whoever holds the lock may be this run's own pod, which nobody sees any more; and what is known to have begun
        // is not begun again.
        (Reported::NotStarted, Source::Run | Source::Guard)
            if reason == Reason::MigrationRunning || status.ledger_row.is_some() =>
        {
            settling::begin(status, reason, &message)
        }
        (Reported::NotStarted, Source::Settling { asked }) if status.ledger_row.is_some() => {
            let asked = asked.clone();
            row_missing(view, status, report, asked)
        }
        (Reported::NotStarted | Reported::Blocked, _) => {
            not_started(view, status, &report, &source, reason, &message)
        }
    }
}

/// Whether a report says that the run began: the row is in the ledger before the migration starts.
fn proves_begin(report: &MigrationReport, source: &Source) -> bool {
    use protocol::MigrationOutcome::{
        AlreadyApplied, Applied, Blocked, Failed, NotStarted, Partial, Undecided, Unknown,
    };
    match report.outcome {
        Applied | Failed | Partial | Unknown => true,
        // A guard has begun what it cannot decide; a settling Job may not have come to the ledger.
        Undecided => *source == Source::Guard || report.before.is_some(),
        AlreadyApplied | Blocked | NotStarted => false,
    }
}

/// The run began, and the ledger does not know it any more: nobody but a user can say how it ended.
fn row_missing(
    view: &View,
    status: &mut MigrationStatus,
    report: MigrationReport,
    asked: Option<String>,
) -> Planned {
    let verdict = asked.as_deref().and_then(resolution::parse);
    status.ledger_row = Some(LedgerRow::Missing);
    match verdict {
        Some((Resolution::Applied, _)) => {
            status.last_handled_resolve = asked;
            let message = "The user resolved the migration as applied. The ledger has no row for this run.";
            let progress = Progress::succeeded(Reason::Succeeded, message);
            end(status, MigrationOutcome::Applied, progress)
        }
        Some((Resolution::NotApplied, _)) => {
            status.last_handled_resolve = asked;
            let message =
                "The user resolved the migration as not applied. The ledger has no row for this run.";
            let progress = Progress::failed(Reason::MigrationNotApplied, message);
            end(status, MigrationOutcome::Failed, progress)
        }
        None => {
            let source = Source::Settling { asked };
            unsettled(view, status, report, MigrationOutcome::Unknown, source)
        }
    }
}

/// What kept an application from starting, if its guard waited for that until its timeout or a user aborted the release:
/// then the version is not to blame.
fn not_started_why(status: &MigrationStatus) -> Option<(Reason, String)> {
    let (reason, message) = recorded(status)?;
    [Reason::PodNotStarting, Reason::Aborted]
        .contains(&reason)
        .then(|| (reason, message::sentences([&message, "The schema is unchanged."])))
}

/// The ledger knows of a run that was interrupted no more than that, and a guard does not see how the application ended;
/// how the pod or the container ended, say out of memory, is what a user can fix.
fn with_the_pods_end(view: &View, status: &MigrationStatus, reason: Reason, message: String) -> String {
    match recorded(status) {
        Some((Reason::PodLost, how)) if reason == Reason::MigrationInterrupted || view.is_on_start() => {
            message::sentences([message, how])
        }
        _ => message,
    }
}

/// Why the run's last attempt ended, as the status has recorded it.
fn recorded(status: &MigrationStatus) -> Option<(Reason, String)> {
    let end = status.run_end.as_ref()?;
    Some((end.reason.parse().ok()?, end.message.clone()))
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
    let succeeded = |message: String| {
        let message = message::sentences(std::iter::once(&message).chain(&report.note));
        Progress::succeeded(Reason::Succeeded, message)
    };
    let progress = match (&report.failed_check, outcome) {
        (Some(check), _) => {
            let message = format!("The migration was applied{seconds}, but {check}");
            let message = message::sentences(std::iter::once(&message).chain(&report.note));
            Progress::failed(Reason::MigrationCheckFailed, message)
        }
        (None, MigrationOutcome::AlreadyApplied) => Progress::succeeded(
            Reason::Succeeded,
            "The ledger shows that this image, command and inputs were applied before, so the migration was not run again.",
        ),
        (None, _) if is_unchanged => succeeded(format!(
            "Applied{seconds}. The schema is unchanged: if the migration should have changed it, check its log."
        )),
        (None, _) => succeeded(format!("Applied{seconds}.")),
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
    let finding = report.failure.as_ref().map(|failure| failure.message.clone());
    status.finding = finding.filter(|_| outcome == MigrationOutcome::Unknown);
    evidence(status, report, source);
    status.outcome = Some(outcome);
    status.settling = false;
    status.attempts = None;
    status.run_end = None;
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
            status.pod_started = false;
            status.run_end = None;
            status.attempts = Some(attempts);
            attempt::paused(next, message)
        }
    }
}

/// Ends a run that provably never began, although the ledger could not be asked: with why its last attempt ended.
pub(super) fn never_began(view: &View, status: &mut MigrationStatus) -> Planned {
    let fallback = || {
        (
            Reason::MigrationNotStarted,
            settling::message_of(&settling::attempts(view, status)),
        )
    };
    let (reason, message) = recorded(status).unwrap_or_else(fallback);
    let message = match reason {
        Reason::Aborted => message,
        _ => view.start_schedule().deadline_message(&message),
    };
    end(
        status,
        MigrationOutcome::NotStarted,
        Progress::failed(reason, message),
    )
}

/// Records that the run has begun: nothing begins it again, also when the ledger has no row of it any more.
pub(super) fn record_begun(status: &mut MigrationStatus, before: Option<String>) {
    if before.is_some() {
        status.ledger_row.get_or_insert(LedgerRow::Written);
        status
            .fingerprints
            .get_or_insert(Fingerprints { before, after: None });
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
        row_missing,
        note: _,
    } = report;
    if row_missing {
        status.ledger_row = Some(LedgerRow::Missing);
    }
    if before.is_some() || after.is_some() {
        status.fingerprints = Some(Fingerprints { before, after });
    }
    status.seconds = seconds;
    // That of an application was seen in its pod: no agent was its parent.
    status.exit_code = exit_code.or(status.exit_code);
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
    status.run_end = None;
    Planned::new(progress)
}
