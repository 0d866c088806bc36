//! The kinds, one row each. Caches, lists, dispatch, planning, metrics labels, the simulator's store and the check of
//! the chart's role all follow from this table.

pub use fairway_crds::{App, Backup, Migration, Release};
pub use k8s_openapi::api::apps::v1::{ControllerRevision, Deployment};
pub use k8s_openapi::api::batch::v1::Job;
pub use k8s_openapi::api::core::v1::{Pod, Service};
pub use k8s_openapi::api::discovery::v1::EndpointSlice;

use fairway_plan::{labels, object};
use kube::core::ApiResource;

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
                    interest: Everything, unreadable: BlocksApp,
                }
                Release releases {
                    app: |object| Some(&object.spec.app),
                    may: [create, patch, delete],
                    status: ReleaseStatus, observed: release in ReleaseObserved, headline: SUCCEEDED, outcome: once,
                    interest: EverythingUntilItEnds, unreadable: BlocksApp,
                }
                Migration migrations {
                    app: |object| Some(&object.spec.app),
                    may: [create],
                    status: MigrationStatus, observed: migration in MigrationObserved, headline: SUCCEEDED, outcome: once,
                    interest: ItsWork, unreadable: BlocksApp,
                }
                Backup backups {
                    app: |object| Some(&object.spec.app),
                    may: [create],
                    status: BackupStatus, observed: backup in BackupObserved, headline: SUCCEEDED, outcome: once,
                    // Backups are many and old, and none decides a release.
                    interest: ItsWork, unreadable: Ignored,
                }
            }
            built_in {
                ControllerRevision revisions { app: labelled, may: [create, delete], kept: KeptSnapshot = keep::snapshot }
                Deployment deployments { app: labelled, may: [create, patch], kept: Deployment = keep::deployment }
                Pod pods { app: labelled, may: [create, delete], kept: Pod = keep::pod }
                Job jobs { app: labelled, may: [create, delete], kept: Job = keep::job }
                Service services { app: labelled, may: [create, patch], kept: Service = keep::whole }
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
    /// The App is not reconciled until the object can be parsed, because a plan without it could be wrong.
    BlocksApp,
    /// The App is reconciled without the object.
    Ignored,
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
                    $(Self::$kind => Unreadable::BlocksApp,)*
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
            object::Kind::Deployment => Self::Deployment,
            object::Kind::Service => Self::Service,
            object::Kind::Job => Self::Job,
            object::Kind::Pod => Self::Pod,
        }
    }
}
