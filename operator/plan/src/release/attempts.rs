//! Trying again what failed because of the surroundings, with backoff, until a deadline.

use super::verdict::{Failure, Verdict, Wait};
use crate::{ObjectRef, Step};
use fairway_crds::release::{Attempts, ReleaseStatus};
use jiff::{SignedDuration, Timestamp};

/// Which rung tries, and until when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retry {
    /// The rung's name, the key in `status.attempts`.
    pub rung: &'static str,
    /// Time for all tries together.
    pub deadline: SignedDuration,
    /// The time of this pass.
    pub now: Timestamp,
}

/// Pause before the try after number `attempt`: 5 s, doubling, at most 5 minutes.
pub(super) fn backoff(attempt: u32) -> SignedDuration {
    SignedDuration::from_secs((5_i64 << attempt.saturating_sub(1).min(6)).min(300))
}

/// Number of the try under way, beginning the first one when there is none.
///
/// # Errors
/// The verdict to return, while the pause before the next try lasts.
pub(super) fn current(
    status: &mut ReleaseStatus,
    rung: &'static str,
    deadline: SignedDuration,
    now: Timestamp,
) -> Result<u32, Verdict> {
    let attempts = status.attempts.entry(rung.to_owned()).or_insert(Attempts {
        current: 1,
        since: now,
        next: None,
        reason: None,
        message: None,
    });
    match attempts.next {
        None => Ok(attempts.current),
        Some(next) if now >= next => {
            attempts.current += 1;
            attempts.next = None;
            Ok(attempts.current)
        }
        Some(next) => Err(Verdict::Wait(waiting(attempts, deadline, next))),
    }
}

fn waiting(attempts: &Attempts, deadline: SignedDuration, next: Timestamp) -> Wait {
    let message = format!(
        "{} (try {}, next at {}, given up at {})",
        attempts
            .message
            .as_deref()
            .unwrap_or("it failed")
            .trim_end_matches('.'),
        attempts.current,
        crate::conditions::moment(next),
        crate::conditions::moment(attempts.since.saturating_add(deadline).unwrap_or(Timestamp::MAX)),
    );
    Wait::machine("WaitingForEnvironment", message).until(next)
}

/// When the rung gives up.
pub(super) fn deadline(status: &ReleaseStatus, rung: &str, deadline: SignedDuration) -> Option<Timestamp> {
    status.attempts.get(rung)?.since.checked_add(deadline).ok()
}

/// Keeps why the try under way does not get on.
pub(super) fn note(status: &mut ReleaseStatus, rung: &str, reason: &str, message: &str) {
    if let Some(attempts) = status.attempts.get_mut(rung) {
        attempts.reason = Some(reason.to_owned());
        attempts.message = Some(message.to_owned());
    }
}

/// The rung is met; how often it was tried is no news any more.
pub(super) fn forget(status: &mut ReleaseStatus, rung: &str) {
    status.attempts.remove(rung);
}

/// The failure of a rung whose deadline has passed.
pub(super) fn overdue(status: &ReleaseStatus, retry: &Retry) -> Option<Verdict> {
    let since = status.attempts.get(retry.rung)?;
    if retry.now < deadline(status, retry.rung, retry.deadline)? {
        return None;
    }
    let reason = since
        .reason
        .clone()
        .unwrap_or_else(|| "DeadlineExceeded".to_owned());
    let message = since
        .message
        .clone()
        .unwrap_or_else(|| format!("rung {} was not met", retry.rung));
    let given = crate::conditions::duration(retry.deadline);
    Some(
        Failure::new(
            reason,
            format!("{}; given up after {given}", message.trim_end_matches('.')),
        )
        .verdict(),
    )
}

/// A try failed because of the surroundings: waits before the next one, or gives up past the deadline. What
/// the try left behind is removed.
pub(super) fn failed(
    status: &mut ReleaseStatus,
    retry: &Retry,
    reason: &str,
    message: &str,
    leftover: Option<ObjectRef>,
) -> Verdict {
    note(status, retry.rung, reason, message);
    if let Some(verdict) = overdue(status, retry) {
        return verdict;
    }
    let Some(attempts) = status.attempts.get_mut(retry.rung) else {
        return Verdict::Wait(Wait::machine("WaitingForEnvironment", message));
    };
    let next = *attempts.next.get_or_insert_with(|| {
        retry
            .now
            .saturating_add(backoff(attempts.current))
            .unwrap_or(Timestamp::MAX)
    });
    let wait = Wait {
        reason: "WaitingForEnvironment",
        ..waiting(attempts, retry.deadline, next)
    };
    match leftover {
        Some(leftover) => Verdict::Act(vec![Step::Delete(leftover)], wait),
        None => Verdict::Wait(wait),
    }
}
