//! The throwaway server: its data directory, its settings, and its process.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Stdio,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use fairway_protocol::{Failure, Reason};
use rustix::process::{Pid, Signal, kill_process};

use super::wire::Started;
use crate::{
    backup::{
        process::{Programs, Running},
        tools::Tools,
    },
    failure::environment,
    output::Tail,
    redact::Redactor,
    text::shortened,
};

/// Longest time for which the server may take to accept connections.
const READY: Duration = Duration::from_secs(60);
/// Pause between two looks whether it does.
const PAUSE: Duration = Duration::from_millis(20);
/// Number in the name of the server's socket.
const PORT: u16 = 5432;
/// Longest message of the server that is shown, in bytes.
const SHOWN: usize = 200;
/// The line of `postmaster.pid` that says whether the server accepts connections, counted from zero:
/// <https://github.com/postgres/postgres/blob/REL_15_STABLE/src/include/utils/pidfile.h>.
const STATUS_LINE: usize = 7;

/// What no setting of the App may change: the server is reached by its socket alone, and need not survive a crash. Its log
/// could hold rows, so that it has none but what keeps it from starting. Parallel workers need a shared memory that
/// containers hardly have; `pg_restore` builds several indexes at once instead.
const SETTINGS: [(&str, &str); 16] = [
    ("listen_addresses", ""),
    ("fsync", "off"),
    ("synchronous_commit", "off"),
    ("full_page_writes", "off"),
    ("wal_level", "minimal"),
    ("max_wal_senders", "0"),
    ("archive_mode", "off"),
    ("autovacuum", "off"),
    ("max_parallel_maintenance_workers", "0"),
    ("max_parallel_workers_per_gather", "0"),
    ("jit", "off"),
    ("lc_messages", "C"),
    ("logging_collector", "off"),
    ("log_min_messages", "fatal"),
    ("log_min_error_statement", "panic"),
    ("log_statement", "none"),
];
/// Settings that an App may change.
const DEFAULTS: [(&str, &str); 4] = [
    ("shared_buffers", "32MB"),
    ("maintenance_work_mem", "64MB"),
    ("max_connections", "20"),
    ("max_wal_size", "1GB"),
];

/// A running server.
pub(super) struct Server {
    /// The programs of its version.
    pub(super) tools: Tools,
    /// Its roles.
    pub(super) started: Started,
    process: Running,
}

impl Server {
    /// Starts a server with a new data directory in a folder, in place of what an earlier one left there.
    ///
    /// # Errors
    /// `CloneFailed` with the server's own words.
    pub(super) fn start(
        tools: Tools,
        folder: &Path,
        socket: &Path,
        settings: &BTreeMap<String, String>,
        programs: &Arc<Programs>,
    ) -> Result<Self, Failure> {
        if let Some(name) = no_name(settings) {
            return Err(failed(&format!(
                "{name:?} in database.clone.settings is no name of a setting"
            )));
        }
        let started = roles().map_err(|error| failed(&error.to_string()))?;
        let data = folder.join("data");
        remove(fs::remove_dir_all(&data))
            .and_then(|()| remove_stale_sockets(socket))
            .map_err(|error| failed(&error.to_string()))?;
        initialize(&tools, folder, &data, &started, programs)?;
        configure(&data, socket, settings, &started).map_err(|error| failed(&error.to_string()))?;
        let mut command = tools.offline("postgres");
        command.arg("-D").arg(&data).stdout(Stdio::null());
        // It must outlive the program that restores, so that it is not the one that runs.
        let process =
            Running::start(&mut command, &Arc::default()).map_err(|error| failed(&error.to_string()))?;
        match wait_until_ready(&process, &data) {
            Ok(true) => Ok(Self {
                tools,
                started,
                process,
            }),
            Ok(false) => {
                end(&process);
                let errors = process.end().map(|(_, errors)| errors).unwrap_or_default();
                Err(failed(&last(&errors)))
            }
            Err(error) => {
                end(&process);
                process.kill();
                Err(failed(&error.to_string()))
            }
        }
    }

    /// Stops the server and forgets its data.
    pub(super) fn stop(self) {
        end(&self.process);
        // What it says at its end is of no use.
        let _ = self.process.end();
    }
}

/// Asks the server to end at once.
fn end(process: &Running) {
    // It may have ended by itself.
    let _ = kill_process(Pid::from_child(&process.child), Signal::QUIT);
}

/// Names that no role of another server has, and a password.
fn roles() -> io::Result<Started> {
    let random =
        || fs::read_to_string("/proc/sys/kernel/random/uuid").map(|text| text.trim().replace('-', ""));
    let name = random()?;
    Ok(Started {
        superuser: format!("fairway_{name}"),
        password: random()?,
        restorer: format!("fairway_restorer_{name}"),
    })
}

/// Nothing to remove is as good as removed.
pub(super) fn remove(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

/// A socket that a killed server left would keep the next one from starting.
fn remove_stale_sockets(folder: &Path) -> io::Result<()> {
    for name in [format!(".s.PGSQL.{PORT}"), format!(".s.PGSQL.{PORT}.lock")] {
        remove(fs::remove_file(folder.join(name)))?;
    }
    Ok(())
}

fn initialize(
    tools: &Tools,
    folder: &Path,
    data: &Path,
    started: &Started,
    programs: &Arc<Programs>,
) -> Result<(), Failure> {
    let password = || {
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(started.password.as_bytes())?;
        Ok::<_, io::Error>(file)
    };
    let password = password().map_err(|error| failed(&error.to_string()))?;
    let mut command = tools.offline("initdb");
    command
        .args([
            "--auth=scram-sha-256",
            "--no-sync",
            "--encoding=UTF8",
            "--locale=C",
            "--username",
            &started.superuser,
            "--pwfile",
        ])
        .arg(password.path())
        .arg("--pgdata")
        .arg(data)
        .stdout(Stdio::null());
    let ended = Running::start(&mut command, programs).and_then(Running::end);
    let (status, errors) = ended.map_err(|error| failed(&error.to_string()))?;
    match status.success() {
        true => Ok(()),
        false => Err(failed(&last(&errors))),
    }
}

fn configure(
    data: &Path,
    socket: &Path,
    settings: &BTreeMap<String, String>,
    started: &Started,
) -> io::Result<()> {
    fs::write(
        data.join("postgresql.conf"),
        configuration(&socket.display().to_string(), settings),
    )?;
    // The dump's code may reach the socket too: it must not become the superuser by it.
    let admitted = format!(
        "local all \"{}\" scram-sha-256\nlocal all all trust\n",
        started.superuser
    );
    let file = data.join("pg_hba.conf");
    fs::write(&file, admitted)?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600))
}

/// The content of `postgresql.conf`.
fn configuration(socket: &str, settings: &BTreeMap<String, String>) -> String {
    let port = PORT.to_string();
    let given = settings
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    let last = [
        ("unix_socket_directories", socket),
        ("unix_socket_permissions", "0700"),
        ("port", port.as_str()),
    ];
    let mut text = String::new();
    // Of two lines with the same name the last one counts.
    for (name, value) in DEFAULTS.into_iter().chain(given).chain(SETTINGS).chain(last) {
        let value = value
            .replace('\\', "\\\\")
            .replace('\'', "''")
            .replace(['\n', '\r'], " ");
        // Writing into a String cannot fail.
        let _ = writeln!(text, "{name} = '{value}'");
    }
    text
}

/// The first name that is none of a setting: it could be a directive, or end its line.
fn no_name(settings: &BTreeMap<String, String>) -> Option<&str> {
    let is_name = |name: &str| {
        let mut signs = name.chars();
        let first = signs.next();
        first.is_some_and(|sign| sign.is_ascii_alphabetic() || sign == '_')
            && signs.all(|sign| sign.is_ascii_alphanumeric() || sign == '_' || sign == '.')
    };
    settings.keys().map(String::as_str).find(|name| !is_name(name))
}

/// Whether the server accepts connections, or has ended.
fn wait_until_ready(process: &Running, data: &Path) -> io::Result<bool> {
    let deadline = Instant::now() + READY;
    loop {
        let pid_file = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
        if pid_file.lines().nth(STATUS_LINE).map(str::trim) == Some("ready") {
            return Ok(true);
        }
        if process.has_ended()? || Instant::now() > deadline {
            return Ok(false);
        }
        thread::sleep(PAUSE);
    }
}

/// Why a program failed: which setting the server does not take, before it says that there is one; or its last error.
fn last(errors: &Tail) -> String {
    let of_setting = |line: &&str| {
        line.contains("for parameter \"") || line.contains("unrecognized configuration parameter")
    };
    if let Some(line) = errors.lines().find(of_setting) {
        let said = line.split_once(":  ").map_or(line, |(_, said)| said);
        return shortened(said, SHOWN);
    }
    errors
        .last_error(&Redactor::new([]))
        .unwrap_or_else(|| "without an error message".to_owned())
}

fn failed(why: &str) -> Failure {
    environment(
        Reason::CloneFailed,
        format!(
            "The throwaway server that a backup is restored into did not start ({why}). Check database.image and \
             database.clone, or set backup.verify to Decoded."
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(name: &str, value: &str) -> BTreeMap<String, String> {
        [(name.to_owned(), value.to_owned())].into()
    }

    #[test]
    fn no_setting_makes_the_server_listen_or_ends_its_line() {
        let text = configuration("/clone", &settings("listen_addresses", "*'\nfsync = 'on"));
        let lines: Vec<_> = text.lines().collect();
        let last = |name: &str| {
            let found = lines
                .iter()
                .rev()
                .find(|line| line.split(' ').next() == Some(name));
            found.copied().unwrap_or_default()
        };
        assert_eq!(last("listen_addresses"), "listen_addresses = ''");
        assert_eq!(last("fsync"), "fsync = 'off'");
        assert_eq!(
            last("unix_socket_directories"),
            "unix_socket_directories = '/clone'"
        );
        let text = configuration("/clone", &settings("work_mem", "8MB"));
        assert!(text.contains("work_mem = '8MB'\n"));
    }

    #[test]
    fn the_setting_at_which_a_server_does_not_start_is_named() {
        let mut errors = Tail::default();
        for line in [
            "2026-01-01 00:00:00.000 GMT [7] LOG:  invalid value for parameter \"max_connections\": \"many\"",
            "2026-01-01 00:00:00.000 GMT [7] FATAL:  configuration file \"postgresql.conf\" contains errors",
        ] {
            errors.push(line.as_bytes());
        }
        assert_eq!(
            last(&errors),
            "invalid value for parameter \"max_connections\": \"many\""
        );
    }

    #[test]
    fn a_directive_is_no_setting() {
        for name in ["include '/etc/passwd'", "", "a b", "a=b", "1a"] {
            assert_eq!(no_name(&settings(name, "x")), Some(name));
        }
        for name in ["work_mem", "timescaledb.max_background_workers"] {
            assert_eq!(no_name(&settings(name, "x")), None);
        }
    }
}
