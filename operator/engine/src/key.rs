//! Names of objects, and of objects to reconcile.

use crate::kinds::OwnKind;
use kube::core::ObjectMeta;
use std::fmt;
use std::sync::Arc;

/// Namespace and name of an object. Cheap to clone: caches, queue and timers all hold it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespacedName {
    /// Namespace of the object.
    pub namespace: Arc<str>,
    /// Name of the object.
    pub name: Arc<str>,
}

impl NamespacedName {
    /// The key of the object of that name in that namespace.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// The key of the object with this metadata.
    pub fn of(metadata: &ObjectMeta) -> Self {
        let namespace = metadata.namespace.as_deref().unwrap_or_default();
        Self::new(namespace, metadata.name.as_deref().unwrap_or_default())
    }

    /// The key of another object of the same namespace.
    pub fn sibling(&self, name: &str) -> Self {
        Self {
            namespace: self.namespace.clone(),
            name: name.into(),
        }
    }
}

impl fmt::Display for NamespacedName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

/// Kind, namespace and name of an object of our own kinds: what queue, timers and backoff hold, and what a pass is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Kind of the object.
    pub kind: OwnKind,
    /// Namespace and name of the object.
    pub key: NamespacedName,
}

impl ObjectKey {
    /// The key of the object of that kind and name.
    pub fn new(kind: OwnKind, key: NamespacedName) -> Self {
        Self { kind, key }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.kind.controller(), self.key)
    }
}
