//! What a store has to do.
//!
//! A backup is a *set*: some files, and a manifest without which the files are no backup. Each pod fills a set by an
//! [`Attempt`] of its own, which becomes the set when its manifest is published; so nobody ever writes into, or removes,
//! what another pod has completed. Everything is streamed and may be cancelled: a store that sends parts of a file over
//! the network ends an unfinished upload in [`Attempt::abort`].

use std::path::{Component, Path};

use async_trait::async_trait;
use fairway_protocol::{Failure, Reason};

use super::content::Content;
use crate::failure::environment as environment_failure;

/// Name of the file that makes a set a backup.
pub(super) const MANIFEST: &str = "manifest.json";

/// A place that keeps backups.
#[async_trait]
pub(crate) trait Store: Send + Sync {
    /// Proves that files can be written and removed. Several pods may do so at the same time, so what is written is
    /// named by the pod.
    async fn check(&self, pod_uid: &str) -> Result<(), Failure>;

    /// The manifest of a set, if the set is complete.
    async fn find(&self, set: &SetPath) -> Result<Option<Found>, Failure>;

    /// Reads a file of a complete set, from where it is kept and not from a cache of what was just written.
    ///
    /// # Errors
    /// `StoreCorrupt` when the file is not there.
    async fn read(&self, set: &SetPath, file: &str) -> Result<Content, Failure>;

    /// The attempt of one pod at a set. Its files are named by the pod: one that was replaced and still works, on a
    /// node that cannot be reached, makes another attempt.
    fn attempt(&self, set: &SetPath, pod_uid: &str) -> Box<dyn Attempt>;
}

/// One pod's attempt at a set.
#[async_trait]
pub(crate) trait Attempt: Send + Sync {
    /// Removes what an earlier container of the pod left of this attempt, and prepares it.
    async fn begin(&self) -> Result<(), Failure>;

    /// Stores a file whole or not at all. Returns the name by which [`Store::read`] finds it in the published set, which
    /// the manifest has to record. May be dropped at any time; [`Attempt::abort`] then ends the unfinished upload.
    async fn put(&self, file: &str, content: Content) -> Result<String, PutError>;

    /// Reads a file back, by the name that [`Attempt::put`] returned; as [`Store::read`].
    async fn read(&self, file: &str) -> Result<Content, Failure>;

    /// Publishes the manifest: from now on the attempt is the set, unless another attempt is already. What is at the set's
    /// place and no backup, or proved to be the `unusable` one, is kept as [`Attempt::kept_as`].
    async fn publish(&self, manifest: &[u8], unusable: Option<&Found>) -> Result<Published, Failure>;

    /// The name under which this attempt keeps what was at the set's place and unusable, for the user.
    fn kept_as(&self) -> String;

    /// Ends unfinished uploads and removes whatever this attempt stored, unless it was published.
    async fn abort(&self) -> Result<(), Failure>;
}

/// Why a file was not stored.
#[derive(Debug)]
pub(crate) enum PutError {
    /// The store failed.
    Store(Failure),
    /// Whoever wrote the content did not write it to its end.
    CutOff,
}

impl From<Failure> for PutError {
    fn from(failure: Failure) -> Self {
        Self::Store(failure)
    }
}

/// Which attempt is the set.
#[derive(Debug)]
pub(crate) enum Published {
    /// The one that was to be published.
    Ours,
    /// Another one, which was faster.
    Theirs(Found),
}

/// A manifest as it is in the store, which may hold anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// The manifest's bytes.
    pub(crate) manifest: Vec<u8>,
    /// What distinguishes this manifest from one that replaces it: an entity tag, a hash.
    pub(crate) revision: String,
}

/// Path of a set in its store, e.g. `shop/crm/crm-42-1a2b3c4d`: relative, and inside the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SetPath(String);

impl SetPath {
    /// Reads a path.
    ///
    /// # Errors
    /// When it leads out of the store.
    pub(crate) fn parse(path: &str) -> Result<Self, Failure> {
        let inside = Path::new(path)
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        match inside && !path.is_empty() {
            true => Ok(Self(path.to_owned())),
            false => Err(environment_failure(
                Reason::AgentFailed,
                format!("The backup set {path:?} is not a path inside the store."),
            )),
        }
    }

    /// The path as text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}
