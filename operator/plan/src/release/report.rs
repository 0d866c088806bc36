//! What a release's status says of where it stands.

use super::verdict::{Failure, Wait, WaitOn};
use super::world::{World, happened};
use crate::conditions::{self, Desired};
use fairway_crds::Reason;
use fairway_crds::condition::{BAKING, READY, RECONCILING, SCHEMA_AHEAD, STALLED, SUCCEEDED};
use fairway_crds::release::{MilestoneKind, ReleaseOutcome, ReleaseStatus};
use jiff::{Timestamp, Unit};

/// Where a release stands after a pass.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Stand {
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

impl Stand {
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

/// Writes the conditions.
pub(super) fn tell(world: &World, status: &mut ReleaseStatus, stand: &Stand) {
    let generation = world.release().metadata.generation;
    status.observed_generation = generation;
    let schema_ahead = schema_ahead(status);
    let Some(told) = told(world, status, stand) else {
        return;
    };
    let Told {
        succeeded,
        reason,
        message,
        on,
    } = told;
    let reconciling = succeeded == conditions::Status::Unknown && on == Some(WaitOn::Machine);
    let stalled = on == Some(WaitOn::Person) || succeeded == conditions::Status::False;
    let baking = reason == Reason::Baking;
    // The same sentence in every condition hides the others; it stands where people and tools look for it.
    let ready = match succeeded {
        conditions::Status::False => format!(
            "{} did not succeed: the condition Succeeded says why",
            world.name()
        ),
        _ => message.clone(),
    };
    let mut desired = vec![
        Desired::new(SUCCEEDED, succeeded, reason, &message),
        Desired::new(READY, succeeded, reason, ready),
    ];
    let passing = [(RECONCILING, reconciling), (STALLED, stalled), (BAKING, baking)];
    let passing = passing.into_iter().filter(|(_, holds)| *holds);
    desired.extend(passing.map(|(type_, _)| Desired::new(type_, conditions::Status::True, reason, &message)));
    if schema_ahead {
        desired.push(Desired::new(
            SCHEMA_AHEAD,
            conditions::Status::True,
            Reason::MigrationKept,
            "the database keeps the schema of a newer version than the one that runs on it",
        ));
    }
    status.conditions = conditions::set(&status.conditions, desired, generation, world.now);
}

/// The schema is newer than what serves: this release migrated and went back, or it is older than the schema
/// that it found.
fn schema_ahead(status: &ReleaseStatus) -> bool {
    let migrated = happened(status, MilestoneKind::Migrated).is_some();
    let gone_back = happened(status, MilestoneKind::RollingBack).is_some()
        || matches!(
            status.outcome,
            Some(ReleaseOutcome::Failed | ReleaseOutcome::Aborted | ReleaseOutcome::RolledBack)
        );
    let found_ahead = status
        .evidence
        .migration
        .as_ref()
        .is_some_and(|migration| migration.schema_ahead);
    let changed = status.evidence.migration.as_ref().is_some_and(|migration| {
        !migration.unchanged && migration.outcome == fairway_crds::migration::MigrationOutcome::Applied
    });
    found_ahead || (migrated && gone_back && changed)
}

struct Told {
    succeeded: conditions::Status,
    reason: Reason,
    message: String,
    on: Option<WaitOn>,
}

fn told(world: &World, status: &ReleaseStatus, stand: &Stand) -> Option<Told> {
    Some(match stand {
        Stand::Waiting { wait, .. } => {
            let back =
                happened(status, MilestoneKind::RollingBack).and_then(|milestone| milestone.message.clone());
            let message = match back {
                Some(why) => format!("rolling back because {why}; {}", wait.message),
                None => wait.message.clone(),
            };
            let reason =
                if happened(status, MilestoneKind::RollingBack).is_some() && wait.on == WaitOn::Machine {
                    Reason::RollingBack
                } else {
                    wait.reason
                };
            Told {
                succeeded: conditions::Status::Unknown,
                reason,
                message,
                on: Some(wait.on),
            }
        }
        Stand::Recorded { rung, wait } => {
            let wait = wait
                .clone()
                .unwrap_or_else(|| Wait::machine(Reason::Finishing, "finishing"));
            return told(world, status, &Stand::Waiting { rung, wait });
        }
        Stand::Succeeded => {
            let warning = warning(status);
            let previous = status
                .previous
                .as_ref()
                .map(|previous| format!(", {previous} is retired"))
                .unwrap_or_default();
            Told {
                succeeded: conditions::Status::True,
                reason: Reason::Succeeded,
                message: format!("{} serves{previous}{warning}", world.name()),
                on: None,
            }
        }
        Stand::Ended(failure) => Told {
            succeeded: conditions::Status::False,
            reason: failure.reason,
            message: ending(world, status, failure),
            on: None,
        },
        Stand::Unchanged => return None,
    })
}

/// What a person should know of a migration that exited well and changed nothing.
fn warning(status: &ReleaseStatus) -> &'static str {
    let migration = status.evidence.migration.as_ref();
    if migration.is_some_and(|migration| migration.unchanged) {
        "; its migration left the schema unchanged: make sure that it had nothing to do"
    } else {
        ""
    }
}

fn ending(world: &World, status: &ReleaseStatus, failure: &Failure) -> String {
    let moved = happened(status, MilestoneKind::TrafficMoved).is_some();
    let serves_itself = moved && happened(status, MilestoneKind::TrafficReturned).is_none();
    let serving = match (&status.previous, status.outcome) {
        _ if serves_itself => String::new(),
        (Some(previous), Some(ReleaseOutcome::RolledBack)) => format!("; {previous} serves again"),
        (Some(previous), Some(ReleaseOutcome::Failed | ReleaseOutcome::Aborted)) => {
            format!("; {previous} goes on serving")
        }
        _ => String::new(),
    };
    let next = match status.outcome {
        Some(ReleaseOutcome::Superseded) => String::new(),
        _ => format!(
            ". It is not tried again: edit the App, or kubectl annotate release {} fairway.dev/retry=now",
            world.name()
        ),
    };
    // The agent's messages are whole sentences.
    format!(
        "{}{}{serving}{next}",
        failure.message.trim_end_matches('.'),
        warning(status)
    )
}
