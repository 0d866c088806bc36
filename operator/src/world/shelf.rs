//! The objects of one kind of one App, by name.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// A kind that can be kept as compact JSON, which takes about a fifth of the room of the parsed object.
pub(crate) trait Kept: Serialize + DeserializeOwned {
    /// Whether work on it goes on: it has no outcome yet.
    fn is_open(&self) -> bool {
        false
    }
}

/// A few objects, sorted by name. A sorted list takes a fraction of a map's room, and there are thousands.
#[derive(Debug)]
pub(crate) struct Shelf<T> {
    entries: Vec<Entry<T>>,
}

#[derive(Debug)]
struct Entry<T> {
    name: Arc<str>,
    version: u64,
    open: bool,
    object: Object<T>,
}

#[derive(Debug)]
enum Object<T> {
    /// While the App is being released: each pass needs it.
    Parsed(Arc<T>),
    /// At rest.
    Packed(Box<[u8]>),
}

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Self { entries: Vec::new() }
    }
}

impl<T> Shelf<T> {
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

impl<T: Kept> Shelf<T> {
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
                entry.object = Object::Packed(json.into_boxed_slice());
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

    fn shelf() -> Shelf<u64> {
        let mut shelf = Shelf::default();
        for (name, version) in [("b", 2), ("a", 1), ("c", 3), ("b", 4)] {
            shelf.put(name.into(), version, Arc::new(version));
        }
        shelf
    }

    #[test]
    fn objects_are_kept_by_name_with_their_newest_version() {
        let mut shelf = shelf();
        assert_eq!(shelf.all().map(|object| *object).collect::<Vec<_>>(), [1, 4, 3]);
        assert_eq!(
            shelf.names().collect::<Vec<_>>(),
            [("a", false), ("b", true), ("c", false)]
        );
        assert_eq!(shelf.version("b"), Some(4));
        shelf.remove("b");
        shelf.remove("absent");
        assert_eq!(shelf.get("b"), None);
        assert!(!shelf.is_empty());
    }

    #[test]
    fn packed_objects_are_the_same_objects() {
        let mut shelf = shelf();
        shelf.pack();
        assert!(matches!(shelf.entries[1].object, Object::Packed(_)));
        assert_eq!(shelf.all().map(|object| *object).collect::<Vec<_>>(), [1, 4, 3]);
        assert_eq!(shelf.get("b").as_deref(), Some(&4));
        shelf.unpack();
        assert!(matches!(shelf.entries[1].object, Object::Parsed(_)));
        assert_eq!(shelf.get("b").as_deref(), Some(&4));
    }
}
