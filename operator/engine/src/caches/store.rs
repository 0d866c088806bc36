//! The objects of one kind of one App, by name.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;

/// The scheduled backups of an App, as metrics show them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backups {
    /// When the newest verified backup was taken, in seconds since 1970.
    pub last_verified: Option<i64>,
    /// Whether none was verified in the time that the schedule allows.
    pub overdue: bool,
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

    /// What metrics say of the backups of an App; `None` of one without a schedule.
    fn backups(&self) -> Option<Backups> {
        None
    }

    /// Whether the spec of an App says which backups are kept.
    fn has_retention(&self) -> bool {
        false
    }

    /// Names of the Services that an App serves; none while it is being deleted.
    fn served(&self) -> Option<BTreeSet<String>> {
        None
    }
}

/// A few objects, sorted by name: a sorted list takes a fraction of a map's room, and there are thousands. Those of an
/// App at rest are kept as compact JSON, which takes about a fifth of the room of the parsed objects.
#[derive(Clone, Debug)]
pub struct Store<T> {
    entries: Vec<Entry<T>>,
}

#[derive(Clone, Debug)]
struct Entry<T> {
    name: Arc<str>,
    version: u64,
    open: bool,
    object: Object<T>,
}

#[derive(Clone, Debug)]
enum Object<T> {
    /// While the App is being released: each pass needs it.
    Parsed(Arc<T>),
    /// At rest.
    Packed(Arc<[u8]>),
}

impl<T> Default for Store<T> {
    fn default() -> Self {
        Self { entries: Vec::new() }
    }
}

impl<T> Store<T> {
    /// The resource version of the object of that name.
    pub(crate) fn version(&self, name: &str) -> Option<u64> {
        self.find(name).ok().map(|index| self.entries[index].version)
    }

    /// Names of all objects, and whether each is open.
    pub(crate) fn names(&self) -> impl Iterator<Item = (&str, bool)> {
        self.entries.iter().map(|entry| (&*entry.name, entry.open))
    }

    /// Takes an object out.
    pub(crate) fn remove(&mut self, name: &str) {
        if let Ok(index) = self.find(name) {
            self.entries.remove(index);
        }
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        self.entries.binary_search_by(|entry| (*entry.name).cmp(name))
    }
}

impl<T: Kept> Store<T> {
    /// The object of that name.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<T>> {
        self.entries[self.find(name).ok()?].object.parsed()
    }

    /// Puts an object in or replaces it.
    pub(crate) fn put(&mut self, name: Arc<str>, version: u64, object: Arc<T>) {
        let entry = Entry {
            name,
            version,
            open: object.is_open(),
            object: Object::Parsed(object),
        };
        match self.find(&entry.name) {
            Ok(index) => self.entries[index] = entry,
            Err(index) => {
                self.entries.reserve_exact(1);
                self.entries.insert(index, entry);
            }
        }
    }

    /// All objects in the order of their names.
    pub(crate) fn all(&self) -> impl Iterator<Item = Arc<T>> {
        self.entries.iter().filter_map(|entry| entry.object.parsed())
    }

    /// Keeps all objects compact.
    pub(crate) fn pack(&mut self) {
        for entry in &mut self.entries {
            if let Object::Parsed(object) = &entry.object
                && let Ok(json) = serde_json::to_vec(&**object)
            {
                entry.object = Object::Packed(json.into());
            }
        }
    }

    /// Keeps all objects parsed.
    pub(crate) fn unpack(&mut self) {
        for entry in &mut self.entries {
            if let Object::Packed(_) = &entry.object
                && let Some(object) = entry.object.parsed()
            {
                entry.object = Object::Parsed(object);
            }
        }
    }
}

impl<T: DeserializeOwned> Object<T> {
    /// The object. What this process has written it can read.
    fn parsed(&self) -> Option<Arc<T>> {
        match self {
            Self::Parsed(object) => Some(object.clone()),
            Self::Packed(json) => serde_json::from_slice(json).ok().map(Arc::new),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Kept for u64 {
        fn is_open(&self) -> bool {
            *self > 3
        }
    }

    fn store() -> Store<u64> {
        let mut store = Store::default();
        for (name, version) in [("b", 2), ("a", 1), ("c", 3), ("b", 4)] {
            store.put(name.into(), version, Arc::new(version));
        }
        store
    }

    #[test]
    fn objects_are_kept_by_name_with_their_newest_version() {
        let mut store = store();
        assert_eq!(store.all().map(|object| *object).collect::<Vec<_>>(), [1, 4, 3]);
        assert_eq!(
            store.names().collect::<Vec<_>>(),
            [("a", false), ("b", true), ("c", false)]
        );
        assert_eq!(store.version("b"), Some(4));
        store.remove("b");
        store.remove("absent");
        assert_eq!(store.get("b"), None);
        assert!(!store.is_empty());
    }

    #[test]
    fn packed_objects_are_the_same_objects() {
        let mut store = store();
        store.pack();
        assert!(matches!(store.entries[1].object, Object::Packed(_)));
        assert_eq!(store.all().map(|object| *object).collect::<Vec<_>>(), [1, 4, 3]);
        assert_eq!(store.get("b").as_deref(), Some(&4));
        store.unpack();
        assert!(matches!(store.entries[1].object, Object::Parsed(_)));
        assert_eq!(store.get("b").as_deref(), Some(&4));
    }
}
