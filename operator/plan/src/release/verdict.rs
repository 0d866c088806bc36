//! What a rung can say.

use crate::Step;
use fairway_crds::Reason;
use fairway_crds::release::{MilestoneKind, ReleaseOutcome};
use jiff::Timestamp;

/// One rung's answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Go on to the next rung.
    Met,
    /// Do this, then wait.
    Act(Vec<Step>, Wait),
    /// Wait.
    Wait(Wait),
    /// Put this on record before anything else is done.
    Commit(MilestoneKind),
    /// This release cannot go on.
    Fail(Failure),
}

/// What is waited for: which machine or person, since when, until when.
#[derive(Clone, Debug, PartialEq)]
pub struct Wait {
    /// CamelCase, stable, with a runbook page.
    pub reason: Reason,
    /// One or two sentences; they change only when what is waited for changes.
    pub message: String,
    /// When to look again although nothing was seen to change.
    pub until: Option<Timestamp>,
    /// Who moves next.
    pub on: WaitOn,
    /// Expected to last well under a second: not worth a write of the status.
    pub brief: bool,
}

/// Who moves next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitOn {
    /// Machines: the object is `Reconciling`.
    Machine,
    /// The clock of a bake or another release: neither reconciling nor stalled.
    Clock,
    /// A person: the object is `Stalled`.
    Person,
}

impl Wait {
    /// A wait for machines.
    pub fn machine(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            until: None,
            on: WaitOn::Machine,
            brief: false,
        }
    }

    /// A wait for a person.
    pub fn person(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            until: None,
            on: WaitOn::Person,
            brief: false,
        }
    }

    /// A wait for the clock or for another release.
    pub fn clock(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            until: None,
            on: WaitOn::Clock,
            brief: false,
        }
    }

    /// The same, expected to last well under a second.
    pub fn brief(self) -> Self {
        Self { brief: true, ..self }
    }

    /// The same, looking again at that moment.
    pub fn until(self, until: Timestamp) -> Self {
        Self {
            until: Some(until),
            ..self
        }
    }
}

/// Why a release cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// CamelCase, stable, with a runbook page.
    pub reason: Reason,
    /// One clear sentence with the mend.
    pub message: String,
    /// How the release ends when traffic had not moved.
    pub outcome: ReleaseOutcome,
}

impl Failure {
    /// The version's fault, or the environment' past their deadline.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            outcome: ReleaseOutcome::Failed,
        }
    }

    /// As a verdict.
    pub fn verdict(self) -> Verdict {
        Verdict::Fail(self)
    }
}
