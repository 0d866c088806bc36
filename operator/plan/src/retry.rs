//! Retries of what the environment keeps from succeeding: with a growing pause, until a deadline.

use crate::message::{self, duration, moment};
use fairway_crds::Reason;
use fairway_crds::release::Attempts;
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

/// So long after the end of its grace period, a pod that is still there is on a node that does not answer.
pub(crate) const NODE_LOST: SignedDuration = SignedDuration::from_mins(5);

/// Pause after the first attempt.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// The longest pause between two attempts, and the longest time after which a refused write is attempted again.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Pause before the attempt after number `attempt`: 5 s, doubling, at most 5 minutes.
pub fn backoff(attempt: u32) -> Duration {
    doubling(FIRST_PAUSE, LONGEST_PAUSE, attempt)
}

/// Pause after so many failures in a row: `first` after the first, doubling, at most `longest`.
pub fn doubling(first: Duration, longest: Duration, failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    first.saturating_mul(1 << doublings).min(longest)
}

/// The time that all attempts of some work have together, and the time of this pass.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    /// Time for all attempts together; `None` for work that is retried for as long as it takes.
    pub(crate) deadline: Option<SignedDuration>,
    /// The time of this pass.
    pub(crate) now: Timestamp,
}

/// Which attempt this pass is about.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Due {
    /// An attempt begins with this pass: the first, or the next after a pause.
    Begin(Attempts),
    /// An attempt is under way.
    Current(Attempts),
    /// The pause after a failed attempt lasts.
    Paused {
        /// When the next attempt begins.
        next: Timestamp,
        /// Why the last attempt failed, and when the next one begins.
        message: String,
    },
}

/// What follows an attempt that failed because of the environment.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Next {
    /// A pause, as [`Due::Paused`] says it.
    Pause {
        /// The attempts to record.
        attempts: Attempts,
        /// When the next attempt begins.
        next: Timestamp,
        /// Why the attempt failed, and when the next one begins.
        message: String,
    },
    /// Nothing: the deadline would have passed.
    DeadlineExceeded {
        /// Why the last attempt failed.
        reason: Reason,
        /// Why the last attempt failed, and for how long the work was attempted.
        message: String,
    },
}

impl Schedule {
    /// The first attempt, which begins now.
    pub(crate) fn first(&self) -> Attempts {
        Attempts {
            current: 1,
            since: self.now,
            next: None,
            reason: None,
            message: None,
        }
    }

    /// Which attempt this pass is about, given what the status has recorded.
    pub(crate) fn due(&self, recorded: Option<&Attempts>) -> Due {
        let Some(attempts) = recorded else {
            return Due::Begin(self.first());
        };
        match attempts.next {
            Some(next) if self.now < next => Due::Paused {
                next,
                message: self.pausing(attempts, next),
            },
            Some(_) => Due::Begin(following(attempts)),
            None => Due::Current(attempts.clone()),
        }
    }

    /// When all attempts have had their time.
    pub(crate) fn end(&self, attempts: &Attempts) -> Timestamp {
        let end = self
            .deadline
            .and_then(|deadline| attempts.since.checked_add(deadline).ok());
        end.unwrap_or(Timestamp::MAX)
    }

    /// Whether all attempts have had their time.
    pub(crate) fn is_over(&self, attempts: &Attempts) -> bool {
        self.now >= self.end(attempts)
    }

    /// What follows an attempt that failed now because of the environment.
    pub(crate) fn failed(&self, attempts: &Attempts, reason: Reason, message: &str) -> Next {
        let pause = backoff(attempts.current);
        let next = self.now.saturating_add(pause).unwrap_or(Timestamp::MAX);
        if next >= self.end(attempts) {
            let message = self.deadline_message(message);
            return Next::DeadlineExceeded { reason, message };
        }
        let attempts = Attempts {
            next: Some(next),
            reason: Some(reason.into()),
            message: Some(message.to_owned()),
            ..attempts.clone()
        };
        let message = self.pausing(&attempts, next);
        Next::Pause {
            attempts,
            next,
            message,
        }
    }

    /// Why the last attempt failed, and for how long the work was attempted.
    pub(crate) fn deadline_message(&self, message: &str) -> String {
        let attempted = self
            .deadline
            .map(|deadline| format!("No attempt succeeded within {}.", duration(deadline)));
        message::sentences([message, &attempted.unwrap_or_default()])
    }

    fn pausing(&self, attempts: &Attempts, next: Timestamp) -> String {
        let why = attempts.message.as_deref().unwrap_or("The last attempt failed.");
        let mut when = format!("Attempt {} begins at {}", attempts.current + 1, moment(next));
        if self.deadline.is_some() {
            when.push_str(&format!(", and none begins after {}", moment(self.end(attempts))));
        }
        message::sentences([why, &when])
    }
}

/// The attempt after this one. Why the last one failed stays recorded.
pub(crate) fn following(attempts: &Attempts) -> Attempts {
    Attempts {
        current: attempts.current + 1,
        next: None,
        ..attempts.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(1, 5)]
    #[case(2, 10)]
    #[case(5, 80)]
    #[case(7, 300)]
    #[case(u32::MAX, 300)]
    fn the_pause_doubles_up_to_five_minutes(#[case] attempt: u32, #[case] seconds: u64) {
        assert_eq!(backoff(attempt), Duration::from_secs(seconds));
    }

    #[test]
    fn no_attempt_begins_after_the_deadline() {
        let schedule = |minute: i64| Schedule {
            deadline: Some(SignedDuration::from_hours(1)),
            now: Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minute),
        };
        let first = schedule(0).first();
        let late = schedule(59).failed(
            &Attempts {
                current: 7,
                ..first.clone()
            },
            Reason::StoreFull,
            "the store is full",
        );
        let message = "The store is full. No attempt succeeded within 1h.".to_owned();
        let reason = Reason::StoreFull;
        assert_eq!(late, Next::DeadlineExceeded { reason, message });
        let Next::Pause { next, message, .. } =
            schedule(1).failed(&first, Reason::StoreFull, "the store is full")
        else {
            panic!("there is time left");
        };
        assert_eq!(next, Timestamp::UNIX_EPOCH + SignedDuration::from_secs(65));
        assert_eq!(
            message,
            "The store is full. Attempt 2 begins at 1970-01-01T00:01:05Z, and none begins after 1970-01-01T01:00:00Z."
        );
    }
}
