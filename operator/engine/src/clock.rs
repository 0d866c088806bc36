//! Time, as a driver supplies it.

use jiff::Timestamp;
use std::ops::Add;
use std::time::Duration;

/// A moment on the driver's monotonic clock: the time since an origin that the driver chose, such as its start.
///
/// Not [`std::time::Instant`], which nobody can make but by reading the clock of the process: the simulator leaps over
/// a day of bake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(Duration);

impl Instant {
    /// The moment that long after the driver's origin.
    pub const fn after_origin(since: Duration) -> Self {
        Self(since)
    }

    /// The time since the driver's origin.
    pub const fn since_origin(self) -> Duration {
        self.0
    }

    /// The time since an earlier moment; zero when that is later.
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span))
    }
}

/// Now, on both clocks, read together.
///
/// Deadlines in status are moments of the wall clock: the next process has to understand them. Timers, backoff and
/// expectations end with the process and follow the monotonic clock: a wall clock that is set back must not stop them.
/// Both are needed to turn a deadline into a timer, so that a driver always supplies both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// The wall clock.
    pub wall: Timestamp,
    /// The monotonic clock.
    pub monotonic: Instant,
}
