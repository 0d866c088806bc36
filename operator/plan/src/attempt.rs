//! Work done by a Job or pod of the agent, retried until one reports or the deadline passes.
//!
//! | observed | planned |
//! |---|---|
//! | nothing recorded, or a pause is over | the next attempt begins; [`Schedule::due`] |
//! | a pause | wait until it is over |
//! | no child | create it |
//! | the API server refuses to create it | report the refusal, until the deadline |
//! | another object with the child's name | wait until it is deleted, or say how to delete it, until the deadline |
//! | the child cannot start | report why, until the deadline |
//! | the child cannot start, and would be created differently now | delete it, so that it is created again |
//! | a Job without a pod | ask the API server whether it accepts the pod, and report why not |
//! | the child is running | wait |
//! | a child that reported | the caller judges the report |
//! | a child that ended without a report | the caller says what that means; [`Attempt::advance`] retries |

mod child;
mod planned;
#[cfg(test)]
mod tests;

pub(crate) use child::{Child, Found};
pub(crate) use planned::Planned;

use crate::answers::Answers;
use crate::build::agent::{self, Outcome};
use crate::build::applied_hash;
use crate::conditions::Progress;
use crate::message::{self, quoting, sentence};
use crate::object::Kind;
use crate::protocol::Cause;
use crate::retry::{Next, Schedule};
use crate::tasks::{Form, Identity, Removal, Task};
use crate::{Object, ObjectRef, Step, kubectl};
use fairway_crds::Reason;
use fairway_crds::release::Attempts;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;
use std::sync::Arc;

/// Time after which a pod that has not started is reported, even if Kubernetes gives no reason.
pub(crate) const SLOW_START: SignedDuration = SignedDuration::from_mins(2);

/// Time within which a Job gets its pod, unless the API server refuses it.
const POD_EXPECTED: SignedDuration = SignedDuration::from_secs(3);

/// What the deadline of all attempts limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeadlineFor {
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
    /// The time for all attempts.
    pub(crate) schedule: Schedule,
    /// What that time limits.
    pub(crate) deadline_for: DeadlineFor,
    /// Answers of the API server to creations and dry runs.
    pub(crate) answers: Answers<'a>,
    /// Reason while the child is at work.
    pub(crate) working_reason: Reason,
    /// Message while the child is at work.
    pub(crate) working_message: &'a str,
    /// Reason while the child is blocked from starting.
    pub(crate) blocked_reason: Reason,
    /// Time to start in before a silent child is worth looking at; `None` when a start may take long.
    pub(crate) slow_start: Option<SignedDuration>,
}

/// State of an attempt, as observed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum AttemptState<Report> {
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
        /// What blocked the last attempt.
        reason: Reason,
        /// What blocked the last attempt: whole sentences.
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
        let (reason, message) = match self.state(attempts, child, outcome, create) {
            AttemptState::UnderWay(planned) => return Advanced::UnderWay(planned),
            AttemptState::Overdue { reason, message } => {
                let message = self.schedule.deadline_message(&message);
                return Advanced::Failed { reason, message };
            }
            AttemptState::Impossible(Impossible { reason, message }) => {
                return Advanced::Failed { reason, message };
            }
            AttemptState::Lost { message } => (Reason::PodLost, message),
            AttemptState::Reported(report) => match judge(report) {
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

    /// State of the attempt that `attempts` records. What blocks it is recorded there.
    pub(crate) fn state<Report>(
        &self,
        attempts: &mut Attempts,
        child: &Child,
        outcome: Outcome<Report>,
        create: impl FnOnce() -> Result<Object, Impossible>,
    ) -> AttemptState<Report> {
        match (outcome, child.found) {
            (_, Found::OtherJob(_)) => self.name_taken(attempts, Kind::Job, child),
            (_, Found::OtherPod(_)) => self.name_taken(attempts, Kind::Pod, child),
            (Outcome::Reported(report), _) => AttemptState::Reported(report),
            (Outcome::Lost { reason }, _) => AttemptState::Lost {
                message: sentence(&format!(
                    "{} ended without a report: {reason}",
                    self.pod_in_message(child)
                )),
            },
            (Outcome::NotThere, Found::Nothing) => self.create(attempts, child, create),
            (Outcome::NotThere, Found::Job(job)) if !child.is_being_deleted() => {
                self.without_pod(attempts, child, job, create)
            }
            (Outcome::NotThere, _) => self.starting(attempts, child, None),
            (Outcome::Running { waiting: Some(why) }, _) if child.started().is_none() => {
                let desired = create().ok();
                match desired.and_then(|desired| self.replaced(child, &desired)) {
                    Some(planned) => AttemptState::UnderWay(planned),
                    None => self.starting(attempts, child, Some(why)),
                }
            }
            (Outcome::Running { waiting }, _) => self.starting(attempts, child, waiting),
        }
    }

    fn create<Report>(
        &self,
        attempts: &mut Attempts,
        child: &Child,
        create: impl FnOnce() -> Result<Object, Impossible>,
    ) -> AttemptState<Report> {
        let object = match create() {
            Ok(object) => object,
            Err(impossible) => return AttemptState::Impossible(impossible),
        };
        let kind = object.kind().as_str();
        let step = Step::Create(Box::new(object));
        if let Some(refusal) = self.answers.refusal(&step) {
            return self.blocked(attempts, Reason::WriteRefused, refusal.of_creating(&step));
        }
        if self.schedule.is_over(attempts) {
            if attempts.reason.is_some() {
                return self.overdue(attempts);
            }
            // The operator may not have been running, so the deadline starts again, once.
            let statement = format!("{kind} {} was not created in time, or was removed.", child.name);
            self.restart_deadline(attempts, &statement);
        }
        let next_look = self.next_look(attempts, self.slow_at(self.schedule.now));
        AttemptState::UnderWay(self.working().until(next_look).with([step]))
    }

    /// The Job of the attempt has no pod. A Job that was just created will have one soon. After that, the API server usually
    /// refuses the pod, which only an Event of the Job shows.
    fn without_pod<Report>(
        &self,
        attempts: &mut Attempts,
        child: &Child,
        job: &Job,
        create: impl FnOnce() -> Result<Object, Impossible>,
    ) -> AttemptState<Report> {
        let expected = child
            .created()
            .unwrap_or(attempts.since)
            .checked_add(POD_EXPECTED);
        let expected = expected.unwrap_or(Timestamp::MAX);
        if self.schedule.now < expected {
            return match self.starting(attempts, child, None) {
                AttemptState::UnderWay(planned) => AttemptState::UnderWay(planned.until(expected)),
                state => state,
            };
        }
        let Ok(desired) = create() else {
            return self.starting(attempts, child, None);
        };
        if let Some(planned) = self.replaced(child, &desired) {
            return AttemptState::UnderWay(planned);
        }
        let Some(pod) = agent::pod_of(&desired, &job.name_any()) else {
            return self.starting(attempts, child, None);
        };
        let pod = Object::Pod(pod);
        if let Some(refusal) = self.answers.refusal(&Step::DryRun(Box::new(pod.clone()))) {
            let statement = format!("The API server refuses the pod of Job {}", child.name);
            let message = quoting(&statement, Some(&refusal.message));
            return self.blocked(attempts, Reason::WriteRefused, message);
        }
        match self.answers.dry_run(pod) {
            Some(ask) => AttemptState::UnderWay(self.working().until(self.schedule.now).with([ask])),
            None => self.starting(attempts, child, None),
        }
    }

    /// The removal of a child that cannot start, because the App has changed and it would be created differently now. A child
    /// that may have begun to migrate is never removed.
    fn replaced(&self, child: &Child, desired: &Object) -> Option<Planned> {
        let (applied, desired_hash) = (child.applied_hash()?, applied_hash(desired.meta())?);
        if applied == desired_hash || self.task.is_unowned() || child.is_being_deleted() {
            return None;
        }
        Some(self.working().with(child.reference().map(Step::Delete)))
    }

    fn restart_deadline(&self, attempts: &mut Attempts, why: &str) {
        attempts.since = self.schedule.now;
        record(attempts, self.blocked_reason, why);
    }

    /// When a child created at that moment has taken long to start.
    fn slow_at(&self, created: Timestamp) -> Option<Timestamp> {
        created.checked_add(self.slow_start?).ok()
    }

    /// When to look at the child again although nothing was seen to change.
    fn next_look(&self, attempts: &Attempts, slow_at: Option<Timestamp>) -> Timestamp {
        let end = self.schedule.end(attempts);
        slow_at.map_or(end, |slow_at| slow_at.min(end))
    }

    /// The child does not report yet.
    fn starting<Report>(
        &self,
        attempts: &mut Attempts,
        child: &Child,
        waiting: Option<String>,
    ) -> AttemptState<Report> {
        let has_started = child.started().is_some();
        if has_started && self.deadline_for == DeadlineFor::Start {
            return AttemptState::UnderWay(self.working());
        }
        if has_started && self.is_blocked(attempts) {
            // What delayed its start is over: should it hang, that is not the reason.
            attempts.reason = None;
            attempts.message = None;
        }
        if let Some(message) = waiting {
            return self.blocked(attempts, self.blocked_reason, message);
        }
        let slow_at = if has_started {
            None
        } else {
            self.slow_at(child.created().unwrap_or(attempts.since))
        };
        if slow_at.is_some_and(|slow_at| slow_at <= self.schedule.now) {
            let message = format!(
                "{} is not starting. To see why: {}",
                self.pod_in_message(child),
                kubectl::events(self.namespace, &child.name_of_pod())
            );
            return self.blocked(attempts, self.blocked_reason, message);
        }
        if self.schedule.is_over(attempts) {
            return self.overdue(attempts);
        }
        AttemptState::UnderWay(self.working().until(self.next_look(attempts, slow_at)))
    }

    /// Whether something is recorded that keeps the child of the current attempt from being created or from starting.
    pub(crate) fn is_blocked(&self, attempts: &Attempts) -> bool {
        let Some(reason) = recorded_reason(attempts) else {
            return false;
        };
        let not_started = [
            Reason::PodNotStarting,
            Reason::ImagePullFailed,
            Reason::WriteRefused,
            Reason::NameTaken,
            Reason::ObjectBeingDeleted,
        ];
        reason == self.blocked_reason || not_started.contains(&reason)
    }

    /// Another object has the child's name: one that the garbage collector is about to remove, most often.
    fn name_taken<Report>(&self, attempts: &mut Attempts, kind: Kind, child: &Child) -> AttemptState<Report> {
        let object = format!("{} {}", kind.as_str(), child.name);
        let work_for = self.task.work_for.as_str();
        if child.is_being_deleted() {
            let message =
                format!("Waiting for {object} to be deleted. It was not created for this {work_for}.");
            return self.blocked(attempts, Reason::ObjectBeingDeleted, message);
        }
        let message = format!(
            "{object} already exists and was not created for this {work_for}. Delete it: {}",
            kubectl::delete_object(self.namespace, kind, &child.name)
        );
        self.blocked(attempts, Reason::NameTaken, message)
    }

    /// Something blocks the child from being created or from starting: waited for until the deadline.
    fn blocked<Report>(
        &self,
        attempts: &mut Attempts,
        reason: Reason,
        message: String,
    ) -> AttemptState<Report> {
        record(attempts, reason, &message);
        if self.schedule.is_over(attempts) {
            return self.overdue(attempts);
        }
        let end = self.schedule.end(attempts);
        AttemptState::UnderWay(Planned::new(Progress::running(reason, message)).until(end))
    }

    fn overdue<Report>(&self, attempts: &Attempts) -> AttemptState<Report> {
        let message = attempts.message.as_deref().unwrap_or(self.working_message);
        AttemptState::Overdue {
            reason: recorded_reason(attempts).unwrap_or(Reason::DeadlineExceeded),
            message: message.to_owned(),
        }
    }

    fn pod_in_message(&self, child: &Child) -> String {
        match self.task.form {
            Form::Job => format!("The pod of Job {}", child.name),
            Form::Pod => format!("Pod {}", child.name),
        }
    }

    fn working(&self) -> Planned {
        Planned::new(Progress::running(self.working_reason, self.working_message))
    }
}

/// The pause until the next attempt.
pub(crate) fn paused(next: Timestamp, message: String) -> Planned {
    Planned::new(Progress::running(Reason::WaitingForEnvironment, message)).until(next)
}

/// Removal of the Jobs of some work whose attempts are over: all but the one of that name.
pub(crate) fn leftovers(identity: Identity<'_>, jobs: &[Arc<Job>], keep: Option<&str>) -> Vec<Step> {
    let over = |job: &&Arc<Job>| {
        identity.matches(&job.metadata)
            && job.metadata.deletion_timestamp.is_none()
            && Some(&*job.name_any()) != keep
    };
    jobs.iter()
        .filter(over)
        .filter_map(|job| ObjectRef::of(Kind::Job, &job.metadata))
        .map(Step::Delete)
        .collect()
}

/// The reason recorded last, unless another version of Fairway recorded it.
fn recorded_reason(attempts: &Attempts) -> Option<Reason> {
    attempts.reason.as_deref()?.parse().ok()
}

fn record(attempts: &mut Attempts, reason: Reason, message: &str) {
    attempts.reason = Some(reason.into());
    attempts.message = Some(message::sentence(message));
}
