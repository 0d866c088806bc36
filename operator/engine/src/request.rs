//! What a pass asks of its driver, and what it is told.

use crate::key::Key;
use crate::kinds::Kind;
use crate::own::{Decided, Own};
use fairway_plan::object::{self, Object};
use fairway_plan::{Step, labels};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::core::{ApiResource, DynamicObject, Status};
use std::sync::Arc;

/// A request to the API server.
#[derive(Clone, Debug)]
pub enum Request {
    /// Carries out one step of a planner.
    Write(Arc<Step>),
    /// Writes the status of exactly the object that was observed, by its resource version.
    Commit(Own),
    /// Reads one object.
    Read(Resource, Key),
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

impl Request {
    /// Kind of the object that is written; `None` for a read.
    pub fn writes(&self) -> Option<Kind> {
        match self {
            Self::Write(step) => Some(written(step).into()),
            Self::Commit(object) => Some(object.kind().kind()),
            Self::Read(..) => None,
        }
    }

    /// What the request does, for logs.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Write(step) => match &**step {
                Step::Apply(_) => "apply",
                Step::DryRun(_) => "dry run",
                Step::Create(_) => "create",
                Step::Scale(..) => "scale",
                Step::Delete(_) => "delete",
            },
            Self::Commit(_) => "status",
            Self::Read(..) => "get",
        }
    }
}

/// Kind of the object that a step writes.
pub(crate) fn written(step: &Step) -> object::Kind {
    match step {
        Step::Apply(object) | Step::DryRun(object) | Step::Create(object) => object.kind(),
        Step::Scale(target, _) | Step::Delete(target) => target.kind,
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

/// What a driver tells a pass.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Nothing: the pass begins, or goes on by itself.
    Nothing,
    /// What the planner decided.
    Decided(Box<Decided>),
    /// The object as the API server holds it now; of a written one its metadata is enough.
    Object(Box<DynamicObject>),
    /// It is done, and no object is left: a deletion.
    Done,
    /// The API server's error.
    Error(Box<Status>),
    /// No answer came, or none that can be read: the write may have happened.
    Lost(&'static str),
}
