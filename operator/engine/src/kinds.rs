//! The kinds, one row each. Caches, lists, dispatch, metrics labels, the simulator's store and the check of the
//! chart's role all follow from this table.

mod keep;

pub use fairway_crds::{App, Backup, Migration, Release};
pub use k8s_openapi::api::apps::v1::{ControllerRevision, Deployment};
pub use k8s_openapi::api::batch::v1::Job;
pub use k8s_openapi::api::core::v1::{Pod, Service};
pub use k8s_openapi::api::discovery::v1::EndpointSlice;
pub use keep::KeptSnapshot;

use crate::caches::{Group, Store};
use fairway_crds::condition::{READY, SUCCEEDED};
use fairway_crds::{AppStatus, BackupStatus, MigrationStatus, ReleaseStatus};
use fairway_plan::observed::{AppObserved, BackupObserved, MigrationObserved, ReleaseObserved, Settings};
use fairway_plan::{Decision, labels, object};
use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource;
use kube::core::{ApiResource, ObjectMeta};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::sync::Arc;

/// The table. Calls `$callback!` with the given arguments in parentheses, then all rows.
///
/// | column | what it says |
/// |---|---|
/// | kind, store | its type, and where an App's cache (and the simulator) holds its objects |
/// | `app` | the App to which an object belongs |
/// | `may` | what the operator does to its objects beside reading them, as verbs of the chart's role |
/// | `status`, `observed` | of our own kinds: type of its status, what its planner sees and the object's member in that |
/// | `headline` | the condition that sums it up: its reasons become Events |
/// | `outcome` | whether it ends, with an outcome in its status |
/// | `interest` | which changes concern its objects |
/// | `unreadable` | what happens to an App when an object of it cannot be parsed |
/// | `kept` | of other kinds: what caches keep of an object, and how it is made |
#[macro_export]
macro_rules! for_each_kind {
    ($callback:ident $($arguments:tt)*) => {
        $callback! {
            ($($arguments)*)
            own {
                App apps {
                    app: |object| object.metadata.name.as_deref(),
                    may: [],
                    status: AppStatus, observed: app in AppObserved, headline: READY, outcome: never,
                    interest: Everything, unreadable: HoldsItsApp,
                }
                Release releases {
                    app: |object| Some(&object.spec.app),
                    may: [create, patch, delete],
                    status: ReleaseStatus, observed: release in ReleaseObserved, headline: SUCCEEDED, outcome: once,
                    interest: EverythingUntilItEnds, unreadable: HoldsItsApp,
                }
                Migration migrations {
                    app: |object| Some(&object.spec.app),
                    may: [create],
                    status: MigrationStatus, observed: migration in MigrationObserved, headline: SUCCEEDED, outcome: once,
                    interest: ItsWork, unreadable: HoldsItsApp,
                }
                Backup backups {
                    app: |object| Some(&object.spec.app),
                    may: [create],
                    status: BackupStatus, observed: backup in BackupObserved, headline: SUCCEEDED, outcome: once,
                    // Backups are many and old, and none decides a release.
                    interest: ItsWork, unreadable: IsNotSeen,
                }
            }
            built_in {
                ControllerRevision revisions { app: labelled, may: [create, patch, delete], kept: KeptSnapshot = keep::snapshot }
                Deployment deployments { app: labelled, may: [create, patch, delete], kept: Deployment = keep::deployment }
                Pod pods { app: labelled, may: [create, delete], kept: Pod = keep::pod }
                Job jobs { app: labelled, may: [create, delete], kept: Job = keep::job }
                Service services { app: labelled, may: [create, patch, delete], kept: Service = keep::whole }
                EndpointSlice endpoint_slices { app: labelled, may: [], kept: EndpointSlice = keep::whole }
            }
        }
    };
}

/// Which changes concern an object of our own kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// All of its App.
    Everything,
    /// All of its App while it has no outcome, or while it serves or is desired; then its own and the App's, so that
    /// an old Release costs nothing while pods come and go.
    EverythingUntilItEnds,
    /// Its own and those of the Jobs and pods that work for it, those of the Release of the same name (by an
    /// annotation there a user resolves a migration) and, while it has no outcome, of what it runs with.
    ItsWork,
}

/// What happens to an App when an object of it cannot be parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// Nothing is planned for it: to plan without the object would be to act on half the truth.
    HoldsItsApp,
    /// It is planned without the object.
    IsNotSeen,
}

/// A kind that is watched and cached.
pub trait Cached:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    /// What caches keep of an object.
    type Kept: Kept;

    /// Which kind it is.
    const KIND: Kind;

    /// The App to which the object belongs.
    fn app(&self) -> Option<&str>;

    /// Where an App's cache holds objects of the kind.
    fn store(group: &Group) -> &Store<Self::Kept>;

    /// Where an App's cache holds objects of the kind, to change them.
    fn store_mut(group: &mut Group) -> &mut Store<Self::Kept>;

    /// Drops what no planner looks at and keeps the rest; nothing of what cannot be understood.
    fn keep(self) -> Option<Arc<Self::Kept>>;
}

/// What is kept of an object.
pub trait Kept: Clone + Debug + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Whether it ends with an outcome and has none yet.
    fn is_open(&self) -> bool {
        false
    }

    /// Names of the Releases that serve and that are desired, of an App.
    fn current_releases(&self) -> Option<[Option<Arc<str>>; 2]> {
        None
    }
}

/// A kind of our own: planned, and with a status.
pub trait Planned: Cached<Kept = Self> {
    /// Status of the kind.
    type Status: Clone + PartialEq + Send + Sync;
    /// What its planner sees.
    type Observed: Send + Sync;

    /// Which kind it is.
    const RECONCILED: Reconciled;
    /// The condition that sums an object up: its reasons become Events.
    const HEADLINE: &'static str;

    /// The object in what was observed.
    fn of(observed: &Self::Observed) -> &Arc<Self>;

    /// What is to be done, by the kind's planner.
    fn plan(observed: &Self::Observed, settings: &Settings, now: Timestamp) -> Decision<Self::Status>;

    /// Status of the object.
    fn status(&self) -> Option<&Self::Status>;

    /// The same object with another status.
    fn with_status(&self, status: Self::Status) -> Self;

    /// Conditions of a status.
    fn conditions(status: &Self::Status) -> &[Condition];

    /// The outcome in a status.
    fn outcome(status: &Self::Status) -> Option<String>;
}

/// The App that the label names.
pub(crate) fn labelled_app(meta: &ObjectMeta) -> Option<&str> {
    meta.labels.as_ref()?.get(labels::APP).map(String::as_str)
}

macro_rules! outcome {
    (once, $status:expr) => {
        $status.outcome.map(|outcome| format!("{outcome:?}"))
    };
    (never, $status:expr) => {{
        let _ = $status;
        None
    }};
}

macro_rules! is_open {
    (once, $object:expr) => {
        $object
            .status
            .as_ref()
            .is_none_or(|status| status.outcome.is_none())
    };
    (never, $object:expr) => {
        false
    };
}

macro_rules! app_of {
    (labelled) => {
        |object| labelled_app(&object.metadata)
    };
}

macro_rules! kinds {
    (
        ()
        own { $(
            $own:ident $own_store:ident {
                app: $app:expr,
                may: [$($own_verb:ident),*],
                status: $status:ident, observed: $member:ident in $observed:ident, headline: $headline:ident, outcome: $outcome:ident,
                interest: $interest:ident, unreadable: $unreadable:ident,
            }
        )* }
        built_in { $(
            $kind:ident $store:ident { app: $grouped:ident, may: [$($verb:ident),*], kept: $kept:ident = $keep:path }
        )* }
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

            /// The label with which objects of the kind are watched; all objects of our own kinds are.
            pub const fn selector(self) -> Option<&'static str> {
                match self {
                    $(Self::$own => None,)*
                    $(Self::$kind => Some(labels::APP),)*
                }
            }

            /// What the operator does to objects of the kind beside reading them, as verbs of its role.
            pub const fn verbs(self) -> &'static [&'static str] {
                match self {
                    $(Self::$own => &[$(stringify!($own_verb)),*],)*
                    $(Self::$kind => &[$(stringify!($verb)),*],)*
                }
            }

            /// The kind as one of our own.
            pub const fn reconciled(self) -> Option<Reconciled> {
                match self {
                    $(Self::$own => Some(Reconciled::$own),)*
                    $(Self::$kind => None,)*
                }
            }

            /// What happens to an App when an object of the kind cannot be parsed.
            pub const fn unreadable(self) -> Unreadable {
                match self {
                    $(Self::$own => Unreadable::$unreadable,)*
                    $(Self::$kind => Unreadable::HoldsItsApp,)*
                }
            }
        }

        /// The kinds that are reconciled: our own. The order is that in which a burst of changes is worked off.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[allow(missing_docs, reason = "each is Fairway's kind of the same name")]
        pub enum Reconciled {
            $($own,)*
        }

        impl Reconciled {
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
                    $(Self::$own => Interest::$interest,)*
                }
            }
        }

        $(
            impl Cached for $own {
                type Kept = Self;
                const KIND: Kind = Kind::$own;

                fn app(&self) -> Option<&str> {
                    let app: fn(&Self) -> Option<&str> = $app;
                    app(self)
                }

                fn store(group: &Group) -> &Store<Self> {
                    &group.$own_store
                }

                fn store_mut(group: &mut Group) -> &mut Store<Self> {
                    &mut group.$own_store
                }

                fn keep(self) -> Option<Arc<Self>> {
                    keep::whole(self)
                }
            }

            impl Planned for $own {
                type Status = $status;
                type Observed = $observed;
                const RECONCILED: Reconciled = Reconciled::$own;
                const HEADLINE: &'static str = $headline;

                fn of(observed: &$observed) -> &Arc<Self> {
                    &observed.$member
                }

                fn plan(observed: &$observed, settings: &Settings, now: Timestamp) -> Decision<$status> {
                    fairway_plan::$member::plan(observed, settings, now)
                }

                fn status(&self) -> Option<&$status> {
                    self.status.as_ref()
                }

                fn with_status(&self, status: $status) -> Self {
                    Self { status: Some(status), ..self.clone() }
                }

                fn conditions(status: &$status) -> &[Condition] {
                    &status.conditions
                }

                fn outcome(status: &$status) -> Option<String> {
                    outcome!($outcome, status)
                }
            }
        )*

        $(
            impl Cached for $kind {
                type Kept = $kept;
                const KIND: Kind = Kind::$kind;

                fn app(&self) -> Option<&str> {
                    let app: fn(&Self) -> Option<&str> = app_of!($grouped);
                    app(self)
                }

                fn store(group: &Group) -> &Store<$kept> {
                    &group.$store
                }

                fn store_mut(group: &mut Group) -> &mut Store<$kept> {
                    &mut group.$store
                }

                fn keep(self) -> Option<Arc<$kept>> {
                    $keep(self)
                }
            }

            impl Kept for $kept {}
        )*

        impl_kept!($($own $outcome)*);
    };
}

macro_rules! impl_kept {
    (App never $($kind:ident $outcome:ident)*) => {
        impl Kept for App {
            fn current_releases(&self) -> Option<[Option<Arc<str>>; 2]> {
                let status = self.status.as_ref();
                let live = status.and_then(|status| Some(status.live.as_ref()?.release.as_str()));
                let desired = status.and_then(|status| status.desired.as_deref());
                Some([live.map(Arc::from), desired.map(Arc::from)])
            }
        }

        $(
            impl Kept for $kind {
                fn is_open(&self) -> bool {
                    is_open!($outcome, self)
                }
            }
        )*
    };
}

for_each_kind!(kinds);

/// Does something for every kind that is watched.
pub trait ForKind {
    /// What is done for one of them.
    fn visit<K: Cached>(&mut self);
}

macro_rules! visit {
    (
        ()
        own { $($own:ident $own_store:ident { $($own_row:tt)* })* }
        built_in { $($kind:ident $store:ident { $($row:tt)* })* }
    ) => {
        /// Does something for every kind that is watched, in the order of the table.
        pub fn for_each(visitor: &mut impl ForKind) {
            $(visitor.visit::<$own>();)*
            $(visitor.visit::<$kind>();)*
        }
    };
}

for_each_kind!(visit);

impl From<object::Kind> for Kind {
    fn from(kind: object::Kind) -> Self {
        Self::ALL
            .into_iter()
            .find(|known| known.as_str() == kind.as_str())
            .unwrap_or(Self::App)
    }
}
