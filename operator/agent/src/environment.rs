//! The environment of the agent: its variables, and the paths and addresses that they set.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
};

use fairway_protocol::{
    AGENT_DIRECTORY, CLONE_DATA_DIRECTORY, CLONE_DATA_DIRECTORY_VARIABLE, CLONE_DIRECTORY,
    CLONE_DIRECTORY_VARIABLE, Failure, GUARD_DIRECTORY_VARIABLE, INPUTS_DIRECTORY, INPUTS_DIRECTORY_VARIABLE,
    POD_IP_VARIABLE, POD_UID_VARIABLE, PROBE_PORT, PROBE_PORT_VARIABLE, Reason, SCRATCH_DIRECTORY,
    SCRATCH_DIRECTORY_VARIABLE, STORE_CA_DIRECTORY, STORE_CA_DIRECTORY_VARIABLE, STORE_CA_FILE,
    STORE_DIRECTORY, STORE_DIRECTORY_VARIABLE, TERMINATION_LOG_VARIABLE,
};

use crate::{
    connection::Connection, failure::environment as environment_failure, redact::Redactor, text::sentence,
};

/// The variables of this process, read once.
#[derive(Clone)]
pub(crate) struct Environment {
    variables: BTreeMap<String, String>,
}

impl Environment {
    /// The variables of the process, and those that are in its memory alone; bytes that are not UTF-8 are replaced.
    pub(crate) fn of_process(sealed: BTreeMap<OsString, OsString>) -> Self {
        let text = |value: OsString| value.to_string_lossy().into_owned();
        Self {
            variables: std::env::vars_os()
                .chain(sealed)
                .map(|(name, value)| (text(name), text(value)))
                .collect(),
        }
    }

    /// The value of one variable.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned()
    }

    /// All variables.
    pub(crate) fn variables(&self) -> &BTreeMap<String, String> {
        &self.variables
    }

    /// This pod's address; empty when the pod was not given it.
    pub(crate) fn pod_ip(&self) -> String {
        self.get(POD_IP_VARIABLE).unwrap_or_default()
    }

    /// This pod's UID; empty when the pod was not given it.
    pub(crate) fn pod_uid(&self) -> String {
        self.get(POD_UID_VARIABLE).unwrap_or_default()
    }

    /// The file into which the report is written.
    pub(crate) fn termination_log(&self) -> PathBuf {
        self.path(TERMINATION_LOG_VARIABLE, "/dev/termination-log")
    }

    /// The folder in which a guard keeps its files.
    pub(crate) fn guard_directory(&self) -> PathBuf {
        self.path(GUARD_DIRECTORY_VARIABLE, AGENT_DIRECTORY)
    }

    /// The folder at which the store's volume is mounted.
    pub(crate) fn store_directory(&self) -> PathBuf {
        self.path(STORE_DIRECTORY_VARIABLE, STORE_DIRECTORY)
    }

    /// The file with the certificate authorities of the store's server, which need not be there.
    pub(crate) fn store_authorities(&self) -> PathBuf {
        self.path(STORE_CA_DIRECTORY_VARIABLE, STORE_CA_DIRECTORY)
            .join(STORE_CA_FILE)
    }

    /// The folder in which a backup may keep working files.
    pub(crate) fn scratch_directory(&self) -> PathBuf {
        self.path(SCRATCH_DIRECTORY_VARIABLE, SCRATCH_DIRECTORY)
    }

    /// The folder of the sockets by which agent and clone speak to each other.
    pub(crate) fn clone_directory(&self) -> PathBuf {
        self.path(CLONE_DIRECTORY_VARIABLE, CLONE_DIRECTORY)
    }

    /// The folder in which the throwaway server keeps its data.
    pub(crate) fn clone_data_directory(&self) -> PathBuf {
        self.path(CLONE_DATA_DIRECTORY_VARIABLE, CLONE_DATA_DIRECTORY)
    }

    /// The folder below which the ConfigMaps are that a migration reads.
    pub(crate) fn inputs_directory(&self) -> PathBuf {
        self.path(INPUTS_DIRECTORY_VARIABLE, INPUTS_DIRECTORY)
    }

    /// The port on which the probe agent listens.
    pub(crate) fn probe_port(&self) -> u16 {
        self.get(PROBE_PORT_VARIABLE)
            .and_then(|port| port.parse().ok())
            .unwrap_or(PROBE_PORT)
    }

    /// The connection to the database that the variables describe.
    ///
    /// # Errors
    /// `ConnectionInvalid`, with the part that cannot be used, never its value.
    pub(crate) fn connection(&self) -> Result<Connection, Failure> {
        Connection::from_variables(|name| self.get(name)).map_err(|error| {
            let text = sentence(&error.to_string());
            environment_failure(
                Reason::ConnectionInvalid,
                format!("{text} Correct the Secret that database.connection names."),
            )
        })
    }

    /// A redactor that hides every value of the environment, and what of the connection only a Secret says.
    pub(crate) fn redactor(&self) -> Redactor {
        let connection = Connection::from_variables(|name| self.get(name)).ok();
        let names = connection
            .as_ref()
            .map(Connection::secret_names)
            .unwrap_or_default();
        let password = connection.and_then(|connection| connection.password);
        Redactor::new(self.variables.values().cloned().chain(password)).with_names(names)
    }

    fn path(&self, variable: &str, default: &str) -> PathBuf {
        self.variables
            .get(variable)
            .map_or_else(|| Path::new(default).to_owned(), PathBuf::from)
    }
}
