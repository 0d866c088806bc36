//! What Fairway decides, apart from how it finds out and how it acts.
//!
//! Each kind has one planner: a pure, total, deterministic function from what was observed and the time to a
//! [`Decision`]. No client, no clock, no randomness, no environment: clippy.toml bans them. A planner is
//! asked again after every change and reads nothing back but milestones; so a crash between any two of its
//! effects changes nothing about the end.
//!
//! Start with [`release`]: its two ladders, read from the top, tell a whole release.

pub mod answers;
pub mod app;
mod attempt;
pub mod backup;
#[cfg(test)]
mod bench;
pub mod build;
pub mod conditions;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod json;
pub mod kubectl;
pub mod labels;
pub mod message;
pub mod migration;
mod missing;
pub mod names;
pub mod object;
pub mod observed;
pub mod probe_token;
pub mod proof;
pub mod readings;
pub mod release;
pub mod requester;
pub mod resolution;
pub mod restore;
pub mod retention;
pub mod retry;
pub mod schedule;
pub mod snapshot;
pub mod tasks;
mod time;
pub mod traffic;
pub mod zone;

pub use fairway_protocol as protocol;
pub use object::{Object, ObjectRef, Step};

use jiff::Timestamp;

/// What a planner decides. One pass executes the steps in their order, then writes the status if it differs from the
/// one observed.
///
/// Where a milestone or an intent has to be recorded before the next effect, the planner returns the status that holds
/// it and no steps; the next pass, which sees it committed, returns the steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision<Status> {
    /// Effects in order, each idempotent or create-once.
    pub steps: Vec<Step>,
    /// The whole desired status.
    pub status: Status,
    /// When to plan again although nothing was seen to change.
    pub wake: Wake,
    /// The rung that a Release has come to and that is not met, for the log.
    pub rung: Option<&'static str>,
}

/// When to plan again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// Only when something that was observed changes.
    OnChange,
    /// At this moment too, because a deadline, a backoff or a bake ends then.
    At(Timestamp),
}

impl Wake {
    /// The earlier of two wakes.
    pub fn sooner(self, other: Self) -> Self {
        match (self, other) {
            (Self::OnChange, wake) | (wake, Self::OnChange) => wake,
            (Self::At(a), Self::At(b)) => Self::At(a.min(b)),
        }
    }
}
