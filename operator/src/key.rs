//! Names of objects and of work.

use std::fmt;
use std::sync::Arc;

/// Namespace and name of an object. Cheap to clone: caches, queues and timers all hold it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    /// Its namespace.
    pub(crate) namespace: Arc<str>,
    /// Its name.
    pub(crate) name: Arc<str>,
}

impl Key {
    /// The key of that object.
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// Another object of the same namespace.
    pub(crate) fn sibling(&self, name: &str) -> Self {
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

/// The kinds that are reconciled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "each is Fairway's kind of the same name")]
pub(crate) enum Reconciled {
    App,
    Release,
    Migration,
    Backup,
}

impl Reconciled {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::App, Self::Release, Self::Migration, Self::Backup];

    /// Name of the controller, as metrics and logs have it.
    pub(crate) const fn controller(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::Release => "release",
            Self::Migration => "migration",
            Self::Backup => "backup",
        }
    }
}

/// One object that is to be reconciled.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Work {
    /// By which controller.
    pub(crate) kind: Reconciled,
    /// Which object.
    pub(crate) key: Key,
}

impl Work {
    /// Work on one object.
    pub(crate) fn new(kind: Reconciled, key: Key) -> Self {
        Self { kind, key }
    }
}

/// The kinds that are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "each is the Kubernetes kind of the same name")]
pub(crate) enum Watched {
    App,
    Release,
    Migration,
    Backup,
    ControllerRevision,
    Deployment,
    Pod,
    Job,
    Service,
    EndpointSlice,
}

impl Watched {
    /// All of them.
    pub(crate) const ALL: [Self; 10] = [
        Self::App,
        Self::Release,
        Self::Migration,
        Self::Backup,
        Self::ControllerRevision,
        Self::Deployment,
        Self::Pod,
        Self::Job,
        Self::Service,
        Self::EndpointSlice,
    ];

    /// The kind's name.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::App => "App",
            Self::Release => "Release",
            Self::Migration => "Migration",
            Self::Backup => "Backup",
            Self::ControllerRevision => "ControllerRevision",
            Self::Deployment => "Deployment",
            Self::Pod => "Pod",
            Self::Job => "Job",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
        }
    }
}
