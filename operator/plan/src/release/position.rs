//! Where a release stands.

use super::verdict::{Failure, Wait};
use jiff::{Timestamp, Unit};

/// Where a release stands after a pass.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Position {
    /// At a rung that is not met.
    Waiting {
        /// Its name.
        rung: &'static str,
        /// What for.
        wait: Wait,
    },
    /// A milestone is put on record; the next pass goes on from there.
    Recorded {
        /// The rung at which the next pass will be.
        rung: &'static str,
        /// What it will wait for.
        wait: Option<Wait>,
    },
    /// It serves, and the old side is retired.
    Succeeded,
    /// It has ended otherwise.
    Ended(Failure),
    /// It had ended before this pass.
    Unchanged,
}

impl Position {
    /// Whether it will have passed before anybody could read of it.
    pub(super) fn is_brief(&self) -> bool {
        matches!(self, Self::Waiting { wait, .. } if wait.brief)
    }

    /// The rung that is not met.
    pub(super) fn rung(&self) -> Option<&'static str> {
        match self {
            Self::Waiting { rung, .. } | Self::Recorded { rung, .. } => Some(rung),
            Self::Succeeded | Self::Ended(_) | Self::Unchanged => None,
        }
    }
}

/// A moment as it survives being written with milliseconds.
pub(super) fn to_milliseconds(at: Timestamp) -> Timestamp {
    at.round(Unit::Millisecond).unwrap_or(at)
}
