//! What a pass of attempted work comes to.

use crate::conditions::Progress;
use crate::{Step, Wake};
use jiff::Timestamp;

/// Steps, progress and wake of one pass of a Migration, a Backup, or a rung that waits for the agent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Planned {
    /// Effects, in order.
    pub(crate) steps: Vec<Step>,
    /// What the status says.
    pub(crate) progress: Progress,
    /// When to plan again although nothing was seen to change.
    pub(crate) wake: Wake,
}

impl Planned {
    /// A pass without steps that waits for a change.
    pub(crate) fn new(progress: Progress) -> Self {
        Self {
            steps: Vec::new(),
            progress,
            wake: Wake::OnChange,
        }
    }

    /// The same pass, planned again at that moment too.
    pub(crate) fn until(self, at: Timestamp) -> Self {
        Self {
            wake: self.wake.sooner(Wake::At(at)),
            ..self
        }
    }

    /// The same pass with these steps at its end.
    pub(crate) fn with(mut self, steps: impl IntoIterator<Item = Step>) -> Self {
        self.steps.extend(steps);
        self
    }

    /// The same pass with these steps before its own.
    pub(crate) fn after(mut self, steps: Vec<Step>) -> Self {
        self.steps.splice(0..0, steps);
        self
    }

    /// This pass and another one that says the same, each step once.
    pub(crate) fn and(mut self, other: Self) -> Self {
        for step in other.steps {
            if !self.steps.contains(&step) {
                self.steps.push(step);
            }
        }
        self.wake = self.wake.sooner(other.wake);
        self
    }

    /// Whether an object is to be created.
    pub(crate) fn creates(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Create(_)))
    }
}
