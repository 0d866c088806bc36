//! Names of objects, and of objects to reconcile.

use crate::kinds::Reconciled;
use std::fmt;
use std::sync::Arc;

/// Namespace and name of an object. Cheap to clone: caches, queue and timers all hold it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Namespace of the object.
    pub namespace: Arc<str>,
    /// Name of the object.
    pub name: Arc<str>,
}

impl Key {
    /// The key of the object of that name in that namespace.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// The key of another object of the same namespace.
    pub fn sibling(&self, name: &str) -> Self {
        Self {
            namespace: self.namespace.clone(),
            name: name.into(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

/// One object to reconcile.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Work {
    /// The kind whose planner is asked.
    pub kind: Reconciled,
    /// The object.
    pub key: Key,
}

impl Work {
    /// Work on one object.
    pub fn new(kind: Reconciled, key: Key) -> Self {
        Self { kind, key }
    }
}

impl fmt::Display for Work {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.kind.controller(), self.key)
    }
}
