//! Tasks: what the operator asks of an agent.

use std::collections::BTreeMap;

use fairway_crds::store::Store;
use serde::{Deserialize, Serialize};

use crate::probe::HttpRequest;

/// One unit of work for the agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Task {
    /// Check whether a release can be executed in this environment; changes nothing that lasts.
    Preflight(PreflightTask),
    /// Dump the database into the store and prove that the dump decodes.
    Backup(BackupTask),
    /// Remove the set of a backup that retention does not keep from its store.
    Prune(PruneTask),
    /// Run the migration as a child process, under the migration lock and with a row in the ledger.
    Migrate(MigrationTask),
    /// Hold the migration lock and a ledger row beside an application that migrates its database when it starts.
    Guard(GuardTask),
    /// Read the ledger and, where a run was interrupted, settle its outcome.
    Settle(SettleTask),
    /// Make probe requests that need a header from a Secret.
    Probe(ProbeTask),
    /// Bring a database back to what a backup holds: beside the database first, then in its place.
    Restore(RestoreTask),
}

/// The App and Release for which a task is done, as the ledger records them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Requester {
    /// The App's namespace.
    pub namespace: String,
    /// The App's name.
    pub app: String,
    /// The Release's name; empty for work that a user asked for without a Release.
    pub release: String,
}

/// The content of [`Task::Preflight`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PreflightTask {
    /// The App and Release that are checked for.
    pub requester: Requester,
    /// Whether a migration will follow: then schema `fairway` must be creatable and the ledger free.
    pub migrates: bool,
    /// The store for backups, which must be writable; none when no backup will be taken.
    pub store: Option<Store>,
}

/// The content of [`Task::Backup`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupTask {
    /// The App and Release for which the backup is taken.
    pub requester: Requester,
    /// The store that the backup goes to.
    pub store: Store,
    /// Path of this backup in the store, relative, e.g. `shop/crm/crm-42-1a2b3c4d`.
    pub set: String,
    /// With scratch, `pg_dump -Fd -j` into [`SCRATCH_DIRECTORY`](crate::SCRATCH_DIRECTORY); without, `-Fc` streamed.
    pub scratch: bool,
    /// Image references by container, recorded in the manifest.
    pub images: BTreeMap<String, String>,
    /// UID of the Backup, the key of the seal by which an agent knows the manifest of this Backup again. It stands nowhere
    /// in the store: who can only write there cannot forge a set. Empty from an operator that does not know of seals.
    #[serde(default)]
    pub backup_uid: String,
}

/// The content of [`Task::Prune`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PruneTask {
    /// The App and Release for which the backup was taken.
    pub requester: Requester,
    /// The store that the backup is in.
    pub store: Store,
    /// Path of the backup in the store, as in [`BackupTask::set`].
    pub set: String,
    /// UID of the Backup, the key of the seal of its manifest: a set with another seal is left alone.
    pub backup_uid: String,
}

/// Identity of one migration run, as the ledger records it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunIdentity {
    /// Key of the ledger row; the same for every pod that may attempt this run.
    pub run_id: String,
    /// Digest of the image that migrates, `sha256:…`.
    pub image_digest: String,
    /// SHA-256 of the command (or of `onStart`), hex.
    pub command_hash: String,
}

/// A statement that must return one value after the migration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SqlCheck {
    /// The check's name in status.
    pub name: String,
    /// The statement, run in a read-only transaction.
    pub sql: String,
    /// The first column of the first row that is expected, as text.
    pub expect: String,
}

/// A migration run as the tasks that migrate request it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestedRun {
    /// The App and Release that migrate.
    pub requester: Requester,
    /// Identity of the run.
    #[serde(rename = "run")]
    pub identity: RunIdentity,
    /// SHA-256 (hex) of the literal variables of the container that migrates. The run's inputs are these and the files below
    /// [`INPUTS_DIRECTORY`](crate::INPUTS_DIRECTORY); none from an operator that does not know of inputs.
    #[serde(default)]
    pub literals_hash: Option<String>,
    /// Seconds that the migration may take; after that it is stopped and has failed.
    pub timeout_seconds: u64,
    /// Checks that must hold after the migration succeeded.
    pub checks: Vec<SqlCheck>,
}

/// The content of [`Task::Migrate`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MigrationTask {
    /// The run, which succeeds when the command exits with 0.
    #[serde(flatten)]
    pub run: RequestedRun,
    /// The command and its arguments.
    pub command: Vec<String>,
    /// The container whose image runs the command, for messages.
    #[serde(default)]
    pub container: MigratingContainer,
}

/// The container whose image runs a migration. Its name is empty in a task of an operator that did not say it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MigratingContainer {
    /// Name of the container in the component's template.
    pub name: String,
    /// The image.
    pub image: String,
    /// Names of the component's other containers.
    pub others: Vec<String>,
}

/// The content of [`Task::Guard`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GuardTask {
    /// The run, which succeeds when the health requests pass.
    #[serde(flatten)]
    pub run: RequestedRun,
    /// Health requests with their ports, sent to the pod's own address until all pass `success_threshold` times in a
    /// row; that is the migration's success. Header values from Secrets are in the variables that
    /// [`HttpRequest::headers`] name.
    pub health: Vec<(u16, HttpRequest)>,
    /// Rounds of health requests that must pass in a row.
    pub success_threshold: u32,
    /// Milliseconds between two rounds.
    pub period_milliseconds: u64,
}

/// The content of [`Task::Settle`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SettleTask {
    /// The App and Release whose run is settled.
    pub requester: Requester,
    /// Identity of the run.
    pub run: RunIdentity,
    /// A user's verdict on a run whose outcome could not be decided; recorded in the ledger.
    pub resolution: Option<Resolution>,
    /// Seconds to wait for a run whose pod is still alive and holds the migration lock.
    pub timeout_seconds: u64,
    /// The token of the annotation that holds the verdict, which the ledger records beside it.
    pub resolution_token: Option<String>,
    /// Fingerprint of the schema before the run, where a report said that the run began: without a row in the ledger its
    /// outcome is then unknown, rather than that it was never started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
}

/// What a user found when looking at the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Resolution {
    /// The migration's work is there.
    Applied,
    /// Nothing of the migration's work is there, or it was undone by hand.
    NotApplied,
}

/// The content of [`Task::Probe`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbeTask {
    /// SHA-256 (hex) of the bearer token that the operator presents; any other caller gets 401.
    pub token_sha256: String,
    /// The requests that this pod may make with their ports, addressed by index. Only the pod address comes from the
    /// caller.
    pub requests: Vec<(u16, HttpRequest)>,
}

/// The content of [`Task::Restore`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreTask {
    /// The App whose database is restored; no Release.
    pub requester: Requester,
    /// UID of the Restore, from which the names of its databases follow and by which they are known again.
    pub restore_uid: String,
    /// UID of the Backup, the key of the seal in the set's manifest.
    pub backup_uid: String,
    /// The store that holds the set.
    pub store: Store,
    /// Path of the set in the store, relative.
    pub set: String,
    /// Whether [`SCRATCH_DIRECTORY`](crate::SCRATCH_DIRECTORY) is there. A set that is an archive of a folder needs it.
    pub scratch: bool,
    /// What must hold in the restored database.
    pub checks: Vec<SqlCheck>,
    /// Whether migrations that were applied after the backup was taken may be reverted.
    pub may_revert: bool,
    /// What is to be done now.
    pub step: RestoreStep,
}

/// One step of a restore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RestoreStep {
    /// Restore the set into a database beside the one in use, prove it, and count what putting it in place would lose.
    Prepare,
    /// Put the prepared database in the place of the one in use, which is kept under another name, unless more would be lost
    /// than was agreed to.
    Swap {
        /// Most row changes that may be lost; absent when any number may.
        agreed_rows: Option<u64>,
    },
    /// Remove the prepared database, unless it was put in place.
    Discard,
}
