//! Trying again what failed because of the environment, with backoff, until a deadline.

use super::verdict::{Failure, Verdict, Wait};
use super::world::World;
use crate::{Object, ObjectRef, Step, retry};
use fairway_crds::Reason;
use fairway_crds::release::{Attempts, ReleaseStatus};
use jiff::{SignedDuration, Timestamp};

/// Which rung tries, and until when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retry {
    /// The rung's name, the key in `status.attempts`.
    pub name: &'static str,
    /// Time for all tries together.
    pub deadline: SignedDuration,
    /// The time of this pass.
    pub now: Timestamp,
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
    let attempts = status
        .attempts
        .entry(rung.to_owned())
        .or_insert_with(|| retry::first(now));
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
    Wait::machine(
        Reason::WaitingForEnvironment,
        retry::pausing(attempts, next, deadline),
    )
    .until(next)
}

/// When the rung gives up.
pub(super) fn deadline(status: &ReleaseStatus, rung: &str, deadline: SignedDuration) -> Option<Timestamp> {
    status.attempts.get(rung)?.since.checked_add(deadline).ok()
}

/// Keeps why the try under way does not get on.
pub(super) fn note(status: &mut ReleaseStatus, rung: &str, reason: Reason, message: &str) {
    if let Some(attempts) = status.attempts.get_mut(rung) {
        attempts.reason = Some(reason.into());
        attempts.message = Some(message.to_owned());
    }
}

/// The rung is met; how often it was tried is no news any more.
pub(super) fn forget(status: &mut ReleaseStatus, rung: &str) {
    status.attempts.remove(rung);
}

/// The failure of a rung whose deadline has passed.
pub(super) fn overdue(status: &ReleaseStatus, rung: &Retry) -> Option<Verdict> {
    let since = status.attempts.get(rung.name)?;
    if rung.now < deadline(status, rung.name, rung.deadline)? {
        return None;
    }
    let reason = since.reason.as_deref().and_then(|reason| reason.parse().ok());
    let reason = reason.unwrap_or(Reason::DeadlineExceeded);
    let message = since
        .message
        .clone()
        .unwrap_or_else(|| format!("rung {} was not met", rung.name));
    let given = crate::conditions::duration(rung.deadline);
    Some(
        Failure::new(
            reason,
            format!("{}; given up after {given}", message.trim_end_matches('.')),
        )
        .verdict(),
    )
}

/// Makes what the try needs. While the apiserver refuses it (a quota, an admission policy), its words are told, until
/// the deadline.
pub(super) fn create(
    world: &World,
    status: &mut ReleaseStatus,
    rung: &Retry,
    object: Object,
    waiting: Wait,
) -> Verdict {
    let step = Step::Create(Box::new(object));
    let Some(refusal) = world.refused(&step) else {
        return Verdict::Act(vec![step], waiting);
    };
    let message = format!("the apiserver refuses {}: {}", step.id(), refusal.message);
    note(status, rung.name, Reason::WriteRefused, &message);
    overdue(status, rung).unwrap_or_else(|| {
        let until = deadline(status, rung.name, rung.deadline);
        Verdict::Wait(Wait {
            until,
            ..Wait::machine(Reason::WriteRefused, message)
        })
    })
}

/// A try failed because of the environment: waits before the next one, or gives up past the deadline. What
/// the try left behind is removed.
pub(super) fn failed(
    status: &mut ReleaseStatus,
    rung: &Retry,
    reason: Reason,
    message: &str,
    leftover: Option<ObjectRef>,
) -> Verdict {
    note(status, rung.name, reason, message);
    let tries = status
        .attempts
        .get(rung.name)
        .map_or(1, |attempts| attempts.current);
    let next = rung
        .now
        .saturating_add(retry::backoff(tries))
        .unwrap_or(Timestamp::MAX);
    if let Some(verdict) = overdue(status, &Retry { now: next, ..*rung }) {
        return verdict;
    }
    let Some(attempts) = status.attempts.get_mut(rung.name) else {
        return Verdict::Wait(Wait::machine(Reason::WaitingForEnvironment, message));
    };
    let next = *attempts.next.get_or_insert(next);
    let wait = waiting(attempts, rung.deadline, next);
    match leftover {
        Some(leftover) => Verdict::Act(vec![Step::Delete(leftover)], wait),
        None => Verdict::Wait(wait),
    }
}
