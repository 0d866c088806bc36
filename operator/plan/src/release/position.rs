//! Where a release stands after a pass.

use super::verdict::{Failure, Wait};

/// Where a release stands after a pass.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Position {
    /// A rung is not met.
    Waiting(Wait),
    /// A milestone is recorded; the next pass goes on from there and waits for this, if for anything.
    Recorded(Option<Wait>),
    /// It serves, and nothing of an earlier version has to run any more.
    Succeeded,
    /// It has ended otherwise.
    Ended(Failure),
    /// It had ended before this pass.
    Unchanged,
}
