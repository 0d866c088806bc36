//! The one set of caches: every object that planners look at, grouped by App.

mod group;
mod group_key;
mod keep;
mod serving;
mod store;

pub use group::{Cached, ForKind, Group, for_each};
pub use keep::KeptSnapshot;
pub(crate) use serving::Serving;
pub use store::{Backups, Kept, Store};

use crate::clock::Instant;
use crate::expectations::{Expectations, Seen, Until};
use crate::key::{NamespacedName, ObjectKey};
use crate::kinds::{App, ForeignSlice, Interest, Kind, OwnKind, ResourceQuota, Scope, Unreadable};
use fairway_crds::GROUP;
use fairway_plan::readings::api_group;
use fairway_plan::{ObjectRef, labels};
use group::Change;
use group_key::GroupKey;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource;
use kube::core::ObjectMeta;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The caches of all Apps.
#[derive(Clone, Debug, Default)]
pub(crate) struct Caches {
    /// Objects by what they belong to.
    groups: BTreeMap<GroupKey, Group>,
    /// Key of the group of each cached object. An object that moves between Apps affects both.
    group_of: BTreeMap<Kind, BTreeMap<NamespacedName, GroupKey>>,
    expectations: Expectations,
    serving: Serving,
    unreadable: BTreeMap<(Kind, NamespacedName), UnreadableObject>,
}

/// An object that could not be parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct UnreadableObject {
    /// Its resource version, if it is a number.
    version: Option<u64>,
    /// The App that is not reconciled because of it.
    blocks: Option<NamespacedName>,
}

/// What a read of an App's caches yields.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum CacheRead<T> {
    /// The object does not exist, or not any more.
    Deleted,
    /// The caches lag behind this process's own writes, until then at the latest.
    Stale(Instant),
    /// An object of this App could not be parsed, so the App is not reconciled.
    Unreadable,
    /// What was read from caches that hold every write of this process.
    Fresh(T),
}

impl Caches {
    /// Reads an App's objects for a pass of `work`, which is enqueued when stale caches have caught up.
    pub(crate) fn read<T>(
        &mut self,
        app: &NamespacedName,
        work: &ObjectKey,
        now: Instant,
        read: impl FnOnce(&Group, Shared<'_>) -> Option<T>,
    ) -> CacheRead<T> {
        if let Some(until) = self.expectations.stale(app, work, now) {
            return CacheRead::Stale(until);
        }
        let mut unreadable = self.unreadable.values();
        if unreadable.any(|object| object.blocks.as_ref() == Some(app)) {
            return CacheRead::Unreadable;
        }
        let shared = Shared(&self.groups);
        match self.group(app).and_then(|group| read(group, shared)) {
            Some(read) => CacheRead::Fresh(read),
            None => CacheRead::Deleted,
        }
    }

    /// Which Apps serve which Services.
    pub(crate) fn serving(&self) -> Serving {
        self.serving.clone()
    }

    /// Runs of migrations that an App has left behind.
    pub(crate) fn orphans(&self, app: &NamespacedName) -> Vec<ObjectRef> {
        self.group(app).map(Group::orphans).unwrap_or_default()
    }

    /// The App of a cached object; `None` when the object is not cached, or belongs to no App.
    pub(crate) fn app_of(&self, kind: Kind, key: &NamespacedName) -> Option<&NamespacedName> {
        self.group_of(kind, key)?.app()
    }

    /// An object of that kind, whatever it belongs to.
    pub(crate) fn get<K: Cached>(&self, key: &NamespacedName) -> Option<Arc<K::Kept>> {
        let group = self.group_of(K::KIND, key)?;
        K::store(self.groups.get(group)?).get(&key.name)
    }

    /// Whether an App is there and not being deleted.
    pub(crate) fn app_stays(&self, app: &NamespacedName) -> bool {
        let app = self.get::<fairway_crds::App>(app);
        app.is_some_and(|app| app.metadata.deletion_timestamp.is_none())
    }

    /// The resource version under which an object is cached.
    pub(crate) fn version(&self, app: &NamespacedName, kind: Kind, name: &str) -> Option<u64> {
        self.group(app)?.version(kind, name)
    }

    /// When the writes of this process to an App, whose events are awaited, count as lost.
    pub(crate) fn expiry(&self, app: &NamespacedName) -> Option<Instant> {
        self.expectations.expiry(app)
    }

    /// Expects the event of a write of this process, unless it was faster than the answer.
    pub(crate) fn expect_write(&mut self, app: &NamespacedName, kind: Kind, meta: &ObjectMeta, now: Instant) {
        let name = meta.name.as_deref().unwrap_or_default();
        // Without a version there is nothing to wait for; the event of the object makes it unreadable.
        let Some(version) = version_of(meta) else { return };
        if self
            .version(app, kind, name)
            .is_none_or(|cached| cached < version)
        {
            self.expectations
                .expect(app, kind, name, Until::Version(version), now);
        }
    }

    /// Expects the event of a deletion by this process, unless it was faster than the answer.
    pub(crate) fn expect_deletion(
        &mut self,
        app: &NamespacedName,
        kind: Kind,
        key: &NamespacedName,
        until: Until,
        now: Instant,
    ) {
        if self.group_of(kind, key).is_none() {
            return;
        }
        let seen = Seen {
            version: self.version(app, kind, &key.name),
            lives: until.uid(),
        };
        if !until.met(seen) {
            self.expectations.expect(app, kind, &key.name, until, now);
        }
    }

    /// Stores an object and returns the objects to reconcile; none when nothing has changed.
    pub(crate) fn put<K: Cached>(&mut self, object: K) -> Vec<ObjectKey> {
        let key = NamespacedName::of(object.meta());
        let Some(version) = version_of(object.meta()) else {
            return self.put_unreadable::<K>(object.meta()).unwrap_or_default();
        };
        let mut work = self.readable_again(K::KIND, &key);
        let Some(group_key) = object.owner().map(|owner| GroupKey::new(K::OF, &key, owner)) else {
            work.extend(self.evict::<K>(&key, work_for(object.meta())));
            return work;
        };
        if self
            .group_of(K::KIND, &key)
            .is_some_and(|before| *before != group_key)
        {
            work.extend(self.evict::<K>(&key, work_for(object.meta())));
        }
        let meta = object.meta();
        let seen = Seen {
            version: Some(version),
            lives: meta.uid.as_deref().filter(|_| meta.deletion_timestamp.is_none()),
        };
        work.extend(self.saw(&group_key, K::KIND, &key.name, seen));
        let group = self.groups.entry(group_key.clone()).or_default();
        if K::store(group).version(&key.name) == Some(version) {
            return work;
        }
        let work_for = work_for(object.meta()).map(str::to_owned);
        let seen = group.seen_by_retention(K::KIND, &key.name);
        let mut sharing = BTreeSet::new();
        let mut retention = None;
        match object.keep() {
            Some(kept) => {
                if let Some(current) = kept.current_releases() {
                    group.current = current;
                }
                if K::KIND == Kind::App {
                    group.backed_up = kept.backups();
                    retention = Some(kept.has_retention());
                    // An end of it concerns Backups, too.
                    group.has_retention |= kept.has_retention();
                }
                if let (Some(served), Some(app)) = (kept.served(), group_key.app()) {
                    sharing = self.serving.set(app, &group.served, &served);
                    group.served = served;
                }
                K::store_mut(group).put(key.name.clone(), version, kept);
            }
            None => K::store_mut(group).remove(&key.name),
        }
        let for_retention = seen != group.seen_by_retention(K::KIND, &key.name);
        group.arrange();
        let change = Change {
            kind: K::KIND,
            name: &key.name,
            work_for: work_for.as_deref(),
            for_retention,
        };
        work.extend(self.concerned(&group_key, change));
        work.extend(sharing.iter().flat_map(|app| self.concerned_of(app, change)));
        if let (Some(has_retention), Some(group)) = (retention, self.groups.get_mut(&group_key)) {
            group.has_retention = has_retention;
        }
        self.group_of.entry(K::KIND).or_default().insert(key, group_key);
        work
    }

    /// Evicts an object that was deleted. Returns the objects to reconcile.
    pub(crate) fn remove<K: Cached>(&mut self, key: &NamespacedName, meta: &ObjectMeta) -> Vec<ObjectKey> {
        let mut work = self.readable_again(K::KIND, key);
        // Objects of our own kinds need no label.
        let cached = self.group_of(K::KIND, key).cloned();
        let group_key = cached.or_else(|| K::OF.owner(meta).map(|owner| GroupKey::new(K::OF, key, owner)));
        work.extend(self.evict::<K>(key, work_for(meta)));
        if let Some(group_key) = group_key {
            let seen = Seen {
                version: version_of(meta),
                lives: None,
            };
            work.extend(self.saw(&group_key, K::KIND, &key.name, seen));
        }
        work
    }

    /// Notes an object that could not be parsed, and evicts what was cached of it if its App is planned for without it.
    /// Returns the objects to reconcile, or `None` when this version is known to be unreadable.
    pub(crate) fn put_unreadable<K: Cached>(&mut self, meta: &ObjectMeta) -> Option<Vec<ObjectKey>> {
        let kind = K::KIND;
        let key = NamespacedName::of(meta);
        let app = match kind.unreadable() {
            Unreadable::Ignored => None,
            // Of one that was applied by hand, only what was cached of it says to which App it belongs.
            Unreadable::BlocksApp => app_of_unreadable(kind, meta)
                .map(|app| key.sibling(app))
                .or_else(|| self.app_of(kind, &key).cloned()),
        };
        let object = UnreadableObject {
            version: version_of(meta),
            blocks: app,
        };
        if self.unreadable.insert((kind, key.clone()), object.clone()) == Some(object) {
            return None;
        }
        Some(match kind.unreadable() {
            Unreadable::Ignored => self.evict::<K>(&key, work_for(meta)),
            Unreadable::BlocksApp => Vec::new(),
        })
    }

    /// Whether an App is not reconciled because this object could not be parsed.
    pub(crate) fn blocks_app(&self, kind: Kind, meta: &ObjectMeta) -> bool {
        let object = self.unreadable.get(&(kind, NamespacedName::of(meta)));
        object.is_some_and(|object| object.blocks.is_some())
    }

    /// Completes a list of one namespace, or of all: evicts what it did not hold. Returns the objects to reconcile.
    pub(crate) fn retain<K: Cached>(
        &mut self,
        namespace: Option<&str>,
        listed: &BTreeSet<NamespacedName>,
    ) -> Vec<ObjectKey> {
        let unreadable = self
            .unreadable
            .keys()
            .filter(|(kind, _)| *kind == K::KIND)
            .map(|(_, key)| key);
        let cached = self.group_of.get(&K::KIND).into_iter().flat_map(BTreeMap::keys);
        let gone: Vec<NamespacedName> = unreadable
            .chain(cached)
            .filter(|key| namespace.is_none_or(|namespace| &*key.namespace == namespace))
            .filter(|key| !listed.contains(key))
            .cloned()
            .collect();
        let mut work = Vec::new();
        for key in gone {
            work.extend(self.readable_again(K::KIND, &key));
            let app = self.app_of(K::KIND, &key).cloned();
            work.extend(self.evict::<K>(&key, None));
            // Nothing says any more which work it did.
            if let Some(app) = app
                && let Some(group) = self.group(&app)
            {
                work.extend(group.open_work(&app));
            }
        }
        work
    }

    /// Number of objects of a kind.
    pub(crate) fn count(&self, kind: Kind) -> usize {
        self.group_of.get(&kind).map_or(0, BTreeMap::len)
    }

    /// What metrics say of the backups of Apps with a schedule.
    pub(crate) fn backed_up(&self) -> impl Iterator<Item = (&NamespacedName, Backups)> {
        let groups = self.groups.iter();
        groups.filter_map(|(key, group)| Some((key.app()?, group.backed_up?)))
    }

    /// Number of objects that could not be parsed.
    pub(crate) fn unreadable(&self) -> usize {
        self.unreadable.len()
    }

    /// Every object that is reconciled.
    pub(crate) fn everything(&self) -> Vec<ObjectKey> {
        let keys = |kind: OwnKind| {
            let cached = self.group_of.get(&kind.kind());
            cached.into_iter().flat_map(BTreeMap::keys)
        };
        OwnKind::ALL
            .into_iter()
            .flat_map(|kind| keys(kind).map(move |key| ObjectKey::new(kind, key.clone())))
            .collect()
    }

    fn group(&self, app: &NamespacedName) -> Option<&Group> {
        self.groups.get(&GroupKey::App(app.clone()))
    }

    fn group_of(&self, kind: Kind, key: &NamespacedName) -> Option<&GroupKey> {
        self.group_of.get(&kind)?.get(key)
    }

    /// Takes in an event. Returns who waits for it. Only objects of Apps are written, and only their events awaited.
    fn saw(&mut self, group_key: &GroupKey, kind: Kind, name: &str, seen: Seen<'_>) -> BTreeSet<ObjectKey> {
        let app = group_key.app();
        app.map(|app| self.expectations.saw(app, kind, name, seen))
            .unwrap_or_default()
    }

    /// The objects to reconcile after a change of an object of a group: of the Apps, in any namespace, whose planners read it
    /// ([`Scope`]).
    fn concerned(&self, group_key: &GroupKey, change: Change<'_>) -> Vec<ObjectKey> {
        match group_key {
            GroupKey::App(app) => self.concerned_of(app, change),
            GroupKey::Service(service) => {
                let apps = self.apps_of(&service.namespace);
                let serving = apps.filter(|(_, group)| group.serves(&service.name));
                serving
                    .flat_map(|(app, group)| group.concerned(app, change))
                    .collect()
            }
            GroupKey::Namespace(namespace) => {
                let active = self.apps_of(namespace).filter(|(_, group)| group.is_active());
                active
                    .flat_map(|(app, group)| group.concerned(app, change))
                    .collect()
            }
        }
    }

    /// The objects of an App to reconcile after a change.
    fn concerned_of(&self, app: &NamespacedName, change: Change<'_>) -> Vec<ObjectKey> {
        let group = self.group(app);
        group
            .map(|group| group.concerned(app, change))
            .unwrap_or_default()
    }

    /// The Apps of a namespace, with their objects.
    fn apps_of<'a>(&'a self, namespace: &Arc<str>) -> impl Iterator<Item = (&'a NamespacedName, &'a Group)> {
        let first = GroupKey::App(NamespacedName::new(namespace, ""));
        let apps = self
            .groups
            .range(first..)
            .map_while(|(key, group)| Some((key.app()?, group)));
        apps.take_while(move |(app, _)| app.namespace == *namespace)
    }

    /// Forgets that an object could not be read. Returns the objects of its App to reconcile, which was not until now.
    fn readable_again(&mut self, kind: Kind, key: &NamespacedName) -> Vec<ObjectKey> {
        let object = self.unreadable.remove(&(kind, key.clone()));
        let Some(app) = object.and_then(|object| object.blocks) else {
            return Vec::new();
        };
        let change = Change {
            kind: Kind::App,
            name: &app.name,
            work_for: None,
            for_retention: false,
        };
        self.concerned_of(&app, change)
    }

    /// Evicts an object. Returns the objects to reconcile, itself included.
    fn evict<K: Cached>(&mut self, key: &NamespacedName, work_for: Option<&str>) -> Vec<ObjectKey> {
        let Some(group_key) = self
            .group_of
            .get_mut(&K::KIND)
            .and_then(|groups| groups.remove(key))
        else {
            return Vec::new();
        };
        let seen = Seen {
            version: None,
            lives: None,
        };
        let mut work = Vec::from_iter(self.saw(&group_key, K::KIND, &key.name, seen));
        let mut sharing = BTreeSet::new();
        if let Some(group) = self.groups.get_mut(&group_key) {
            K::store_mut(group).remove(&key.name);
            if let (Kind::App, Some(app)) = (K::KIND, group_key.app()) {
                group.current = [None, None];
                group.backed_up = None;
                let served = std::mem::take(&mut group.served);
                sharing = self.serving.set(app, &served, &BTreeSet::new());
            }
            group.arrange();
            let change = Change {
                kind: K::KIND,
                name: &key.name,
                work_for,
                for_retention: true,
            };
            work.extend(self.concerned(&group_key, change));
            work.extend(sharing.iter().flat_map(|app| self.concerned_of(app, change)));
            if let (Kind::App, Some(group)) = (K::KIND, self.groups.get_mut(&group_key)) {
                group.has_retention = false;
            }
            if self.groups.get(&group_key).is_some_and(Group::is_empty) {
                self.groups.remove(&group_key);
            }
        }
        let own = K::KIND
            .own()
            .filter(|kind| kind.interest() != Interest::Everything);
        work.extend(own.map(|kind| ObjectKey::new(kind, key.clone())));
        work
    }
}

/// Objects that belong to no App.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shared<'a>(&'a BTreeMap<GroupKey, Group>);

impl<'a> Shared<'a> {
    /// EndpointSlices of a Service that no controller of Kubernetes made.
    pub(crate) fn foreign_slices(
        self,
        service: &NamespacedName,
    ) -> impl Iterator<Item = Arc<ForeignSlice>> + use<'a> {
        let group = self.0.get(&GroupKey::Service(service.clone()));
        group.into_iter().flat_map(|group| group.foreign_slices.all())
    }

    /// ResourceQuotas of the namespace of an object.
    pub(crate) fn quotas(
        self,
        object: &NamespacedName,
    ) -> impl Iterator<Item = Arc<ResourceQuota>> + use<'a> {
        let group = self.0.get(&GroupKey::Namespace(object.namespace.clone()));
        group.into_iter().flat_map(|group| group.quotas.all())
    }
}

fn work_for(meta: &ObjectMeta) -> Option<&str> {
    meta.labels.as_ref()?.get(labels::WORK_FOR).map(String::as_str)
}

/// The App of an object of which only the metadata could be read.
fn app_of_unreadable(kind: Kind, meta: &ObjectMeta) -> Option<&str> {
    if kind == Kind::App {
        return meta.name.as_deref();
    }
    let is_app = |owner: &&OwnerReference| owner.kind == App::kind(&()) && api_group(owner) == GROUP;
    let mut owners = meta.owner_references.iter().flatten();
    let owner = owners.find(is_app).map(|owner| owner.name.as_str());
    Scope::App.owner(meta).or(owner)
}

/// The resource version of an object as a number, if it is one. Comparable as integers since Kubernetes 1.35
/// (KEP-5504); versions of before are, too.
pub fn version_of(meta: &ObjectMeta) -> Option<u64> {
    meta.resource_version.as_deref()?.parse().ok()
}

#[cfg(test)]
mod tests;
