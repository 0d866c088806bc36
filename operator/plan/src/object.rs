//! Steps: what a planner asks to be written, and the objects of which they speak.

use crate::build::applied_hash;
use fairway_crds::{Backup, Migration, Release, Restore};
use k8s_openapi::api::apps::v1::{ControllerRevision, Deployment};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::core::ObjectMeta;
use serde::{Serialize, Serializer};
use std::borrow::Cow;

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Server-side apply with Fairway's field manager: repeating it changes nothing. Forced for what Fairway alone
    /// creates (Deployments), not forced for a Service: a field that another manager owns is a conflict that the status
    /// reports, and is never taken. An object with a resource version is only applied to that version.
    Apply(Box<Object>),
    /// Setting `spec.replicas` of a Deployment that exists, and nothing else: pods that run are not replaced because
    /// this version of Fairway would write their template differently. Only while the Deployment has the resource
    /// version that was observed: a decision that comes late must not undo a newer one. Otherwise nothing is done, and
    /// the next pass sees why.
    Scale(ObjectRef, i32),
    /// Replacing the spec of a Deployment that other field managers have changed, whose names these are: an apply sets
    /// what Fairway says, but what another manager has added it leaves. Who owns which field is forgotten with it. Only
    /// while the Deployment has the UID and resource version of the object; otherwise nothing is done, and the next pass
    /// sees why.
    Replace(Box<Object>, Vec<String>),
    /// Setting `spec.replicas` of a Deployment of the team to 0, because a component takes over from it, and noting in the
    /// annotation `fairway.dev/replicas` that it had so many. On the same conditions as [`Step::Scale`].
    TakeOver(ObjectRef, i32),
    /// A server-side dry run of an apply: the API server validates the object and does not store it.
    DryRun(Box<Object>),
    /// Creation. An object with the same name and owner (or, without an owner, with the same `fairway.dev/app` label)
    /// is adopted; any other object with that name is an error.
    Create(Box<Object>),
    /// Deletion with the UID as precondition, and with the resource version where [`Kind::is_deleted_unchanged`]; an object
    /// that is gone already, or has changed since, is fine.
    Delete(ObjectRef),
}

impl Step {
    /// `Kind/name` of the object that a step writes.
    pub fn id(&self) -> String {
        match self {
            Self::Apply(object) | Self::Replace(object, _) | Self::DryRun(object) | Self::Create(object) => {
                id(object.kind(), object.meta())
            }
            Self::Scale(target, _) | Self::TakeOver(target, _) | Self::Delete(target) => {
                format!("{}/{}", target.kind.as_str(), target.name)
            }
        }
    }

    /// `Kind/name#hash`: tells this write from others of the same object.
    pub fn key(&self) -> String {
        key(&self.id(), &self.hash())
    }

    /// The object that a step writes, as messages name it: `Kind name`.
    pub fn object_name(&self) -> String {
        self.id().replace('/', " ")
    }

    /// What tells one write of an object from another, so that the answer to one is not taken for the answer to the
    /// other: the hash of what is applied, empty for what carries none, and the verb for what changes what is there.
    pub fn hash(&self) -> Cow<'_, str> {
        match self {
            Self::Apply(object) | Self::Replace(object, _) | Self::DryRun(object) | Self::Create(object) => {
                applied_hash(object.meta()).unwrap_or_default().into()
            }
            Self::Scale(_, replicas) => format!("scale to {replicas}").into(),
            Self::TakeOver(..) => "take over".into(),
            Self::Delete(_) => "delete".into(),
        }
    }
}

/// `Kind/name` of an object.
pub fn id(kind: Kind, meta: &ObjectMeta) -> String {
    format!("{}/{}", kind.as_str(), meta.name.as_deref().unwrap_or_default())
}

/// `Kind/name#hash` of a write, by which the answer to it is remembered.
pub fn key(id: &str, hash: &str) -> String {
    format!("{id}#{hash}")
}

macro_rules! objects {
    ($($(#[$doc:meta])* $kind:ident,)*) => {
        /// An object of a kind that Fairway writes.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Object {
            $($(#[$doc])* $kind($kind),)*
        }

        impl Object {
            /// Metadata of whatever kind.
            pub fn meta(&self) -> &ObjectMeta {
                match self {
                    $(Self::$kind(object) => &object.metadata,)*
                }
            }

            /// Kind of the object.
            pub fn kind(&self) -> Kind {
                match self {
                    $(Self::$kind(_) => Kind::$kind,)*
                }
            }
        }

        impl Serialize for Object {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self {
                    $(Self::$kind(object) => object.serialize(serializer),)*
                }
            }
        }

        /// Kinds that Fairway writes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[allow(missing_docs, reason = "each is the Kubernetes kind of the same name")]
        pub enum Kind {
            $($kind,)*
        }

        impl Kind {
            /// Name of the kind in Kubernetes.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$kind => stringify!($kind),)*
                }
            }

            /// Whether an object of the kind is only deleted in the version that was observed: what a user has changed since
            /// may be a reason to keep it.
            pub const fn is_deleted_unchanged(self) -> bool {
                matches!(self, Self::Backup)
            }
        }
    };
}

objects! {
    /// Snapshot of what a release releases.
    ControllerRevision,
    /// A Release.
    Release,
    /// The Migration of a release.
    Migration,
    /// The Backup of a release.
    Backup,
    /// A Restore, which only users create.
    Restore,
    /// The Deployment of one component of one release.
    Deployment,
    /// The Service of one component.
    Service,
    /// A Job of the agent.
    Job,
    /// A pod of the agent that has no Job: pinning, probing, the `onStart` migration.
    Pod,
}

/// Which object to scale or delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectRef {
    /// Kind of the object.
    pub kind: Kind,
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
    /// The UID that the object must have: another object with the same name, created meanwhile, is left alone.
    pub uid: String,
    /// The resource version that was observed: what is scaled must still have it, what is deleted need not, but for a Backup.
    pub resource_version: Option<String>,
}

impl ObjectRef {
    /// A reference to an observed object; `None` when the object has no UID, that is, was never stored.
    pub fn of(kind: Kind, meta: &ObjectMeta) -> Option<Self> {
        Some(Self {
            kind,
            namespace: meta.namespace.clone()?,
            name: meta.name.clone()?,
            uid: meta.uid.clone()?,
            resource_version: meta.resource_version.clone(),
        })
    }
}
