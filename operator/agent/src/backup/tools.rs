//! PostgreSQL's own programs in the image that the pod runs.

use std::{
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

use fairway_protocol::{Failure, Level, Reason, VARIABLE_PREFIX};
use tempfile::NamedTempFile;

use super::process::Programs;
use crate::{
    connection::Connection, environment::Environment, failure::environment as environment_failure,
    redact::Redactor, tls,
};

/// The folders with the programs of one major version, by packager: Debian and the official image, RPM, Alpine,
/// Bitnami. They come before `PATH`, in which Debian has a wrapper script.
const FOLDERS: [&str; 4] = [
    "/usr/lib/postgresql/{major}/bin",
    "/usr/pgsql-{major}/bin",
    "/usr/libexec/postgresql{major}",
    "/opt/bitnami/postgresql/bin",
];

/// What a backup works with.
pub(crate) struct Kit {
    /// PostgreSQL's programs.
    pub(crate) tools: Tools,
    /// Major version of the server, and of its programs.
    pub(crate) major: u32,
    /// How they reach the database.
    pub(crate) login: Login,
    /// The scratch volume, where there is one.
    pub(crate) scratch: Option<PathBuf>,
    /// What hides the values of the environment in their errors.
    pub(crate) redactor: Redactor,
    /// The program that runs.
    pub(crate) programs: Arc<Programs>,
}

/// How PostgreSQL's programs reach the database. Its files are removed when it is dropped.
pub(crate) struct Login {
    /// The connection, as the agent itself uses it.
    pub(crate) connection: Connection,
    authorities: Option<NamedTempFile>,
}

impl Login {
    /// A login by this connection, for programs of this major version. Writes the files that libpq does not find by
    /// itself.
    ///
    /// # Errors
    /// `ConnectionInvalid` where these programs would not prove what the connection requires.
    pub(crate) fn new(connection: Connection, major: u32) -> Result<Self, Failure> {
        if let Some((key, since)) = connection.needs_libpq().filter(|(_, since)| major < *since) {
            return Err(environment_failure(
                Reason::ConnectionInvalid,
                format!(
                    "The connection string has {key}, which pg_dump of PostgreSQL {major} does not know: that came with \
                     PostgreSQL {since}. Remove it from the Secret that database.connection names; sslmode=verify-full \
                     proves the server to every version."
                ),
            ));
        }
        let authorities = tls::authorities_file(&connection).map_err(|error: io::Error| {
            environment_failure(
                Reason::AgentFailed,
                format!("The certificate authorities for pg_dump cannot be written to /tmp: {error}."),
            )
        })?;
        Ok(Self {
            connection,
            authorities,
        })
    }
}

/// PostgreSQL's programs of the server's major version.
#[derive(Clone, Debug)]
pub(crate) struct Tools {
    folder: PathBuf,
    /// Version of `pg_dump`, e.g. `15.14`.
    pub(crate) version: String,
}

impl Tools {
    /// A command that reaches the database by its environment alone.
    pub(crate) fn command(&self, program: &str, login: &Login) -> Command {
        let mut command = self.offline(program);
        command.envs(login.connection.libpq_variables());
        if let Some(file) = &login.authorities {
            command.env("PGSSLROOTCERT", file.path());
        }
        command
    }

    /// Whether the image has the server of these programs.
    fn has_server(&self) -> bool {
        ["initdb", "postgres"]
            .iter()
            .all(|program| self.folder.join(program).is_file())
    }

    /// The failure of a restore in an image without a server.
    fn without_server(&self) -> Failure {
        environment_failure(
            Reason::ToolMissing,
            format!(
                "database.image has pg_restore {} but not initdb and postgres beside it, so that a backup cannot be restored \
                 to prove it. Set database.image to the image that the server runs, or backup.verify to Decoded.",
                self.version
            ),
        )
    }

    /// A command that needs no database.
    pub(crate) fn offline(&self, program: &str) -> Command {
        let mut command = Command::new(self.folder.join(program));
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with(VARIABLE_PREFIX) || text.starts_with("PG") {
                command.env_remove(&name);
            }
        }
        // Messages in English, because they are read by the agent.
        command
            .env("LC_MESSAGES", "C")
            .env_remove("LC_ALL")
            .env_remove("LANGUAGE")
            .stdin(Stdio::null());
        command
    }
}

/// Finds the programs of a major version in the image, with all that proving a backup to this level needs.
///
/// # Errors
/// `ToolMissing` when the image has none or not the server that a restore needs, `ToolVersionMismatch` when it has those of
/// another version.
pub(crate) fn find(environment: &Environment, major: u32, level: Level) -> Result<Tools, Failure> {
    let tools = find_clients(environment, major)?;
    match level {
        Level::Restored if !tools.has_server() => Err(tools.without_server()),
        Level::Decoded | Level::Restored => Ok(tools),
    }
}

/// Finds the programs that dump and decode.
fn find_clients(environment: &Environment, major: u32) -> Result<Tools, Failure> {
    let packaged = FOLDERS
        .iter()
        .map(|folder| PathBuf::from(folder.replace("{major}", &major.to_string())));
    let path = environment
        .get("PATH")
        .unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".to_owned());
    let folders = packaged.chain(std::env::split_paths(&path).collect::<Vec<_>>());
    let mut other = None;
    for folder in folders {
        match version_in(&folder) {
            Some(version) if major_of(&version) == Some(major) => return Ok(Tools { folder, version }),
            Some(version) => other = other.or(Some(version)),
            None => {}
        }
    }
    Err(match other {
        Some(version) => environment_failure(
            Reason::ToolVersionMismatch,
            format!(
                "The server is PostgreSQL {major}, but database.image has pg_dump {version}. Set database.image to an \
                 image of PostgreSQL {major}."
            ),
        ),
        None => environment_failure(
            Reason::ToolMissing,
            format!(
                "database.image does not have all of pg_dump, pg_dumpall and pg_restore. Set it to an image of PostgreSQL \
                 {major}."
            ),
        ),
    })
}

fn version_in(folder: &Path) -> Option<String> {
    let programs = ["pg_dump", "pg_dumpall", "pg_restore"];
    if !programs.iter().all(|program| folder.join(program).is_file()) {
        return None;
    }
    let output = Command::new(folder.join("pg_dump"))
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .ok()?;
    parse_version(&String::from_utf8_lossy(&output.stdout))
}

/// `pg_dump (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)` has version 15.14.
fn parse_version(text: &str) -> Option<String> {
    let version = text
        .split_whitespace()
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    Some(version.to_owned())
}

fn major_of(version: &str) -> Option<u32> {
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_every_packager_is_read() {
        for (text, version, major) in [
            (
                "pg_dump (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n",
                "15.14",
                15,
            ),
            ("pg_dump (PostgreSQL) 18beta1\n", "18beta1", 18),
        ] {
            let read = parse_version(text).unwrap();
            assert_eq!(read, version);
            assert_eq!(major_of(&read), Some(major));
        }
    }
}
