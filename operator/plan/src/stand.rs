//! Where bounded work stands after a pass.

use crate::conditions::Progress;
use crate::{Step, Wake};
use jiff::Timestamp;

/// What a pass of a Migration or a Backup came to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stand {
    /// What is to be done.
    pub(crate) steps: Vec<Step>,
    /// What is told.
    pub(crate) progress: Progress,
    /// When to look again although nothing was seen to change.
    pub(crate) wake: Wake,
}

impl Stand {
    /// Nothing is to be done until something changes.
    pub(crate) fn at(progress: Progress) -> Self {
        Self {
            steps: Vec::new(),
            progress,
            wake: Wake::OnChange,
        }
    }

    /// The same, looking again at that moment.
    pub(crate) fn until(self, at: Timestamp) -> Self {
        Self {
            wake: self.wake.sooner(Wake::At(at)),
            ..self
        }
    }

    /// The same, with these steps.
    pub(crate) fn with(mut self, steps: impl IntoIterator<Item = Step>) -> Self {
        self.steps.extend(steps);
        self
    }
}
