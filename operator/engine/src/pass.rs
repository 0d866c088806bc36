//! One pass: observe, plan, execute, commit. Free of I/O: it returns an [`Action`] and is resumed with its [`Answer`].

mod execute;

use crate::announcement::Announcement;
use crate::answer::{Meaning, meaning};
use crate::caches::CacheRead;
use crate::clock::{Instant, Now};
use crate::key::{NamespacedName, ObjectKey};
use crate::kinds::{Kind, OwnKind, Service};
use crate::lookups::{Lookup, LookupResult};
use crate::observe::Scope;
use crate::own::{Commit, Decided, Observation, Own, Planning, gone};
use crate::probes::Probe;
use crate::request::{Answer, Request};
use crate::state::State;
use fairway_crds::Reason;
use fairway_plan::{Step, Wake};
use kube::core::{DynamicObject, ObjectMeta};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// How often one pass plans again after an answer changed what is known. Each answer is remembered, so only an App with
/// more objects than this reaches the limit.
const MAX_REPLANS: usize = 64;

/// Shortest timer, so that a planner that asks for a time in the past cannot spin.
const MIN_TIMER: Duration = Duration::from_millis(10);

/// Delay after the first conflicts; the event of the newer object usually comes first.
const CONFLICT_RETRY: Duration = Duration::from_secs(1);

/// A pass that is under way.
#[derive(Clone, Debug)]
pub struct Pass {
    work: ObjectKey,
    /// The object's App, once it is known.
    app: NamespacedName,
    /// Whether the App was there, and not being deleted, when it was observed.
    app_stays: bool,
    /// When the first of the reasons for this pass came up.
    since: Instant,
    /// When the caches were read.
    observed_at: Instant,
    waited: Duration,
    replans: usize,
    /// Whether it has written something, whose event enqueues it again.
    wrote: bool,
    ended: Ended,
    stage: Stage,
}

#[derive(Clone, Debug)]
enum Stage {
    /// Not started.
    Observing,
    /// Waiting for the first of these lookups.
    LookingUp {
        observation: Box<Observation>,
        lookups: VecDeque<Lookup>,
        /// When the request for the first lookup was sent.
        asked: Instant,
    },
    /// Waiting for the planner.
    Planning,
    /// Waiting for probes to be started.
    Probing(Box<Decided>),
    /// Waiting for the result of the first step.
    Executing(Execution),
    /// Reading the existing object that has the name of the one to be created.
    Adopting(Execution),
    /// Waiting for the status write.
    Committing(Box<Commit>, Wake),
    /// The pass is over.
    Over,
}

/// The steps that are still to be executed.
#[derive(Clone, Debug)]
struct Execution {
    steps: VecDeque<Arc<Step>>,
    /// The resource version under which the object of the first step is cached.
    cached: Option<u64>,
    then: Then,
}

/// What comes after the steps.
#[derive(Clone, Debug)]
enum Then {
    /// The status write, if the status has changed.
    Commit {
        observed: Own,
        commit: Option<Box<Commit>>,
        wake: Wake,
    },
    /// The end of the pass: the object was deleted, and the steps remove what it has left behind.
    Finish,
}

/// What comes next in a pass.
#[derive(Debug)]
pub enum Action {
    /// The planner is to be asked; the answer is [`Answer::Decided`].
    Plan(Planning),
    /// These pods are to be asked from now on, beside the pass; the answer is [`Answer::Nothing`].
    Probe(Vec<Probe>),
    /// The API server is to be asked; the answer is what it said.
    Ask(Request),
    /// The pass is over.
    Done(Ended),
}

/// How a pass has ended.
#[derive(Clone, Debug, Default)]
pub struct Ended {
    /// When the next pass is due without any change, or why this one failed.
    pub result: PassResult,
    /// Time from when this reconcile was due until it switched a Service; `None` when it switched none.
    pub switched: Option<Duration>,
    /// What is worth an Event.
    pub announcements: Vec<Announcement>,
    /// The outcome with which the object has ended.
    pub outcome: Option<(OwnKind, String)>,
    /// The step that a Release has come to, if it is another one than before, or for another reason.
    pub step: Option<ReleaseStep>,
}

/// A step of a release, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleaseStep {
    /// Name of the App.
    pub app: String,
    /// The rung that is not met or, at the end, the outcome; `None` before the App has accepted the release.
    pub step: Option<String>,
    /// The reason in the Release's condition.
    pub reason: String,
}

/// When the next pass is due, or why this one failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PassResult {
    /// It waits for a change.
    #[default]
    OnChange,
    /// It waits for a change or this moment.
    At(Instant),
    /// It looks again at once.
    Again,
    /// It failed and is retried after this time.
    Failed(PassError, Duration),
}

/// Why a pass failed. Says nothing of an object's contents.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PassError {
    /// The API server refused a write, and the planner cannot say so or has done so already.
    #[error("the API server refuses to write {object}: {message}")]
    Refused {
        /// `Kind name`.
        object: String,
        /// What the API server said.
        message: String,
    },
    /// The name is taken by an object that is just being deleted.
    #[error("{object} exists and is being deleted")]
    BeingDeleted {
        /// `Kind name`.
        object: String,
    },
    /// A write could not be done now.
    #[error("{object} could not be written: {message}")]
    Unavailable {
        /// `Kind name`.
        object: String,
        /// Why.
        message: String,
    },
    /// An object could not be read.
    #[error("{object} could not be read: {message}")]
    NotRead {
        /// `Kind name`, or which pods.
        object: String,
        /// Why.
        message: String,
    },
    /// The status could not be written.
    #[error("status could not be written: {message}")]
    StatusNotWritten {
        /// Why.
        message: String,
    },
    /// The driver gave an answer that does not match the request.
    #[error("the driver returned an answer that does not match the request")]
    UnexpectedAnswer,
}

impl PassError {
    /// Reason of the failure, for Events and logs.
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Refused { .. } => Reason::WriteRefused,
            Self::BeingDeleted { .. } => Reason::ObjectBeingDeleted,
            Self::Unavailable { .. }
            | Self::NotRead { .. }
            | Self::StatusNotWritten { .. }
            | Self::UnexpectedAnswer => Reason::WriteFailed,
        }
    }
}

impl Pass {
    pub(crate) fn new(work: ObjectKey, since: Instant, waited: Duration) -> Self {
        Self {
            app: work.key.clone(),
            app_stays: false,
            work,
            since,
            observed_at: since,
            waited,
            replans: 0,
            wrote: false,
            ended: Ended::default(),
            stage: Stage::Observing,
        }
    }

    /// The object that is reconciled.
    pub fn object(&self) -> &ObjectKey {
        &self.work
    }

    /// How long the object has waited for this pass, while passes could start.
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// Goes on with the answer to the last action; [`Answer::Nothing`] to begin.
    pub(crate) fn next(&mut self, state: &mut State, answer: Answer, now: Now) -> Action {
        match (std::mem::replace(&mut self.stage, Stage::Over), answer) {
            (Stage::Observing, Answer::Nothing) => self.observe(state, now),
            (
                Stage::LookingUp {
                    observation,
                    lookups,
                    asked,
                },
                answer,
            ) => self.on_lookup(state, observation, lookups, asked, answer, now),
            (Stage::Planning, Answer::Decided(decided)) => self.on_decision(state, decided, now),
            (Stage::Probing(decided), Answer::Nothing) => self.execute(state, *decided, now),
            (Stage::Executing(execution), answer) => self.on_write(state, execution, answer, now),
            (Stage::Adopting(execution), answer) => self.on_existing(state, execution, answer, now),
            (Stage::Committing(commit, wake), answer) => self.on_commit(state, commit, wake, answer, now),
            _ => self.fail(state, PassError::UnexpectedAnswer, now),
        }
    }

    fn observe(&mut self, state: &mut State, now: Now) -> Action {
        let ObjectKey { kind, key } = &self.work;
        // A deleted App may have left objects behind, which are cached under its own name.
        match state.caches.app_of(kind.kind(), key) {
            Some(app) => self.app = app.clone(),
            None if *kind == OwnKind::App => {}
            None => return self.clean_up_deleted(state, now),
        }
        self.app_stays = state.caches.app_stays(&self.app);
        self.observed_at = now.monotonic;
        let State {
            caches,
            answers,
            probes,
            probe_pods,
            settings,
            ..
        } = state;
        let app = &self.app;
        let serving = caches.serving();
        let read = caches.read(app, &self.work, now.monotonic, |group, shared| {
            let mut scope = Scope {
                group,
                app,
                serving: &serving,
                shared,
                answers,
                probes,
                probe_pods,
                settings,
                now: now.monotonic,
            };
            Observation::observe(*kind, &mut scope, key)
        });
        match read {
            CacheRead::Fresh(observation) => {
                let lookups = observation.lookups(key).into();
                self.next_lookup(state, observation, lookups, now)
            }
            CacheRead::Stale(until) => self.requeue(state, PassResult::At(until), now),
            CacheRead::Unreadable => self.requeue(state, PassResult::OnChange, now),
            CacheRead::Deleted => self.clean_up_deleted(state, now),
        }
    }

    /// Adds what is known, and asks for the first object that is not; the planner follows.
    fn next_lookup(
        &mut self,
        state: &mut State,
        mut observation: Box<Observation>,
        mut lookups: VecDeque<Lookup>,
        now: Now,
    ) -> Action {
        while let Some(lookup) = lookups.front() {
            let Some(found) = known(state, &self.work, lookup, now.monotonic) else {
                let request = lookup.request();
                self.stage = Stage::LookingUp {
                    observation,
                    lookups,
                    asked: now.monotonic,
                };
                return Action::Ask(request);
            };
            observation.add(&lookup.key().name, found);
            lookups.pop_front();
        }
        self.stage = Stage::Planning;
        Action::Plan(Planning {
            observation,
            settings: state.settings.clone(),
        })
    }

    fn on_lookup(
        &mut self,
        state: &mut State,
        mut observation: Box<Observation>,
        mut lookups: VecDeque<Lookup>,
        asked: Instant,
        answer: Answer,
        now: Now,
    ) -> Action {
        let Some(lookup) = lookups.pop_front() else {
            return self.fail(state, PassError::UnexpectedAnswer, now);
        };
        match lookup.result(answer) {
            Some(Ok(found)) => {
                observation.add(&lookup.key().name, found.clone());
                state.lookups.remember(&self.work, lookup, found, asked);
                self.next_lookup(state, observation, lookups, now)
            }
            Some(Err(message)) => {
                let object = lookup.object();
                self.fail(state, PassError::NotRead { object, message }, now)
            }
            None => self.fail(state, PassError::UnexpectedAnswer, now),
        }
    }

    fn on_decision(&mut self, state: &mut State, mut decided: Box<Decided>, now: Now) -> Action {
        if let Some(targets) = decided.probes.take() {
            let begin = state.probes.set(&self.work.key, targets);
            if !begin.is_empty() {
                self.stage = Stage::Probing(decided);
                return Action::Probe(begin);
            }
        }
        self.execute(state, *decided, now)
    }

    fn execute(&mut self, state: &mut State, decided: Decided, now: Now) -> Action {
        let execution = Execution {
            steps: decided.steps.into_iter().map(Arc::new).collect(),
            cached: None,
            then: Then::Commit {
                observed: decided.object,
                commit: decided.commit,
                wake: decided.wake,
            },
        };
        self.ask_step(state, execution, now)
    }

    /// Removes what a deleted object has left behind.
    fn clean_up_deleted(&mut self, state: &mut State, now: Now) -> Action {
        let steps = gone(state, self.work.kind, &self.work.key);
        let execution = Execution {
            steps: steps.into_iter().map(Arc::new).collect(),
            cached: None,
            then: Then::Finish,
        };
        self.ask_step(state, execution, now)
    }

    /// Writes the status if it has changed, or ends the pass.
    fn after_steps(&mut self, state: &mut State, then: Then, now: Now) -> Action {
        match then {
            Then::Finish => self.complete(state, PassResult::OnChange, now),
            Then::Commit {
                commit: None, wake, ..
            } => self.finish(state, wake, now),
            Then::Commit {
                commit: Some(commit),
                wake,
                ..
            } => {
                let request = Request::Commit(commit.object.clone());
                self.stage = Stage::Committing(commit, wake);
                Action::Ask(request)
            }
        }
    }

    fn on_commit(
        &mut self,
        state: &mut State,
        commit: Box<Commit>,
        wake: Wake,
        answer: Answer,
        now: Now,
    ) -> Action {
        match result_of(answer) {
            Some(Ok(Some(stored))) => {
                let kind = self.work.kind.kind();
                self.expect_write(state, kind, &stored.metadata, now);
                self.ended.step = self.step(&commit);
                self.ended.announcements.extend(commit.announcement);
                self.ended.announcements.extend(commit.warning);
                self.ended.outcome = commit.outcome.map(|outcome| (self.work.kind, outcome));
                self.finish(state, wake, now)
            }
            Some(Ok(None)) | None => self.fail(state, PassError::UnexpectedAnswer, now),
            Some(Err(meaning)) => {
                let is_too_late = matches!(
                    meaning,
                    Meaning::Conflict
                        | Meaning::AlreadyExists
                        | Meaning::NotFound
                        | Meaning::NamespaceTerminating
                );
                let message = meaning.into_message();
                let error = PassError::StatusNotWritten { message };
                if is_too_late {
                    self.retry_conflict(state, error, now)
                } else {
                    self.fail(state, error, now)
                }
            }
        }
    }

    fn step(&self, commit: &Commit) -> Option<ReleaseStep> {
        let news = commit
            .announcement
            .as_ref()
            .filter(|_| self.work.kind == OwnKind::Release)?;
        let rung = commit.rung.map(str::to_owned);
        Some(ReleaseStep {
            app: self.app.name.to_string(),
            step: commit.outcome.clone().or(rung),
            reason: news.reason.clone(),
        })
    }

    /// Expects the event of a write of this pass.
    fn expect_write(&mut self, state: &mut State, kind: Kind, meta: &ObjectMeta, now: Now) {
        self.wrote = true;
        state.caches.expect_write(&self.app, kind, meta, now.monotonic);
    }

    /// Ends a pass that was completed, until the planner's time comes or a refused write is attempted again.
    fn finish(&mut self, state: &mut State, wake: Wake, now: Now) -> Action {
        // A refusal that has expired since was still left out of this plan.
        let forgotten = state.answers.forgotten(&self.app, self.observed_at);
        // In case the event of a write is lost.
        let lost = self.wrote.then(|| state.caches.expiry(&self.app)).flatten();
        let next = timer(wake, now).into_iter().chain(forgotten).chain(lost).min();
        self.complete(state, next.map_or(PassResult::OnChange, PassResult::At), now)
    }

    /// Plans again at once after an answer that left nothing behind in the cluster.
    fn replan(&mut self, state: &mut State, now: Now) -> Action {
        self.replans += 1;
        if self.replans >= MAX_REPLANS {
            return self.requeue(state, PassResult::Again, now);
        }
        self.observe(state, now)
    }

    /// Ends a pass that met a newer version of an object. It counts in the backoff: a conflict that comes back in every
    /// pass becomes a failure, which is logged and waits ever longer.
    fn retry_conflict(&mut self, state: &mut State, error: PassError, now: Now) -> Action {
        let delay = state.backoff.failed(&self.work);
        if delay > CONFLICT_RETRY {
            return self.fail_for(state, error, delay, now);
        }
        self.requeue(state, PassResult::At(now.monotonic + CONFLICT_RETRY), now)
    }

    fn fail(&mut self, state: &mut State, error: PassError, now: Now) -> Action {
        let delay = state.backoff.failed(&self.work);
        self.fail_for(state, error, delay, now)
    }

    fn fail_for(&mut self, state: &mut State, error: PassError, delay: Duration, now: Now) -> Action {
        state.queue.done(&self.work, Some(now.monotonic + delay));
        self.end(PassResult::Failed(error, delay))
    }

    /// Ends a pass that did all there was to do.
    fn complete(&mut self, state: &mut State, result: PassResult, now: Now) -> Action {
        state.backoff.reset(&self.work);
        self.requeue(state, result, now)
    }

    /// Ends a pass that did not get to its end, without a failure of its own. Earlier failures still count.
    fn requeue(&mut self, state: &mut State, result: PassResult, now: Now) -> Action {
        let next = match result {
            PassResult::At(at) => Some(at),
            PassResult::Again => Some(now.monotonic),
            PassResult::OnChange | PassResult::Failed(..) => None,
        };
        state.queue.done(&self.work, next);
        self.end(result)
    }

    fn end(&mut self, result: PassResult) -> Action {
        self.stage = Stage::Over;
        Action::Done(Ended {
            result,
            ..std::mem::take(&mut self.ended)
        })
    }
}

/// What is known of an object that is looked up: from a watch after all, or from an answer of a short while ago.
fn known(state: &mut State, by: &ObjectKey, lookup: &Lookup, now: Instant) -> Option<LookupResult> {
    if let Lookup::Service(key) = lookup
        && let Some(service) = state.caches.get::<Service>(key)
    {
        state.lookups.forget(lookup);
        return Some(LookupResult::Service(service));
    }
    state.lookups.known(by, lookup, now)
}

/// What the API server holds of an object now, or what its error means; `None` if that is no answer about one object.
fn result_of(answer: Answer) -> Option<Result<Option<Box<DynamicObject>>, Meaning>> {
    match answer {
        Answer::Object(object) => Some(Ok(Some(object))),
        Answer::Done | Answer::Passed(_) => Some(Ok(None)),
        Answer::Error(status) => Some(Err(meaning(&status))),
        Answer::Lost(why) => Some(Err(Meaning::Unavailable(why.to_owned()))),
        Answer::Nothing | Answer::Decided(_) | Answer::Objects(_) => None,
    }
}

/// The moment of a wake on the monotonic clock.
fn timer(wake: Wake, now: Now) -> Option<Instant> {
    let Wake::At(moment) = wake else { return None };
    // Timers count whole milliseconds: one more, or the planner would be asked just before its time.
    let wait =
        Duration::try_from(moment.duration_since(now.wall)).map(|wait| wait + Duration::from_millis(1));
    Some(now.monotonic + wait.unwrap_or_default().max(MIN_TIMER))
}

#[cfg(test)]
mod tests;
