//! What a rung answers.

use crate::Step;
use fairway_crds::Reason;
use fairway_crds::release::{MilestoneKind, ReleaseOutcome};
use jiff::Timestamp;

/// A rung's answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Go on to the next rung.
    Met,
    /// Do this, then wait.
    Act(Vec<Step>, Wait),
    /// Wait.
    Wait(Wait),
    /// Record this milestone before anything else is done.
    Commit(MilestoneKind),
    /// The release cannot go on.
    Fail(Failure),
}

/// What is waited for: what has to happen, who moves next, until when.
#[derive(Clone, Debug, PartialEq)]
pub struct Wait {
    /// Why, for machines; each has a runbook page.
    pub reason: Reason,
    /// Why, for users: one or two sentences, which change only when what is waited for changes.
    pub message: String,
    /// When to look again although nothing was seen to change.
    pub until: Option<Timestamp>,
    /// Who moves next.
    pub on: WaitOn,
    /// Whether the wait is worth a write of the status.
    pub shown: Shown,
    /// What becomes of the previous version meanwhile.
    pub previous: Previous,
    /// Name of the rung that waits, if one does.
    pub rung: Option<&'static str>,
}

/// Who moves next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitOn {
    /// Machines: the object is `Reconciling`.
    Machine,
    /// The clock, or another release: neither `Reconciling` nor `Stalled`.
    Clock,
    /// The clock, while the version that serves is watched: `Baking`.
    Bake,
    /// A user: the object is `Stalled`.
    User,
}

/// Whether a wait is worth a write of the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Conditions name it.
    InStatus,
    /// It lasts well under a second: nobody could read of it before it has passed.
    Nowhere,
}

/// What becomes of the previous version while a rung of the forward ladder is not met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Previous {
    /// It is kept at today's replicas: it may have to take the traffic back.
    Kept,
    /// The pods of the previous version are being ended.
    Retiring,
}

impl Wait {
    fn on(on: WaitOn, reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            until: None,
            on,
            shown: Shown::InStatus,
            previous: Previous::Kept,
            rung: None,
        }
    }

    /// A wait for machines.
    pub fn machine(reason: Reason, message: impl Into<String>) -> Self {
        Self::on(WaitOn::Machine, reason, message)
    }

    /// A wait for a user.
    pub fn user(reason: Reason, message: impl Into<String>) -> Self {
        Self::on(WaitOn::User, reason, message)
    }

    /// A wait for the clock or for another release.
    pub fn clock(reason: Reason, message: impl Into<String>) -> Self {
        Self::on(WaitOn::Clock, reason, message)
    }

    /// A wait for the end of the bake.
    pub fn bake(reason: Reason, message: impl Into<String>) -> Self {
        Self::on(WaitOn::Bake, reason, message)
    }

    /// The same wait, expected to last well under a second.
    pub fn brief(self) -> Self {
        Self {
            shown: Shown::Nowhere,
            ..self
        }
    }

    /// The same wait, looking again at that moment.
    pub fn until(self, until: impl Into<Option<Timestamp>>) -> Self {
        Self {
            until: until.into(),
            ..self
        }
    }

    /// The same wait, of the rung of that name.
    pub fn of_rung(self, name: &'static str) -> Self {
        Self {
            rung: Some(name),
            ..self
        }
    }

    /// The same wait, in which the previous version is ended.
    pub fn retiring_previous(self) -> Self {
        Self {
            previous: Previous::Retiring,
            ..self
        }
    }
}

impl Verdict {
    /// This verdict, with the next rung climbed already while this one is not met: both act, and what this one waits for is
    /// said. If the next one can never be met, the release cannot go on; what it has to record waits for this one.
    pub fn beside(self, next: impl FnOnce() -> Self) -> Self {
        let (mut steps, wait) = match self {
            Self::Act(steps, wait) => (steps, wait),
            Self::Wait(wait) => (Vec::new(), wait),
            Self::Met | Self::Commit(_) | Self::Fail(_) => return self,
        };
        let until = match next() {
            Self::Act(more, next) => {
                steps.extend(more);
                next.until
            }
            Self::Wait(next) => next.until,
            Self::Met | Self::Commit(_) => None,
            Self::Fail(failure) => return failure.verdict(),
        };
        let until = wait.until.into_iter().chain(until).min();
        let wait = wait.until(until);
        if steps.is_empty() {
            Self::Wait(wait)
        } else {
            Self::Act(steps, wait)
        }
    }

    /// What is waited for.
    pub fn wait(&self) -> Option<&Wait> {
        match self {
            Self::Act(_, wait) | Self::Wait(wait) => Some(wait),
            Self::Met | Self::Commit(_) | Self::Fail(_) => None,
        }
    }
}

/// Why a release cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Why, for machines; each has a runbook page.
    pub reason: Reason,
    /// Why, for users: what happened to which object, and how to fix it.
    pub message: String,
    /// How the release ends when its traffic had not moved.
    pub outcome: ReleaseOutcome,
}

impl Failure {
    /// The version's fault, or the environment's past its deadline.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            outcome: ReleaseOutcome::Failed,
        }
    }

    /// The verdict that says it.
    pub fn verdict(self) -> Verdict {
        Verdict::Fail(self)
    }
}
