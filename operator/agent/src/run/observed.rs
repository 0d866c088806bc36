//! The end of a run as its observer saw it.

use fairway_protocol::Reason;

use crate::ledger::{Ending, State};

/// What an observer of a run concludes from its end.
#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    /// The process exited 0, or health passed.
    Success,
    /// Anything else.
    Failure {
        /// The reason to report when the schema is unchanged.
        reason: Reason,
        /// What happened, as a sentence without its period, e.g. `The migration exited with code 1`.
        what: String,
        /// Whether anything of the migration was executed.
        execution: Execution,
        /// The state to record when the schema changed.
        if_changed: State,
    },
}

/// Whether anything of a failed migration was executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Execution {
    /// The migration's process ran, or may have run.
    Possible,
    /// The migration's process was never started.
    None,
}

impl Verdict {
    /// A run that is known to have failed: when it changed the schema, only a part of it was done.
    pub(crate) fn failed(reason: Reason, what: String) -> Self {
        Self::Failure {
            reason,
            what,
            execution: Execution::Possible,
            if_changed: State::Partial,
        }
    }

    /// A run whose process could not be started.
    pub(crate) fn not_started(reason: Reason, what: String) -> Self {
        Self::Failure {
            reason,
            what,
            execution: Execution::None,
            if_changed: State::Partial,
        }
    }
}

/// The end of a run as its observer saw it.
#[derive(Clone, Debug)]
pub(crate) struct Observed {
    /// What the observer concludes.
    pub(crate) verdict: Verdict,
    /// What became of the run's processes.
    pub(crate) processes: Processes,
    /// Exit code of the migration's process.
    pub(crate) exit_code: Option<i32>,
    /// The last SQLSTATE in its output.
    pub(crate) sqlstate: Option<String>,
    /// The last error line of its output.
    pub(crate) last_error: Option<String>,
    /// What could not be proven of a success: whole sentences.
    pub(crate) note: Option<String>,
}

impl Observed {
    /// An end of which only the verdict is known.
    pub(crate) fn new(verdict: Verdict, processes: Processes) -> Self {
        Self {
            verdict,
            processes,
            exit_code: None,
            sqlstate: None,
            last_error: None,
            note: None,
        }
    }
}

/// What became of the run's processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Processes {
    /// They are gone, so that sessions of theirs are leftovers and are ended.
    Gone,
    /// They go on serving: an application became healthy.
    Serving,
}

impl Observed {
    /// The ending to record for it.
    pub(super) fn ending(
        &self,
        state: State,
        after: Option<String>,
        why: Option<(Reason, String)>,
    ) -> Ending {
        let (reason, message) = why.unzip();
        Ending {
            state,
            after,
            exit_code: self.exit_code,
            sqlstate: self.sqlstate.clone(),
            reason: reason.map(|reason| reason.as_str().to_owned()),
            message,
            last_error: self.last_error.clone(),
            failed_check: None,
        }
    }
}
