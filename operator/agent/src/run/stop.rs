//! Why a migration was stopped, or must be.

use std::{fmt, time::Duration};

use fairway_protocol::Reason;

/// Why a migration was stopped, or must be. Its text is a sentence without its period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StopReason {
    /// The migration's command took longer than it may.
    TimedOut(Duration),
    /// The application took longer than it may.
    Unhealthy {
        /// The time that it had.
        limit: Duration,
        /// The last verdict on its health.
        last: String,
    },
    /// The session that held the migration lock was lost, and the lock could not be taken again in time.
    LockLost,
    /// Another agent held the migration lock after it was lost, and has recorded how the run ended.
    SettledElsewhere,
}

impl StopReason {
    /// The reason in reports and in the ledger.
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::TimedOut(_) | Self::Unhealthy { .. } => Reason::MigrationTimedOut,
            Self::LockLost | Self::SettledElsewhere => Reason::MigrationFailed,
        }
    }
}

impl fmt::Display for StopReason {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut(limit) => write!(
                text,
                "The migration did not end within {} s and was stopped",
                limit.as_secs()
            ),
            Self::Unhealthy { limit, last } => write!(
                text,
                "The migration was not seen to be complete within {} s ({last})",
                limit.as_secs()
            ),
            Self::LockLost => {
                text.write_str("The migration was stopped because its lock on the database was lost")
            }
            Self::SettledElsewhere => {
                text.write_str("The migration was stopped because another pod has settled its run")
            }
        }
    }
}
