//! The kinds, one row each. Caches, lists, dispatch, planning, metrics labels, the simulator's store and the check of
//! the chart's role all follow from this table.

pub use fairway_crds::{App, Backup, Migration, Release, Restore};
pub use k8s_openapi::api::apps::v1::{ControllerRevision, Deployment};
pub use k8s_openapi::api::batch::v1::Job;
pub use k8s_openapi::api::core::v1::{Pod, ResourceQuota, Service};
pub use k8s_openapi::api::discovery::v1::EndpointSlice;

pub use crate::foreign::ForeignSlice;

use fairway_plan::{labels, object, readings};
use kube::core::{ApiResource, ObjectMeta};

/// The table. Calls `$callback!` with the given arguments in parentheses, then all rows. A row begins with the names
/// that a callback takes: kind and store (where an App's cache, and the simulator, holds its objects) and, of our own
/// kinds, the object's name in Rust (its planner's module, its field in what is observed, its controller). The columns
/// behind are read with `cell!`, so that a further one needs an arm there and no other matcher.
///
/// | column | what it says |
/// |---|---|
/// | `may` | what the operator does to its objects beside watching them, as verbs of the chart's role; `get` where it reads one by name |
/// | `app` | of our own kinds: the App to which an object belongs; a label says it of others |
/// | `status`, `observed` | type of its status, and what its planner sees |
/// | `headline` | the condition that sums it up: its reasons become Events |
/// | `outcome` | whether it ends, with an outcome in its status: with the first, or with one that is final |
/// | `interest` | which changes concern its objects |
/// | `unreadable` | of our own kinds: what happens to an App when an object of it cannot be parsed; other kinds block it if they belong to an App |
/// | `of` | of other kinds: to what an object belongs, by its labels |
/// | `maker` | of other kinds: who makes objects with Fairway's label; what Fairway alone makes is not kept of others |
/// | `kept`, `keep` | of other kinds: what caches keep of an object, and how it is made |
/// | `mask`, `bytes` | of other kinds: what is read of an object, and how much memory that may take |
#[macro_export]
macro_rules! for_each_kind {
    ($callback:ident $($arguments:tt)*) => {
        $callback! {
            ($($arguments)*)
            own {
                App apps app {
                    may: [],
                    app: |object| object.metadata.name.as_deref(),
                    status: AppStatus,
                    observed: AppObserved,
                    headline: READY,
                    outcome: never,
                    interest: Everything,
                    unreadable: BlocksApp,
                }
                Release releases release {
                    may: [get, create, patch, delete],
                    app: |object| Some(&object.spec.app),
                    status: ReleaseStatus,
                    observed: ReleaseObserved,
                    headline: SUCCEEDED,
                    outcome: once,
                    interest: EverythingUntilItEnds,
                    unreadable: BlocksApp,
                }
                Migration migrations migration {
                    may: [get, create],
                    app: |object| Some(&object.spec.app),
                    status: MigrationStatus,
                    observed: MigrationObserved,
                    headline: SUCCEEDED,
                    outcome: until_final,
                    interest: ItsWork,
                    unreadable: BlocksApp,
                }
                Backup backups backup {
                    may: [get, create, delete],
                    app: |object| Some(&object.spec.app),
                    status: BackupStatus,
                    observed: BackupObserved,
                    headline: SUCCEEDED,
                    outcome: once,
                    interest: ItsWork,
                    // Backups are many and old, and none decides a release.
                    unreadable: Ignored,
                }
                Restore restores restore {
                    // Only users create one.
                    may: [],
                    app: |object| Some(&object.spec.app),
                    status: RestoreStatus,
                    observed: RestoreObserved,
                    headline: SUCCEEDED,
                    outcome: once,
                    interest: ItsWork,
                    unreadable: Ignored,
                }
            }
            built_in {
                ControllerRevision revisions {
                    may: [get, create, delete],
                    of: App,
                    maker: FairwayAlone,
                    kept: KeptSnapshot,
                    keep: keep::snapshot,
                    mask: SNAPSHOT,
                    bytes: OWN_BYTES,
                }
                Deployment deployments {
                    may: [create, patch],
                    of: App,
                    maker: FairwayOrLegacy,
                    kept: Deployment,
                    keep: keep::deployment,
                    mask: DEPLOYMENT,
                    bytes: 128 * 1024,
                }
                Pod pods {
                    may: [get, create, delete],
                    of: App,
                    maker: Others,
                    kept: Pod,
                    keep: keep::pod,
                    mask: POD,
                    bytes: 256 * 1024,
                }
                Job jobs {
                    may: [get, create, delete],
                    of: App,
                    maker: FairwayAlone,
                    kept: Job,
                    keep: keep::job,
                    mask: JOB,
                    bytes: 128 * 1024,
                }
                Service services {
                    may: [get, create, patch, delete],
                    of: App,
                    maker: Others,
                    kept: Service,
                    keep: keep::service,
                    mask: SERVICE,
                    bytes: 128 * 1024,
                }
                EndpointSlice endpoint_slices {
                    may: [],
                    of: App,
                    maker: Others,
                    kept: EndpointSlice,
                    keep: keep::endpoint_slice,
                    mask: ENDPOINT_SLICE,
                    // A slice has up to 1000 endpoints.
                    bytes: 4096 * 1024,
                }
                ForeignSlice foreign_slices {
                    may: [],
                    of: Service,
                    maker: Others,
                    kept: ForeignSlice,
                    keep: keep::foreign_slice,
                    mask: ENDPOINT_SLICE,
                    bytes: 4096 * 1024,
                }
                ResourceQuota quotas {
                    may: [],
                    of: Namespace,
                    maker: Others,
                    kept: ResourceQuota,
                    keep: keep::whole,
                    mask: QUOTA,
                    bytes: 64 * 1024,
                }
            }
        }
    };
}

/// What one column of a row says: `cell!(column; row)`. A row without the column does not compile.
macro_rules! cell {
    (may; may: [$($verb:ident),*], $($row:tt)*) => { &[$(stringify!($verb)),*] };
    (app; app: $app:expr, $($row:tt)*) => { $app };
    (status; status: $status:ident, $($row:tt)*) => { $status };
    (observed; observed: $observed:ident, $($row:tt)*) => { $observed };
    (headline; headline: $headline:ident, $($row:tt)*) => { $headline };
    (outcome; outcome: once, $($row:tt)*) => { |status| status.outcome.map(|outcome| format!("{outcome:?}")) };
    (outcome; outcome: until_final, $($row:tt)*) => { cell!(outcome; outcome: once, $($row)*) };
    (outcome; outcome: never, $($row:tt)*) => { |_| None };
    (is_open; outcome: once, $($row:tt)*) => {
        |object| object.status.as_ref().is_none_or(|status| status.outcome.is_none())
    };
    (is_open; outcome: until_final, $($row:tt)*) => {
        |object| {
            let outcome = object.status.as_ref().and_then(|status| status.outcome);
            outcome.is_none_or(|outcome| !outcome.is_final())
        }
    };
    (is_open; outcome: never, $($row:tt)*) => { |_| false };
    (interest; interest: $interest:ident, $($row:tt)*) => { Interest::$interest };
    (unreadable; unreadable: $unreadable:ident, $($row:tt)*) => { Unreadable::$unreadable };
    (of; of: $of:ident, $($row:tt)*) => { Scope::$of };
    (kept; kept: $kept:ident, $($row:tt)*) => { $kept };
    (keep; keep: $keep:expr, $($row:tt)*) => { $keep };
    (maker; maker: $maker:ident, $($row:tt)*) => { Maker::$maker };
    (mask; mask: $mask:ident, $($row:tt)*) => { &mask::$mask };
    (bytes; bytes: $bytes:expr, $($row:tt)*) => { $bytes };
    // Another column.
    ($column:ident; $other:ident: $value:expr, $($row:tt)*) => { $crate::kinds::cell!($column; $($row)*) };
}
pub(crate) use cell;

/// Which changes concern an object of our own kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// All of its App.
    Everything,
    /// All of its App while it has no outcome, or while it serves or is desired; then its own, those of its Migration and of
    /// the Jobs and pods that work for it, and the App's, so that an old Release costs nothing while other pods come and go.
    EverythingUntilItEnds,
    /// Its own and those of the Jobs and pods that work for it, those of the Release of the same name (by an
    /// annotation there a user resolves a migration) and, while it has not ended, of what it runs with.
    ItsWork,
}

/// What happens to an App when an object of it cannot be parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// The App is not reconciled until the object can be parsed, because a plan without it could be wrong.
    BlocksApp,
    /// The App is reconciled without the object.
    Ignored,
}

/// Who makes objects of a kind that carry the label of an App.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maker {
    /// Fairway, and nobody else.
    FairwayAlone,
    /// Fairway, and users who label what a component takes over from ([`fairway_plan::readings::is_legacy`]), of which little is kept.
    FairwayOrLegacy,
    /// Controllers of Kubernetes, or users.
    Others,
}

/// What an object belongs to. One of our own kinds belongs to an App.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// To the App that its label names.
    App,
    /// To the Service that its label names; no label of Fairway's says to which App. It concerns the Apps that serve the Service.
    Service,
    /// To its namespace. It concerns the Apps there of which a Release is under way.
    Namespace,
}

impl Scope {
    /// The labels with which objects are watched.
    const fn selector(self) -> Option<&'static str> {
        match self {
            Self::App => Some(labels::APP),
            Self::Service => Some(readings::FOREIGN_SLICES),
            Self::Namespace => None,
        }
    }

    /// The name of what an object belongs to.
    pub(crate) fn owner(self, meta: &ObjectMeta) -> Option<&str> {
        let label = match self {
            Self::App => labels::APP,
            Self::Service => readings::SERVICE_NAME,
            Self::Namespace => return meta.namespace.as_deref(),
        };
        meta.labels.as_ref()?.get(label).map(String::as_str)
    }
}

/// Memory that what is read of an object of our own kinds may take. The API server stores 1.5 MiB of an object; only
/// pod templates have no bounds in the schema, and an object in one takes up to a hundred times its text.
pub(crate) const OWN_BYTES: usize = 4096 * 1024;

macro_rules! kinds {
    (
        ()
        own { $($own:ident $own_store:ident $member:ident { $($own_row:tt)* })* }
        built_in { $($kind:ident $store:ident { $($row:tt)* })* }
    ) => {
        /// The kinds that are watched.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[allow(missing_docs, reason = "each is the Kubernetes kind of the same name")]
        pub enum Kind {
            $($own,)*
            $($kind,)*
        }

        impl Kind {
            /// Every kind, in the order of the table.
            pub const ALL: [Self; [$(stringify!($own),)* $(stringify!($kind)),*].len()] =
                [$(Self::$own,)* $(Self::$kind),*];

            /// Name of the kind in Kubernetes.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$own => stringify!($own),)*
                    $(Self::$kind => stringify!($kind),)*
                }
            }

            /// Group, version and plural of the kind.
            pub fn api_resource(self) -> ApiResource {
                match self {
                    $(Self::$own => ApiResource::erase::<$own>(&()),)*
                    $(Self::$kind => ApiResource::erase::<$kind>(&()),)*
                }
            }

            /// The labels with which objects of the kind are watched; all objects of our own kinds are.
            pub const fn selector(self) -> Option<&'static str> {
                match self {
                    $(Self::$own => None,)*
                    $(Self::$kind => cell!(of; $($row)*).selector(),)*
                }
            }

            /// What the operator does to objects of the kind beside watching them, as verbs of its role.
            pub const fn verbs(self) -> &'static [&'static str] {
                match self {
                    $(Self::$own => cell!(may; $($own_row)*),)*
                    $(Self::$kind => cell!(may; $($row)*),)*
                }
            }

            /// The kind among our own, if it is one.
            pub const fn own(self) -> Option<OwnKind> {
                match self {
                    $(Self::$own => Some(OwnKind::$own),)*
                    $(Self::$kind => None,)*
                }
            }

            /// What happens to an App when an object of the kind cannot be parsed.
            pub const fn unreadable(self) -> Unreadable {
                match self {
                    $(Self::$own => cell!(unreadable; $($own_row)*),)*
                    $(Self::$kind => match cell!(of; $($row)*) {
                        Scope::App => Unreadable::BlocksApp,
                        Scope::Service | Scope::Namespace => Unreadable::Ignored,
                    },)*
                }
            }
        }

        /// The kinds that are reconciled: our own. The order is that in which a burst of changes is worked off.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[allow(missing_docs, reason = "each is Fairway's kind of the same name")]
        pub enum OwnKind {
            $($own,)*
        }

        impl OwnKind {
            /// Every kind of our own, in the order of the table.
            pub const ALL: [Self; [$(stringify!($own)),*].len()] = [$(Self::$own),*];

            /// Name of the controller, as metrics and logs have it.
            pub const fn controller(self) -> &'static str {
                match self {
                    $(Self::$own => stringify!($member),)*
                }
            }

            /// The kind among all that are watched.
            pub const fn kind(self) -> Kind {
                match self {
                    $(Self::$own => Kind::$own,)*
                }
            }

            /// Which changes concern objects of the kind.
            pub const fn interest(self) -> Interest {
                match self {
                    $(Self::$own => cell!(interest; $($own_row)*),)*
                }
            }
        }
    };
}

for_each_kind!(kinds);

impl From<object::Kind> for Kind {
    fn from(kind: object::Kind) -> Self {
        match kind {
            object::Kind::ControllerRevision => Self::ControllerRevision,
            object::Kind::Release => Self::Release,
            object::Kind::Migration => Self::Migration,
            object::Kind::Backup => Self::Backup,
            object::Kind::Restore => Self::Restore,
            object::Kind::Deployment => Self::Deployment,
            object::Kind::Service => Self::Service,
            object::Kind::Job => Self::Job,
            object::Kind::Pod => Self::Pod,
        }
    }
}
