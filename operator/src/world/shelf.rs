//! The objects of one kind of one App, by name.

use std::sync::Arc;

/// A few objects, sorted by name. A sorted list takes a fraction of a map's room, and there are thousands.
#[derive(Debug)]
pub(crate) struct Shelf<T> {
    entries: Vec<Entry<T>>,
}

#[derive(Debug)]
struct Entry<T> {
    name: Arc<str>,
    version: u64,
    object: Arc<T>,
}

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Self { entries: Vec::new() }
    }
}

impl<T> Shelf<T> {
    /// The object of that name.
    pub(crate) fn get(&self, name: &str) -> Option<&Arc<T>> {
        self.find(name).ok().map(|index| &self.entries[index].object)
    }

    /// Its resource version.
    pub(crate) fn version(&self, name: &str) -> Option<u64> {
        self.find(name).ok().map(|index| self.entries[index].version)
    }

    /// Puts an object in or replaces it.
    pub(crate) fn put(&mut self, name: Arc<str>, version: u64, object: Arc<T>) {
        let entry = Entry {
            name,
            version,
            object,
        };
        match self.find(&entry.name) {
            Ok(index) => self.entries[index] = entry,
            Err(index) => {
                self.entries.reserve_exact(1);
                self.entries.insert(index, entry);
            }
        }
    }

    /// Takes an object out.
    pub(crate) fn remove(&mut self, name: &str) {
        if let Ok(index) = self.find(name) {
            self.entries.remove(index);
        }
    }

    /// All objects in the order of their names.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<T>> {
        self.entries.iter().map(|entry| &entry.object)
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        self.entries.binary_search_by(|entry| (*entry.name).cmp(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_kept_by_name_with_their_newest_version() {
        let mut shelf = Shelf::default();
        for (name, version) in [("b", 2), ("a", 1), ("c", 3), ("b", 4)] {
            shelf.put(name.into(), version, Arc::new(version));
        }
        assert_eq!(shelf.all().map(|object| **object).collect::<Vec<_>>(), [1, 4, 3]);
        assert_eq!(shelf.version("b"), Some(4));
        shelf.remove("b");
        shelf.remove("absent");
        assert_eq!(shelf.get("b"), None);
        assert!(!shelf.is_empty());
    }
}
