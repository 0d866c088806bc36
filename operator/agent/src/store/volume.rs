//! The store that is a volume: one folder per set. An attempt fills a folder of its own, which is renamed to the set's
//! name when it is complete.

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use fairway_protocol::{Failure, Reason};
use sha2::{Digest as _, Sha256};

use super::{
    content::{Content, pipe},
    port::{Attempt, Found, MANIFEST, Published, PutError, SetPath, Store},
};
use crate::{blocking::blocking, failure::environment as environment_failure, text::hex};

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

    async fn find(&self, set: &SetPath) -> Result<Option<Found>, Failure> {
        let folder = self.set(set);
        blocking(move || folder.found()).await
    }

    async fn read(&self, set: &SetPath, file: &str) -> Result<Content, Failure> {
        let (folder, file) = (self.set(set), file.to_owned());
        blocking(move || folder.read(&file)).await
    }

    fn attempt(&self, set: &SetPath, pod_uid: &str) -> Box<dyn Attempt> {
        let set = self.set(set);
        Box::new(VolumeAttempt {
            own: self.folder(set.beside(&format!("{pod_uid}.partial"))),
            kept: set.beside(&format!("{pod_uid}.unusable")),
            set,
        })
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
                .and_then(|()| fs::create_dir_all(&own.path))
                .map_err(|error| own.volume.failure("creating a folder", &error))
        })
        .await
    }

    async fn put(&self, file: &str, mut content: Content) -> Result<String, PutError> {
        let (own, file) = (self.own.clone(), file.to_owned());
        blocking(move || {
            own.write(&file, &mut content)?;
            Ok(file)
        })
        .await
    }

    async fn read(&self, file: &str) -> Result<Content, Failure> {
        let (own, file) = (self.own.clone(), file.to_owned());
        blocking(move || own.read(&file)).await
    }

    async fn publish(&self, manifest: &[u8], unusable: Option<&Found>) -> Result<Published, Failure> {
        let (own, set, kept) = (self.own.clone(), self.set.clone(), self.kept.clone());
        let (manifest, unusable) = (manifest.to_owned(), unusable.cloned());
        blocking(move || {
            match own.write(MANIFEST, &mut manifest.as_slice()) {
                Ok(()) => own.publish(&set, &kept, unusable.as_ref()),
                Err(PutError::Store(failure)) => Err(failure),
                // A slice is never cut off.
                Err(PutError::CutOff) => Err(own
                    .volume
                    .failure("writing the manifest", &ErrorKind::WriteZero.into())),
            }
        })
        .await
    }

    fn kept_as(&self) -> String {
        let kept = self
            .kept
            .strip_prefix(&self.set.volume.root)
            .unwrap_or(&self.kept);
        kept.display().to_string()
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

    fn found(&self) -> Result<Option<Found>, Failure> {
        match fs::read(self.path.join(MANIFEST)) {
            Ok(manifest) => Ok(Some(Found {
                revision: hex(&Sha256::digest(&manifest)),
                manifest,
            })),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.volume.failure("reading the manifest", &error)),
        }
    }

    fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn read(&self, name: &str) -> Result<Content, Failure> {
        let mut file = File::open(self.path.join(name)).map_err(|error| {
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
        let (writer, content) = pipe();
        tokio::task::spawn_blocking(move || writer.copy(&mut file));
        Ok(content)
    }

    /// Writes a file under a temporary name; only a completely written file gets its own.
    fn write(&self, name: &str, content: &mut impl io::Read) -> Result<(), PutError> {
        let temporary = self.path.join(format!("{name}.partial"));
        let doing = |error: io::Error| self.volume.failure(&format!("writing {name}"), &error);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&temporary)
            .map_err(doing)?;
        let mut buffer = vec![0; 256 * 1024];
        loop {
            match content.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => file.write_all(&buffer[..count]).map_err(doing)?,
                Err(_) => return Err(PutError::CutOff),
            }
        }
        file.sync_all().map_err(doing)?;
        fs::rename(&temporary, self.path.join(name)).map_err(doing)?;
        self.sync().map_err(doing)?;
        Ok(())
    }

    fn publish(&self, set: &Self, kept: &Path, unusable: Option<&Found>) -> Result<Published, Failure> {
        let doing = |error: io::Error| self.volume.failure("naming the backup", &error);
        // The kernel refuses to replace a folder that is not empty, so two attempts cannot both succeed.
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
        tracing::warn!(
            "{} is not a backup; keeping it as {}",
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
                Some(parent) if folder != self.volume.root => folder = parent,
                _ => return Ok(()),
            }
        }
    }
}
