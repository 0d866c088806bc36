//! The store that is a volume: one folder per set. An attempt fills a folder of its own, which is renamed to the set's
//! name when it is complete.

use std::{
    collections::VecDeque,
    ffi::OsStr,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, ErrorKind, Read, Write},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use fairway_protocol::{Failure, Reason};
use rustix::{fs::OFlags, io::Errno};

use super::{
    content::{Content, pipe},
    port::{Attempt, LARGEST_MANIFEST, MANIFEST, Published, PutError, SetPath, Store, StoredManifest},
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
        let claim = format!("The PersistentVolumeClaim {} (spec.backup)", self.claim);
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
        blocking(move || folder.read(&objects)).await
    }

    fn attempt(&self, set: &SetPath, pod_uid: &str) -> Result<Box<dyn Attempt>, Failure> {
        let set = self.set(set);
        Ok(Box::new(VolumeAttempt {
            own: self.folder(set.beside(&format!("{pod_uid}.partial"))),
            kept: set.beside(&format!("{pod_uid}.unusable")),
            set,
        }))
    }
}

/// An attempt: a folder beside the set's.
struct VolumeAttempt {
    own: Folder,
    set: Folder,
    kept: PathBuf,
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
            if set.found()? != Some(unusable) {
                return Ok(None);
            }
            set.set_aside(&kept)
                .map_err(|error| set.volume.failure("renaming a corrupt backup", &error))?;
            let name = kept.strip_prefix(&set.volume.root).unwrap_or(&kept);
            Ok(Some(name.display().to_string()))
        })
        .await
    }

    async fn publish(&self, manifest: &[u8]) -> Result<Published, Failure> {
        let (own, set, kept) = (self.own.clone(), self.set.clone(), self.kept.clone());
        let manifest = manifest.to_owned();
        blocking(move || {
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
        let own = self.own.clone();
        blocking(move || {
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

/// Files that are read one after the other.
struct Joined(VecDeque<File>);

impl Read for Joined {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(file) = self.0.front_mut() {
            match file.read(buffer)? {
                0 if !buffer.is_empty() => self.0.pop_front(),
                count => return Ok(count),
            };
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
        tokio::task::spawn_blocking(move || {
            writer.copy(&mut Joined(files.into()));
        });
        Ok(content)
    }

    fn open(&self, name: &str) -> Result<File, Failure> {
        let file = regular(&self.path.join(name)).map_err(|error| {
            environment_failure(
                Reason::StoreCorrupt,
                format!(
                    "The PersistentVolumeClaim {} does not return the file {name} of the backup ({error}). Check its \
                     volume.",
                    self.volume.claim
                ),
            )
        })?;
        // Reads from the volume and not from memory what was just written; only advice, so it may be refused.
        let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
        Ok(file)
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
        set.set_aside(kept)
            .and_then(|()| fs::rename(&self.path, &set.path))
            .and_then(|()| set.sync())
            .map(|()| Published::ThisAttempt)
            .map_err(doing)
    }

    /// Keeps this folder, which is no backup or a corrupt one, under another name.
    fn set_aside(&self, kept: &Path) -> io::Result<()> {
        tracing::warn!(
            "{} is not a backup; keeping it as {}",
            self.path.display(),
            kept.display()
        );
        fs::rename(&self.path, kept)
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
