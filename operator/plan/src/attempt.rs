//! Work done by a Job or pod of the agent, retried until one reports or the deadline passes.
//!
//! | observed | planned |
//! |---|---|
//! | nothing recorded, or a pause is over | the next attempt begins; [`Schedule::due`] |
//! | a pause | wait until it is over |
//! | no child | create it |
//! | the API server refuses to create it | report the refusal, until the deadline |
//! | another object with the child's name | wait until it is gone |
//! | the child cannot start | report why, until the deadline |
//! | the child is running | wait |
//! | a child that reported | the caller judges the report |
//! | a child that ended without a report | the caller says what that means; [`Attempt::advance`] retries |

mod child;
mod planned;
#[cfg(test)]
mod tests;

pub(crate) use child::{Child, Found};
pub(crate) use planned::Planned;

use crate::build::agent::Outcome;
use crate::conditions::Progress;
use crate::message::{self, quoting, sentence};
use crate::object::Kind;
use crate::observed::{self, Refusal};
use crate::protocol::Cause;
use crate::retry::{Next, Schedule};
use crate::tasks::{Form, Removal, Task};
use crate::{Object, Step, kubectl};
use fairway_crds::Reason;
use fairway_crds::release::Attempts;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;

/// A pod that has not started by then is worth looking at, although Kubernetes says nothing of it.
pub(crate) const SLOW_START: SignedDuration = SignedDuration::from_mins(2);

/// What the deadline of all attempts limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bounds {
    /// The start of the child; running work has its own timeout.
    Start,
    /// The time until the child reports.
    Report,
}

/// Work that is attempted, with what its waits say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt<'a> {
    /// The task of the agent.
    pub(crate) task: &'static Task,
    /// Namespace of the work.
    pub(crate) namespace: &'a str,
    /// Name of the Release, Migration or Backup for which the work is done.
    pub(crate) work_for: &'a str,
    /// The time for all attempts.
    pub(crate) schedule: Schedule,
    /// What that time limits.
    pub(crate) bounds: Bounds,
    /// Creations that the API server refused.
    pub(crate) refused: &'a BTreeMap<String, Refusal>,
    /// Reason while the child is at work.
    pub(crate) working: Reason,
    /// Message while the child is at work.
    pub(crate) doing: &'a str,
    /// Reason while something keeps the child from starting.
    pub(crate) not_starting: Reason,
    /// Time to start in before a silent child is worth looking at; `None` when a start may take long.
    pub(crate) slow_start: Option<SignedDuration>,
}

/// What an attempt has come to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Standing<Report> {
    /// The child is to be created, starts, or is at work.
    UnderWay(Planned),
    /// The agent reported.
    Reported(Report),
    /// The child ended without a report.
    Lost {
        /// How it ended: a sentence.
        message: String,
    },
    /// The child cannot be created.
    Impossible(Impossible),
    /// The time for all attempts is over.
    Overdue {
        /// What kept the last attempt.
        reason: Reason,
        /// What kept the last attempt: whole sentences.
        message: String,
    },
}

/// Why no child can be created, whatever the environment does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Impossible {
    /// What is missing or wrong.
    pub(crate) reason: Reason,
    /// What is missing or wrong: whole sentences.
    pub(crate) message: String,
}

/// What retried work has come to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Advanced<Done> {
    /// An attempt or a pause is under way.
    UnderWay(Planned),
    /// An attempt succeeded.
    Done(Done),
    /// No further attempt is made.
    Failed {
        /// Why.
        reason: Reason,
        /// Why: whole sentences.
        message: String,
    },
}

/// Why an attempt that reported did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failed {
    /// Whether a retry can succeed.
    pub(crate) cause: Cause,
    /// Why it failed.
    pub(crate) reason: Reason,
    /// Why it failed: whole sentences.
    pub(crate) message: String,
}

impl Attempt<'_> {
    /// Follows the attempt that `attempts` records, and retries what the environment keeps from succeeding.
    /// `judge` says what a report means.
    pub(crate) fn advance<Report, Done>(
        &self,
        attempts: &mut Attempts,
        child: &Child,
        outcome: Outcome<Report>,
        create: impl FnOnce() -> Result<Object, Impossible>,
        judge: impl FnOnce(Report) -> Result<Done, Failed>,
    ) -> Advanced<Done> {
        let (reason, message) = match self.look(attempts, child, outcome, create) {
            Standing::UnderWay(planned) => return Advanced::UnderWay(planned),
            Standing::Overdue { reason, message } => {
                let message = self.schedule.deadline_message(&message);
                return Advanced::Failed { reason, message };
            }
            Standing::Impossible(Impossible { reason, message }) => {
                return Advanced::Failed { reason, message };
            }
            Standing::Lost { message } => (Reason::PodLost, message),
            Standing::Reported(report) => match judge(report) {
                Ok(done) => return Advanced::Done(done),
                Err(Failed {
                    cause: Cause::Version,
                    reason,
                    message,
                }) => return Advanced::Failed { reason, message },
                Err(Failed {
                    cause: Cause::Environment,
                    reason,
                    message,
                }) => (reason, message),
            },
        };
        match self.schedule.failed(attempts, reason, &message) {
            Next::DeadlineExceeded { reason, message } => Advanced::Failed { reason, message },
            Next::Pause {
                attempts: recorded,
                next,
                message,
            } => {
                *attempts = recorded;
                let removed = child.reference().filter(|_| self.task.removal == Removal::AtOnce);
                Advanced::UnderWay(paused(next, message).with(removed.map(Step::Delete)))
            }
        }
    }

    /// What the attempt that `attempts` records has come to. What keeps it is noted there.
    pub(crate) fn look<Report>(
        &self,
        attempts: &mut Attempts,
        child: &Child,
        outcome: Outcome<Report>,
        create: impl FnOnce() -> Result<Object, Impossible>,
    ) -> Standing<Report> {
        match (outcome, child.found) {
            (_, Found::OtherJob(_)) => self.name_taken(attempts, Kind::Job, child),
            (_, Found::OtherPod(_)) => self.name_taken(attempts, Kind::Pod, child),
            (Outcome::Reported(report), _) => Standing::Reported(report),
            (Outcome::Lost { reason }, _) => Standing::Lost {
                message: sentence(&format!(
                    "{} ended without a report: {reason}",
                    self.pod_of(child)
                )),
            },
            (Outcome::NotThere, Found::Nothing) => self.create(attempts, child, create),
            (Outcome::NotThere, _) => self.starting(attempts, child, None),
            (Outcome::Running { waiting }, _) => self.starting(attempts, child, waiting),
        }
    }

    fn create<Report>(
        &self,
        attempts: &mut Attempts,
        child: &Child,
        create: impl FnOnce() -> Result<Object, Impossible>,
    ) -> Standing<Report> {
        let object = match create() {
            Ok(object) => object,
            Err(impossible) => return Standing::Impossible(impossible),
        };
        let kind = object.kind().as_str();
        let step = Step::Create(Box::new(object));
        if let Some(refusal) = observed::refusal(self.refused, &step) {
            let statement = format!("The API server refuses to create {kind} {}", child.name);
            let message = quoting(&statement, Some(&refusal.message));
            return self.kept(attempts, Reason::WriteRefused, message);
        }
        if self.schedule.is_over(attempts) {
            if attempts.reason.is_some() {
                return self.overdue(attempts);
            }
            // The operator may not have been running, so the deadline starts again, once.
            attempts.since = self.schedule.now;
            let statement = format!("{kind} {} was not created in time, or was removed.", child.name);
            note(attempts, self.not_starting, &statement);
        }
        let slow = self
            .slow_start
            .and_then(|span| self.schedule.now.checked_add(span).ok());
        let end = self.schedule.end(attempts);
        Standing::UnderWay(
            self.working()
                .until(slow.map_or(end, |slow| slow.min(end)))
                .with([step]),
        )
    }

    /// The child does not report yet.
    fn starting<Report>(
        &self,
        attempts: &mut Attempts,
        child: &Child,
        waiting: Option<String>,
    ) -> Standing<Report> {
        let has_started = child.started().is_some();
        if has_started && self.bounds == Bounds::Start {
            return Standing::UnderWay(self.working());
        }
        if has_started && noted(attempts) == Some(self.not_starting) {
            // What delayed its start is over: should it hang, that is not the reason.
            attempts.reason = None;
            attempts.message = None;
        }
        if let Some(message) = waiting {
            return self.kept(attempts, self.not_starting, message);
        }
        let slow = self.slow_start.filter(|_| !has_started);
        let slow = slow.and_then(|span| child.created().unwrap_or(attempts.since).checked_add(span).ok());
        if slow.is_some_and(|slow| slow <= self.schedule.now) {
            let message = format!(
                "{} is not starting. To see why: {}",
                self.pod_of(child),
                kubectl::describe_work(self.namespace, self.work_for)
            );
            return self.kept(attempts, self.not_starting, message);
        }
        if self.schedule.is_over(attempts) {
            return self.overdue(attempts);
        }
        let end = self.schedule.end(attempts);
        Standing::UnderWay(self.working().until(slow.map_or(end, |slow| slow.min(end))))
    }

    /// Another object has the child's name: one that the garbage collector is about to remove, most often.
    fn name_taken<Report>(&self, attempts: &mut Attempts, kind: Kind, child: &Child) -> Standing<Report> {
        let message = format!(
            "Waiting until {} {} is gone: it was not created for this {}. If it is not being deleted, delete it.",
            kind.as_str(),
            child.name,
            self.task.work_for.as_str()
        );
        self.kept(attempts, Reason::ObjectBeingDeleted, message)
    }

    /// Something keeps the child from being created or from starting: waited for until the deadline.
    fn kept<Report>(&self, attempts: &mut Attempts, reason: Reason, message: String) -> Standing<Report> {
        note(attempts, reason, &message);
        if self.schedule.is_over(attempts) {
            return self.overdue(attempts);
        }
        let end = self.schedule.end(attempts);
        Standing::UnderWay(Planned::new(Progress::running(reason, message)).until(end))
    }

    fn overdue<Report>(&self, attempts: &Attempts) -> Standing<Report> {
        let message = attempts.message.as_deref().unwrap_or(self.doing);
        Standing::Overdue {
            reason: noted(attempts).unwrap_or(Reason::DeadlineExceeded),
            message: message.to_owned(),
        }
    }

    fn pod_of(&self, child: &Child) -> String {
        match self.task.form {
            Form::Job => format!("The pod of Job {}", child.name),
            Form::Pod => format!("Pod {}", child.name),
        }
    }

    fn working(&self) -> Planned {
        Planned::new(Progress::running(self.working, self.doing))
    }
}

/// The pause until the next attempt.
pub(crate) fn paused(next: Timestamp, message: String) -> Planned {
    Planned::new(Progress::running(Reason::WaitingForEnvironment, message)).until(next)
}

/// The reason recorded last, unless another version of Fairway recorded it.
fn noted(attempts: &Attempts) -> Option<Reason> {
    attempts.reason.as_deref()?.parse().ok()
}

fn note(attempts: &mut Attempts, reason: Reason, message: &str) {
    attempts.reason = Some(reason.into());
    attempts.message = Some(message::sentence(message));
}
