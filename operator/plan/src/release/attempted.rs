//! The rungs that wait for work of the agent: from what its attempts came to, to a verdict.

use super::verdict::{Failure, Verdict, Wait};
use super::view::View;
use crate::attempt::{Advanced, Attempt, Bounds, Child, Failed, Planned};
use crate::build::agent::Outcome;
use crate::retry::{Due, Schedule};
use crate::tasks::Task;
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
    /// Time for all attempts together.
    pub(super) deadline: SignedDuration,
    /// Reason while the agent is at work.
    pub(super) working: Reason,
    /// Message while the agent is at work.
    pub(super) doing: &'a str,
    /// Reason while something keeps the agent's pod from starting.
    pub(super) not_starting: Reason,
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
    let name = work.task.child(view.name(), current);
    let child = Child::find(
        work.task,
        view.uid(),
        name,
        &view.observed.jobs,
        &view.observed.pods,
    );
    let attempt = Attempt {
        task: work.task,
        namespace: view.namespace(),
        work_for: view.name(),
        schedule,
        bounds: Bounds::Report,
        refused: &view.observed.refused,
        working: work.working,
        doing: work.doing,
        not_starting: work.not_starting,
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
