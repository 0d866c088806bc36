//! The only writes. Each is idempotent or create-once, so a pass that is cut off anywhere can be repeated.

mod identity;
pub(crate) mod memory;
pub(crate) mod refusal;

use crate::key::Key;
use crate::world::World;
use crate::world::cached::{Cached, version_of};
use crate::world::expectations::Until;
use fairway_plan::labels;
use fairway_plan::object::{Kind, Object, ObjectRef, Step};
use identity::{adopt, place, verb_of};
use k8s_openapi::api::apps::v1::{ControllerRevision, Deployment};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};
use memory::{Memory, News};
use refusal::{Answer, Refused};
use serde::Serialize;
use std::sync::Arc;
use tokio::time::Instant;

/// Carries out steps.
#[derive(Clone)]
pub(crate) struct Executor {
    client: Client,
    world: Arc<World>,
    memory: Arc<Memory>,
}

/// What became of a list of steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carried {
    /// All are done.
    Out {
        /// Whether a Service was changed: traffic has moved.
        switched: bool,
    },
    /// An answer that leaves nothing behind in the cluster has to be planned on before anything else is done.
    Learned,
    /// What was to be changed was changed meanwhile: its event leads to another plan.
    Outdated,
    /// The namespace is being deleted: nothing is made in it before this moment.
    Held(Instant),
}

/// Why a step was not done. Says nothing of the object's contents.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StepError {
    /// The apiserver refused it, and the planner cannot tell or has told already.
    #[error("{object} was refused: {message}")]
    Refused {
        /// `Kind/name`.
        object: String,
        /// What the apiserver said.
        message: String,
        /// Whether an Event has said so before.
        told: bool,
    },
    /// The name is taken by an object that is just being deleted.
    #[error("{object} exists and is being deleted")]
    BeingDeleted {
        /// `Kind/name`.
        object: String,
    },
    /// It could not be done now.
    #[error("{object} could not be written: {message}")]
    Unavailable {
        /// `Kind/name`.
        object: String,
        /// Why.
        message: String,
    },
}

impl StepError {
    /// Its name, for Events and logs.
    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "WriteRefused",
            Self::BeingDeleted { .. } => "ObjectBeingDeleted",
            Self::Unavailable { .. } => "WriteFailed",
        }
    }
}

/// Who makes what is applied: whether fields that another manager owns are taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ownership {
    /// Fairway alone makes it.
    Ours,
    /// A person may have made it; a conflict is theirs to settle.
    Shared,
}

/// Whether a write lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Persisted,
    DryRun,
}

/// How one step failed.
enum Failure {
    Answer(Answer),
    Taken(Refused),
    BeingDeleted,
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        Self::Answer(match error {
            kube::Error::Api(status) => refusal::read(&status),
            kube::Error::Auth(_) => Answer::Unavailable("the operator's credentials cannot be read".into()),
            _ => Answer::Unavailable("the apiserver cannot be reached or its answer cannot be read".into()),
        })
    }
}

macro_rules! by_kind {
    ($object:expr, $inner:ident => $do:expr) => {
        match $object {
            Object::ControllerRevision($inner) => $do,
            Object::Release($inner) => $do,
            Object::Migration($inner) => $do,
            Object::Backup($inner) => $do,
            Object::Deployment($inner) => $do,
            Object::Service($inner) => $do,
            Object::Job($inner) => $do,
            Object::Pod($inner) => $do,
        }
    };
}

impl Executor {
    /// An executor that tells `world` of its writes and `memory` of answers.
    pub(crate) fn new(client: Client, world: Arc<World>, memory: Arc<Memory>) -> Self {
        Self {
            client,
            world,
            memory,
        }
    }

    /// Carries out the steps in their order, as far as it gets.
    ///
    /// # Errors
    /// The first step that could not be done; the ones before it are done.
    pub(crate) async fn carry_out(&self, app: &Key, steps: &[Step]) -> Result<Carried, StepError> {
        let mut switched = false;
        for step in steps {
            let makes = matches!(step, Step::Apply(_) | Step::DryRun(_) | Step::Create(_));
            if makes && let Some(until) = self.memory.ending(&app.namespace, Instant::now()) {
                return Ok(Carried::Held(until));
            }
            let id = step.id();
            tracing::debug!(app = %app, step = verb_of(step), object = %id);
            match self.carry_out_one(app, step).await {
                Ok(wrote) => {
                    switched |=
                        wrote && matches!(step, Step::Apply(object) if object.kind() == Kind::Service);
                }
                Err(Failure::Answer(Answer::Refused(refused)) | Failure::Taken(refused)) => {
                    let message = refused.message.clone();
                    let news = self
                        .memory
                        .refused(app, &id, &step.hash(), refused, Instant::now());
                    return match news {
                        News::Yes => Ok(Carried::Learned),
                        News::No => Err(StepError::Refused {
                            object: id,
                            message,
                            told: false,
                        }),
                        News::Told => Err(StepError::Refused {
                            object: id,
                            message,
                            told: true,
                        }),
                    };
                }
                Err(Failure::Answer(Answer::Conflict)) if matches!(step, Step::Apply(_)) => {
                    return Ok(Carried::Outdated);
                }
                Err(Failure::Answer(Answer::NamespaceEnding)) => {
                    return Ok(Carried::Held(self.memory.ends(&app.namespace, Instant::now())));
                }
                Err(failure) => return Err(error_of(id, failure)),
            }
            if matches!(step, Step::DryRun(_)) {
                if self.memory.passed(app, &id, &step.hash()) == News::Yes {
                    return Ok(Carried::Learned);
                }
            } else {
                self.memory.accepted(app, &id);
            }
        }
        Ok(Carried::Out { switched })
    }

    /// Whether it changed anything, as far as is known.
    async fn carry_out_one(&self, app: &Key, step: &Step) -> Result<bool, Failure> {
        match step {
            Step::Apply(object) | Step::DryRun(object) => {
                let ownership = if object.kind() == Kind::Service {
                    Ownership::Shared
                } else {
                    Ownership::Ours
                };
                let effect = if matches!(step, Step::DryRun(_)) {
                    Effect::DryRun
                } else {
                    Effect::Persisted
                };
                by_kind!(&**object, inner => self.apply(app, inner, ownership, effect).await)
            }
            Step::Create(object) => by_kind!(&**object, inner => self.create(app, inner).await),
            Step::Scale(object, replicas) => self.scale(app, object, *replicas).await,
            Step::Delete(object) => match object.kind {
                Kind::ControllerRevision => self.delete::<ControllerRevision>(app, object).await,
                Kind::Release => self.delete::<fairway_crds::Release>(app, object).await,
                Kind::Migration => self.delete::<fairway_crds::Migration>(app, object).await,
                Kind::Backup => self.delete::<fairway_crds::Backup>(app, object).await,
                Kind::Deployment => self.delete::<Deployment>(app, object).await,
                Kind::Service => self.delete::<Service>(app, object).await,
                Kind::Job => self.delete::<Job>(app, object).await,
                Kind::Pod => self.delete::<Pod>(app, object).await,
            },
        }
    }

    async fn apply<K: Cached + Serialize>(
        &self,
        app: &Key,
        object: &K,
        ownership: Ownership,
        effect: Effect,
    ) -> Result<bool, Failure> {
        let mut parameters = PatchParams::apply(labels::FAIRWAY).validation_strict();
        parameters.force = ownership == Ownership::Ours;
        parameters.dry_run = effect == Effect::DryRun;
        let (namespace, name) = place(object.meta());
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let before = self.world.version::<K>(app, name);
        let applied = api.patch(name, &parameters, &Patch::Apply(object)).await?;
        if effect == Effect::DryRun {
            return Ok(false);
        }
        self.world.wrote::<K>(app, applied.meta());
        Ok(before.is_none_or(|before| before < version_of(applied.meta())))
    }

    async fn create<K: Cached + Serialize>(&self, app: &Key, object: &K) -> Result<bool, Failure> {
        let parameters = PostParams {
            dry_run: false,
            field_manager: Some(labels::FAIRWAY.to_owned()),
        };
        let (namespace, name) = place(object.meta());
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        match api.create(&parameters, object).await {
            Ok(created) => {
                self.world.wrote::<K>(app, created.meta());
                Ok(true)
            }
            Err(kube::Error::Api(status)) if status.code == 409 && status.reason == "AlreadyExists" => {
                let existing = api.get(name).await?;
                adopt(object.meta(), existing.meta(), K::KIND)?;
                self.world.wrote::<K>(app, existing.meta());
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn scale(&self, app: &Key, object: &ObjectRef, replicas: i32) -> Result<bool, Failure> {
        let parameters = PatchParams {
            field_manager: Some(labels::FAIRWAY.to_owned()),
            ..Default::default()
        };
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), &object.namespace);
        // The UID makes the apiserver refuse a another object with the same name, the version what has changed since it was decided.
        let metadata = serde_json::json!({"uid": object.uid, "resourceVersion": object.resource_version});
        let patch = serde_json::json!({"metadata": metadata, "spec": {"replicas": replicas}});
        match api
            .patch(&object.name, &parameters, &Patch::Merge(patch))
            .await
            .map_err(Failure::from)
        {
            Ok(scaled) => {
                self.world.wrote::<Deployment>(app, &scaled.metadata);
                Ok(true)
            }
            // Gone or replaced meanwhile: the event says so to the planner.
            Err(Failure::Answer(Answer::NotFound | Answer::Conflict)) => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    async fn delete<K: Cached>(&self, app: &Key, object: &ObjectRef) -> Result<bool, Failure> {
        let parameters = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(object.uid.clone()),
                resource_version: None,
            }),
            // Without it a Job would leave its pods behind.
            ..DeleteParams::background()
        };
        let api: Api<K> = Api::namespaced(self.client.clone(), &object.namespace);
        match api.delete(&object.name, &parameters).await.map_err(Failure::from) {
            Ok(answer) => {
                let key = Key::new(&object.namespace, &object.name);
                // An object that ends by and by comes back with the version in which it began to.
                let ending = answer
                    .left()
                    .filter(|ending| ending.meta().deletion_timestamp.is_some());
                let until = match ending {
                    Some(ending) => Until::Version(version_of(ending.meta())),
                    None => Until::Gone(object.uid.clone()),
                };
                self.world.deleted::<K>(app, &key, until);
                Ok(true)
            }
            // Gone already, or a another object with the same name, which is left alone.
            Err(Failure::Answer(Answer::NotFound | Answer::Conflict)) => Ok(false),
            Err(failure) => Err(failure),
        }
    }
}

fn error_of(object: String, failure: Failure) -> StepError {
    let message = match failure {
        Failure::BeingDeleted => return StepError::BeingDeleted { object },
        Failure::Taken(refused) | Failure::Answer(Answer::Refused(refused)) => {
            return StepError::Refused {
                object,
                message: refused.message,
                told: false,
            };
        }
        Failure::Answer(Answer::NotFound) => "it or its namespace does not exist".to_owned(),
        Failure::Answer(Answer::Conflict) => "it was changed meanwhile".to_owned(),
        Failure::Answer(Answer::NamespaceEnding) => "the namespace is being deleted".to_owned(),
        Failure::Answer(Answer::Unavailable(message)) => message,
    };
    StepError::Unavailable { object, message }
}

#[cfg(test)]
mod tests;
