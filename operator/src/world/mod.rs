//! The one set of caches: every object that planners look at, grouped by App, fed by one watch per kind.

pub(crate) mod cached;
pub(crate) mod expectations;
pub(crate) mod group;
pub(crate) mod shelf;
pub(crate) mod watch;

use crate::key::{Key, Reconciled, Watched, Work};
use cached::{Cached, key_of, labelled, version_of};
use expectations::{Expectations, Sight, Until};
use fairway_plan::ObjectRef;
use group::{Change, Group};
use kube::core::ObjectMeta;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::time::Instant;

/// The caches.
#[derive(Debug)]
pub(crate) struct World {
    state: Mutex<State>,
    /// Kinds whose first list has not come in, and why.
    missing: tokio::sync::watch::Sender<BTreeMap<Watched, String>>,
}

#[derive(Debug, Default)]
struct State {
    groups: HashMap<Key, Group>,
    /// To which App each object belongs: an event that moves one between Apps must be seen by both.
    homes: BTreeMap<Watched, HashMap<Key, Key>>,
    expectations: Expectations,
    /// Objects that could not be parsed, with their resource version and App.
    unreadable: BTreeMap<(Watched, Key), (u64, Option<Key>)>,
}

/// What an observer gets to see.
#[derive(Debug)]
pub(crate) enum View<T> {
    /// The object is gone.
    Gone,
    /// The caches lag behind this process's own writes, until then at the latest.
    Stale(Instant),
    /// An object of this App could not be parsed: to plan without it would be to act on half the truth.
    Held,
    /// All there is.
    Of(T),
}

impl Default for World {
    fn default() -> Self {
        let missing = Watched::ALL
            .into_iter()
            .map(|kind| (kind, "the first list is under way".to_owned()))
            .collect();
        Self {
            state: Mutex::default(),
            missing: tokio::sync::watch::Sender::new(missing),
        }
    }
}

impl World {
    /// Looks at an App's objects on behalf of `work`.
    pub(crate) fn view<T>(&self, app: &Key, work: &Work, look: impl FnOnce(&Group) -> Option<T>) -> View<T> {
        let mut state = self.lock();
        if let Some(until) = state.expectations.stale(app, work, Instant::now()) {
            return View::Stale(until);
        }
        if state
            .unreadable
            .values()
            .any(|(_, home)| home.as_ref() == Some(app))
        {
            return View::Held;
        }
        match state.groups.get(app).and_then(look) {
            Some(seen) => View::Of(seen),
            None => View::Gone,
        }
    }

    /// Runs of migrations that an App has left behind.
    pub(crate) fn orphans(&self, app: &Key) -> Vec<ObjectRef> {
        self.lock()
            .groups
            .get(app)
            .map(Group::orphans)
            .unwrap_or_default()
    }

    /// The App of an object, as far as it is cached.
    pub(crate) fn home(&self, kind: Watched, key: &Key) -> Option<Key> {
        self.lock().homes.get(&kind)?.get(key).cloned()
    }

    /// A Service whichever App it is labelled with.
    pub(crate) fn service(&self, key: &Key) -> Option<Arc<k8s_openapi::api::core::v1::Service>> {
        let state = self.lock();
        let home = state.homes.get(&Watched::Service)?.get(key)?;
        state.groups.get(home)?.services.get(&key.name)
    }

    /// The resource version under which an object is cached.
    pub(crate) fn version<K: Cached>(&self, app: &Key, name: &str) -> Option<u64> {
        self.lock()
            .groups
            .get_mut(app)
            .and_then(|group| K::shelf(group).version(name))
    }

    /// Remembers a write of this process, unless its event was faster than its answer.
    pub(crate) fn wrote<K: Cached>(&self, app: &Key, meta: &ObjectMeta) {
        let (name, version) = (meta.name.as_deref().unwrap_or_default(), version_of(meta));
        let mut state = self.lock();
        let cached = state
            .groups
            .get_mut(app)
            .and_then(|group| K::shelf(group).version(name));
        if cached.is_none_or(|cached| cached < version) {
            state
                .expectations
                .expect(app, K::KIND, name, Until::Version(version), Instant::now());
        }
    }

    /// Remembers a deletion by this process, unless its event was faster than its answer.
    pub(crate) fn deleted<K: Cached>(&self, app: &Key, key: &Key, until: Until) {
        let mut state = self.lock();
        if state
            .homes
            .get(&K::KIND)
            .is_none_or(|homes| !homes.contains_key(key))
        {
            return;
        }
        let cached = state
            .groups
            .get_mut(app)
            .and_then(|group| K::shelf(group).version(&key.name));
        if !until.met(Sight {
            version: cached,
            lives: until.uid(),
        }) {
            state
                .expectations
                .expect(app, K::KIND, &key.name, until, Instant::now());
        }
    }

    /// An object as it is now. Returns whom it concerns; nobody when nothing has changed.
    pub(crate) fn put<K: Cached>(&self, object: K) -> Vec<Work> {
        self.lock().put(object)
    }

    /// An object that is gone. Returns whom it concerns.
    pub(crate) fn remove<K: Cached>(&self, key: &Key, meta: &ObjectMeta) -> Vec<Work> {
        let mut state = self.lock();
        let mut work = state.readable_again(K::KIND, key);
        work.extend(state.take::<K>(key, work_for(meta)));
        if let Some(app) = labelled(meta).map(|app| key.sibling(app)) {
            let sight = Sight {
                version: Some(version_of(meta)),
                lives: None,
            };
            work.extend(state.expectations.saw(&app, K::KIND, &key.name, sight));
        }
        work
    }

    /// An object that could not be parsed. Returns whether it is news.
    pub(crate) fn put_unreadable(&self, kind: Watched, meta: &ObjectMeta) -> bool {
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let key = Key::new(namespace, meta.name.as_deref().unwrap_or_default());
        // A backup that cannot be read is only not seen: backups are many and old, and none decides a release.
        let app = if kind == Watched::Backup {
            None
        } else {
            app_of_unreadable(kind, meta)
        };
        let entry = (version_of(meta), app.map(|app| key.sibling(app)));
        self.lock().unreadable.insert((kind, key), entry.clone()) != Some(entry)
    }

    /// Ends a list: what it did not hold is gone. Returns whom that concerns.
    pub(crate) fn retain<K: Cached>(&self, listed: &HashSet<Key>) -> Vec<Work> {
        let mut state = self.lock();
        let unreadable = state
            .unreadable
            .keys()
            .filter(|(kind, _)| *kind == K::KIND)
            .map(|(_, key)| key);
        let homes = state.homes.get(&K::KIND).into_iter().flat_map(HashMap::keys);
        let gone: Vec<Key> = unreadable
            .chain(homes)
            .filter(|key| !listed.contains(key))
            .cloned()
            .collect();
        let mut work = Vec::new();
        for key in gone {
            work.extend(state.readable_again(K::KIND, &key));
            let app = state
                .homes
                .get(&K::KIND)
                .and_then(|homes| homes.get(&key))
                .cloned();
            work.extend(state.take::<K>(&key, None));
            // Nobody says any more which work it did.
            if let Some(app) = app
                && let Some(group) = state.groups.get(&app)
            {
                work.extend(group.open_work(&app));
            }
        }
        work
    }

    /// Number of objects that could not be parsed.
    pub(crate) fn unreadable(&self) -> usize {
        self.lock().unreadable.len()
    }

    /// Notes that a kind's cache is complete (`None`), or why it is not.
    pub(crate) fn set_missing(&self, kind: Watched, why: Option<String>) {
        self.missing.send_if_modified(|missing| match why {
            Some(why) => missing.contains_key(&kind) && missing.insert(kind, why.clone()) != Some(why),
            None => missing.remove(&kind).is_some(),
        });
    }

    /// Kinds whose first list has not come in, and why.
    pub(crate) fn missing(&self) -> tokio::sync::watch::Receiver<BTreeMap<Watched, String>> {
        self.missing.subscribe()
    }

    /// Every object that is reconciled.
    pub(crate) fn everything(&self) -> Vec<Work> {
        let state = self.lock();
        let kinds = [
            (Watched::App, Reconciled::App),
            (Watched::Release, Reconciled::Release),
            (Watched::Migration, Reconciled::Migration),
            (Watched::Backup, Reconciled::Backup),
        ];
        let keys = |kind| {
            state
                .homes
                .get(&kind)
                .into_iter()
                .flat_map(|homes| homes.keys().cloned())
        };
        kinds
            .into_iter()
            .flat_map(|(watched, kind)| keys(watched).map(move |key| Work::new(kind, key)))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn put<K: Cached>(&mut self, object: K) -> Vec<Work> {
        let key = key_of(&object);
        let Some(app) = object.app().map(|app| key.sibling(app)) else {
            return self.take::<K>(&key, None);
        };
        let version = version_of(object.meta());
        let mut work = self.readable_again(K::KIND, &key);
        if self
            .homes
            .get(&K::KIND)
            .and_then(|homes| homes.get(&key))
            .is_some_and(|home| *home != app)
        {
            work.extend(self.take::<K>(&key, work_for(object.meta())));
        }
        let lives = object
            .meta()
            .deletion_timestamp
            .is_none()
            .then(|| object.meta().uid.clone())
            .flatten();
        let sight = Sight {
            version: Some(version),
            lives: lives.as_deref(),
        };
        work.extend(self.expectations.saw(&app, K::KIND, &key.name, sight));
        let group = self.groups.entry(app.clone()).or_default();
        if K::shelf(group).version(&key.name) == Some(version) {
            return work;
        }
        let work_for = work_for(object.meta()).map(str::to_owned);
        object.note(group);
        match object.keep() {
            Some(object) => K::shelf(group).put(key.name.clone(), version, object),
            None => K::shelf(group).remove(&key.name),
        }
        group.arrange();
        let change = Change {
            kind: K::KIND,
            name: &key.name,
            work_for: work_for.as_deref(),
        };
        work.extend(group.touched(&app, change));
        self.homes.entry(K::KIND).or_default().insert(key, app);
        work
    }

    /// Forgets that an object could not be read. Returns all work of its App, which was held until now.
    fn readable_again(&mut self, kind: Watched, key: &Key) -> Vec<Work> {
        let Some((_, Some(app))) = self.unreadable.remove(&(kind, key.clone())) else {
            return Vec::new();
        };
        let change = Change {
            kind: Watched::App,
            name: &app.name,
            work_for: None,
        };
        self.groups
            .get(&app)
            .map(|group| group.touched(&app, change))
            .unwrap_or_default()
    }

    /// Takes an object out of the cache. Returns whom that concerns, its own controller included.
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
            K::shelf(group).remove(&key.name);
            if K::KIND == Watched::App {
                group.current = [None, None];
            }
            group.arrange();
            work.extend(group.touched(
                &app,
                Change {
                    kind: K::KIND,
                    name: &key.name,
                    work_for,
                },
            ));
            if group.is_empty() {
                self.groups.remove(&app);
            }
        }
        let own = match K::KIND {
            Watched::Release => Some(Reconciled::Release),
            Watched::Migration => Some(Reconciled::Migration),
            Watched::Backup => Some(Reconciled::Backup),
            _ => None,
        };
        work.extend(own.map(|kind| Work::new(kind, key.clone())));
        work
    }
}

fn work_for(meta: &ObjectMeta) -> Option<&str> {
    meta.labels
        .as_ref()?
        .get(fairway_plan::labels::WORK_FOR)
        .map(String::as_str)
}

/// The App of an object of which only the metadata could be read.
fn app_of_unreadable(kind: Watched, meta: &ObjectMeta) -> Option<&str> {
    if kind == Watched::App {
        return meta.name.as_deref();
    }
    let owner = || {
        meta.owner_references
            .iter()
            .flatten()
            .find(|owner| owner.kind == "App")
    };
    labelled(meta).or_else(|| owner().map(|owner| owner.name.as_str()))
}

#[cfg(test)]
mod tests;
