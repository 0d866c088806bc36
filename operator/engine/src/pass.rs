//! One pass: observe, plan, execute, commit. Free of I/O: it returns an [`Action`] and is resumed with its [`Answer`].

mod execute;

use crate::announcement::Announcement;
use crate::answer::{Meaning, meaning};
use crate::caches::View;
use crate::clock::{Instant, Now};
use crate::key::{Key, Work};
use crate::kinds::{Kind, Reconciled, Service};
use crate::lookups::{Found, Lookup};
use crate::observe::Sight;
use crate::own::{Commit, Decided, Observation, Own, Planning, gone};
use crate::probes::Probe;
use crate::request::{Answer, Request, Resource};
use crate::state::State;
use fairway_crds::Reason;
use fairway_plan::{Step, Wake};
use kube::core::DynamicObject;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// How often one pass plans again after an answer changed what is known. Each answer is remembered, so only an App with
/// more objects than this reaches the limit.
const MAX_REPLANS: usize = 64;

/// Shortest timer, so that a planner that asks for a time in the past cannot spin.
const MIN_TIMER: Duration = Duration::from_millis(10);

/// Delay after a conflict; the event of the newer object usually comes first.
const CONFLICT_RETRY: Duration = Duration::from_secs(1);

/// A pass that is under way.
#[derive(Clone, Debug)]
pub struct Pass {
    work: Work,
    /// The object's App, once it is known.
    app: Key,
    /// When the first of the reasons for this pass came up.
    since: Instant,
    waited: Duration,
    replans: usize,
    ended: Ended,
    stage: Stage,
}

#[derive(Clone, Debug)]
enum Stage {
    /// Not started.
    Observing,
    /// Waiting for the first of these lookups.
    LookingUp(Box<Observation>, VecDeque<Lookup>, Instant),
    /// Waiting for the planner.
    Planning,
    /// Waiting for probes to be started.
    Probing(Box<Decided>),
    /// Waiting for the result of the first step.
    Executing(Execution),
    /// Reading the object whose name is that of the one to be created.
    Adopting(Execution),
    /// Waiting for the status write.
    Committing(Box<Commit>, Wake),
    /// The pass is over.
    Over,
}

/// Steps on their way.
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
    /// The status.
    Commit {
        observed: Own,
        commit: Option<Box<Commit>>,
        wake: Wake,
    },
    /// Nothing: the object is gone, and the steps remove what it has left behind.
    Leave,
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
    /// A Service has been switched, so long after the last change that the switch waited for.
    pub switched: Option<Duration>,
    /// What is worth an Event.
    pub announcements: Vec<Announcement>,
    /// The outcome with which the object has ended.
    pub outcome: Option<(Reconciled, String)>,
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
    #[error("The API server refuses to write {object}: {message}")]
    Refused {
        /// Kind and name.
        object: String,
        /// What the API server said.
        message: String,
        /// Whether an Event has said so before.
        announced: bool,
    },
    /// The name is taken by an object that is just being deleted.
    #[error("{object} exists and is being deleted")]
    BeingDeleted {
        /// `Kind/name`.
        object: String,
    },
    /// A write could not be done now.
    #[error("{object} could not be written: {message}")]
    Unavailable {
        /// `Kind/name`.
        object: String,
        /// Why.
        message: String,
    },
    /// An object could not be read.
    #[error("{object} could not be read: {message}")]
    Unread {
        /// What was asked for.
        object: String,
        /// Why.
        message: String,
    },
    /// The status could not be written.
    #[error("status could not be written: {message}")]
    Uncommitted {
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
            | Self::Unread { .. }
            | Self::Uncommitted { .. }
            | Self::UnexpectedAnswer => Reason::WriteFailed,
        }
    }
}

impl Pass {
    pub(crate) fn new(work: Work, since: Instant, waited: Duration) -> Self {
        Self {
            app: work.key.clone(),
            work,
            since,
            waited,
            replans: 0,
            ended: Ended::default(),
            stage: Stage::Observing,
        }
    }

    /// The object.
    pub fn work(&self) -> &Work {
        &self.work
    }

    /// How long the object has waited for this pass, while passes could start.
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// Goes on with the answer to what was asked last; [`Answer::Nothing`] to begin.
    pub(crate) fn next(&mut self, state: &mut State, answer: Answer, now: Now) -> Action {
        match (std::mem::replace(&mut self.stage, Stage::Over), answer) {
            (Stage::Observing, Answer::Nothing) => self.observe(state, now),
            (Stage::LookingUp(observation, lookups, asked), answer) => {
                self.looked_up(state, observation, lookups, asked, answer, now)
            }
            (Stage::Planning, Answer::Decided(decided)) => self.decided(state, decided, now),
            (Stage::Probing(decided), Answer::Nothing) => self.execute(state, *decided, now),
            (Stage::Executing(execution), answer) => self.executed(state, execution, answer, now),
            (Stage::Adopting(execution), answer) => self.adopt(state, execution, answer, now),
            (Stage::Committing(commit, wake), answer) => self.committed(state, commit, wake, answer, now),
            _ => self.fail(state, PassError::UnexpectedAnswer, now),
        }
    }

    fn observe(&mut self, state: &mut State, now: Now) -> Action {
        let Work { kind, key } = &self.work;
        // An App that is gone may have left objects behind: it stays its own App.
        match state.caches.home(kind.kind(), key) {
            Some(app) => self.app = app.clone(),
            None if *kind == Reconciled::App => {}
            None => return self.leave(state, now),
        }
        let State {
            caches,
            refusals,
            probes,
            ..
        } = state;
        let app = &self.app;
        let view = caches.view(app, &self.work, now.monotonic, |group| {
            let sight = Sight {
                group,
                app,
                refusals,
                probes,
                now: now.monotonic,
            };
            Observation::observe(*kind, &sight, key)
        });
        match view {
            View::Of(observation) => {
                let lookups = observation.lookups(key).into();
                self.look_up(state, observation, lookups, now)
            }
            View::Stale(until) => self.requeue(state, PassResult::At(until), now),
            View::Held => self.requeue(state, PassResult::OnChange, now),
            View::Gone => self.leave(state, now),
        }
    }

    /// Adds what is known, and asks for the first object that is not.
    fn look_up(
        &mut self,
        state: &mut State,
        mut observation: Box<Observation>,
        mut lookups: VecDeque<Lookup>,
        now: Now,
    ) -> Action {
        while let Some(lookup) = lookups.front() {
            let Some(found) = known(state, lookup, now.monotonic) else {
                let request = match lookup {
                    Lookup::Service(key) => Request::Read(Resource::Of(Kind::Service), key.clone()),
                    Lookup::Claim(key) => Request::Read(Resource::Claim, key.clone()),
                };
                self.stage = Stage::LookingUp(observation, lookups, now.monotonic);
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

    fn looked_up(
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
        let found = match result_of(answer) {
            Ok(object) => state
                .lookups
                .answered(&lookup, object.map(|object| *object), asked)
                .map_err(|_| "it cannot be parsed".to_owned()),
            Err(Meaning::NotFound) => state
                .lookups
                .answered(&lookup, None, asked)
                .map_err(|_| String::new()),
            Err(meaning) => Err(message_of(meaning)),
        };
        match found {
            Ok(found) => {
                observation.add(&lookup.key().name, found);
                self.look_up(state, observation, lookups, now)
            }
            Err(message) => {
                let object = match &lookup {
                    Lookup::Service(key) => format!("Service {key}"),
                    Lookup::Claim(key) => format!("PersistentVolumeClaim {key}"),
                };
                self.fail(state, PassError::Unread { object, message }, now)
            }
        }
    }

    fn decided(&mut self, state: &mut State, mut decided: Box<Decided>, now: Now) -> Action {
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
        self.step(state, execution, now)
    }

    /// The object is gone: what it has left behind is removed.
    fn leave(&mut self, state: &mut State, now: Now) -> Action {
        let steps = gone(state, self.work.kind, &self.work.key);
        let execution = Execution {
            steps: steps.into_iter().map(Arc::new).collect(),
            cached: None,
            then: Then::Leave,
        };
        self.step(state, execution, now)
    }

    fn commit(&mut self, state: &mut State, then: Then, now: Now) -> Action {
        match then {
            Then::Leave => self.complete(state, PassResult::OnChange, now),
            Then::Commit {
                commit: None, wake, ..
            } => self.rest(state, wake, now),
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

    fn committed(
        &mut self,
        state: &mut State,
        commit: Box<Commit>,
        wake: Wake,
        answer: Answer,
        now: Now,
    ) -> Action {
        match result_of(answer) {
            Ok(Some(stored)) => {
                let kind = self.work.kind.kind();
                state
                    .caches
                    .wrote(&self.app, kind, &stored.metadata, now.monotonic);
                self.ended.announcements.extend(commit.announcement);
                self.ended.outcome = commit.outcome.map(|outcome| (self.work.kind, outcome));
                self.rest(state, wake, now)
            }
            Ok(None) => self.fail(state, PassError::UnexpectedAnswer, now),
            Err(
                Meaning::Conflict
                | Meaning::AlreadyExists
                | Meaning::NotFound
                | Meaning::NamespaceTerminating,
            ) => self.retry_conflict(state, now),
            Err(meaning) => {
                let message = message_of(meaning);
                self.fail(state, PassError::Uncommitted { message }, now)
            }
        }
    }

    /// All is done until the planner's time comes, or a refused write is attempted again.
    fn rest(&mut self, state: &mut State, wake: Wake, now: Now) -> Action {
        let forgotten = state.refusals.forgotten(&self.app, now.monotonic);
        let next = timer(wake, now).into_iter().chain(forgotten).min();
        self.complete(state, next.map_or(PassResult::OnChange, PassResult::At), now)
    }

    /// An answer that leaves nothing behind in the cluster is planned on before anything else is done.
    fn replan(&mut self, state: &mut State, now: Now) -> Action {
        self.replans += 1;
        if self.replans >= MAX_REPLANS {
            return self.requeue(state, PassResult::Again, now);
        }
        self.observe(state, now)
    }

    fn retry_conflict(&mut self, state: &mut State, now: Now) -> Action {
        self.requeue(state, PassResult::At(now.monotonic + CONFLICT_RETRY), now)
    }

    fn fail(&mut self, state: &mut State, error: PassError, now: Now) -> Action {
        let delay = state.backoff.failed(&self.work);
        state.queue.done(&self.work, Some(now.monotonic + delay));
        self.done(PassResult::Failed(error, delay))
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
        self.done(result)
    }

    fn done(&mut self, result: PassResult) -> Action {
        self.stage = Stage::Over;
        Action::Done(Ended {
            result,
            ..std::mem::take(&mut self.ended)
        })
    }
}

/// What is known of an object that is looked up: from a watch after all, or from an answer of a short while ago.
fn known(state: &mut State, lookup: &Lookup, now: Instant) -> Option<Found> {
    if let Lookup::Service(key) = lookup
        && let Some(service) = state.caches.get::<Service>(key)
    {
        state.lookups.forget(lookup);
        return Some(Found::Service(service));
    }
    state.lookups.known(lookup, now)
}

/// What the API server holds now, or what its error means.
fn result_of(answer: Answer) -> Result<Option<Box<DynamicObject>>, Meaning> {
    match answer {
        Answer::Object(object) => Ok(Some(object)),
        Answer::Done => Ok(None),
        Answer::Error(status) => Err(meaning(&status)),
        Answer::Lost(why) => Err(Meaning::Unavailable(why.to_owned())),
        Answer::Nothing | Answer::Decided(_) => {
            Err(Meaning::Unavailable("the driver gave no answer".to_owned()))
        }
    }
}

fn message_of(meaning: Meaning) -> String {
    match meaning {
        Meaning::Refused(refused) => refused.message,
        Meaning::NotFound => "it or its namespace does not exist".to_owned(),
        Meaning::Conflict => "it was changed meanwhile".to_owned(),
        Meaning::AlreadyExists => "it already exists".to_owned(),
        Meaning::NamespaceTerminating => "the namespace is being deleted".to_owned(),
        Meaning::Unavailable(message) => message,
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
