//! What the operator tells its agent and what the agent answers.
//!
//! The operator writes one task as JSON into the environment variable [`TASK_VARIABLE`] of the agent's
//! container; the agent answers with one report as JSON in the container's termination message, which
//! Kubernetes caps at 4096 bytes and Fairway at [`REPORT_LIMIT`]. Neither ever holds a secret: connection
//! strings and passwords reach the agent through variables that the kubelet fills from Secrets.

use fairway_crds::Reason;
use serde::{Deserialize, Serialize};

/// The variable that holds the task as JSON.
pub const TASK_VARIABLE: &str = "FAIRWAY_TASK";
/// The connection string, filled by the kubelet from `database.connection.urlFrom`.
pub const DATABASE_URL_VARIABLE: &str = "FAIRWAY_DATABASE_URL";
/// The host, when the connection is given by parts.
pub const DATABASE_HOST_VARIABLE: &str = "FAIRWAY_DATABASE_HOST";
/// The port, when the connection is given by parts.
pub const DATABASE_PORT_VARIABLE: &str = "FAIRWAY_DATABASE_PORT";
/// The database's name, when the connection is given by parts.
pub const DATABASE_NAME_VARIABLE: &str = "FAIRWAY_DATABASE_NAME";
/// The role, when the connection is given by parts.
pub const DATABASE_USER_VARIABLE: &str = "FAIRWAY_DATABASE_USER";
/// The password, when the connection is given by parts.
pub const DATABASE_PASSWORD_VARIABLE: &str = "FAIRWAY_DATABASE_PASSWORD";
/// This pod's own address (downward API), by which the agent knows its database sessions.
pub const POD_IP_VARIABLE: &str = "FAIRWAY_POD_IP";
/// This pod's UID (downward API), which the ledger keeps.
pub const POD_UID_VARIABLE: &str = "FAIRWAY_POD_UID";
/// Variables that only the agent may see start with this; it removes them from a child's environment.
pub const VARIABLE_PREFIX: &str = "FAIRWAY_";
/// Largest report in bytes.
pub const REPORT_LIMIT: usize = 1024;
/// Where the agent's binary is put in a pod that uses another image.
pub const AGENT_DIRECTORY: &str = "/fairway";
/// The agent's binary in such a pod.
pub const AGENT_BINARY: &str = "/fairway/fairway-agent";
/// Where the backup volume is mounted.
pub const STORE_DIRECTORY: &str = "/store";
/// Where the scratch volume is mounted.
pub const SCRATCH_DIRECTORY: &str = "/scratch";
/// The port on which the probe agent listens.
pub const PROBE_PORT: u16 = 9797;
/// Used instead of [`PROBE_PORT`]; for tests.
pub const PROBE_PORT_VARIABLE: &str = "FAIRWAY_PROBE_PORT";

/// Where the report goes instead of `/dev/termination-log`; for tests.
pub const TERMINATION_LOG_VARIABLE: &str = "FAIRWAY_TERMINATION_LOG";
/// Folder (an emptyDir) in which a guard keeps what must outlive a restart of its container:
/// [`AGENT_DIRECTORY`] when absent.
pub const GUARD_DIRECTORY_VARIABLE: &str = "FAIRWAY_GUARD_DIRECTORY";
/// Used instead of [`STORE_DIRECTORY`]; for tests.
pub const STORE_DIRECTORY_VARIABLE: &str = "FAIRWAY_STORE_DIRECTORY";
/// Used instead of [`SCRATCH_DIRECTORY`]; for tests.
pub const SCRATCH_DIRECTORY_VARIABLE: &str = "FAIRWAY_SCRATCH_DIRECTORY";
/// The agent's exit code when another pod holds the migration's lock.
pub const EXIT_OTHER_OWNER: u8 = 75;

/// The reasons of [`Failure`]. Each has a runbook page of the same name.
pub mod reason {
    /// No connection to the database.
    pub const DATABASE_UNREACHABLE: &str = "DatabaseUnreachable";
    /// The role or its password is not accepted.
    pub const PASSWORD_REJECTED: &str = "PasswordRejected";
    /// The server has no database of that name.
    pub const DATABASE_MISSING: &str = "DatabaseMissing";
    /// TLS could not be agreed on, or the server's certificate is not trusted.
    pub const TLS_FAILED: &str = "TlsFailed";
    /// The connection's Secret does not hold a usable connection.
    pub const CONNECTION_INVALID: &str = "ConnectionInvalid";
    /// The connection goes through a transaction pooler.
    pub const TRANSACTION_POOLER: &str = "TransactionPooler";
    /// Schema `fairway` cannot be created, or belongs to someone else.
    pub const LEDGER_NOT_PERMITTED: &str = "LedgerNotPermitted";
    /// Another App releases to this database.
    pub const DATABASE_OWNED: &str = "DatabaseOwned";
    /// A run of this database has an outcome that nobody knows yet.
    pub const MIGRATION_UNSETTLED: &str = "MigrationUnresolved";
    /// Another pod holds the migration's lock.
    pub const MIGRATION_RUNNING: &str = "MigrationRunning";
    /// The ledger has no row of this run: it never started.
    pub const MIGRATION_NOT_STARTED: &str = "MigrationNotStarted";
    /// The migration ended with an error and changed nothing in the schema.
    pub const MIGRATION_FAILED: &str = "MigrationFailed";
    /// The migration did not end in time.
    pub const MIGRATION_TIMED_OUT: &str = "MigrationTimedOut";
    /// The migration failed and the schema is not what it was.
    pub const MIGRATION_PARTIAL: &str = "MigrationPartial";
    /// The migration's pod was cut off; the schema is what it was.
    pub const MIGRATION_CUT_OFF: &str = "MigrationInterrupted";
    /// What the migration did cannot be decided.
    pub const MIGRATION_UNKNOWN: &str = "MigrationUnknown";
    /// The migration's command is not in its image.
    pub const COMMAND_NOT_FOUND: &str = "CommandNotFound";
    /// A person said that the migration's work is not there.
    pub const MIGRATION_NOT_APPLIED: &str = "MigrationNotApplied";
    /// The database's image has no `pg_dump`.
    pub const TOOL_MISSING: &str = "ToolMissing";
    /// The database's image is of another major version than the server.
    pub const TOOL_VERSION_MISMATCH: &str = "ToolVersionMismatch";
    /// The backup's store or the scratch volume is full.
    pub const STORE_FULL: &str = "StoreFull";
    /// The backup's store cannot be written to.
    pub const STORE_READ_ONLY: &str = "StoreReadOnly";
    /// What the store gives back is not what was written.
    pub const STORE_CORRUPT: &str = "StoreCorrupt";
    /// `pg_dump` failed.
    pub const DUMP_FAILED: &str = "DumpFailed";
    /// The dump does not decode.
    pub const DECODE_FAILED: &str = "DecodeFailed";
    /// The agent was given a task that it cannot read, or was ended before it was done.
    pub const AGENT_FAILED: &str = "AgentFailed";

    /// All of them, for the test that each has a runbook page.
    pub const ALL: [&str; 26] = [
        DATABASE_UNREACHABLE,
        PASSWORD_REJECTED,
        DATABASE_MISSING,
        TLS_FAILED,
        CONNECTION_INVALID,
        TRANSACTION_POOLER,
        LEDGER_NOT_PERMITTED,
        DATABASE_OWNED,
        MIGRATION_UNSETTLED,
        MIGRATION_RUNNING,
        MIGRATION_NOT_STARTED,
        MIGRATION_FAILED,
        MIGRATION_TIMED_OUT,
        MIGRATION_PARTIAL,
        MIGRATION_CUT_OFF,
        MIGRATION_UNKNOWN,
        COMMAND_NOT_FOUND,
        MIGRATION_NOT_APPLIED,
        TOOL_MISSING,
        TOOL_VERSION_MISMATCH,
        STORE_FULL,
        STORE_READ_ONLY,
        STORE_CORRUPT,
        DUMP_FAILED,
        DECODE_FAILED,
        AGENT_FAILED,
    ];
}

/// One unit of work for the agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Task {
    /// Check that the release can be carried out; changes nothing that lasts.
    Preflight(PreflightTask),
    /// Dump the database into the store and prove that the dump decodes.
    Backup(BackupTask),
    /// Run the migration as a child process, fenced by lock and ledger.
    Migrate(MigrationTask),
    /// Hold lock and ledger row beside an application that migrates itself when it starts.
    Guard(GuardTask),
    /// Read the ledger and, where a run was cut off, settle its outcome.
    Settle(SettleTask),
    /// Answer probe requests that need a header from a Secret.
    Probe(ProbeTask),
}

/// Who asks: the App and Release, for the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Requester {
    /// The App's namespace.
    pub namespace: String,
    /// The App's name.
    pub app: String,
    /// The Release's name; empty for work that was asked for by hand.
    pub release: String,
}

/// See [`Task::Preflight`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PreflightTask {
    /// Who asks.
    pub requester: Requester,
    /// Whether a migration will follow: then schema `fairway` must be creatable and the ledger free.
    pub migrates: bool,
    /// Whether a backup store is mounted at [`STORE_DIRECTORY`] and must be writable.
    pub store: bool,
}

/// See [`Task::Backup`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupTask {
    /// Who asks.
    pub requester: Requester,
    /// Folder of this backup under [`STORE_DIRECTORY`], relative, e.g. `shop/crm/crm-42-1a2b3c4d`.
    pub set: String,
    /// With scratch, `pg_dump -Fd -j` into [`SCRATCH_DIRECTORY`]; without, `-Fc` streamed.
    pub scratch: bool,
    /// Image references by container, kept in the manifest.
    pub images: std::collections::BTreeMap<String, String>,
}

/// Identity of one migration, as the ledger keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunIdentity {
    /// Key of the ledger row; the same for every pod that may try this run.
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
    /// Name shown in status.
    pub name: String,
    /// The statement, run in a read-only transaction.
    pub sql: String,
    /// First column of the first row as text.
    pub expect: String,
}

/// See [`Task::Migrate`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MigrationTask {
    /// Who asks.
    pub requester: Requester,
    /// Which run.
    pub run: RunIdentity,
    /// Seconds after which the child is ended.
    pub timeout_seconds: u64,
    /// The command and its arguments.
    pub command: Vec<String>,
    /// Run after the child exited 0.
    pub checks: Vec<SqlCheck>,
}

/// See [`Task::Guard`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GuardTask {
    /// Who asks.
    pub requester: Requester,
    /// Which run.
    pub run: RunIdentity,
    /// Seconds after which the migration counts as failed.
    pub timeout_seconds: u64,
    /// Asked on these ports of 127.0.0.1 until all pass `consecutive` times in a row; that is the migration's
    /// success. The header values from Secrets come in variables named by [`HttpRequest::headers`].
    pub health: Vec<(u16, HttpRequest)>,
    /// Passes in a row.
    pub success_threshold: u32,
    /// Milliseconds between rounds.
    pub period_milliseconds: u64,
    /// Run after health passed.
    pub checks: Vec<SqlCheck>,
}

/// See [`Task::Settle`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SettleTask {
    /// Who asks.
    pub requester: Requester,
    /// Which run.
    pub run: RunIdentity,
    /// A person's verdict on a run whose outcome could not be decided; recorded in the ledger.
    pub resolution: Option<Resolution>,
    /// Seconds to wait for a run whose pod is still alive and holds the lock.
    pub timeout_seconds: u64,
    /// The annotation's token, which the ledger keeps beside the verdict.
    pub resolution_token: Option<String>,
}

/// What a person found when looking at the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Resolution {
    /// The migration's work is there.
    Applied,
    /// Nothing of it is there (or it was undone by hand).
    NotApplied,
}

/// See [`Task::Probe`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbeTask {
    /// SHA-256 (hex) of the bearer token that the operator presents; any other caller gets 401.
    pub token_sha256: String,
    /// The requests that this pod may make, addressed by index. Ports and paths are fixed here; only the
    /// pod address comes from the caller.
    pub requests: Vec<(u16, HttpRequest)>,
}

/// The body of `POST /probe` to the probe agent; the answer is a [`ProbeVerdict`]. The operator's token comes
/// as `Authorization: Bearer …`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbeCall {
    /// Which of [`ProbeTask::requests`].
    pub index: usize,
    /// The pod's address.
    pub address: String,
}

/// One health request to one port of one pod, and what its answer must be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpRequest {
    /// `HTTP` or `HTTPS`; certificates of pods are not verified, as with a kubelet probe.
    pub scheme: Scheme,
    /// Path and query, starting with `/`.
    pub path: String,
    /// `Host` header; the pod's address when absent.
    pub host: Option<String>,
    /// Further headers.
    pub headers: Vec<Header>,
    /// Expected status code.
    pub status: u16,
    /// Every member given here must be in the JSON answer with this value (objects compare recursively
    /// by the members given, everything else by equality).
    pub json: Option<serde_json::Value>,
}

/// Scheme of a health request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Scheme {
    /// Plain HTTP/1.1.
    Http,
    /// TLS.
    Https,
}

/// A request header: a literal or the name of a variable that the kubelet filled from a Secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    /// Header name.
    pub name: String,
    /// Literal value.
    pub value: Option<String>,
    /// Name of the environment variable that holds the value.
    pub value_from_variable: Option<String>,
}

/// Whose fault a failure is: decides between waiting and stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Cause {
    /// The environment (store full, database away, wrong password): retried with backoff until the deadline.
    Environment,
    /// The version being released: final.
    Version,
}

/// Why something failed. `reason` is CamelCase, stable, and has a runbook page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// Whose fault.
    pub cause: Cause,
    /// Stable reason, e.g. `DatabaseUnreachable`.
    pub reason: String,
    /// One sentence with the mend; never a secret.
    pub message: String,
}

impl Failure {
    /// The reason; [`Reason::AgentFailed`] when an agent of another version gives one that this version does not know.
    pub fn reason(&self) -> Reason {
        self.reason.parse().unwrap_or(Reason::AgentFailed)
    }
}

/// The answer to [`Task::Preflight`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PreflightReport {
    /// One line per check, in the order in which they ran: name and verdict (no values).
    pub checks: Vec<(String, bool)>,
    /// What stops the release. A check may be false without stopping it: `collation`, `staleLocks`.
    pub failure: Option<Failure>,
    /// Server version, e.g. `15.18`.
    pub server_version: Option<String>,
    /// Size of the database in bytes.
    pub database_bytes: Option<u64>,
}

/// The answer to [`Task::Backup`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupReport {
    /// Set when the backup is complete and decoded.
    pub evidence: Option<BackupEvidence>,
    /// Set otherwise.
    pub failure: Option<Failure>,
}

/// What proves a backup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupEvidence {
    /// `Decoded` when `pg_restore -f /dev/null` read it all.
    pub level: String,
    /// Bytes in the store.
    pub bytes: u64,
    /// SHA-256 of the stored dump, hex, hashed while writing and again when read back.
    pub sha256: String,
    /// Start of the dump (RFC 3339, the database server's clock).
    pub taken_at: String,
    /// Version of the server.
    pub server_version: String,
    /// Fingerprint of the schema at the dump.
    pub fingerprint: String,
    /// Seconds from start to manifest.
    pub seconds: f64,
    /// What is not in it, or was found beside it: sentences for people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// How a migration ended, as the ledger says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MigrationOutcome {
    /// It ran and committed.
    Applied,
    /// The ledger already had this image digest and command: nothing was run.
    AlreadyApplied,
    /// It failed and the schema is what it was before. Rows may still have changed.
    Failed,
    /// It failed and the schema changed.
    Partial,
    /// It was cut off and what it did cannot be decided.
    Unknown,
    /// Another run of this database is not settled, so this one was not started.
    Blocked,
    /// It never got as far as starting: the database or the lock could not be had.
    NotStarted,
    /// Only [`Task::Settle`] says this: another pod still holds the lock, or the database cannot be asked, so
    /// nothing is decided; ask again.
    Undecided,
}

/// The answer to [`Task::Migrate`], [`Task::Guard`] and [`Task::Settle`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MigrationReport {
    /// How it ended.
    pub outcome: MigrationOutcome,
    /// Set for every outcome but `Applied` and `AlreadyApplied`.
    pub failure: Option<Failure>,
    /// Fingerprint before.
    pub before: Option<String>,
    /// Fingerprint after.
    pub after: Option<String>,
    /// How long it ran.
    pub seconds: Option<f64>,
    /// The child's exit code (128 + signal when it was killed).
    pub exit_code: Option<i32>,
    /// The last SQLSTATE in its last lines of output.
    pub sqlstate: Option<String>,
    /// Last error line, every value of the environment redacted, at most 200 bytes.
    pub last_error: Option<String>,
    /// The ledger's newest committed run is of another image: the schema is ahead of this image.
    pub schema_ahead: bool,
    /// A check of the migration that did not hold after it was applied.
    pub failed_check: Option<String>,
}

/// One verdict of a health request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ProbeVerdict {
    /// The answer was as expected.
    Passed,
    /// The pod answered something else, or nothing in time: one sentence.
    Failed(String),
    /// The connection was refused: a closed port, or the network. A pod that has answered before has closed it.
    Refused(String),
    /// No connection could be made to the pod's address: the network.
    Unreachable(String),
}
