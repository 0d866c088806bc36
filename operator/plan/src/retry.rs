//! Trying again what the environment keep from succeeding: with a growing pause, until a deadline.

use crate::conditions::{duration, moment};
use fairway_crds::Reason;
use fairway_crds::release::Attempts;
use jiff::{SignedDuration, Timestamp};

/// Past the end of its grace period for so long, a pod that is still there is on a node that nobody hears of.
pub(crate) const UNHEARD: SignedDuration = SignedDuration::from_mins(5);

/// Pause before the try after number `attempt`: 5 s, doubling, at most 5 minutes.
pub fn backoff(attempt: u32) -> SignedDuration {
    let doublings = attempt.saturating_sub(1).min(6);
    SignedDuration::from_secs((5_i64 << doublings).min(300))
}

/// The first try, which begins now.
pub fn first(now: Timestamp) -> Attempts {
    Attempts {
        current: 1,
        since: now,
        next: None,
        reason: None,
        message: None,
    }
}

/// What a try that failed leads to.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Another one, when `next` has come.
    Again(Attempts),
    /// None: the deadline would have passed.
    GiveUp {
        /// Why the last one failed: stable reason.
        reason: Reason,
        /// The same as a sentence, with how long was tried.
        message: String,
    },
}

/// Plans the try after one that failed now, as number `count` of those that failed.
pub fn after_failure(
    attempts: &Attempts,
    count: u32,
    deadline: SignedDuration,
    now: Timestamp,
    reason: Reason,
    message: &str,
) -> Next {
    let next = now.saturating_add(backoff(count)).unwrap_or(Timestamp::MAX);
    if next >= end(attempts, deadline) {
        let message = format!("{} Given up after {}.", sentence(message), duration(deadline));
        return Next::GiveUp { reason, message };
    }
    Next::Again(Attempts {
        next: Some(next),
        reason: Some(reason.into()),
        message: Some(message.to_owned()),
        ..attempts.clone()
    })
}

/// When nothing is tried any more.
pub fn end(attempts: &Attempts, deadline: SignedDuration) -> Timestamp {
    attempts.since.saturating_add(deadline).unwrap_or(Timestamp::MAX)
}

/// What is told during the pause.
pub fn pausing(attempts: &Attempts, next: Timestamp, deadline: SignedDuration) -> String {
    format!(
        "{} Try {} failed, the next begins at {}; given up at {}.",
        sentence(attempts.message.as_deref().unwrap_or("It failed.")),
        attempts.current,
        moment(next),
        moment(end(attempts, deadline)),
    )
}

/// A text with a full stop, so that another sentence can follow.
pub fn sentence(text: &str) -> String {
    let text = text.trim_end();
    if text.ends_with(['.', '!', '?', '…']) {
        text.to_owned()
    } else {
        format!("{text}.")
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
    fn the_pause_doubles_up_to_five_minutes(#[case] attempt: u32, #[case] seconds: i64) {
        assert_eq!(backoff(attempt), SignedDuration::from_secs(seconds));
    }

    #[test]
    fn a_try_that_would_begin_past_the_deadline_is_not_made() {
        let start = Timestamp::UNIX_EPOCH;
        let hour = SignedDuration::from_hours(1);
        let late = start + SignedDuration::from_mins(59);
        let next = after_failure(
            &first(start),
            7,
            hour,
            late,
            Reason::StoreFull,
            "the store is full",
        );
        let message = "the store is full. Given up after 1h.".to_owned();
        assert_eq!(
            next,
            Next::GiveUp {
                reason: Reason::StoreFull,
                message
            }
        );
        let soon = start + SignedDuration::from_secs(1);
        let Next::Again(again) = after_failure(
            &first(start),
            1,
            hour,
            soon,
            Reason::StoreFull,
            "the store is full",
        ) else {
            panic!("there is time left");
        };
        assert_eq!(again.next, Some(start + SignedDuration::from_secs(6)));
    }
}
