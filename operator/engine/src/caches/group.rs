//! What is cached of one App, or of what concerns Apps by a Service or namespace ([`Scope`]): found without a scan.

use super::keep::{self, KeptSnapshot};
use super::store::{Backups, Kept, Store};
use crate::for_each_kind;
use crate::key::{NamespacedName, ObjectKey};
use crate::kinds::*;
use crate::read::mask::{self, Mask};
use fairway_crds::condition::BACKUP_OVERDUE;
use fairway_plan::ObjectRef;
use fairway_plan::backup::SeenByOthers;
use k8s_openapi::NamespaceResourceScope;
use kube::Resource;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;

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

    /// What is read of an object.
    const MASK: &'static Mask;

    /// How much memory that may take, as estimated; an object that takes more is unreadable.
    const BYTES: usize;

    /// Who makes objects of the kind.
    const MAKER: Maker;

    /// To what an object of the kind belongs.
    const OF: Scope;

    /// Name of the App, or of the Service, to which the object belongs.
    fn owner(&self) -> Option<&str>;

    /// Where an App's cache holds objects of the kind.
    fn store(group: &Group) -> &Store<Self::Kept>;

    /// Where an App's cache holds objects of the kind, to change them.
    fn store_mut(group: &mut Group) -> &mut Store<Self::Kept>;

    /// Drops what no planner looks at and keeps the rest; nothing of what cannot be understood.
    fn keep(self) -> Option<Arc<Self::Kept>>;
}

macro_rules! group {
    (
        ()
        own { $($own:ident $own_store:ident $member:ident { $($own_row:tt)* })* }
        built_in { $($kind:ident $store:ident { $($row:tt)* })* }
    ) => {
        /// The objects of one App, Service or namespace, kind by kind. The App itself may be gone: backups outlive it.
        #[derive(Clone, Debug, Default)]
        #[allow(missing_docs, reason = "each store holds the objects of one kind")]
        pub struct Group {
            /// Names of the Releases that serve and that the spec asks for.
            pub(crate) current: [Option<Arc<str>>; 2],
            /// Names of the Services that the spec serves.
            pub(crate) served: BTreeSet<String>,
            /// What metrics say of its backups.
            pub(crate) backed_up: Option<Backups>,
            /// Whether the spec says which backups are kept.
            pub(crate) has_retention: bool,
            $(pub(crate) $own_store: Store<$own>,)*
            $(pub(crate) $store: Store<<$kind as Cached>::Kept>,)*
        }

        impl Group {
            /// Whether nothing is left of it.
            pub(crate) fn is_empty(&self) -> bool {
                $(self.$own_store.is_empty() &&)* $(self.$store.is_empty() &&)* true
            }

            /// Keeps objects parsed while a release is in progress, and packed otherwise.
            pub(crate) fn arrange(&mut self) {
                if self.is_active() {
                    $(self.$own_store.unpack();)*
                    $(self.$store.unpack();)*
                } else {
                    $(self.$own_store.pack();)*
                    $(self.$store.pack();)*
                }
            }

            /// The resource version under which an object is cached.
            pub(crate) fn version(&self, kind: Kind, name: &str) -> Option<u64> {
                match kind {
                    $(Kind::$own => self.$own_store.version(name),)*
                    $(Kind::$kind => self.$store.version(name),)*
                }
            }

            /// Names of the objects of one of our own kinds, and whether each is open.
            fn names(&self, kind: OwnKind) -> Vec<(&str, bool)> {
                match kind {
                    $(OwnKind::$own => self.$own_store.names().collect(),)*
                }
            }
        }
        $(
            impl Cached for $own {
                type Kept = Self;
                const KIND: Kind = Kind::$own;
                const MASK: &'static Mask = &mask::OWN;
                const BYTES: usize = OWN_BYTES;
                const MAKER: Maker = Maker::Others;
                const OF: Scope = Scope::App;

                fn owner(&self) -> Option<&str> {
                    let app: fn(&Self) -> Option<&str> = cell!(app; $($own_row)*);
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
        )*

        $(
            impl Cached for $kind {
                type Kept = cell!(kept; $($row)*);
                const KIND: Kind = Kind::$kind;
                const MASK: &'static Mask = cell!(mask; $($row)*);
                const BYTES: usize = cell!(bytes; $($row)*);
                const MAKER: Maker = cell!(maker; $($row)*);
                const OF: Scope = cell!(of; $($row)*);

                fn owner(&self) -> Option<&str> {
                    Self::OF.owner(&self.metadata)
                }

                fn store(group: &Group) -> &Store<Self::Kept> {
                    &group.$store
                }

                fn store_mut(group: &mut Group) -> &mut Store<Self::Kept> {
                    &mut group.$store
                }

                fn keep(self) -> Option<Arc<Self::Kept>> {
                    cell!(keep; $($row)*)(self)
                }
            }

            impl Kept for cell!(kept; $($row)*) {}
        )*

        impl_kept!($($own { $($own_row)* })*);

        /// Does something for every kind that is watched, in the order of the table.
        pub fn for_each(visitor: &mut impl ForKind) {
            $(visitor.visit::<$own>();)*
            $(visitor.visit::<$kind>();)*
        }
    };
}

macro_rules! impl_kept {
    (App { $($app:tt)* } $($kind:ident { $($row:tt)* })*) => {
        impl Kept for App {
            fn current_releases(&self) -> Option<[Option<Arc<str>>; 2]> {
                let status = self.status.as_ref();
                let live = status.and_then(|status| Some(status.live.as_ref()?.release.as_str()));
                let desired = status.and_then(|status| status.desired.as_deref());
                Some([live.map(Arc::from), desired.map(Arc::from)])
            }

            fn backups(&self) -> Option<Backups> {
                self.spec.backup.as_ref()?.schedule.as_ref()?;
                let status = self.status.as_ref()?;
                let newest = status.backup.as_ref().and_then(|backup| backup.last_verified.as_ref());
                let mut conditions = status.conditions.iter();
                Some(Backups {
                    last_verified: newest.map(|newest| newest.taken_at.as_second()),
                    overdue: conditions
                        .any(|condition| condition.type_ == BACKUP_OVERDUE && condition.status == "True"),
                })
            }

            fn has_retention(&self) -> bool {
                let settings = self.spec.backup.as_ref();
                settings.is_some_and(|settings| settings.keep.is_some())
            }

            fn served(&self) -> Option<BTreeSet<String>> {
                let stays = self.metadata.deletion_timestamp.is_none();
                let components = self.spec.components.iter().filter(|_| stays);
                let served = components.filter_map(|component| component.serves.as_ref());
                Some(served.map(|serves| serves.service.clone()).collect())
            }
        }

        $(
            impl Kept for $kind {
                fn is_open(&self) -> bool {
                    let is_open: fn(&Self) -> bool = cell!(is_open; $($row)*);
                    is_open(self)
                }
            }
        )*
    };
}

/// Does something for every kind that is watched.
pub trait ForKind {
    /// What is done for one of them.
    fn visit<K: Cached>(&mut self);
}

for_each_kind!(group);

/// A change to an object, with what decides which objects it causes to be reconciled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change<'a> {
    /// Kind of the object.
    pub(crate) kind: Kind,
    /// Name of the object.
    pub(crate) name: &'a str,
    /// The Migration, Backup or Restore that a Job or pod works for.
    pub(crate) work_for: Option<&'a str>,
    /// Whether retention of the other Backups sees the change of a Backup.
    pub(crate) for_retention: bool,
}

impl Group {
    /// The App whose objects these are, unless it is gone.
    pub(crate) fn app(&self) -> Option<Arc<App>> {
        self.apps.all().next()
    }

    /// Jobs and pods of ended migrations whose Migration was deleted: they have no owner, so Fairway deletes them.
    pub(crate) fn orphans(&self) -> Vec<ObjectRef> {
        let (jobs, pods): (Vec<_>, Vec<_>) = (self.jobs.all().collect(), self.pods.all().collect());
        fairway_plan::migration::orphans(&jobs, &pods, |_, name| self.migrations.version(name).is_some())
    }

    /// Whether a Service is served by the App's spec, or by a Release that is under way.
    pub(crate) fn serves(&self, service: &str) -> bool {
        let is_named = |kept: Arc<KeptSnapshot>| {
            let components = kept.snapshot.components.iter();
            let mut served = components.filter_map(|component| component.serves.as_ref());
            served.any(|serves| serves.service == service)
        };
        self.served.contains(service) || self.is_active() && self.revisions.all().any(is_named)
    }

    /// Whether a Release is under way: then each pass needs all objects parsed.
    pub(crate) fn is_active(&self) -> bool {
        self.releases.names().any(|(_, open)| open)
    }

    /// Which objects of the App a change concerns: see [`Interest`].
    pub(crate) fn concerned(&self, app: &NamespacedName, change: Change<'_>) -> Vec<ObjectKey> {
        let mut work = Vec::new();
        for kind in OwnKind::ALL {
            match kind.interest() {
                Interest::Everything => {
                    // An App that is gone may have left a migration behind, which ends on its own.
                    let ending = matches!(change.kind, Kind::App | Kind::Migration | Kind::Job | Kind::Pod);
                    if ending || !self.apps.is_empty() {
                        work.push(ObjectKey::new(kind, app.clone()));
                    }
                }
                Interest::EverythingUntilItEnds | Interest::ItsWork => {
                    let names = self.names(kind).into_iter();
                    let names = names.filter(|(name, open)| self.concerns(kind, name, *open, change));
                    work.extend(names.map(|(name, _)| ObjectKey::new(kind, app.sibling(name))));
                }
            }
        }
        work
    }

    fn concerns(&self, kind: OwnKind, name: &str, open: bool, change: Change<'_>) -> bool {
        let same = |kind: Kind| change.kind == kind && change.name == name;
        if same(kind.kind()) {
            return true;
        }
        match kind.interest() {
            Interest::Everything => true,
            Interest::EverythingUntilItEnds => {
                let is_current = self.current.iter().flatten().any(|current| **current == *name);
                // What a Release started may appear after its end, when the watch was behind; and its Migration may handle
                // then what a user asks by an annotation of the Release.
                let of_work = change.work_for == Some(name) || same(Kind::Migration);
                open || is_current || change.kind == Kind::App || of_work
            }
            Interest::ItsWork => {
                let frames = matches!(change.kind, Kind::App | Kind::Release | Kind::ControllerRevision);
                // A Backup waits for the others of its App and for a migration, and a migration for a Backup; a Restore for
                // its Backup and for other Restores.
                let for_restore = kind == OwnKind::Restore && change.kind == Kind::Restore;
                let waits = open && (matches!(change.kind, Kind::Migration | Kind::Backup) || for_restore);
                let beside = waits || kind == OwnKind::Backup && self.may_keep(name, change);
                change.work_for == Some(name) || same(Kind::Release) || beside || frames && open
            }
        }
    }

    /// Whether a change may be a reason to keep a Backup that has ended, or to keep it no longer.
    fn may_keep(&self, backup: &str, change: Change<'_>) -> bool {
        self.has_retention
            && match change.kind {
                Kind::App => true,
                // One that is under way counts when it has ended.
                Kind::Backup => {
                    let mut backups = self.backups.names();
                    change.for_retention && !backups.any(|(name, open)| name == change.name && open)
                }
                Kind::Release => backup
                    .strip_prefix(change.name)
                    .is_some_and(|rest| rest.starts_with('-')),
                // Which Backup one restored that is gone is not known any more.
                Kind::Restore => self
                    .restores
                    .get(change.name)
                    .is_none_or(|restore| restore.spec.from.backup == backup),
                _ => false,
            }
    }

    /// What retention of the other Backups sees of a cached one, if the spec says which are kept.
    pub(crate) fn seen_by_retention(&self, kind: Kind, name: &str) -> Option<SeenByOthers> {
        let backup = (self.has_retention && kind == Kind::Backup).then(|| self.backups.get(name));
        backup.flatten().map(|backup| SeenByOthers::of(&backup))
    }

    /// Migrations, Backups and Restores that have not ended.
    pub(crate) fn open_work(&self, app: &NamespacedName) -> Vec<ObjectKey> {
        let kinds = OwnKind::ALL
            .into_iter()
            .filter(|kind| kind.interest() == Interest::ItsWork);
        kinds
            .flat_map(|kind| {
                self.names(kind)
                    .into_iter()
                    .map(move |(name, open)| (kind, name, open))
            })
            .filter(|(_, _, open)| *open)
            .map(|(kind, name, _)| ObjectKey::new(kind, app.sibling(name)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairway_crds::migration::MigrationOutcome;
    use fairway_crds::release::{ReleaseOutcome, ReleaseStatus};
    use fairway_crds::{AppSpec, BackupSpec, MigrationSpec, ReleaseSpec};
    use serde_json::json;

    fn group() -> Group {
        let mut group = Group::default();
        let spec: AppSpec = serde_json::from_value(json!({"components": []})).unwrap();
        let app = App::new("crm", spec);
        group.current = [Some("crm-2".into()), Some("crm-3".into())];
        group.apps.put("crm".into(), 1, Arc::new(app));
        for (revision, outcome) in [
            (1, Some(ReleaseOutcome::Succeeded)),
            (2, Some(ReleaseOutcome::Succeeded)),
            (3, None),
        ] {
            let name = format!("crm-{revision}");
            let spec: ReleaseSpec =
                serde_json::from_value(json!({"app": "crm", "revision": revision})).unwrap();
            let mut release = Release::new(&name, spec);
            release.status = Some(ReleaseStatus {
                outcome,
                ..Default::default()
            });
            group.releases.put(name.into(), 1, Arc::new(release));
        }
        let spec: MigrationSpec = serde_json::from_value(json!({
            "app": "crm", "image": "x", "component": "web", "command": ["migrate"], "timeout": "1m",
        }))
        .unwrap();
        group
            .migrations
            .put("crm-3".into(), 1, Arc::new(Migration::new("crm-3", spec)));
        let spec: BackupSpec = serde_json::from_value(json!({"app": "crm"})).unwrap();
        group.backups.put(
            "crm-3-0a1b2c3d".into(),
            1,
            Arc::new(Backup::new("crm-3-0a1b2c3d", spec)),
        );
        group
    }

    fn concerned(kind: Kind, name: &str, work_for: Option<&str>) -> Vec<String> {
        group()
            .concerned(
                &NamespacedName::new("shop", "crm"),
                Change {
                    kind,
                    name,
                    work_for,
                    for_retention: true,
                },
            )
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn a_pod_concerns_its_app_and_the_current_releases() {
        assert_eq!(
            concerned(Kind::Pod, "crm-web-3-x", None),
            ["app shop/crm", "release shop/crm-2", "release shop/crm-3"]
        );
    }

    #[test]
    fn what_a_migration_runs_with_concerns_it_until_its_outcome_is_final() {
        for (outcome, concerns) in [
            (MigrationOutcome::Unknown, true),
            (MigrationOutcome::Partial, true),
            (MigrationOutcome::Failed, false),
        ] {
            let mut group = group();
            let mut migration = Migration::clone(&group.migrations.get("crm-3").unwrap());
            migration.status = Some(fairway_crds::MigrationStatus {
                outcome: Some(outcome),
                ..Default::default()
            });
            group.migrations.put("crm-3".into(), 2, Arc::new(migration));
            let app = NamespacedName::new("shop", "crm");
            let migration = ObjectKey::new(OwnKind::Migration, app.sibling("crm-3"));
            for (kind, name) in [(Kind::App, "crm"), (Kind::ControllerRevision, "crm-3")] {
                let change = Change {
                    kind,
                    name,
                    work_for: None,
                    for_retention: true,
                };
                let work = group.concerned(&app, change);
                assert_eq!(work.contains(&migration), concerns, "{kind:?} {outcome:?}");
            }
            assert_eq!(
                group.open_work(&app).contains(&migration),
                concerns,
                "{outcome:?}"
            );
        }
    }

    #[test]
    fn a_release_concerns_its_migration_even_after_its_outcome() {
        let mut group = group();
        let mut migration = Migration::clone(&group.migrations.get("crm-3").unwrap());
        migration.status = Some(fairway_crds::MigrationStatus {
            outcome: Some(MigrationOutcome::Unknown),
            ..Default::default()
        });
        group.migrations.put("crm-3".into(), 2, Arc::new(migration));
        let change = Change {
            kind: Kind::Release,
            name: "crm-3",
            work_for: None,
            for_retention: true,
        };
        let app = NamespacedName::new("shop", "crm");
        let migration = ObjectKey::new(OwnKind::Migration, app.sibling("crm-3"));
        assert!(group.concerned(&app, change).contains(&migration));
    }

    #[test]
    fn an_old_release_is_looked_at_when_it_or_its_app_changes() {
        assert!(concerned(Kind::Release, "crm-1", None).contains(&"release shop/crm-1".into()));
        assert!(concerned(Kind::App, "crm", None).contains(&"release shop/crm-1".into()));
    }

    #[test]
    fn a_pod_that_appears_late_concerns_the_release_that_started_it() {
        let work = concerned(Kind::Pod, "crm-1-pin-1", Some("crm-1"));
        assert!(work.contains(&"release shop/crm-1".into()), "{work:?}");
    }

    #[test]
    fn an_agents_job_concerns_what_it_works_for() {
        let work = concerned(Kind::Job, "crm-3-0a1b2c3d-backup-1", Some("crm-3-0a1b2c3d"));
        assert!(work.contains(&"backup shop/crm-3-0a1b2c3d".into()), "{work:?}");
        assert!(!work.contains(&"migration shop/crm-3".into()), "{work:?}");
    }

    #[test]
    fn a_new_snapshot_concerns_work_that_has_not_ended() {
        let work = concerned(Kind::ControllerRevision, "crm-3", None);
        assert!(work.contains(&"migration shop/crm-3".into()), "{work:?}");
        assert!(work.contains(&"backup shop/crm-3-0a1b2c3d".into()), "{work:?}");
    }

    #[test]
    fn a_migration_concerns_a_backup_that_has_not_ended() {
        let work = concerned(Kind::Migration, "once", None);
        assert!(work.contains(&"backup shop/crm-3-0a1b2c3d".into()), "{work:?}");
    }

    fn restore(name: &str, backup: &str) -> Restore {
        let spec = json!({"app": "crm", "from": {"backup": backup}, "into": "InPlace"});
        Restore::new(name, serde_json::from_value(spec).unwrap())
    }

    #[test]
    fn a_restore_waits_for_its_backup_and_for_other_restores() {
        let mut group = group();
        group
            .restores
            .put("noon".into(), 2, Arc::new(restore("noon", "nightly")));
        let key = NamespacedName::new("shop", "crm");
        let own = ObjectKey::new(OwnKind::Restore, key.sibling("noon"));
        for (kind, expected) in [(Kind::Backup, true), (Kind::Restore, true), (Kind::Pod, false)] {
            let change = Change {
                kind,
                name: "any",
                work_for: None,
                for_retention: false,
            };
            assert_eq!(group.concerned(&key, change).contains(&own), expected);
        }
    }

    #[test]
    fn with_retention_what_changes_it_concerns_backups_that_have_ended() {
        let mut group = group();
        let mut ended = Backup::clone(&group.backups.get("crm-3-0a1b2c3d").unwrap());
        ended.status = Some(fairway_crds::BackupStatus {
            outcome: Some(fairway_crds::backup::BackupOutcome::Succeeded),
            ..Default::default()
        });
        group
            .backups
            .put("crm-3-0a1b2c3d".into(), 2, Arc::new(ended.clone()));
        group.backups.put("ended".into(), 2, Arc::new(ended.clone()));
        ended.status = None;
        group.backups.put("open".into(), 2, Arc::new(ended));
        for (name, backup) in [("noon", "crm-3-0a1b2c3d"), ("evening", "ended")] {
            group
                .restores
                .put(name.into(), 2, Arc::new(restore(name, backup)));
        }
        let key = NamespacedName::new("shop", "crm");
        let concerned = |group: &Group, kind, name| {
            let change = Change {
                kind,
                name,
                work_for: None,
                for_retention: true,
            };
            let backup = ObjectKey::new(OwnKind::Backup, key.sibling("crm-3-0a1b2c3d"));
            group.concerned(&key, change).contains(&backup)
        };
        let changes = [
            (Kind::App, "crm", true),
            (Kind::Backup, "ended", true),
            (Kind::Backup, "deleted", true),
            (Kind::Backup, "open", false),
            (Kind::Release, "crm-3", true),
            (Kind::Release, "crm-2", false),
            (Kind::Restore, "noon", true),
            (Kind::Restore, "evening", false),
            (Kind::Restore, "deleted", true),
            (Kind::Pod, "crm-web-3-x", false),
        ];
        for (kind, name, expected) in changes {
            assert!(
                !concerned(&group, kind, name),
                "{name}: nothing says what is kept"
            );
            group.has_retention = true;
            assert_eq!(concerned(&group, kind, name), expected, "{name}");
            group.has_retention = false;
        }
    }

    #[test]
    fn a_deleted_app_is_still_reconciled() {
        let group = Group::default();
        let change = Change {
            kind: Kind::App,
            name: "crm",
            work_for: None,
            for_retention: true,
        };
        assert_eq!(
            group.concerned(&NamespacedName::new("shop", "crm"), change).len(),
            1
        );
        let of_a_migration = Change {
            kind: Kind::Pod,
            name: "x",
            work_for: Some("crm-1"),
            for_retention: true,
        };
        assert_eq!(
            group
                .concerned(&NamespacedName::new("shop", "crm"), of_a_migration)
                .len(),
            1,
            "it may have to be removed"
        );
        let other = Change {
            kind: Kind::Service,
            name: "x",
            work_for: None,
            for_retention: true,
        };
        assert!(
            group
                .concerned(&NamespacedName::new("shop", "crm"), other)
                .is_empty()
        );
    }
}
