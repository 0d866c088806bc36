//! The backup volume: one folder per backup, complete when its manifest is there.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write},
    path::{Component, Path, PathBuf},
};

use fairway_plan::protocol::{Failure, reason};

use super::manifest::Manifest;
use crate::agent::failure::environment as environment_failure;

/// The file that makes a folder a backup.
const MANIFEST: &str = "manifest.json";

/// What a write to a volume failed with.
pub(crate) fn failure(doing: &str, error: &io::Error) -> Failure {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => environment_failure(
            reason::STORE_FULL,
            format!("The backup store is full ({doing}); enlarge its volume or delete old backups."),
        ),
        ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => environment_failure(
            reason::STORE_READ_ONLY,
            format!(
                "The backup store cannot be written to ({doing}: {error}); mount its volume writable and let the pod's \
                 group write to it (fsGroup)."
            ),
        ),
        ErrorKind::NotFound => environment_failure(
            reason::STORE_READ_ONLY,
            format!(
                "The backup store is not there ({doing}: {error}); check the claim of backup.store.volume."
            ),
        ),
        _ => environment_failure(
            reason::STORE_READ_ONLY,
            format!("The backup store failed ({doing}: {error}); check its volume."),
        ),
    }
}

/// Proves that files can be made in the store.
pub(crate) fn check_writable(root: &Path) -> Result<(), Failure> {
    let path = root.join(format!(".fairway-preflight-{}", std::process::id()));
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        file.write_all(b"fairway")?;
        file.sync_all()?;
        fs::remove_file(&path)
    };
    write().map_err(|error| {
        // What could not be written may still have been created.
        let _ = fs::remove_file(&path);
        failure("writing a test file", &error)
    })
}

/// The folder of one backup.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    root: PathBuf,
    path: PathBuf,
}

impl Folder {
    /// The folder of a set such as `shop/crm/crm-42-1a2b3c4d`.
    ///
    /// # Errors
    /// When the name leads out of the store.
    pub(crate) fn of_set(root: &Path, set: &str) -> Result<Self, Failure> {
        let inside = Path::new(set)
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        match inside && !set.is_empty() {
            true => Ok(Self {
                root: root.to_owned(),
                path: root.join(set),
            }),
            false => Err(environment_failure(
                reason::AGENT_FAILED,
                format!("The backup set {set:?} is not a folder inside the store."),
            )),
        }
    }

    /// The manifest, if this backup is complete.
    pub(crate) fn manifest(&self) -> Result<Option<Manifest>, Failure> {
        match fs::read(self.path.join(MANIFEST)) {
            Ok(json) => serde_json::from_slice(&json).map(Some).map_err(|error| {
                environment_failure(
                    reason::STORE_CORRUPT,
                    format!("The manifest of the stored backup cannot be read ({error}); take a new backup."),
                )
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failure("reading the manifest", &error)),
        }
    }

    /// Begins anew: what an interrupted backup left behind is removed.
    pub(crate) fn begin(&self) -> Result<(), Failure> {
        self.remove()
            .and_then(|()| fs::create_dir_all(&self.path))
            .map_err(|error| failure("making a folder", &error))
    }

    /// Removes the folder and whatever is in it.
    pub(crate) fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Opens a file to read it.
    pub(crate) fn open(&self, name: &str) -> Result<File, Failure> {
        let missing = |error: io::Error| {
            environment_failure(
                reason::STORE_CORRUPT,
                format!("The store does not give back {name} ({error}); take a new backup."),
            )
        };
        let file = File::open(self.path.join(name)).map_err(missing)?;
        // Reads from the volume and not from memory what was just written; only advice, so it may be refused.
        let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
        Ok(file)
    }

    /// Writes a file under a temporary name; only a completely written file gets its own.
    pub(crate) fn write<T>(
        &self,
        name: &str,
        content: impl FnOnce(&mut File) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let temporary = self.path.join(format!("{name}.partial"));
        let doing = |error: io::Error| failure(&format!("writing {name}"), &error);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&temporary)
            .map_err(doing)?;
        let written = content(&mut file)?;
        file.sync_all().map_err(doing)?;
        fs::rename(&temporary, self.path.join(name)).map_err(doing)?;
        self.sync().map_err(doing)?;
        Ok(written)
    }

    /// Writes the manifest: from now on the backup exists.
    pub(crate) fn commit(&self, manifest: &Manifest) -> Result<(), Failure> {
        let json = serde_json::to_vec_pretty(manifest).map_err(|error| {
            environment_failure(
                reason::AGENT_FAILED,
                format!("The manifest cannot be written: {error}."),
            )
        })?;
        self.write(MANIFEST, |file| {
            file.write_all(&json)
                .map_err(|error| failure("writing the manifest", &error))
        })
    }

    /// Makes the names in this folder and those above it durable.
    fn sync(&self) -> io::Result<()> {
        let mut folder = self.path.as_path();
        loop {
            File::open(folder)?.sync_all()?;
            match folder.parent() {
                Some(parent) if folder != self.root => folder = parent,
                _ => return Ok(()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_cannot_lead_out_of_the_store() {
        let root = Path::new("/store");
        for set in ["", "/etc", "../x", "a/../../b"] {
            assert!(Folder::of_set(root, set).is_err(), "{set}");
        }
        assert!(Folder::of_set(root, "shop/crm/crm-42").is_ok());
    }

    #[test]
    fn a_file_that_could_not_be_finished_never_gets_its_name() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::of_set(root.path(), "a/b").unwrap();
        folder.begin().unwrap();
        let refused: Result<(), _> =
            folder.write("dump", |_| Err(environment_failure(reason::STORE_FULL, "full")));
        assert!(refused.is_err());
        assert!(folder.open("dump").is_err());
        folder.begin().unwrap();
        folder
            .write("dump", |file| {
                file.write_all(b"x").map_err(|error| failure("", &error))
            })
            .unwrap();
        assert!(folder.open("dump").is_ok());
        assert!(
            folder.manifest().unwrap().is_none(),
            "without a manifest it is no backup"
        );
    }
}
