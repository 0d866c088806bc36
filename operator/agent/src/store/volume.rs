//! The store that is a volume: one folder per set. An attempt fills a folder of its own, which is renamed to the set's
//! name when it is complete.

mod removal;

use std::{
    collections::VecDeque,
    ffi::OsStr,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, ErrorKind, Read, Write},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use fairway_protocol::{Failure, Reason};
use rustix::{fs::OFlags, io::Errno};

use super::{
    content::{Content, pipe},
    objects::ReadFailed,
    port::{
        Attempt, LARGEST_MANIFEST, MANIFEST, Own, Published, PutError, Removal, SetPath, Store,
        StoredManifest,
    },
};
use crate::{blocking::blocking, failure::environment as environment_failure};

/// Mode of folders, and [`FILE_MODE`] of files: dumps hold every row, and all agents that read them have one user.
const FOLDER_MODE: u32 = 0o700;
/// Mode of files.
const FILE_MODE: u32 = 0o600;

/// A mounted PersistentVolumeClaim.
#[derive(Clone, Debug)]
pub(super) struct Volume {
    root: PathBuf,
    claim: String,
}

impl Volume {
    /// The claim of this name, mounted at `root`.
    pub(super) fn new(root: &Path, claim: &str) -> Self {
        Self {
            root: root.to_owned(),
            claim: claim.to_owned(),
        }
    }

    fn folder(&self, path: PathBuf) -> Folder {
        Folder {
            volume: self.clone(),
            path,
        }
    }

    fn set(&self, set: &SetPath) -> Folder {
        self.folder(self.root.join(set.as_str()))
    }

    /// The failure that an error of the file system means.
    fn failure(&self, doing: &str, error: &io::Error) -> Failure {
        let claim = format!(
            "The PersistentVolumeClaim {} (spec.backup.store.volume)",
            self.claim
        );
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => environment_failure(
                Reason::StoreFull,
                format!("{claim} is full ({doing}). Enlarge it, or delete old backups in it."),
            ),
            ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => environment_failure(
                Reason::StoreReadOnly,
                format!(
                    "{claim} cannot be written to ({doing}: {error}). Make it writable, also for the pod's group (fsGroup)."
                ),
            ),
            ErrorKind::NotFound => environment_failure(
                Reason::StoreReadOnly,
                format!("{claim} is not mounted ({doing}: {error}). Check the claim and its volume."),
            ),
            _ => environment_failure(
                Reason::StoreReadOnly,
                format!("{claim} failed ({doing}: {error}). Check the claim and its volume."),
            ),
        }
    }

    /// The failure of the volume that an error of reading means; none where it may be that of one file.
    fn read_failure(&self, error: &io::Error) -> Option<Failure> {
        let is_of_volume = matches!(
            error.kind(),
            ErrorKind::StaleNetworkFileHandle
                | ErrorKind::TimedOut
                | ErrorKind::NotConnected
                | ErrorKind::HostUnreachable
                | ErrorKind::NetworkUnreachable
        );
        is_of_volume.then(|| self.failure("reading the backup", error))
    }

    fn check_writable(&self, pod_uid: &str) -> io::Result<()> {
        let path = self.root.join(format!(".fairway-preflight-{pod_uid}"));
        let mut file = File::create(&path)?;
        let written = file.write_all(b"fairway").and_then(|()| file.sync_all());
        // A file that could not be written was created all the same.
        let removed = fs::remove_file(&path);
        written.and(removed)
    }
}

#[async_trait]
impl Store for Volume {
    async fn check(&self, pod_uid: &str) -> Result<(), Failure> {
        let (volume, pod_uid) = (self.clone(), pod_uid.to_owned());
        blocking(move || {
            volume
                .check_writable(&pod_uid)
                .map_err(|error| volume.failure("writing a test file", &error))
        })
        .await
    }

    async fn find(&self, set: &SetPath) -> Result<Option<StoredManifest>, Failure> {
        let folder = self.set(set);
        blocking(move || folder.found()).await
    }

    async fn read(&self, set: &SetPath, objects: &[String]) -> Result<Content, Failure> {
        let (folder, objects) = (self.set(set), objects.to_owned());
        blocking(move || {
            // Whoever published it may have failed to make its name durable.
            match folder.sync() {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    Err(folder.volume.failure("making the backup durable", &error))
                }
                _ => folder.read(&objects),
            }
        })
        .await
    }

    fn attempt(&self, set: &SetPath, pod_uid: &str) -> Result<Box<dyn Attempt>, Failure> {
        let set = self.set(set);
        Ok(Box::new(VolumeAttempt {
            own: self.folder(set.beside(&format!("{pod_uid}.partial"))),
            kept: set.beside(&format!("{pod_uid}.unusable")),
            set,
            naming: Arc::default(),
        }))
    }

    async fn remove(&self, set: &SetPath, own: &Own) -> Result<Removal, Failure> {
        let (folder, own) = (self.set(set), own.clone());
        blocking(move || folder.remove_set(&own)).await
    }
}

/// An attempt: a folder beside the set's.
struct VolumeAttempt {
    own: Folder,
    set: Folder,
    kept: PathBuf,
    /// Held while the attempt's folder is renamed or removed: a publication that was cancelled goes on in its thread.
    naming: Arc<Mutex<()>>,
}

#[async_trait]
impl Attempt for VolumeAttempt {
    async fn begin(&self) -> Result<(), Failure> {
        let own = self.own.clone();
        blocking(move || {
            own.remove()
                .and_then(|()| {
                    DirBuilder::new()
                        .recursive(true)
                        .mode(FOLDER_MODE)
                        .create(&own.path)
                })
                .map_err(|error| own.volume.failure("creating a folder", &error))
        })
        .await
    }

    async fn put(&self, file: &str, mut content: Content) -> Result<Vec<String>, PutError> {
        let (own, file) = (self.own.clone(), file.to_owned());
        blocking(move || {
            own.write(&file, &mut content)?;
            Ok(vec![file])
        })
        .await
    }

    async fn read(&self, objects: &[String]) -> Result<Content, Failure> {
        let (own, objects) = (self.own.clone(), objects.to_owned());
        blocking(move || own.read(&objects)).await
    }

    async fn set_aside(&self, unusable: &StoredManifest) -> Result<Option<String>, Failure> {
        let (set, kept, unusable) = (self.set.clone(), self.kept.clone(), unusable.clone());
        blocking(move || {
            let unusable = Some(unusable);
            if set.found()? != unusable || !set.set_aside(&kept, unusable.as_ref())? {
                return Ok(None);
            }
            let name = kept.strip_prefix(&set.volume.root).unwrap_or(&kept);
            Ok(Some(name.display().to_string()))
        })
        .await
    }

    async fn publish(&self, manifest: &[u8]) -> Result<Published, Failure> {
        let (own, set, kept) = (self.own.clone(), self.set.clone(), self.kept.clone());
        let (manifest, naming) = (manifest.to_owned(), self.naming.clone());
        blocking(move || {
            let _naming = naming.lock().unwrap_or_else(PoisonError::into_inner);
            match own.write(MANIFEST, &mut manifest.as_slice()) {
                Ok(()) => own.publish(&set, &kept),
                Err(PutError::Store(failure)) => Err(failure),
                // A slice is never incomplete.
                Err(PutError::Incomplete) => Err(own
                    .volume
                    .failure("writing the manifest", &ErrorKind::WriteZero.into())),
            }
        })
        .await
    }

    async fn abort(&self) -> Result<(), Failure> {
        let (own, naming) = (self.own.clone(), self.naming.clone());
        blocking(move || {
            let _naming = naming.lock().unwrap_or_else(PoisonError::into_inner);
            own.remove()
                .map_err(|error| own.volume.failure("removing an unfinished backup", &error))
        })
        .await
    }
}

/// Opens a file that others may have put there: a link could lead out of the store, and a pipe would be waited for.
fn regular(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(i32::try_from(flags.bits()).unwrap_or_default())
        .open(path);
    let not_regular = || io::Error::new(ErrorKind::InvalidData, "it is no regular file");
    match opened {
        Ok(file) if file.metadata()?.is_file() => Ok(file),
        Ok(_) => Err(not_regular()),
        Err(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => Err(not_regular()),
        Err(error) => Err(error),
    }
}

/// Files of a volume that are read one after the other.
struct Joined<F> {
    volume: Volume,
    files: VecDeque<F>,
}

impl<F: Read> Read for Joined<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(file) = self.files.front_mut() {
            let count = file
                .read(buffer)
                .map_err(|error| match self.volume.read_failure(&error) {
                    Some(failure) => io::Error::other(ReadFailed(failure)),
                    None => error,
                })?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            self.files.pop_front();
        }
        Ok(0)
    }
}

/// The folder of a set, or of an attempt at it.
#[derive(Clone, Debug)]
struct Folder {
    volume: Volume,
    path: PathBuf,
}

impl Folder {
    fn beside(&self, ending: &str) -> PathBuf {
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(OsStr::new("."));
        name.push(ending);
        self.path.with_file_name(name)
    }

    fn found(&self) -> Result<Option<StoredManifest>, Failure> {
        let read = || -> io::Result<Vec<u8>> {
            let mut manifest = Vec::new();
            let file = regular(&self.path.join(MANIFEST))?;
            file.take(LARGEST_MANIFEST).read_to_end(&mut manifest)?;
            Ok(manifest)
        };
        match read() {
            Ok(manifest) => Ok(Some(StoredManifest::of(manifest))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            // It is there and no manifest.
            Err(error) if error.kind() == ErrorKind::InvalidData => Ok(Some(StoredManifest::of(Vec::new()))),
            Err(error) => Err(self.volume.failure("reading the manifest", &error)),
        }
    }

    fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn read(&self, names: &[String]) -> Result<Content, Failure> {
        let files = names
            .iter()
            .map(|name| self.open(name))
            .collect::<Result<Vec<File>, Failure>>()?;
        let (writer, content) = pipe();
        let mut joined = Joined {
            volume: self.volume.clone(),
            files: files.into(),
        };
        tokio::task::spawn_blocking(move || writer.copy(&mut joined));
        Ok(content)
    }

    fn open(&self, name: &str) -> Result<File, Failure> {
        let file = regular(&self.path.join(name)).map_err(|error| self.not_opened(name, &error))?;
        // Reads from the volume and not from memory what was just written; only advice, so it may be refused.
        let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
        Ok(file)
    }

    fn not_opened(&self, name: &str, error: &io::Error) -> Failure {
        self.volume.read_failure(error).unwrap_or_else(|| {
            environment_failure(
                Reason::StoreCorrupt,
                format!(
                    "The PersistentVolumeClaim {} does not return the file {name} of the backup ({error}). Check its \
                     volume.",
                    self.volume.claim
                ),
            )
        })
    }

    /// Writes a file under a temporary name; only a completely written file gets its own.
    fn write(&self, name: &str, content: &mut impl io::Read) -> Result<(), PutError> {
        let temporary = self.path.join(format!("{name}.partial"));
        let doing = |error: io::Error| self.volume.failure(&format!("writing {name}"), &error);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(FILE_MODE)
            .open(&temporary)
            .map_err(doing)?;
        let mut buffer = vec![0; 256 * 1024];
        loop {
            match content.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => file.write_all(&buffer[..count]).map_err(doing)?,
                Err(_) => return Err(PutError::Incomplete),
            }
        }
        file.sync_all().map_err(doing)?;
        fs::rename(&temporary, self.path.join(name)).map_err(doing)?;
        self.sync().map_err(doing)?;
        Ok(())
    }

    /// Renames this folder to the set's, unless there is a complete set already.
    fn publish(&self, set: &Self, kept: &Path) -> Result<Published, Failure> {
        let doing = |error: io::Error| self.volume.failure("naming the backup", &error);
        // The kernel refuses to replace a folder that is not empty, so two attempts cannot both succeed.
        let Err(refusal) = fs::rename(&self.path, &set.path) else {
            return set.sync().map(|()| Published::ThisAttempt).map_err(doing);
        };
        if !set.path.exists() {
            return Err(doing(refusal));
        }
        if let Some(other) = set.found()? {
            return Ok(Published::AnotherAttempt(other));
        }
        if !set.set_aside(kept, None)?
            && let Some(other) = set.found()?
        {
            return Ok(Published::AnotherAttempt(other));
        }
        fs::rename(&self.path, &set.path)
            .and_then(|()| set.sync())
            .map(|()| Published::ThisAttempt)
            .map_err(doing)
    }

    /// Keeps this folder, which is no backup or one with a manifest that proved unusable, under another name; whether it
    /// did. Between a look at the folder and its renaming another pod may have completed the set: that one is put back.
    fn set_aside(&self, kept: &Path, unusable: Option<&StoredManifest>) -> Result<bool, Failure> {
        let doing = |error: io::Error| self.volume.failure("renaming what is no backup", &error);
        match fs::rename(&self.path, kept) {
            Err(error) if error.kind() == ErrorKind::NotFound && !self.path.exists() => return Ok(false),
            renamed => renamed.map_err(doing)?,
        }
        let moved = self.volume.folder(kept.to_owned()).found();
        if moved.as_ref().is_ok_and(|moved| moved.as_ref() == unusable) {
            tracing::warn!(
                "{} is not a backup; keeping it as {}",
                self.path.display(),
                kept.display()
            );
            return Ok(true);
        }
        match fs::rename(kept, &self.path) {
            // By now there is a third one, which is the set.
            Err(_) if self.path.exists() => {}
            renamed => renamed.and_then(|()| self.sync()).map_err(doing)?,
        }
        moved.map(|_| false)
    }

    /// Makes the names in this folder and those above it durable.
    fn sync(&self) -> io::Result<()> {
        let mut folder = self.path.as_path();
        loop {
            File::open(folder)?.sync_all()?;
            match folder.parent() {
                Some(parent) if folder != self.volume.root => folder = parent,
                _ => return Ok(()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::iter::once;

    use super::*;

    /// A volume in a temporary folder, and the set of the tests.
    fn volume() -> (tempfile::TempDir, Volume, SetPath) {
        let root = tempfile::tempdir().unwrap();
        let volume = Volume::new(root.path(), "backups");
        (root, volume, SetPath::parse("shop/crm-1").unwrap())
    }

    /// A file that cannot be read.
    struct Fails(ErrorKind);

    impl Read for Fails {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
    }

    #[test]
    fn a_set_that_another_pod_completed_is_put_back() {
        let (_root, volume, set) = volume();
        let folder = volume.set(&set);
        let kept = folder.beside("pod.unusable");
        fs::create_dir_all(&folder.path).unwrap();
        fs::write(folder.path.join(MANIFEST), "of another pod").unwrap();
        let corrupt = StoredManifest::of(b"corrupt".to_vec());
        for looked_at in [Some(&corrupt), None] {
            assert_eq!(folder.set_aside(&kept, looked_at), Ok(false));
            let found = folder.found().unwrap().unwrap();
            assert_eq!(found.manifest, b"of another pod");
            assert!(!kept.exists());
        }
    }

    #[test]
    fn a_set_that_another_pod_has_set_aside_is_not_missed() {
        let (_root, volume, set) = volume();
        let folder = volume.set(&set);
        assert_eq!(folder.set_aside(&folder.beside("pod.unusable"), None), Ok(false));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_abort_during_the_publication_leaves_all_or_nothing() {
        const FILES: usize = 300;
        for round in 0..40 {
            let (_root, volume, set) = volume();
            let attempt = volume.attempt(&set, "pod").unwrap();
            attempt.begin().await.unwrap();
            // So many that their removal takes as long as the publication.
            let own = volume.set(&set).beside("pod.partial");
            for file in 0..FILES {
                fs::write(own.join(file.to_string()), "").unwrap();
            }
            let publication = attempt.publish(b"{}");
            // Its thread is started, and it is cancelled.
            assert!(futures::poll!(publication).is_pending());
            // At another moment of it each time.
            std::thread::sleep(std::time::Duration::from_micros(10 * round));
            attempt.abort().await.unwrap();
            assert!(!own.exists());
            let set = volume.set(&set).path;
            if set.exists() {
                let left = fs::read_dir(&set).unwrap().count();
                assert_eq!(left, FILES + 1, "the manifest and all files, in round {round}");
            }
        }
    }

    #[test]
    fn a_volume_that_fails_is_no_corrupt_backup() {
        let (_root, volume, set) = volume();
        let folder = volume.set(&set);
        let of_volume = [
            ErrorKind::StaleNetworkFileHandle,
            ErrorKind::TimedOut,
            ErrorKind::NotConnected,
            ErrorKind::HostUnreachable,
            ErrorKind::NetworkUnreachable,
        ];
        for kind in of_volume {
            assert_eq!(
                folder.not_opened("dump", &kind.into()).reason,
                Reason::StoreReadOnly
            );
            let mut joined = Joined {
                volume: volume.clone(),
                files: once(Fails(kind)).collect(),
            };
            let error = joined.read(&mut [0]).unwrap_err();
            assert_eq!(ReadFailed::of(&error).unwrap().reason, Reason::StoreReadOnly);
        }
        for kind in [ErrorKind::NotFound, ErrorKind::InvalidData] {
            assert_eq!(
                folder.not_opened("dump", &kind.into()).reason,
                Reason::StoreCorrupt
            );
        }
        let mut joined = Joined {
            volume,
            files: once(Fails(ErrorKind::InvalidData)).collect(),
        };
        assert!(ReadFailed::of(&joined.read(&mut [0]).unwrap_err()).is_none());
    }

    /// The kernel syncs no folder of `/proc`.
    #[tokio::test]
    async fn a_set_whose_name_cannot_be_made_durable_is_not_read() {
        let volume = Volume::new(Path::new("/proc"), "backups");
        let set = SetPath::parse("sys/kernel").unwrap();
        let read = volume.read(&set, &["ostype".to_owned()]).await;
        let failure = read.err().unwrap();
        assert_eq!(failure.reason, Reason::StoreReadOnly, "{}", failure.message);
    }
}
