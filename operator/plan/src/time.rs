//! Moments as they survive being written.

use jiff::{Timestamp, Unit};

/// A moment as it is after it was written with milliseconds and read again.
pub(crate) fn to_milliseconds(at: Timestamp) -> Timestamp {
    at.round(Unit::Millisecond).unwrap_or(at)
}
