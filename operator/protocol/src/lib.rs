//! What the operator and its agent tell each other.
//!
//! The operator writes one [`Task`] as JSON into the environment variable [`TASK_VARIABLE`] of the agent's
//! container; the agent answers with one report as JSON in the container's termination message, which
//! Kubernetes caps at 4096 bytes and Fairway at [`REPORT_LIMIT`]. Neither ever holds a secret: connection
//! strings and passwords reach the agent through variables that the kubelet fills from Secrets.

mod probe;
mod report;
mod task;

pub use fairway_crds::{Reason, app::Store};
pub use probe::{Header, HttpRequest, ProbeCall, ProbeVerdict, Scheme};
pub use report::{
    BackupEvidence, BackupReport, Cause, Failure, MigrationOutcome, MigrationReport, PreflightReport,
};
pub use task::{
    BackupTask, GuardTask, MigrationTask, PreflightTask, ProbeTask, Requester, Resolution, RunIdentity,
    SettleTask, SqlCheck, Task,
};

/// The variable that holds the task as JSON.
pub const TASK_VARIABLE: &str = "FAIRWAY_TASK";
/// The variable that holds the connection string, filled by the kubelet from `database.connection.urlFrom`.
pub const DATABASE_URL_VARIABLE: &str = "FAIRWAY_DATABASE_URL";
/// The variable that holds the database's host, when the connection is given by parts.
pub const DATABASE_HOST_VARIABLE: &str = "FAIRWAY_DATABASE_HOST";
/// The variable that holds the database's port, when the connection is given by parts.
pub const DATABASE_PORT_VARIABLE: &str = "FAIRWAY_DATABASE_PORT";
/// The variable that holds the database's name, when the connection is given by parts.
pub const DATABASE_NAME_VARIABLE: &str = "FAIRWAY_DATABASE_NAME";
/// The variable that holds the database role, when the connection is given by parts.
pub const DATABASE_USER_VARIABLE: &str = "FAIRWAY_DATABASE_USER";
/// The variable that holds the role's password, when the connection is given by parts.
pub const DATABASE_PASSWORD_VARIABLE: &str = "FAIRWAY_DATABASE_PASSWORD";
/// The variable that holds the pod's own addresses (downward API), by which the agent knows its database sessions.
pub const POD_IP_VARIABLE: &str = "FAIRWAY_POD_IP";
/// The variable that holds the pod's UID (downward API), which the ledger records.
pub const POD_UID_VARIABLE: &str = "FAIRWAY_POD_UID";
/// Prefix of the variables that only the agent may see; it removes them from a child's environment.
pub const VARIABLE_PREFIX: &str = "FAIRWAY_";
/// Largest report in bytes.
pub const REPORT_LIMIT: usize = 1024;
/// Folder into which the agent's binary is copied in a pod that uses another image.
pub const AGENT_DIRECTORY: &str = "/fairway";
/// The agent's binary in such a pod.
pub const AGENT_BINARY: &str = "/fairway/fairway-agent";
/// Folder at which a store that is a volume is mounted.
pub const STORE_DIRECTORY: &str = "/store";
/// Folder at which the scratch volume is mounted.
pub const SCRATCH_DIRECTORY: &str = "/scratch";
/// The port on which the probe agent listens.
pub const PROBE_PORT: u16 = 9797;
/// The variable with a port to use instead of [`PROBE_PORT`]; for tests.
pub const PROBE_PORT_VARIABLE: &str = "FAIRWAY_PROBE_PORT";

/// The variable with a file to write the report to instead of `/dev/termination-log`; for tests.
pub const TERMINATION_LOG_VARIABLE: &str = "FAIRWAY_TERMINATION_LOG";
/// The variable with the folder (an emptyDir) in which a guard keeps what must outlive a restart of its container;
/// [`AGENT_DIRECTORY`] when absent.
pub const GUARD_DIRECTORY_VARIABLE: &str = "FAIRWAY_GUARD_DIRECTORY";
/// The variable with a folder to use instead of [`STORE_DIRECTORY`]; for tests.
pub const STORE_DIRECTORY_VARIABLE: &str = "FAIRWAY_STORE_DIRECTORY";
/// The variable with a folder to use instead of [`SCRATCH_DIRECTORY`]; for tests.
pub const SCRATCH_DIRECTORY_VARIABLE: &str = "FAIRWAY_SCRATCH_DIRECTORY";
/// The agent's exit code when another pod holds the migration lock.
pub const EXIT_OTHER_OWNER: u8 = 75;
