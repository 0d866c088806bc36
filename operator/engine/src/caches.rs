//! The one set of caches: every object that planners look at, grouped by App.

mod group;
mod keep;
mod store;

pub use group::{Cached, ForKind, Group, for_each};
pub use keep::KeptSnapshot;
pub use store::{Kept, Store};

use crate::clock::Instant;
use crate::expectations::{Expectations, Sight, Until};
use crate::key::{Key, Work};
use crate::kinds::{Interest, Kind, Reconciled, Unreadable};
use fairway_plan::{ObjectRef, labels};
use group::{Change, labelled_app};
use kube::core::ObjectMeta;
use kube::{Resource, ResourceExt};
use std::collections::{BTreeMap, BTreeSet};

/// The caches of all Apps.
#[derive(Clone, Debug, Default)]
pub(crate) struct Caches {
    groups: BTreeMap<Key, Group>,
    /// App of each cached object. An object that moves between Apps affects both.
    homes: BTreeMap<Kind, BTreeMap<Key, Key>>,
    expectations: Expectations,
    /// Objects that could not be parsed, with their resource version and App.
    unreadable: BTreeMap<(Kind, Key), (Option<u64>, Option<Key>)>,
}

/// What an observer gets to see.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum View<T> {
    /// The object is gone.
    Gone,
    /// The caches lag behind this process's own writes, until then at the latest.
    Stale(Instant),
    /// An object of this App could not be parsed.
    Held,
    /// All there is.
    Of(T),
}

impl Caches {
    /// Looks at an App's objects on behalf of `work`, which is woken when the caches have seen what they lack.
    pub(crate) fn view<T>(
        &mut self,
        app: &Key,
        work: &Work,
        now: Instant,
        look: impl FnOnce(&Group) -> Option<T>,
    ) -> View<T> {
        if let Some(until) = self.expectations.stale(app, work, now) {
            return View::Stale(until);
        }
        if self
            .unreadable
            .values()
            .any(|(_, home)| home.as_ref() == Some(app))
        {
            return View::Held;
        }
        match self.groups.get(app).and_then(look) {
            Some(seen) => View::Of(seen),
            None => View::Gone,
        }
    }

    /// Runs of migrations that an App has left behind.
    pub(crate) fn orphans(&self, app: &Key) -> Vec<ObjectRef> {
        self.groups.get(app).map(Group::orphans).unwrap_or_default()
    }

    /// The App of an object, as far as the object is cached.
    pub(crate) fn home(&self, kind: Kind, key: &Key) -> Option<&Key> {
        self.homes.get(&kind)?.get(key)
    }

    /// An object of that kind, whichever App it is labelled with.
    pub(crate) fn get<K: Cached>(&self, key: &Key) -> Option<std::sync::Arc<K::Kept>> {
        let home = self.home(K::KIND, key)?;
        K::store(self.groups.get(home)?).get(&key.name)
    }

    /// The resource version under which an object is cached.
    pub(crate) fn version(&self, app: &Key, kind: Kind, name: &str) -> Option<u64> {
        self.groups.get(app)?.version(kind, name)
    }

    /// Remembers a write of this process, unless its event was faster than its answer.
    pub(crate) fn wrote(&mut self, app: &Key, kind: Kind, meta: &ObjectMeta, now: Instant) {
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

    /// Remembers a deletion by this process, unless its event was faster than its answer.
    pub(crate) fn deleted(&mut self, app: &Key, kind: Kind, key: &Key, until: Until, now: Instant) {
        if self.home(kind, key).is_none() {
            return;
        }
        let sight = Sight {
            version: self.version(app, kind, &key.name),
            lives: until.uid(),
        };
        if !until.met(sight) {
            self.expectations.expect(app, kind, &key.name, until, now);
        }
    }

    /// Stores an object and returns the objects to reconcile; none when nothing has changed.
    pub(crate) fn put<K: Cached>(&mut self, object: K) -> Vec<Work> {
        let key = key_of(&object);
        let Some(version) = version_of(object.meta()) else {
            return self.put_unreadable::<K>(object.meta()).unwrap_or_default();
        };
        let mut work = self.readable_again(K::KIND, &key);
        let Some(app) = object.app().map(|app| key.sibling(app)) else {
            work.extend(self.take::<K>(&key, work_for(object.meta())));
            return work;
        };
        if self.home(K::KIND, &key).is_some_and(|home| *home != app) {
            work.extend(self.take::<K>(&key, work_for(object.meta())));
        }
        let meta = object.meta();
        let sight = Sight {
            version: Some(version),
            lives: meta.uid.as_deref().filter(|_| meta.deletion_timestamp.is_none()),
        };
        work.extend(self.expectations.saw(&app, K::KIND, &key.name, sight));
        let group = self.groups.entry(app.clone()).or_default();
        if K::store(group).version(&key.name) == Some(version) {
            return work;
        }
        let work_for = work_for(object.meta()).map(str::to_owned);
        match object.keep() {
            Some(kept) => {
                if let Some(current) = kept.current_releases() {
                    group.current = current;
                }
                K::store_mut(group).put(key.name.clone(), version, kept);
            }
            None => K::store_mut(group).remove(&key.name),
        }
        group.arrange();
        let change = Change {
            kind: K::KIND,
            name: &key.name,
            work_for: work_for.as_deref(),
        };
        work.extend(self.concerned(&app, change));
        self.homes.entry(K::KIND).or_default().insert(key, app);
        work
    }

    /// Evicts an object that was deleted. Returns the objects to reconcile.
    pub(crate) fn remove<K: Cached>(&mut self, key: &Key, meta: &ObjectMeta) -> Vec<Work> {
        let mut work = self.readable_again(K::KIND, key);
        work.extend(self.take::<K>(key, work_for(meta)));
        if let Some(app) = labelled_app(meta).map(|app| key.sibling(app)) {
            let sight = Sight {
                version: version_of(meta),
                lives: None,
            };
            work.extend(self.expectations.saw(&app, K::KIND, &key.name, sight));
        }
        work
    }

    /// Notes an object that could not be parsed, and evicts what was cached of it if its App is planned for without it.
    /// Returns the objects to reconcile, or `None` when this version is known to be unreadable.
    pub(crate) fn put_unreadable<K: Cached>(&mut self, meta: &ObjectMeta) -> Option<Vec<Work>> {
        let kind = K::KIND;
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let key = Key::new(namespace, meta.name.as_deref().unwrap_or_default());
        let app = match kind.unreadable() {
            Unreadable::Ignored => None,
            Unreadable::BlocksApp => app_of_unreadable(kind, meta),
        };
        let entry = (version_of(meta), app.map(|app| key.sibling(app)));
        if self.unreadable.insert((kind, key.clone()), entry.clone()) == Some(entry) {
            return None;
        }
        Some(match kind.unreadable() {
            Unreadable::Ignored => self.take::<K>(&key, work_for(meta)),
            Unreadable::BlocksApp => Vec::new(),
        })
    }

    /// Ends a list: evicts what it did not hold. Returns the objects to reconcile.
    pub(crate) fn retain<K: Cached>(&mut self, listed: &BTreeSet<Key>) -> Vec<Work> {
        let unreadable = self
            .unreadable
            .keys()
            .filter(|(kind, _)| *kind == K::KIND)
            .map(|(_, key)| key);
        let homes = self.homes.get(&K::KIND).into_iter().flat_map(BTreeMap::keys);
        let gone: Vec<Key> = unreadable
            .chain(homes)
            .filter(|key| !listed.contains(key))
            .cloned()
            .collect();
        let mut work = Vec::new();
        for key in gone {
            work.extend(self.readable_again(K::KIND, &key));
            let app = self.home(K::KIND, &key).cloned();
            work.extend(self.take::<K>(&key, None));
            // Nothing says any more which work it did.
            if let Some(app) = app
                && let Some(group) = self.groups.get(&app)
            {
                work.extend(group.open_work(&app));
            }
        }
        work
    }

    /// Number of objects that could not be parsed.
    pub(crate) fn unreadable(&self) -> usize {
        self.unreadable.len()
    }

    /// Every object that is reconciled.
    pub(crate) fn everything(&self) -> Vec<Work> {
        let keys = |kind: Reconciled| self.homes.get(&kind.kind()).into_iter().flat_map(BTreeMap::keys);
        Reconciled::ALL
            .into_iter()
            .flat_map(|kind| keys(kind).map(move |key| Work::new(kind, key.clone())))
            .collect()
    }

    /// The objects to reconcile after a change of an App's object.
    fn concerned(&self, app: &Key, change: Change<'_>) -> Vec<Work> {
        let mut work = Vec::new();
        for observer in Self::observers(app) {
            let group = self.groups.get(observer);
            work.extend(
                group
                    .into_iter()
                    .flat_map(|group| group.concerned(observer, change)),
            );
        }
        work
    }

    /// The Apps, in any namespace, whose planners read objects of this App. So far that is the App alone; promotion,
    /// groups of Apps and shared variables add others here.
    fn observers(app: &Key) -> impl Iterator<Item = &Key> {
        std::iter::once(app)
    }

    /// Forgets that an object could not be read. Returns all work of its App, which was held until now.
    fn readable_again(&mut self, kind: Kind, key: &Key) -> Vec<Work> {
        let Some((_, Some(app))) = self.unreadable.remove(&(kind, key.clone())) else {
            return Vec::new();
        };
        let change = Change {
            kind: Kind::App,
            name: &app.name,
            work_for: None,
        };
        self.concerned(&app, change)
    }

    /// Evicts an object. Returns the objects to reconcile, itself included.
    fn take<K: Cached>(&mut self, key: &Key, work_for: Option<&str>) -> Vec<Work> {
        let Some(app) = self.homes.get_mut(&K::KIND).and_then(|homes| homes.remove(key)) else {
            return Vec::new();
        };
        let sight = Sight {
            version: None,
            lives: None,
        };
        let mut work = Vec::from_iter(self.expectations.saw(&app, K::KIND, &key.name, sight));
        if let Some(group) = self.groups.get_mut(&app) {
            K::store_mut(group).remove(&key.name);
            if K::KIND == Kind::App {
                group.current = [None, None];
            }
            group.arrange();
            let change = Change {
                kind: K::KIND,
                name: &key.name,
                work_for,
            };
            work.extend(self.concerned(&app, change));
            if self.groups.get(&app).is_some_and(Group::is_empty) {
                self.groups.remove(&app);
            }
        }
        let own = K::KIND
            .reconciled()
            .filter(|kind| kind.interest() != Interest::Everything);
        work.extend(own.map(|kind| Work::new(kind, key.clone())));
        work
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
    let owner = || {
        meta.owner_references
            .iter()
            .flatten()
            .find(|owner| owner.kind == "App")
    };
    labelled_app(meta).or_else(|| owner().map(|owner| owner.name.as_str()))
}

/// Namespace and name of an object, which everything that was stored has.
pub(crate) fn key_of(object: &impl Resource<DynamicType = ()>) -> Key {
    Key::new(
        object.meta().namespace.as_deref().unwrap_or_default(),
        &object.name_any(),
    )
}

/// The resource version of an object as a number, if it is one. Comparable as integers since Kubernetes 1.35
/// (KEP-5504); versions of before are, too.
pub fn version_of(meta: &ObjectMeta) -> Option<u64> {
    meta.resource_version.as_deref()?.parse().ok()
}

#[cfg(test)]
mod tests;
