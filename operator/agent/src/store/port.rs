//! What a store has to do.
//!
//! A backup is a *set*: some files, and a manifest without which the files are no backup. Each pod fills a set by an
//! [`Attempt`] of its own, which becomes the set when its manifest is published; so nobody ever writes into, or removes,
//! what another pod has completed. Everything is streamed and may be cancelled: a store that sends parts of a file over
//! the network ends an unfinished upload in [`Attempt::abort`].

use std::sync::Arc;

use async_trait::async_trait;
use fairway_protocol::{Failure, Reason};
use sha2::{Digest as _, Sha256};

use super::content::Content;
use crate::{failure::version, text::hex};

/// Name of the file that makes a set a backup.
pub(super) const MANIFEST: &str = "manifest.json";
/// Size of the largest manifest that is read, in bytes.
pub(super) const LARGEST_MANIFEST: u64 = 16 * 1024 * 1024;

/// A place that keeps backups.
#[async_trait]
pub(crate) trait Store: Send + Sync {
    /// Proves that files can be written and read back, and removes them. Several pods may do so at the same time, so what
    /// is written is named by the pod.
    async fn check(&self, pod_uid: &str) -> Result<(), Failure>;

    /// The manifest of a set, if the set is complete.
    async fn find(&self, set: &SetPath) -> Result<Option<StoredManifest>, Failure>;

    /// Reads a file of a complete set, from where it is kept and not from a cache of what was just written. `objects` are
    /// the names that [`Attempt::put`] returned.
    ///
    /// # Errors
    /// `StoreCorrupt` when one of the objects is not there.
    async fn read(&self, set: &SetPath, objects: &[String]) -> Result<Content, Failure>;

    /// The attempt of one pod at a set. Its files are named by the pod: one that was replaced and still works, on a
    /// node that cannot be reached, makes another attempt.
    fn attempt(&self, set: &SetPath, pod_uid: &str) -> Result<Box<dyn Attempt>, Failure>;

    /// Removes all that the attempts at a set have stored: the manifest first, so that nobody takes what is left for a
    /// backup. Another call goes on where one was killed. A set whose manifest is not the Backup's is left as it is, and
    /// what has no name by which agents store is left too.
    async fn remove(&self, set: &SetPath, own: &Own) -> Result<Removal, Failure>;
}

/// Answers whether a manifest is the Backup's.
type IsOwn = dyn Fn(&[u8]) -> bool + Send + Sync;

/// By what a store knows what of a set its Backup has written.
#[derive(Clone)]
pub(crate) struct Own {
    /// Names of the files that a backup may have, as [`Attempt::put`] is given them.
    pub(crate) files: &'static [&'static str],
    /// Whether a manifest is the Backup's.
    pub(crate) has_sealed: Arc<IsOwn>,
}

impl Own {
    /// Whether an object has the name of a file of a backup, or of a later object of one: `database.dump.zst.000001`.
    pub(super) fn has_name(&self, object: &str) -> bool {
        self.files.iter().any(|file| match object.strip_prefix(file) {
            Some("") => true,
            Some(rest) => rest.strip_prefix('.').is_some_and(is_number),
            None => false,
        })
    }
}

fn is_number(text: &str) -> bool {
    text.len() >= 6 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether this may be the UID of a pod.
pub(super) fn is_pod(text: &str) -> bool {
    let is_of_uid = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_lowercase() || byte == b'-';
    !text.is_empty() && text.bytes().all(is_of_uid)
}

/// What has become of a set that was to be removed.
#[derive(Debug)]
pub(crate) struct Removal {
    /// Number of files or objects that were removed.
    pub(crate) objects: u64,
    /// Bytes of these files or objects.
    pub(crate) bytes: u64,
    /// Paths in the store of what is left there that no agent of this Backup wrote.
    pub(crate) foreign: Vec<String>,
    /// How it ended.
    pub(crate) end: End,
}

impl Removal {
    /// One that has removed nothing yet.
    pub(super) fn new() -> Self {
        Self {
            objects: 0,
            bytes: 0,
            foreign: Vec::new(),
            end: End::Removed,
        }
    }

    /// Takes note that something was removed.
    pub(super) fn count(&mut self, bytes: u64) {
        self.objects += 1;
        self.bytes += bytes;
    }

    /// This one, ended by the store's refusal to remove that object.
    pub(super) fn refused(self, object: String, until: Option<String>) -> Self {
        Self {
            end: End::Refused { object, until },
            ..self
        }
    }
}

/// How the removal of a set ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Nothing is left that the Backup wrote.
    Removed,
    /// Nothing is listed any more that the Backup wrote, and the store keeps versions of it.
    Hidden,
    /// The store refuses to remove an object. Others may be removed already, but none before the manifest.
    Refused {
        /// Path of the object in the store.
        object: String,
        /// Until when it is kept, where the store says so (RFC 3339).
        until: Option<String>,
    },
    /// The manifest in the set's place is not the Backup's, or cannot be read: nothing was removed.
    NotOwn,
}

/// One pod's attempt at a set.
#[async_trait]
pub(crate) trait Attempt: Send + Sync {
    /// Removes what an earlier container of the pod left of this attempt, and prepares it.
    async fn begin(&self) -> Result<(), Failure>;

    /// Stores a file whole or not at all, in one object or in several that, joined, are the file. Returns their names in
    /// the published set, in order, which the manifest has to record. May be dropped at any time; [`Attempt::abort`] then
    /// ends the unfinished upload.
    async fn put(&self, file: &str, content: Content) -> Result<Vec<String>, PutError>;

    /// Reads a file back, by the names that [`Attempt::put`] returned; as [`Store::read`].
    async fn read(&self, objects: &[String]) -> Result<Content, Failure>;

    /// Sets a complete set that proved unusable aside, so that this attempt can be published in its place. Returns the
    /// name under which it is kept for the user; none when another pod has set it aside or replaced it already.
    async fn set_aside(&self, unusable: &StoredManifest) -> Result<Option<String>, Failure>;

    /// Publishes the manifest, which makes this attempt the set, unless another attempt is the set already. What is at the
    /// set's place and has no manifest is kept under another name.
    async fn publish(&self, manifest: &[u8]) -> Result<Published, Failure>;

    /// Ends unfinished uploads and removes whatever this attempt stored, unless it was published.
    async fn abort(&self) -> Result<(), Failure>;
}

/// Why a file was not stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PutError {
    /// The store failed.
    #[error("the store failed: {}", .0.message)]
    Store(Failure),
    /// The content ended before it was complete.
    #[error("content is incomplete")]
    Incomplete,
}

impl From<Failure> for PutError {
    fn from(failure: Failure) -> Self {
        Self::Store(failure)
    }
}

/// Which attempt is the set.
#[derive(Debug)]
pub(crate) enum Published {
    /// The attempt that was to be published.
    ThisAttempt,
    /// Another attempt, which was published earlier, with its manifest.
    AnotherAttempt(StoredManifest),
}

/// A manifest as it is in the store, which may hold anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredManifest {
    /// The manifest's bytes.
    pub(crate) manifest: Vec<u8>,
    /// What distinguishes this manifest from one that replaces it: an entity tag, a hash.
    pub(crate) revision: String,
}

impl StoredManifest {
    /// A manifest of a store that has no names of its own for what it holds.
    pub(super) fn of(manifest: Vec<u8>) -> Self {
        Self {
            revision: hex(&Sha256::digest(&manifest)),
            manifest,
        }
    }
}

/// Path of a set in its store, e.g. `shop/crm/crm-42-1a2b3c4d`: relative, inside the store, and in normal form, so that
/// one set has one path in every store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SetPath(String);

impl SetPath {
    /// Parses the path of a set.
    ///
    /// # Errors
    /// When the path is empty, absolute, or not in normal form.
    pub(crate) fn parse(path: &str) -> Result<Self, Failure> {
        // An empty part is the beginning of an absolute path, `//`, or the end of `a/`.
        if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(version(
                Reason::AgentFailed,
                format!(
                    "The backup set {path:?} is not a relative path in normal form. Run operator and agent of the same \
                     version."
                ),
            ));
        }
        Ok(Self(path.to_owned()))
    }

    /// The path as text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}
