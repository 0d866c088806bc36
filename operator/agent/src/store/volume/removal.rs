//! The removal of a set from a volume.

use std::{
    fs,
    io::{self, ErrorKind},
    path::Path,
};

use fairway_protocol::Failure;

use super::Folder;
use crate::store::port::{End, MANIFEST, Own, Removal, is_pod};

/// End of the name of a file that is not written to its end, and of the folder of an attempt that is not published.
const PARTIAL: &str = ".partial";
/// End of the name of a folder that lay in the set's place and was no backup.
const UNUSABLE: &str = ".unusable";

/// One entry of a folder: a file, a folder, or something else such as a link.
struct Entry {
    name: String,
    is_file: bool,
    is_folder: bool,
}

impl Entry {
    /// Whether an agent may have written it.
    fn is_own(&self, own: &Own) -> bool {
        let name = self.name.strip_suffix(PARTIAL).unwrap_or(&self.name);
        self.is_file && (name == MANIFEST || own.has_name(name))
    }
}

/// The entries of a folder; none of one that does not exist. Links are not followed.
fn entries(folder: &Path) -> io::Result<Vec<Entry>> {
    let found = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        found => found?,
    };
    found
        .map(|entry| {
            let entry = entry?;
            let kind = entry.file_type()?;
            Ok(Entry {
                name: entry.file_name().to_string_lossy().into_owned(),
                is_file: kind.is_file(),
                is_folder: kind.is_dir(),
            })
        })
        .collect()
}

impl Folder {
    /// Removes this set, and what attempts at it have left beside it.
    pub(super) fn remove_set(&self, own: &Own) -> Result<Removal, Failure> {
        let mut removal = Removal::new();
        let root = &self.volume.root;
        fs::metadata(root).map_err(|error| self.volume.failure("looking for a backup", &error))?;
        let is_other = |folder: &Self| -> Result<bool, Failure> {
            let found = folder.found()?;
            Ok(found.is_some_and(|found| !(own.has_sealed)(&found.manifest)))
        };
        if self.is_behind_a_link() || is_other(self)? {
            return Ok(Removal {
                end: End::NotOwn,
                ..removal
            });
        }
        let mut folders = vec![self.clone()];
        for (beside, ending) in self.of_attempts()? {
            // What was set aside is only known by its seal; an attempt has a manifest just before it is published.
            let is_unknown = ending == UNUSABLE && beside.found()?.is_none();
            if is_unknown || is_other(&beside)? {
                removal.foreign.push(beside.in_store());
            } else {
                folders.push(beside);
            }
        }
        for folder in folders {
            if let Some(object) = folder.empty(own, &mut removal)? {
                return Ok(removal.refused(object, None));
            }
        }
        Ok(removal)
    }

    /// Whether a link leads to this folder: agents make none, and what lies behind it may be the set of another Backup.
    fn is_behind_a_link(&self) -> bool {
        let below = self
            .path
            .ancestors()
            .take_while(|path| **path != *self.volume.root);
        below
            .filter_map(|path| fs::symlink_metadata(path).ok())
            .any(|about| about.is_symlink())
    }

    /// The folders beside this one that attempts at it have made, with the ends of their names.
    fn of_attempts(&self) -> Result<Vec<(Self, &'static str)>, Failure> {
        let Some(parent) = self.path.parent() else {
            return Ok(Vec::new());
        };
        let prefix = self.beside("");
        let prefix = prefix.file_name().unwrap_or_default().to_string_lossy();
        let found = entries(parent).map_err(|error| self.volume.failure("looking for a backup", &error))?;
        let of_attempt = |entry: Entry| {
            let rest = entry.name.strip_prefix(&*prefix)?;
            let ending = [PARTIAL, UNUSABLE].into_iter().find(|end| rest.ends_with(end))?;
            let is_folder_of_pod = entry.is_folder && is_pod(rest.strip_suffix(ending)?);
            is_folder_of_pod.then(|| (self.volume.folder(parent.join(&entry.name)), ending))
        };
        Ok(found.into_iter().filter_map(of_attempt).collect())
    }

    /// Removes what agents write from this folder, the manifest first, and the folder when nothing else is in it. Returns the
    /// path of what the volume refuses to remove.
    fn empty(&self, own: &Own, removal: &mut Removal) -> Result<Option<String>, Failure> {
        let failed = |error: &io::Error| self.volume.failure("removing a backup", error);
        let found = entries(&self.path).map_err(|error| failed(&error))?;
        let (mut files, foreign): (Vec<_>, Vec<_>) = found.into_iter().partition(|entry| entry.is_own(own));
        files.sort_by_key(|file| file.name != MANIFEST);
        for Entry { name, .. } in files {
            let path = self.path.join(&name);
            let removed = fs::symlink_metadata(&path).and_then(|about| {
                fs::remove_file(&path)?;
                Ok(about.len())
            });
            match removed {
                Ok(bytes) => removal.count(bytes),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                    return Ok(Some(format!("{}/{name}", self.in_store())));
                }
                Err(error) => return Err(failed(&error)),
            }
            if name == MANIFEST {
                // Before the rest goes, also on the disk.
                self.sync().map_err(|error| failed(&error))?;
            }
        }
        if !foreign.is_empty() {
            let foreign = foreign
                .iter()
                .map(|entry| format!("{}/{}", self.in_store(), entry.name));
            removal.foreign.extend(foreign);
            return Ok(None);
        }
        // The kernel refuses to remove a folder in which anything is left.
        match fs::remove_dir(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(Some(self.in_store())),
            removed => removed.map_err(|error| failed(&error))?,
        }
        if let Some(parent) = self.path.parent() {
            let parent = self.volume.folder(parent.to_owned());
            parent.sync().map_err(|error| failed(&error))?;
        }
        Ok(None)
    }

    /// The path of this folder in the store.
    fn in_store(&self) -> String {
        let path = self.path.strip_prefix(&self.volume.root).unwrap_or(&self.path);
        path.display().to_string()
    }
}
