//! The steps of a pass: requests them one by one and takes in the answers.

use super::{Action, Execution, Pass, PassError, PassResult, Stage, Then, result_of};
use crate::adoption::{NotOurs, adopt};
use crate::announcement::{Announcement, Severity};
use crate::answer::Meaning;
use crate::answers::News;
use crate::caches::version_of;
use crate::clock::Now;
use crate::expectations::Until;
use crate::key::NamespacedName;
use crate::kinds::App;
use crate::own::Own;
use crate::request::{Answer, Request, Resource, written};
use crate::state::State;
use fairway_crds::Reason;
use fairway_plan::message::quoting;
use fairway_plan::observed::Refusal;
use fairway_plan::{ObjectRef, Step, object};
use kube::Resource as _;
use kube::core::ObjectMeta;

impl Pass {
    /// Asks for the first step, or for what comes after the steps.
    pub(super) fn ask_step(&mut self, state: &mut State, mut execution: Execution, now: Now) -> Action {
        let Some(step) = execution.steps.front().cloned() else {
            return self.after_steps(state, execution.then, now);
        };
        if matches!(*step, Step::Apply(_) | Step::DryRun(_) | Step::Create(_))
            && let Some(until) = state.answers.terminating(&self.app.namespace, now.monotonic)
        {
            return self.requeue(state, PassResult::At(until), now);
        }
        // Planned for an App that has been deleted meanwhile.
        if matches!(*step, Step::Apply(_) | Step::Create(_))
            && self.app_stays
            && !state.caches.app_stays(&self.app)
        {
            return self.requeue(state, PassResult::Again, now);
        }
        if let Step::Create(object) = &*step
            && let key = creation_key(state, &self.app, object.meta())
            && let Some(until) = state
                .creations
                .delayed_until(object.kind().into(), &key, now.monotonic)
        {
            return self.requeue(state, PassResult::At(until), now);
        }
        execution.cached = state
            .caches
            .version(&self.app, written(&step).into(), name_of(&step));
        self.stage = Stage::Executing(execution);
        Action::Ask(Request::Write(step))
    }

    pub(super) fn on_write(
        &mut self,
        state: &mut State,
        execution: Execution,
        mut answer: Answer,
        now: Now,
    ) -> Action {
        let Some(step) = execution.steps.front().cloned() else {
            return self.fail(state, PassError::UnexpectedAnswer, now);
        };
        let kind = written(&step);
        let warnings = match &mut answer {
            Answer::Passed(warnings) => std::mem::take(warnings),
            _ => Vec::new(),
        };
        let Some(result) = result_of(answer) else {
            return self.fail(state, PassError::UnexpectedAnswer, now);
        };
        match (&*step, result) {
            (Step::DryRun(_), Ok(_)) => {
                let news = state
                    .answers
                    .passed(&self.app, &step.id(), &step.hash(), warnings);
                if news == News::Yes {
                    return self.replan(state, now);
                }
                self.next_step(state, execution, now)
            }
            (
                Step::Apply(_) | Step::Replace(..) | Step::Create(_) | Step::Scale(..) | Step::TakeOver(..),
                Ok(Some(object)),
            ) => {
                let meta = &object.metadata;
                let is_news = execution
                    .cached
                    .zip(version_of(meta))
                    .is_none_or(|(cached, stored)| cached < stored);
                if matches!(*step, Step::Apply(_)) && kind == object::Kind::Service && is_news {
                    self.ended.switched = Some(now.monotonic.since(self.since));
                }
                if let Step::Replace(_, managers) = &*step {
                    self.ended
                        .announcements
                        .extend(corrected(&execution, &step, managers));
                }
                if matches!(*step, Step::Create(_)) {
                    let key = creation_key(state, &self.app, meta);
                    state.creations.created(kind.into(), key, now.monotonic);
                    if kind == object::Kind::Pod {
                        state.probe_pods.created(meta);
                    }
                }
                self.expect_write(state, kind.into(), meta, now);
                self.on_accepted(state, execution, now)
            }
            (Step::Delete(target), Ok(object)) => {
                let key = NamespacedName::new(&target.namespace, &target.name);
                // An object that does not end at once comes back with the version in which it began to.
                let ending = object.filter(|object| object.metadata.deletion_timestamp.is_some());
                let until = match ending.and_then(|ending| version_of(&ending.metadata)) {
                    Some(version) => Until::Version(version),
                    None => Until::Gone(target.uid.clone()),
                };
                self.wrote = true;
                self.ended
                    .announcements
                    .extend(removed(state, &self.app, &execution, target));
                state
                    .caches
                    .expect_deletion(&self.app, kind.into(), &key, until, now.monotonic);
                self.on_accepted(state, execution, now)
            }
            // Not adopted: only the answer to its creation says which pod is the one.
            (Step::Create(object), Err(Meaning::AlreadyExists)) if state.probe_pods.taken(object.meta()) => {
                self.replan(state, now)
            }
            (Step::Create(object), Err(Meaning::AlreadyExists)) => {
                let namespace = object.meta().namespace.as_deref().unwrap_or_default();
                let key = NamespacedName::new(namespace, name_of(&step));
                self.stage = Stage::Adopting(execution);
                Action::Ask(Request::Read(Resource::Of(kind.into()), key))
            }
            // Gone or replaced already: its event says so to the planner.
            (
                Step::Replace(..) | Step::Scale(..) | Step::TakeOver(..) | Step::Delete(_),
                Err(Meaning::NotFound | Meaning::Conflict | Meaning::AlreadyExists),
            ) => self.on_accepted(state, execution, now),
            (Step::Apply(_), Err(meaning @ (Meaning::Conflict | Meaning::AlreadyExists)))
            | (Step::DryRun(_), Err(meaning @ Meaning::Conflict)) => {
                let message = meaning.into_message();
                let object = step.object_name();
                self.retry_conflict(state, PassError::Unavailable { object, message }, now)
            }
            (_, Err(Meaning::Refused(refusal))) => self.on_refusal(state, &execution, &step, refusal, now),
            (_, Err(Meaning::NamespaceTerminating)) => {
                let until = state.answers.terminates(&self.app.namespace, now.monotonic);
                self.requeue(state, PassResult::At(until), now)
            }
            (_, Err(meaning)) => {
                let message = meaning.into_message();
                let object = step.object_name();
                self.fail(state, PassError::Unavailable { object, message }, now)
            }
            (_, Ok(None)) => self.fail(state, PassError::UnexpectedAnswer, now),
        }
    }

    /// The name of an object to be created is taken: by that object, or by another one.
    pub(super) fn on_existing(
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
            Some(Ok(Some(existing))) => existing,
            Some(Ok(None)) | None => return self.fail(state, PassError::UnexpectedAnswer, now),
            Some(Err(meaning)) => {
                let message = meaning.into_message();
                let object = step.object_name();
                return self.fail(state, PassError::Unavailable { object, message }, now);
            }
        };
        match adopt(object.kind().as_str(), object.meta(), &existing.metadata) {
            Ok(()) => {
                let kind = object.kind().into();
                self.expect_write(state, kind, &existing.metadata, now);
                self.on_accepted(state, execution, now)
            }
            Err(NotOurs::Terminating) => {
                let object = step.object_name();
                self.fail(state, PassError::BeingDeleted { object }, now)
            }
            Err(NotOurs::Taken(refusal)) => self.on_refusal(state, &execution, &step, refusal, now),
        }
    }

    fn on_accepted(&mut self, state: &mut State, execution: Execution, now: Now) -> Action {
        if let Some(step) = execution.steps.front() {
            state.answers.accepted(&self.app, &step.id());
        }
        self.next_step(state, execution, now)
    }

    fn next_step(&mut self, state: &mut State, mut execution: Execution, now: Now) -> Action {
        execution.steps.pop_front();
        self.ask_step(state, execution, now)
    }

    /// A refusal that is news is planned on at once; another one fails the pass.
    fn on_refusal(
        &mut self,
        state: &mut State,
        execution: &Execution,
        step: &Step,
        refusal: Refusal,
        now: Now,
    ) -> Action {
        let object = step.object_name();
        let statement = format!("The API server refuses to write {object}");
        let announced = quoting(&statement, Some(&refusal.message));
        let message = refusal.message.clone();
        let news = state
            .answers
            .refused(&self.app, &step.id(), &step.hash(), refusal, now.monotonic);
        let error = PassError::Refused { object, message };
        let observed = match &execution.then {
            Then::Commit { observed, .. } => observed,
            // Nobody plans for what is gone.
            Then::Finish => return self.fail(state, error, now),
        };
        match news {
            News::Yes => self.replan(state, now),
            News::Announced => self.fail(state, error, now),
            News::No => {
                self.ended.announcements.push(Announcement {
                    about: observed.reference(),
                    severity: Severity::Warning,
                    reason: error.reason().to_string(),
                    message: announced,
                });
                self.fail(state, error, now)
            }
        }
    }
}

/// That a Backup was deleted because retention does not keep it, in an Event of its App: of the Backup nobody reads one any more.
fn removed(
    state: &State,
    app: &NamespacedName,
    execution: &Execution,
    target: &ObjectRef,
) -> Option<Announcement> {
    let Then::Commit { observed, .. } = &execution.then else {
        return None;
    };
    let Own::Backup(backup) = observed else {
        return None;
    };
    if target.kind != object::Kind::Backup {
        return None;
    }
    let app = state.caches.get::<App>(app)?;
    Some(Announcement {
        about: app.object_ref(&()),
        severity: Severity::Normal,
        reason: Reason::BackupRemoved.to_string(),
        message: fairway_plan::backup::removed(backup)?,
    })
}

/// That a Deployment was put right which these field managers had changed.
fn corrected(execution: &Execution, step: &Step, managers: &[String]) -> Option<Announcement> {
    let Then::Commit { observed, .. } = &execution.then else {
        return None;
    };
    Some(Announcement {
        about: observed.reference(),
        severity: Severity::Warning,
        reason: Reason::ChangeReverted.to_string(),
        message: format!(
            "{} was changed by {}. Fairway has reverted the change, and its pods are replaced. Edit the App instead.",
            step.object_name(),
            managers.join(", "),
        ),
    })
}

fn name_of(step: &Step) -> &str {
    match step {
        Step::Apply(object) | Step::Replace(object, _) | Step::DryRun(object) | Step::Create(object) => {
            object.meta().name.as_deref().unwrap_or_default()
        }
        Step::Scale(target, _) | Step::TakeOver(target, _) | Step::Delete(target) => &target.name,
    }
}

/// Under what the creations of an object are counted: each probe pod of a Release has another name.
fn creation_key(state: &State, app: &NamespacedName, object: &ObjectMeta) -> NamespacedName {
    let of_release = state.probe_pods.release_of(object);
    of_release.unwrap_or_else(|| app.sibling(object.name.as_deref().unwrap_or_default()))
}
