//! Reports: what an agent answers.

use fairway_crds::Reason;
use serde::{Deserialize, Deserializer, Serialize};

/// Whose fault a failure is: decides between waiting and stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Cause {
    /// The environment (store full, database away, wrong password): retried with backoff until the deadline.
    Environment,
    /// The version being released: final.
    Version,
}

/// Why something failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// Whose fault it is.
    pub cause: Cause,
    /// The reason; [`Reason::AgentFailed`] when an agent of another version gives one that this version does not know.
    #[serde(deserialize_with = "known_reason")]
    pub reason: Reason,
    /// What happened to which object, and what to do; whole sentences, never a secret.
    pub message: String,
}

impl Failure {
    /// The reason of the failure.
    pub fn reason(&self) -> Reason {
        self.reason
    }
}

fn known_reason<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Reason, D::Error> {
    let text = String::deserialize(deserializer)?;
    Ok(text.parse().unwrap_or(Reason::AgentFailed))
}

/// What the agent found in an image that was built for another platform than the node's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PinReport {
    /// Architecture of the image, as Kubernetes writes it, such as `arm64`.
    pub image: String,
    /// Architecture of the node, such as `amd64`.
    pub node: String,
    /// Path of a program in the image that the node could not run.
    pub program: String,
}

/// The answer to [`Task::Preflight`](crate::Task::Preflight).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PreflightReport {
    /// The checks in the order in which they ran: name, and whether it holds. Never a value of the database.
    pub checks: Vec<(String, bool)>,
    /// What stops the release. A check may be false without stopping it: `collation`, `staleLocks`.
    pub failure: Option<Failure>,
    /// Version of the server, e.g. `15.18`.
    pub server_version: Option<String>,
    /// Size of the database in bytes.
    pub database_bytes: Option<u64>,
}

/// The answer to [`Task::Backup`](crate::Task::Backup).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupReport {
    /// What proves the backup, when it is complete and decoded.
    pub evidence: Option<BackupEvidence>,
    /// Why there is no backup, otherwise.
    pub failure: Option<Failure>,
}

/// What proves a backup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupEvidence {
    /// `Decoded` when `pg_restore -f /dev/null` read all of it.
    pub level: String,
    /// Bytes in the store.
    pub bytes: u64,
    /// SHA-256 of the stored dump, hex, hashed while it was written and again when it was read back.
    pub sha256: String,
    /// Start of the dump (RFC 3339, the database server's clock).
    pub taken_at: String,
    /// Version of the server.
    pub server_version: String,
    /// Fingerprint of the schema at the dump.
    pub fingerprint: String,
    /// Seconds from the start to the manifest.
    pub seconds: f64,
    /// What is missing from the backup, or was found beside it: one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// The answer to [`Task::Prune`](crate::Task::Prune).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PruneReport {
    /// What has become of the set; none when the store failed.
    pub outcome: Option<PruneOutcome>,
    /// Number of files or objects that were removed by this attempt.
    pub objects: u64,
    /// Bytes of these files or objects.
    pub bytes: u64,
    /// Until when the store keeps the set, where it says so (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// What is left, and why: whole sentences.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Why nothing can be said of the set, when the store failed. Another attempt goes on where this one ended.
    pub failure: Option<Failure>,
}

/// What has become of a set that was to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PruneOutcome {
    /// Nothing is left of it that Fairway wrote.
    Removed,
    /// Nothing of it is listed any more, and the bucket keeps versions of it.
    Hidden,
    /// The store refused the removal, or the set is not the Backup's. What is left of it stays.
    Retained,
}

/// How a migration ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MigrationOutcome {
    /// It ran and committed.
    Applied,
    /// The ledger already had this image digest, command and inputs: nothing was run.
    AlreadyApplied,
    /// It failed and the schema is what it was before. Rows may still have changed.
    Failed,
    /// It failed and the schema changed.
    Partial,
    /// It was interrupted and what it did cannot be decided.
    Unknown,
    /// Another run of this database is not settled, so this one was not started.
    Blocked,
    /// It was not started: the database could not be reached, or the migration lock not be taken.
    NotStarted,
    /// Nothing is decided yet. A settle task answers so while another pod holds the migration lock or the database
    /// cannot be reached: ask again later. A guard answers so when the application's time is over but its processes
    /// still run: end the pod, then settle the run.
    Undecided,
}

/// What an agent leaves as its termination message while a migration runs, in case that it cannot answer any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Begun {
    /// Fingerprint of the schema before the run.
    pub begun: String,
}

/// The answer to [`Task::Migrate`](crate::Task::Migrate), [`Task::Guard`](crate::Task::Guard) and
/// [`Task::Settle`](crate::Task::Settle).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MigrationReport {
    /// How the migration ended.
    pub outcome: MigrationOutcome,
    /// Why, for every outcome but `Applied` and `AlreadyApplied`.
    pub failure: Option<Failure>,
    /// Fingerprint of the schema before the run; with every outcome of a run that has begun.
    pub before: Option<String>,
    /// Fingerprint of the schema after the run.
    pub after: Option<String>,
    /// Duration of the run in seconds.
    pub seconds: Option<f64>,
    /// The child's exit code (128 + signal when it was killed).
    pub exit_code: Option<i32>,
    /// The last SQLSTATE in the last lines of the child's output.
    pub sqlstate: Option<String>,
    /// The last error line of the child's output, every value of the environment redacted, at most 200 bytes.
    pub last_error: Option<String>,
    /// Whether the newest committed run in the ledger is of another image, so that the schema is ahead of this image.
    pub schema_ahead: bool,
    /// A check that did not hold after the migration was applied.
    pub failed_check: Option<String>,
    /// Whether the ledger had lost the row of this run, which had begun.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub row_missing: bool,
    /// What could not be proven of a migration that was applied: whole sentences.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// The answer to [`Task::Restore`](crate::Task::Restore).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreReport {
    /// The restored database beside the one in use, after a successful `Prepare`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prepared: Option<PreparedDatabase>,
    /// What was put in place, after a successful `Swap`, or before a `Discard` that then removed nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swapped: Option<SwappedDatabase>,
    /// What would be lost or was lost, whenever it was counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<Loss>,
    /// Why the step was not done. The database in use is then the one that was in use before, and open.
    pub failure: Option<Failure>,
}

/// A restored database beside the one in use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PreparedDatabase {
    /// Name of the database.
    pub database: String,
    /// The moment whose state it has (RFC 3339, the database server's clock).
    pub taken_at: String,
    /// Fingerprint of its schema, which is that of the set.
    pub fingerprint: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Seconds from reading the set to the last check; zero when an earlier pod has prepared it.
    pub seconds: f64,
}

/// A restored database that is in use now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SwappedDatabase {
    /// Name under which the database is kept that was in use before. It accepts no connections.
    pub replaced: String,
    /// When it was put in place (RFC 3339, the database server's clock).
    pub at: String,
    /// Milliseconds for which connections were refused; absent when another pod has begun the swap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused_milliseconds: Option<u64>,
}

/// What a restore takes away: row changes that were made after the backup was taken.
///
/// It is a lower bound by the server's own counters (`n_tup_ins`, `n_tup_upd` and `n_tup_del`), which also count work that was
/// rolled back, and know nothing of sequences and large objects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Loss {
    /// Row changes that were counted.
    pub rows: u64,
    /// Tables in which they were made.
    pub tables: u64,
    /// The tables with most of them, and how many.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub largest: Vec<(String, u64)>,
    /// Why more may be lost than was counted: a clause; absent when the counters are whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uncounted: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_reason_reads_as_agent_failed() {
        let read = |reason: &str| {
            let json = format!(r#"{{"cause":"version","reason":"{reason}","message":"No."}}"#);
            serde_json::from_str::<Failure>(&json).map(|failure| failure.reason)
        };
        assert_eq!(read("StoreFull").ok(), Some(Reason::StoreFull));
        assert_eq!(read("OfANewerAgent").ok(), Some(Reason::AgentFailed));
    }
}
