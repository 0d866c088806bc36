//! Objects of our own kinds where the kind does not matter: observed, planned, committed.

use crate::announcement::{Announcement, news};
use crate::for_each_kind;
use crate::key::NamespacedName;
use crate::kinds::*;
use crate::lookups::{Lookup, LookupResult};
use crate::observe::{Observe, Scope};
use crate::state::State;
use fairway_plan::observed::{
    AppObserved, BackupObserved, MigrationObserved, ProbeTarget, ReleaseObserved, RestoreObserved, Settings,
};
use fairway_plan::{Decision, Step, Wake};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource;
use serde::{Serialize, Serializer};
use std::sync::Arc;

/// What a planner decided about an object.
#[derive(Clone, Debug)]
pub struct Decided {
    /// The object as it was observed.
    pub(crate) object: Own,
    /// The writes that come before the status.
    pub(crate) steps: Vec<Step>,
    /// The status to commit, if it differs from the one observed.
    pub(crate) commit: Option<Box<Commit>>,
    /// When to plan again although nothing has changed.
    pub(crate) wake: Wake,
    /// Which pods are to be asked from now on.
    pub(crate) probes: Option<Vec<ProbeTarget>>,
}

/// A status to commit.
#[derive(Clone, Debug)]
pub(crate) struct Commit {
    /// The observed object with the new status.
    pub(crate) object: Own,
    /// What an Event says of it.
    pub(crate) announcement: Option<Announcement>,
    /// The outcome, when the object ends with this status.
    pub(crate) outcome: Option<String>,
    /// The rung that a Release has come to.
    pub(crate) rung: Option<&'static str>,
}

/// What was observed of one object, and all that its planner needs to decide. Planning takes no part of the engine:
/// a driver that runs several passes at once plans without holding its lock.
#[derive(Debug)]
pub struct Planning {
    pub(crate) observation: Box<Observation>,
    pub(crate) settings: Arc<Settings>,
}

impl Planning {
    /// Asks the planner.
    pub fn decide(&self, now: Timestamp) -> Decided {
        self.observation.decide(&self.settings, now)
    }
}

fn decide<K: Observe>(
    observed: &K::Observed,
    settings: &Settings,
    now: Timestamp,
    own: fn(Arc<K>) -> Own,
) -> Decided {
    let object = K::of(observed);
    let Decision {
        steps,
        status,
        wake,
        rung,
    } = K::plan(observed, settings, now);
    let commit = (object.status() != Some(&status)).then(|| {
        let before = object.status();
        let conditions = before.map(K::conditions).unwrap_or_default();
        let news = news(K::HEADLINE, conditions, K::conditions(&status));
        Box::new(Commit {
            announcement: news.map(|(severity, headline)| Announcement {
                about: object.object_ref(&()),
                severity,
                reason: headline.reason.clone(),
                message: headline.message.clone(),
            }),
            rung,
            outcome: K::outcome(&status).filter(|_| before.and_then(K::outcome).is_none()),
            object: own(Arc::new(object.with_status(status))),
        })
    });
    Decided {
        object: own(object.clone()),
        steps,
        commit,
        wake,
        probes: K::probes(observed, settings),
    }
}

macro_rules! own {
    (
        ()
        own { $($own:ident $own_store:ident $member:ident { $($row:tt)* })* }
        $($rest:tt)*
    ) => {
        /// An object of one of our own kinds.
        #[derive(Clone, Debug)]
        #[allow(missing_docs, reason = "each is Fairway's kind of the same name")]
        pub enum Own {
            $($own(Arc<$own>),)*
        }

        impl Own {
            /// Kind of the object.
            pub fn kind(&self) -> OwnKind {
                match self {
                    $(Self::$own(_) => OwnKind::$own,)*
                }
            }

            /// Namespace and name of the object.
            pub fn key(&self) -> NamespacedName {
                match self {
                    $(Self::$own(object) => NamespacedName::of(&object.metadata),)*
                }
            }

            /// What Events name as the object they are about.
            pub fn reference(&self) -> ObjectReference {
                match self {
                    $(Self::$own(object) => object.object_ref(&()),)*
                }
            }
        }

        impl Serialize for Own {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self {
                    $(Self::$own(object) => object.serialize(serializer),)*
                }
            }
        }

        /// What was observed of an object of one of our own kinds.
        #[derive(Clone, Debug)]
        #[allow(clippy::large_enum_variant, reason = "one is always behind a Box")]
        pub(crate) enum Observation {
            $($own(cell!(observed; $($row)*)),)*
        }

        impl Observation {
            /// Observes an object; `None` when it is gone.
            pub(crate) fn observe(kind: OwnKind, scope: &mut Scope<'_>, key: &NamespacedName) -> Option<Box<Self>> {
                Some(Box::new(match kind {
                    $(OwnKind::$own => Self::$own($own::observe(scope, key)?),)*
                }))
            }

            /// What else has to be looked up.
            pub(crate) fn lookups(&self, key: &NamespacedName) -> Vec<Lookup> {
                match self {
                    $(Self::$own(observed) => $own::lookups(observed, key),)*
                }
            }

            /// Adds what was looked up under a name.
            pub(crate) fn add(&mut self, name: &str, found: LookupResult) {
                match self {
                    $(Self::$own(observed) => $own::add(observed, name, found),)*
                }
            }

            fn decide(&self, settings: &Settings, now: Timestamp) -> Decided {
                match self {
                    $(Self::$own(observed) => decide(observed, settings, now, Own::$own),)*
                }
            }
        }

        /// Forgets an object that is gone. Returns what it has left behind that nobody else removes.
        pub(crate) fn gone(state: &mut State, kind: OwnKind, key: &NamespacedName) -> Vec<Step> {
            match kind {
                $(OwnKind::$own => $own::gone(state, key),)*
            }
        }
    };
}

for_each_kind!(own);
