//! The steps of a pass: each is asked for, and its answer is learned from.

use super::{Action, Execution, Pass, PassError, PassResult, Stage, Then, message_of, result_of};
use crate::adoption::{NotOurs, adopt};
use crate::announcement::{Announcement, Severity};
use crate::answer::{Meaning, Refused};
use crate::caches::version_of;
use crate::clock::Now;
use crate::expectations::Until;
use crate::key::Key;
use crate::refusals::News;
use crate::request::{Answer, Request, Resource, written};
use crate::state::State;
use fairway_plan::{Step, object};

impl Pass {
    /// Asks for the first step, or for what comes after the steps.
    pub(super) fn step(&mut self, state: &mut State, mut execution: Execution, now: Now) -> Action {
        let Some(step) = execution.steps.front().cloned() else {
            return self.commit(state, execution.then, now);
        };
        if matches!(*step, Step::Apply(_) | Step::DryRun(_) | Step::Create(_))
            && let Some(until) = state.refusals.terminating(&self.app.namespace, now.monotonic)
        {
            return self.requeue(state, PassResult::At(until), now);
        }
        execution.cached = state
            .caches
            .version(&self.app, written(&step).into(), name_of(&step));
        self.stage = Stage::Executing(execution);
        Action::Ask(Request::Write(step))
    }

    pub(super) fn executed(
        &mut self,
        state: &mut State,
        execution: Execution,
        answer: Answer,
        now: Now,
    ) -> Action {
        let Some(step) = execution.steps.front().cloned() else {
            return self.fail(state, PassError::UnexpectedAnswer, now);
        };
        let kind = written(&step);
        match (&*step, result_of(answer)) {
            (Step::DryRun(_), Ok(_)) => {
                if state.refusals.passed(&self.app, &step.id(), &step.hash()) == News::Yes {
                    return self.replan(state, now);
                }
                self.after(state, execution, now)
            }
            (Step::Apply(_) | Step::Create(_) | Step::Scale(..), Ok(Some(object))) => {
                let meta = &object.metadata;
                let is_news = execution
                    .cached
                    .zip(version_of(meta))
                    .is_none_or(|(cached, stored)| cached < stored);
                if matches!(*step, Step::Apply(_)) && kind == object::Kind::Service && is_news {
                    self.ended.switched = Some(now.monotonic.since(self.since));
                }
                state.caches.wrote(&self.app, kind.into(), meta, now.monotonic);
                self.accepted(state, execution, now)
            }
            (Step::Delete(target), Ok(object)) => {
                let key = Key::new(&target.namespace, &target.name);
                // An object that does not end at once comes back with the version in which it began to.
                let ending = object.filter(|object| object.metadata.deletion_timestamp.is_some());
                let until = match ending.and_then(|ending| version_of(&ending.metadata)) {
                    Some(version) => Until::Version(version),
                    None => Until::Gone(target.uid.clone()),
                };
                state
                    .caches
                    .deleted(&self.app, kind.into(), &key, until, now.monotonic);
                self.accepted(state, execution, now)
            }
            (Step::Create(object), Err(Meaning::AlreadyExists)) => {
                let namespace = object.meta().namespace.as_deref().unwrap_or_default();
                let key = Key::new(namespace, name_of(&step));
                self.stage = Stage::Adopting(execution);
                Action::Ask(Request::Read(Resource::Of(kind.into()), key))
            }
            // Gone or replaced already: its event says so to the planner.
            (
                Step::Scale(..) | Step::Delete(_),
                Err(Meaning::NotFound | Meaning::Conflict | Meaning::AlreadyExists),
            ) => self.accepted(state, execution, now),
            (Step::Apply(_), Err(Meaning::Conflict | Meaning::AlreadyExists)) => {
                self.retry_conflict(state, now)
            }
            (_, Err(Meaning::Refused(refused))) => self.refused(state, &execution, &step, refused, now),
            (_, Err(Meaning::NamespaceTerminating)) => {
                let until = state.refusals.terminates(&self.app.namespace, now.monotonic);
                self.requeue(state, PassResult::At(until), now)
            }
            (_, Err(meaning)) => {
                let message = message_of(meaning);
                let object = step.id();
                self.fail(state, PassError::Unavailable { object, message }, now)
            }
            (_, Ok(None)) => self.fail(state, PassError::UnexpectedAnswer, now),
        }
    }

    /// The name of an object to be created is taken: by that object, or by another one.
    pub(super) fn adopt(
        &mut self,
        state: &mut State,
        execution: Execution,
        answer: Answer,
        now: Now,
    ) -> Action {
        let Some(step) = execution.steps.front().cloned() else {
            return self.fail(state, PassError::UnexpectedAnswer, now);
        };
        let Step::Create(object) = &*step else {
            return self.fail(state, PassError::UnexpectedAnswer, now);
        };
        let existing = match result_of(answer) {
            Ok(Some(existing)) => existing,
            Ok(None) => return self.fail(state, PassError::UnexpectedAnswer, now),
            Err(meaning) => {
                let message = message_of(meaning);
                let object = step.id();
                return self.fail(state, PassError::Unavailable { object, message }, now);
            }
        };
        match adopt(object.kind().as_str(), object.meta(), &existing.metadata) {
            Ok(()) => {
                let kind = object.kind().into();
                state
                    .caches
                    .wrote(&self.app, kind, &existing.metadata, now.monotonic);
                self.accepted(state, execution, now)
            }
            Err(NotOurs::Terminating) => self.fail(state, PassError::BeingDeleted { object: step.id() }, now),
            Err(NotOurs::Taken(refused)) => self.refused(state, &execution, &step, refused, now),
        }
    }

    fn accepted(&mut self, state: &mut State, execution: Execution, now: Now) -> Action {
        if let Some(step) = execution.steps.front() {
            state.refusals.accepted(&self.app, &step.id());
        }
        self.after(state, execution, now)
    }

    fn after(&mut self, state: &mut State, mut execution: Execution, now: Now) -> Action {
        execution.steps.pop_front();
        self.step(state, execution, now)
    }

    /// A refusal that is news is planned on at once; another one fails the pass.
    fn refused(
        &mut self,
        state: &mut State,
        execution: &Execution,
        step: &Step,
        refused: Refused,
        now: Now,
    ) -> Action {
        let message = refused.message.clone();
        let news = state
            .refusals
            .refused(&self.app, &step.id(), &step.hash(), refused, now.monotonic);
        let error = |announced| PassError::Refused {
            object: format!("{} {}", written(step).as_str(), name_of(step)),
            message,
            announced,
        };
        let observed = match &execution.then {
            Then::Commit { observed, .. } => observed,
            // Nobody plans for what is gone.
            Then::Leave => return self.fail(state, error(true), now),
        };
        match news {
            News::Yes => self.replan(state, now),
            News::Announced => self.fail(state, error(true), now),
            News::No => {
                let error = error(false);
                self.ended.announcements.push(Announcement {
                    about: observed.reference(),
                    severity: Severity::Warning,
                    reason: error.reason().to_string(),
                    message: error.to_string(),
                });
                self.fail(state, error, now)
            }
        }
    }
}

fn name_of(step: &Step) -> &str {
    match step {
        Step::Apply(object) | Step::DryRun(object) | Step::Create(object) => {
            object.meta().name.as_deref().unwrap_or_default()
        }
        Step::Scale(target, _) | Step::Delete(target) => &target.name,
    }
}
