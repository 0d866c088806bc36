//! The recorded state of a settling: attempts to read the ledger, and what is reported meanwhile.

use super::view::{START_DEADLINE, View};
use crate::attempt::Planned;
use crate::conditions::{Progress, State};
use crate::message;
use crate::retry::{Next, Schedule};
use fairway_crds::Reason;
use fairway_crds::migration::{MigrationStatus, RunEnd};
use fairway_crds::release::Attempts;
use jiff::Timestamp;

/// What the Job does, in every message while a run is settled: a sentence.
pub(super) fn what_the_job_does(status: &MigrationStatus) -> &'static str {
    match status.outcome {
        // A user has resolved it: there is nothing left to find out.
        Some(_) => "A Job records that answer in the ledger.",
        None => "A Job reads from the ledger how the migration ended.",
    }
}

/// The schedule of the attempts to read the ledger: they go on for as long as it takes.
pub(super) fn schedule(view: &View) -> Schedule {
    Schedule {
        deadline: None,
        now: view.now,
    }
}

/// Records that the run is over and its outcome is to be read in the ledger.
pub(super) fn begin(status: &mut MigrationStatus, reason: Reason, why: &str) -> Planned {
    status.settling = true;
    status.settle_attempt = Some(status.settle_attempt.unwrap_or_default() + 1);
    if let Some(attempts) = &mut status.attempts {
        attempts.next = None;
        attempts.reason = Some(reason.into());
        attempts.message = Some(message::sentence(why));
        status.run_end = Some(RunEnd::new(reason, message::sentence(why)));
    }
    let message = message::sentences([why, what_the_job_does(status)]);
    Planned::new(Progress::running(Reason::CheckingLedger, message))
}

/// The attempts to read the ledger: their number is counted apart from that of the run's attempts.
pub(super) fn attempts(view: &View, status: &MigrationStatus) -> Attempts {
    let attempts = status.attempts.clone().unwrap_or_else(|| schedule(view).first());
    Attempts {
        current: status.settle_attempt.unwrap_or(1),
        ..attempts
    }
}

/// Records attempts to read the ledger.
pub(super) fn record(status: &mut MigrationStatus, settling: &Attempts) {
    let run = status.attempts.as_ref().map_or(1, |attempts| attempts.current);
    status.settle_attempt = Some(settling.current);
    status.attempts = Some(Attempts {
        current: run,
        ..settling.clone()
    });
}

/// The ledger could not be read: it is read again after a pause.
pub(super) fn again(view: &View, status: &mut MigrationStatus, reason: Reason, why: &str) -> Planned {
    match schedule(view).failed(&attempts(view, status), reason, why) {
        Next::Pause {
            attempts,
            next,
            message,
        } => {
            record(status, &attempts);
            pause(view, status, next, message)
        }
        Next::DeadlineExceeded { reason, message } => Planned::new(Progress::stalled(reason, message)),
    }
}

/// The pause until the ledger is read again.
pub(super) fn pause(view: &View, status: &MigrationStatus, next: Timestamp, message: String) -> Planned {
    let paused = Planned::new(Progress::running(Reason::CheckingLedger, message));
    wait(view, status, paused).until(next)
}

/// Why the ledger is read, and that it is.
pub(super) fn asking(view: &View, status: &MigrationStatus) -> Planned {
    let message = message::sentences([
        message_of(&attempts(view, status)).as_str(),
        what_the_job_does(status),
    ]);
    let planned = Planned::new(Progress::running(Reason::CheckingLedger, message));
    wait(view, status, planned)
}

/// Why the ledger is read.
pub(super) fn message_of(attempts: &Attempts) -> String {
    let message = attempts.message.clone();
    message.unwrap_or_else(|| "The migration's pod is gone.".to_owned())
}

/// The ledger is read for as long as it takes; when that is long, a user should know.
pub(super) fn wait(view: &View, status: &MigrationStatus, mut planned: Planned) -> Planned {
    let timeout = view.observed.migration.spec.timeout.signed();
    let overdue = attempts(view, status)
        .since
        .saturating_add(START_DEADLINE)
        .and_then(|end| end.saturating_add(timeout))
        .unwrap_or(Timestamp::MAX);
    if view.now < overdue {
        return planned.until(overdue);
    }
    planned.progress.state = State::Stalled;
    planned
}
