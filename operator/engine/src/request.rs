//! Requests of a pass to the API server, and the answers that it takes.

use crate::answer::{Meaning, meaning};
use crate::key::NamespacedName;
use crate::kinds::Kind;
use crate::lookups::{Lookup, LookupResult};
use crate::own::{Decided, Own};
use fairway_plan::object::{self, Object};
use fairway_plan::{Step, labels};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::core::{ApiResource, DynamicObject, Selector, Status};
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// A request to the API server.
#[derive(Clone, Debug)]
pub enum Request {
    /// Executes one step of a planner.
    Write(Arc<Step>),
    /// Writes the status of exactly the object that was observed, by its resource version.
    Commit(Own),
    /// Reads one object.
    Read(Resource, NamespacedName),
    /// Reads the first objects of a kind in a namespace whose labels are selected.
    List(Kind, Arc<str>, Selector),
}

/// Of which resource an object is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// One of a kind that is watched.
    Of(Kind),
    /// A PersistentVolumeClaim.
    Claim,
}

impl Resource {
    /// Group, version and plural of the resource.
    pub fn api_resource(self) -> ApiResource {
        match self {
            Self::Of(kind) => kind.api_resource(),
            Self::Claim => ApiResource::erase::<PersistentVolumeClaim>(&()),
        }
    }
}

impl Lookup {
    /// What is asked of the API server.
    pub(crate) fn request(&self) -> Request {
        match self {
            Self::Service(key) => Request::Read(Resource::Of(Kind::Service), key.clone()),
            Self::Claim(key) => Request::Read(Resource::Claim, key.clone()),
            Self::Pods(key, selected) => {
                let mut selector = Selector::default();
                selector.extend(selected.clone());
                Request::List(Kind::Pod, key.namespace.clone(), selector)
            }
        }
    }

    /// What the API server's answer says has been found, or why it says nothing; `None` if it does not answer this lookup.
    pub(crate) fn result(&self, answer: Answer) -> Option<Result<LookupResult, String>> {
        let parsed = match (self, answer) {
            (Self::Service(_), Answer::Object(object)) => parsed(*object).map(LookupResult::Service),
            (Self::Claim(_), Answer::Object(object)) => parsed(*object).map(LookupResult::Claim),
            (Self::Pods(..), Answer::Objects(objects)) => objects
                .into_iter()
                .map(parsed)
                .collect::<Result<_, _>>()
                .map(LookupResult::Pods),
            (_, Answer::Error(status)) => {
                return Some(match meaning(&status) {
                    Meaning::NotFound => Ok(LookupResult::Nothing),
                    meaning => Err(meaning.into_message()),
                });
            }
            (_, Answer::Lost(why)) => return Some(Err(why.to_owned())),
            _ => return None,
        };
        Some(parsed.map_err(|_| "the answer cannot be parsed".to_owned()))
    }
}

fn parsed<K: DeserializeOwned>(object: DynamicObject) -> Result<Arc<K>, serde_json::Error> {
    serde_json::from_value(serde_json::to_value(object)?).map(Arc::new)
}

impl Request {
    /// Kind of the object that is written; `None` for a read.
    pub fn writes(&self) -> Option<Kind> {
        match self {
            Self::Write(step) => Some(written(step).into()),
            Self::Commit(object) => Some(object.kind().kind()),
            Self::Read(..) | Self::List(..) => None,
        }
    }

    /// What the request does, for logs.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Write(step) => match &**step {
                Step::Apply(_) => "apply",
                Step::Replace(..) => "replace",
                Step::DryRun(_) => "dry run",
                Step::Create(_) => "create",
                Step::Scale(..) | Step::TakeOver(..) => "scale",
                Step::Delete(_) => "delete",
            },
            Self::Commit(_) => "status",
            Self::Read(..) => "get",
            Self::List(..) => "list",
        }
    }
}

/// Kind of the object that a step writes.
pub(crate) fn written(step: &Step) -> object::Kind {
    match step {
        Step::Apply(object) | Step::Replace(object, _) | Step::DryRun(object) | Step::Create(object) => {
            object.kind()
        }
        Step::Scale(target, _) | Step::TakeOver(target, _) | Step::Delete(target) => target.kind,
    }
}

/// Whether an apply takes over fields that another manager owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// Fairway alone writes the object: fields are taken over.
    Exclusive,
    /// A user may have written it too: a conflict is theirs to settle.
    Shared,
}

impl Ownership {
    /// Who writes objects of that kind.
    pub fn of(object: &Object) -> Self {
        match object.kind() {
            object::Kind::Service => Self::Shared,
            _ => Self::Exclusive,
        }
    }
}

/// Fairway's field manager.
pub const FIELD_MANAGER: &str = labels::FAIRWAY;

/// What a driver gives a pass in return for its last action.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Nothing: the pass begins, or goes on by itself.
    Nothing,
    /// What the planner decided.
    Decided(Box<Decided>),
    /// The object as the API server holds it now; of a written one its metadata is enough.
    Object(Box<DynamicObject>),
    /// The objects that were listed.
    Objects(Vec<DynamicObject>),
    /// It is done, and no object is left: a deletion.
    Done,
    /// A dry run passed, and this is what the API server warned of: [`crate::read_warnings`].
    Passed(Vec<String>),
    /// The API server's error.
    Error(Box<Status>),
    /// No answer came, or none that can be read: the write may have happened.
    Lost(&'static str),
}
