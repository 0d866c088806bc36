//! The backup volume: one folder per backup. A try fills a folder of its own, which gets the backup's name when it
//! is complete; so that nobody ever writes into, or removes, what somebody else has made.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write},
    path::{Component, Path, PathBuf},
};

use fairway_protocol::{Failure, reason};

use super::manifest::{FORMAT_VERSION, Manifest};
use crate::failure::environment as environment_failure;

/// The file that makes a folder a backup.
const MANIFEST: &str = "manifest.json";

/// What a write to a volume failed with.
pub(crate) fn failure(doing: &str, error: &io::Error) -> Failure {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => environment_failure(
            reason::STORE_FULL,
            format!("The volume of backup.store is full ({doing}); enlarge it or delete old backups."),
        ),
        ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => environment_failure(
            reason::STORE_READ_ONLY,
            format!(
                "The volume of backup.store cannot be written to ({doing}: {error}); mount it writable and let the pod's \
                 group write to it (fsGroup)."
            ),
        ),
        ErrorKind::NotFound => environment_failure(
            reason::STORE_READ_ONLY,
            format!(
                "The volume of backup.store is not there ({doing}: {error}); check the claim that it names."
            ),
        ),
        _ => environment_failure(
            reason::STORE_READ_ONLY,
            format!("The volume of backup.store failed ({doing}: {error}); check the claim that it names."),
        ),
    }
}

/// Proves that files can be made in the store. Several pods may ask at the same time, so the file is this pod's own.
pub(crate) fn check_writable(root: &Path, pod_uid: &str) -> Result<(), Failure> {
    let path = root.join(format!(".fairway-preflight-{pod_uid}"));
    let write = || {
        let mut file = File::create(&path)?;
        let written = file.write_all(b"fairway").and_then(|()| file.sync_all());
        // What could not be written was created all the same.
        let removed = fs::remove_file(&path);
        written.and(removed)
    };
    write().map_err(|error| failure("writing a test file", &error))
}

/// Whose folder has the backup's name.
#[derive(Debug)]
pub(crate) enum Published {
    /// The one that was to be published.
    Ours,
    /// Another try was faster.
    Theirs(Found),
}

/// A manifest as it lies in the store, which may hold anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found(Vec<u8>);

impl Found {
    /// Reads it.
    ///
    /// # Errors
    /// When it says nothing that this version understands.
    pub(crate) fn manifest(&self) -> Result<Manifest, Failure> {
        let corrupt = |what: String| {
            environment_failure(
                reason::STORE_CORRUPT,
                format!(
                    "The manifest of the stored backup cannot be read ({what}); check the store's volume."
                ),
            )
        };
        let manifest: Manifest =
            serde_json::from_slice(&self.0).map_err(|error| corrupt(error.to_string()))?;
        match manifest.format_version {
            FORMAT_VERSION => Ok(manifest),
            other => Err(corrupt(format!("it has format {other}, not {FORMAT_VERSION}"))),
        }
    }
}

/// The folder of one backup, or of one try at it.
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

    /// The folder that one pod fills for this set. Its name holds the pod's UID: a pod that was given up and still
    /// works, on a node that nobody reaches, has another one.
    pub(crate) fn of_try(&self, pod_uid: &str) -> Self {
        Self {
            root: self.root.clone(),
            path: self.beside(&format!("{pod_uid}.partial")),
        }
    }

    fn beside(&self, ending: &str) -> PathBuf {
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{ending}"));
        self.path.with_file_name(name)
    }

    /// The manifest, if this backup is complete.
    pub(crate) fn found(&self) -> Result<Option<Found>, Failure> {
        match fs::read(self.path.join(MANIFEST)) {
            Ok(json) => Ok(Some(Found(json))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failure("reading the manifest", &error)),
        }
    }

    /// Under which name a try keeps what has the set's name and is no backup.
    fn kept(&self) -> PathBuf {
        self.path.with_extension("unusable")
    }

    /// The same, for people.
    pub(crate) fn kept_name(&self) -> String {
        let kept = self.kept();
        kept.strip_prefix(&self.root)
            .unwrap_or(&kept)
            .display()
            .to_string()
    }

    /// Begins anew; only for the folder of a try.
    pub(crate) fn begin(&self) -> Result<(), Failure> {
        self.remove()
            .and_then(|()| fs::create_dir_all(&self.path))
            .map_err(|error| failure("making a folder", &error))
    }

    /// Removes the folder and whatever is in it; only for the folder of a try.
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
                format!("The store does not give back {name} ({error}); check its volume."),
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

    /// Writes the manifest: from now on the folder is a backup.
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

    /// Gives the complete folder of a try the name of its set, unless another complete one has it. What has the name
    /// and is no backup, or proved to be the `unusable` one, is kept beside it, named by this try.
    pub(crate) fn publish(&self, set: &Self, unusable: Option<&Found>) -> Result<Published, Failure> {
        let doing = |error: io::Error| failure("naming the backup", &error);
        // The kernel refuses to replace a folder that is not empty, so two tries cannot both succeed.
        let Err(refusal) = fs::rename(&self.path, &set.path) else {
            return set.sync().map(|()| Published::Ours).map_err(doing);
        };
        if !set.path.exists() {
            return Err(doing(refusal));
        }
        match set.found()? {
            Some(theirs) if Some(&theirs) != unusable => return Ok(Published::Theirs(theirs)),
            _ => {}
        }
        let kept = self.kept();
        tracing::warn!(
            "{} is no backup; keeping it as {}",
            set.path.display(),
            kept.display()
        );
        fs::rename(&set.path, kept)
            .and_then(|()| fs::rename(&self.path, &set.path))
            .and_then(|()| set.sync())
            .map(|()| Published::Ours)
            .map_err(doing)
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
    fn the_check_of_one_pod_is_not_disturbed_by_that_of_another() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join(".fairway-preflight-other"), "").unwrap();
        fs::write(
            root.path().join(".fairway-preflight-own"),
            "left by a pod that was killed",
        )
        .unwrap();
        check_writable(root.path(), "own").unwrap();
        assert_eq!(names(root.path()), [".fairway-preflight-other"]);
    }

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
            folder.found().unwrap().is_none(),
            "without a manifest it is no backup"
        );
    }

    /// A complete backup without content, taken at a time by which it is known.
    fn complete(folder: &Folder, taken_at: &str) {
        let stored = serde_json::json!({
            "name": "", "bytes": 0, "sha256": "", "plainBytes": 0, "plainSha256": "",
        });
        let manifest = serde_json::json!({
            "formatVersion": 1, "requester": {"namespace": "", "app": "", "release": ""}, "images": {},
            "level": "Decoded", "takenAt": taken_at, "serverVersion": "", "toolVersion": "", "fingerprint": "",
            "database": stored, "databaseFormat": "custom", "globals": null, "globalsNote": null, "seconds": 0.0,
        });
        folder.begin().unwrap();
        folder.commit(&serde_json::from_value(manifest).unwrap()).unwrap();
    }

    fn names(root: &Path) -> Vec<String> {
        let entries = fs::read_dir(root).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn the_first_complete_try_is_the_backup_and_no_other_touches_it() {
        let root = tempfile::tempdir().unwrap();
        let set = Folder::of_set(root.path(), "set").unwrap();
        let [slow, fast] = ["slow", "fast"].map(|uid| set.of_try(uid));
        complete(&slow, "first");
        complete(&fast, "second");
        assert!(set.found().unwrap().is_none());
        assert!(matches!(fast.publish(&set, None).unwrap(), Published::Ours));
        let Published::Theirs(theirs) = slow.publish(&set, None).unwrap() else {
            panic!("the slow one took the place of the fast one");
        };
        assert_eq!(theirs.manifest().unwrap().taken_at, "second");
        fast.remove().unwrap();
        slow.remove().unwrap();
        assert_eq!(names(root.path()), ["set"]);
    }

    #[test]
    fn what_has_a_backups_name_and_is_none_is_kept_beside_it() {
        let root = tempfile::tempdir().unwrap();
        let set = Folder::of_set(root.path(), "set").unwrap();
        fs::create_dir(&set.path).unwrap();
        fs::write(set.path.join("something"), "").unwrap();
        let own = set.of_try("pod");
        complete(&own, "now");
        assert!(matches!(own.publish(&set, None).unwrap(), Published::Ours));
        assert_eq!(names(root.path()), ["set", "set.pod.unusable"]);
    }
    #[test]
    fn a_backup_that_proved_corrupt_is_kept_beside_its_successor() {
        let root = tempfile::tempdir().unwrap();
        let set = Folder::of_set(root.path(), "set").unwrap();
        let [first, second, third] = ["1", "2", "3"].map(|uid| set.of_try(uid));
        complete(&first, "first");
        first.publish(&set, None).unwrap();
        let corrupt = set.found().unwrap();
        complete(&second, "second");
        complete(&third, "third");
        assert!(matches!(
            second.publish(&set, corrupt.as_ref()).unwrap(),
            Published::Ours
        ));
        // It found the same one corrupt, but this is another.
        assert!(matches!(
            third.publish(&set, corrupt.as_ref()).unwrap(),
            Published::Theirs(_)
        ));
        third.remove().unwrap();
        assert_eq!(names(root.path()), ["set", "set.2.unusable"]);
    }

    #[test]
    fn a_manifest_of_another_format_is_not_understood() {
        for text in ["", "{}", r#"{"formatVersion": 2}"#] {
            let failure = Found(text.into()).manifest().unwrap_err();
            assert_eq!(failure.reason, reason::STORE_CORRUPT);
        }
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::of_set(root.path(), "set").unwrap().of_try("1");
        complete(&folder, "now");
        let Found(json) = folder.found().unwrap().unwrap();
        let newer = String::from_utf8(json)
            .unwrap()
            .replace("\"formatVersion\": 1", "\"formatVersion\": 2");
        let failure = Found(newer.into()).manifest().unwrap_err();
        assert!(failure.message.contains("format 2"), "{}", failure.message);
    }
}
