//! What the operator and its agent tell each other.
//!
//! The operator writes one [`Task`] as JSON into the environment variable [`TASK_VARIABLE`] of the agent's
//! container; the agent answers with one report as JSON in the container's termination message, which
//! Kubernetes caps at 4096 bytes and Fairway at [`REPORT_LIMIT`]. Neither ever holds a secret: connection
//! strings and passwords reach the agent through variables that the kubelet fills from Secrets.

mod probe;
mod report;
mod task;
mod version;

pub use fairway_crds::{
    Reason,
    store::{Addressing, S3Credentials, S3Store, Store, VolumeStore, WebdavStore},
};
pub use probe::{Header, HttpRequest, ProbeCall, ProbeVerdict, Scheme};
pub use report::{
    BackupEvidence, BackupReport, Begun, Cause, Failure, Loss, MigrationOutcome, MigrationReport, PinReport,
    PreflightReport, PreparedDatabase, PruneOutcome, PruneReport, RestoreReport, SwappedDatabase,
};
pub use task::{
    BackupTask, GuardTask, MigratingContainer, MigrationTask, PreflightTask, ProbeTask, PruneTask,
    RequestedRun, Requester, Resolution, RestoreStep, RestoreTask, RunIdentity, SettleTask, SqlCheck, Task,
};
pub use version::{FIRST_PROTOCOL_VERSION, NewerReport, PROTOCOL_VERSION, Versioned, read_report};

/// The variable that holds the task as JSON, or the first part of it.
pub const TASK_VARIABLE: &str = "FAIRWAY_TASK";
/// The variable that holds the [version](PROTOCOL_VERSION) of the task; a task without it is of the first one.
pub const PROTOCOL_VARIABLE: &str = "FAIRWAY_PROTOCOL";
/// Most bytes of a task in one variable: Linux starts no program with a variable of more than 128 KiB.
pub const TASK_PART_LIMIT: usize = 100 * 1024;
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
/// The variable that holds the ID of the access key of a store that is a bucket.
pub const STORE_ACCESS_KEY_ID_VARIABLE: &str = "FAIRWAY_STORE_ACCESS_KEY_ID";
/// The variable that holds the secret part of the access key of a store that is a bucket.
pub const STORE_SECRET_ACCESS_KEY_VARIABLE: &str = "FAIRWAY_STORE_SECRET_ACCESS_KEY";
/// The variable that holds the session token of the access key of a store that is a bucket.
pub const STORE_SESSION_TOKEN_VARIABLE: &str = "FAIRWAY_STORE_SESSION_TOKEN";
/// The variable that holds the user of a store that is reached by WebDAV.
pub const STORE_USER_VARIABLE: &str = "FAIRWAY_STORE_USER";
/// The variable that holds the password of a store that is reached by WebDAV.
pub const STORE_PASSWORD_VARIABLE: &str = "FAIRWAY_STORE_PASSWORD";
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
/// Folder below which the ConfigMaps that a migration reads are mounted for the agent, one folder each.
pub const INPUTS_DIRECTORY: &str = "/fairway-inputs";
/// The variable with a folder to use instead of [`INPUTS_DIRECTORY`]; for tests.
pub const INPUTS_DIRECTORY_VARIABLE: &str = "FAIRWAY_INPUTS_DIRECTORY";
/// Folder at which a store that is a volume is mounted.
pub const STORE_DIRECTORY: &str = "/store";
/// Folder with the file [`STORE_CA_FILE`].
pub const STORE_CA_DIRECTORY: &str = "/store-ca";
/// Certificate authorities of a store's server, in PEM, where the App names some.
pub const STORE_CA_FILE: &str = "ca.pem";
/// The variable with a folder to use instead of [`STORE_CA_DIRECTORY`]; for tests.
pub const STORE_CA_DIRECTORY_VARIABLE: &str = "FAIRWAY_STORE_CA_DIRECTORY";
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
/// The agent's exit code when the node cannot run the programs of the image that it pins; its answer is a [`PinReport`].
pub const EXIT_OTHER_PLATFORM: u8 = 78;
/// The agent's exit code when another pod holds the migration lock.
pub const EXIT_OTHER_OWNER: u8 = 75;

/// The variables that hold a task: the first is [`TASK_VARIABLE`], further ones have a number.
pub fn split_task(text: &str) -> Vec<(String, String)> {
    let mut parts = Vec::new();
    let mut rest = text;
    loop {
        let (part, left) = rest.split_at(rest.floor_char_boundary(TASK_PART_LIMIT));
        parts.push((part_variable(parts.len() + 1), part.to_owned()));
        rest = left;
        if rest.is_empty() {
            return parts;
        }
    }
}

/// The task that such variables hold.
pub fn join_task(variable: impl Fn(&str) -> Option<String>) -> String {
    (1..)
        .map_while(|number| variable(&part_variable(number)))
        .collect()
}

fn part_variable(number: usize) -> String {
    match number {
        1 => TASK_VARIABLE.to_owned(),
        _ => format!("{TASK_VARIABLE}_{number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s18f_a_large_task_is_split_and_joined() {
        for length in [0, 1, TASK_PART_LIMIT, TASK_PART_LIMIT + 1, 3 * TASK_PART_LIMIT] {
            let task = "ä".repeat(length / 2 + 1);
            let variables = split_task(&task);
            assert!(variables.iter().all(|(_, value)| value.len() <= TASK_PART_LIMIT));
            let get = |name: &str| {
                let found = variables.iter().find(|(variable, _)| variable == name);
                found.map(|(_, value)| value.clone())
            };
            assert_eq!(join_task(get), task);
        }
    }
}
