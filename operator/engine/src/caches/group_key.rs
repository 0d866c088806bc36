//! In which group an object is cached: that of its App, or one of what belongs to no App.

use crate::key::NamespacedName;
use crate::kinds::Scope;
use std::sync::Arc;

/// What the objects of a group belong to. The Apps of a namespace come one after the other in the order of keys.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum GroupKey {
    /// An App.
    App(NamespacedName),
    /// A Service.
    Service(NamespacedName),
    /// A namespace.
    Namespace(Arc<str>),
}

impl GroupKey {
    /// The group that caches `object`, whose owner is called `owner`.
    pub(super) fn new(scope: Scope, object: &NamespacedName, owner: &str) -> Self {
        match scope {
            Scope::App => Self::App(object.sibling(owner)),
            Scope::Service => Self::Service(object.sibling(owner)),
            Scope::Namespace => Self::Namespace(object.namespace.clone()),
        }
    }

    /// The App that the group belongs to, if it belongs to one.
    pub(super) fn app(&self) -> Option<&NamespacedName> {
        match self {
            Self::App(app) => Some(app),
            Self::Service(_) | Self::Namespace(_) => None,
        }
    }
}
