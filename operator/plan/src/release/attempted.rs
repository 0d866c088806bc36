//! The rungs that wait for work of the agent: from what its attempts came to, to a verdict.

use super::verdict::{Failure, Verdict, Wait};
use super::view::View;
use crate::attempt::{Advanced, Attempt, Child, DeadlineFor, Failed, Planned};
use crate::build::agent::Outcome;
use crate::retry::{Due, Schedule};
use crate::tasks::{Identity, Task};
use crate::{Object, Wake};
use fairway_crds::Reason;
use fairway_crds::release::ReleaseStatus;
use jiff::SignedDuration;

/// Work of the agent that a rung waits for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work<'a> {
    /// The rung, the key in `status.attempts`.
    pub(super) rung: &'static str,
    /// The task of the agent.
    pub(super) task: &'static Task,
    /// What follows in the names of its Jobs or pods, where the rung has more work of this task than one; else empty.
    pub(super) part: &'a str,
    /// Time for all attempts together.
    pub(super) deadline: SignedDuration,
    /// Reason while the agent is at work.
    pub(super) working_reason: Reason,
    /// Message while the agent is at work.
    pub(super) working_message: &'a str,
    /// Reason while something keeps the agent's pod from starting.
    pub(super) blocked_reason: fn(&Child) -> Reason,
    /// Time to start in before a silent pod is worth looking at; `None` when a start may take long.
    pub(super) slow_start: Option<SignedDuration>,
}

/// What a rung's work has come to.
pub(super) enum Attempted<Done> {
    /// An attempt succeeded.
    Done(Done),
    /// The rung is not met.
    NotYet(Verdict),
}

/// Advances a rung's work by one pass. `read` reads the report of an attempt's Job or pod, `create` makes that of an
/// attempt's number, `judge` says what a report means.
pub(super) fn advance<Report, Done>(
    view: &View,
    status: &mut ReleaseStatus,
    work: &Work,
    read: impl FnOnce(&Child) -> Outcome<Report>,
    create: impl FnOnce(u32) -> Object,
    judge: impl FnOnce(Report) -> Result<Done, Failed>,
) -> Attempted<Done> {
    let schedule = Schedule {
        deadline: Some(work.deadline),
        now: view.now,
    };
    let mut attempts = match schedule.due(status.attempts.get(work.rung)) {
        Due::Begin(attempts) | Due::Current(attempts) => attempts,
        Due::Paused { next, message } => {
            let wait = Wait::machine(Reason::WaitingForEnvironment, message);
            return Attempted::NotYet(Verdict::Wait(wait.until(next)));
        }
    };
    let current = attempts.current;
    let name = format!("{}{}", work.task.child(view.name(), current), work.part);
    let child = Child::find(
        Identity::OwnerUid(view.uid()),
        name,
        &view.observed.jobs,
        &view.observed.pods,
    );
    let attempt = Attempt {
        task: work.task,
        namespace: view.namespace(),
        schedule,
        deadline_for: DeadlineFor::Report,
        answers: view.answers(),
        working_reason: work.working_reason,
        working_message: work.working_message,
        blocked_reason: (work.blocked_reason)(&child),
        slow_start: work.slow_start,
    };
    let advanced = attempt.advance(&mut attempts, &child, read(&child), || Ok(create(current)), judge);
    match advanced {
        Advanced::Done(done) => {
            // How often it was attempted is no news any more.
            status.attempts.remove(work.rung);
            Attempted::Done(done)
        }
        Advanced::Failed { reason, message } => {
            status.attempts.insert(work.rung.to_owned(), attempts);
            Attempted::NotYet(Failure::new(reason, message).verdict())
        }
        Advanced::UnderWay(planned) => {
            status.attempts.insert(work.rung.to_owned(), attempts);
            Attempted::NotYet(verdict(planned))
        }
    }
}

fn verdict(planned: Planned) -> Verdict {
    let Planned {
        steps,
        progress,
        wake,
    } = planned;
    let wait = Wait::machine(progress.reason, progress.message);
    let wait = match wake {
        Wake::At(at) => wait.until(at),
        Wake::OnChange => wait,
    };
    if steps.is_empty() {
        Verdict::Wait(wait)
    } else {
        Verdict::Act(steps, wait)
    }
}
