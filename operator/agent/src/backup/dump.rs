//! From the database into the store.

use std::{
    fs, io,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
};

use fairway_protocol::{Failure, reason};
use rustix::{
    io::retry_on_intr,
    process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid},
};

use super::{
    manifest::StoredFile,
    store::{self, Folder},
    stream::{compress, pump},
    tools::{Login, Tools},
};
use crate::{failure::environment as environment_failure, output::Tail, redact::Redactor};

/// Longest wait for a table that somebody has locked.
const LOCK_WAIT: &str = "--lock-wait-timeout=300000";
/// The database in the folder, by format.
pub(crate) const CUSTOM_FILE: &str = "database.dump.zst";
pub(crate) const DIRECTORY_FILE: &str = "database.tar.zst";
const GLOBALS_FILE: &str = "globals.sql.zst";

/// Everything that a dump needs.
pub(crate) struct Source<'a> {
    pub(crate) tools: &'a Tools,
    pub(crate) login: &'a Login,
    /// The exported snapshot that the dump shows.
    pub(crate) snapshot: &'a str,
    pub(crate) redactor: &'a Redactor,
    pub(crate) programs: &'a Arc<Programs>,
}

/// What went wrong while a file was filled.
pub(crate) enum FillError {
    /// The store.
    Store(io::Error),
    /// Anything else.
    Failure(Failure),
}

impl From<io::Error> for FillError {
    fn from(error: io::Error) -> Self {
        Self::Store(error)
    }
}

impl FillError {
    fn failure(self) -> Failure {
        match self {
            Self::Store(error) => store::failure("writing the dump", &error),
            Self::Failure(failure) => failure,
        }
    }
}

/// The program that runs, known to the threads that do not wait for it.
#[derive(Debug, Default)]
pub(crate) struct Programs(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    group: Option<Pid>,
    /// Nothing is to run any more.
    over: bool,
}

impl Programs {
    /// Ends the program that runs, with its helpers, and any that is started later.
    pub(crate) fn end(&self) {
        let mut known = self.known();
        known.over = true;
        known.kill();
    }

    fn started(&self, child: &Child) {
        let mut known = self.known();
        known.group = Some(Pid::from_child(child));
        if known.over {
            known.kill();
        }
    }

    fn ended(&self) {
        self.known().group = None;
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // What is known is written at once, so a thread that panicked has left it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn kill(&self) {
        if let Some(group) = self.group {
            // It may have ended by itself.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// A program whose standard error is read beside its work.
pub(crate) struct Running {
    pub(crate) child: Child,
    errors: JoinHandle<Tail>,
    programs: Arc<Programs>,
}

impl Running {
    /// Starts it.
    pub(crate) fn start(command: &mut Command, programs: &Arc<Programs>) -> io::Result<Self> {
        let mut child = command.process_group(0).stderr(Stdio::piped()).spawn()?;
        programs.started(&child);
        let errors = child.stderr.take();
        let errors = std::thread::spawn(move || {
            let mut tail = Tail::default();
            let mut text = Vec::new();
            if let Some(mut errors) = errors {
                // What cannot be read is missing from a message, no more.
                let _ = pump(&mut errors, &mut text);
            }
            text.split(|byte| *byte == b'\n').for_each(|line| tail.push(line));
            tail
        });
        Ok(Self {
            child,
            errors,
            programs: programs.clone(),
        })
    }

    /// Waits for its end; returns what it said about it.
    pub(crate) fn end(mut self) -> io::Result<(ExitStatus, Tail)> {
        drop(self.child.stdin.take());
        let status = self.reap()?;
        Ok((status, self.errors.join().unwrap_or_default()))
    }

    /// Ends it at once.
    fn abandon(mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.reap();
    }

    /// Until its status is taken, its number is nobody else's: so it is forgotten before that.
    fn reap(&mut self) -> io::Result<ExitStatus> {
        let pid = Pid::from_child(&self.child);
        let seen = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        retry_on_intr(|| waitid(WaitId::Pid(pid), seen))?;
        self.programs.ended();
        self.child.wait()
    }
}

fn program_failed(program: &str, error: &io::Error) -> Failure {
    environment_failure(
        reason::DUMP_FAILED,
        format!("{program} could not be started: {error}."),
    )
}

fn last_line(said: &Tail, redactor: &Redactor) -> String {
    said.last_error(redactor)
        .unwrap_or_else(|| "it said nothing".to_owned())
}

/// What a failed dump means.
fn dump_failed(program: &str, said: &Tail, redactor: &Redactor) -> Failure {
    let line = last_line(said, redactor);
    if said.any(scratch_is_full) {
        return environment_failure(
            reason::STORE_FULL,
            "The scratch volume is full; raise backup.scratch.size above the size of the database.",
        );
    }
    if let Some(failure) = not_connected(said, &line) {
        return failure;
    }
    environment_failure(
        reason::DUMP_FAILED,
        format!(
            "{program} failed ({line}); let the role of database.connection read all of the database, or mend what it names."
        ),
    )
}

/// Whether the program itself found no room, which it only needs in the scratch volume, rather than the server of
/// whose error it tells.
fn scratch_is_full(line: &str) -> bool {
    let is_full = ["No space left on device", "Disk quota exceeded"]
        .iter()
        .any(|words| line.contains(words));
    let is_the_servers = ["ERROR:", "FATAL:", "PANIC:", "query failed", "from server"]
        .iter()
        .any(|words| line.contains(words));
    is_full && !is_the_servers
}

/// What a program that lost its connection, or never had one, means.
fn not_connected(said: &Tail, line: &str) -> Option<Failure> {
    let refused = |line: &str| {
        [
            "connection to server",
            "could not connect",
            "connection to database",
        ]
        .iter()
        .any(|words| line.contains(words))
    };
    let by_tls = |line: &str| {
        let tls = ["certificate", "private key", "SSL", "TLS"];
        refused(line) && tls.iter().any(|word| line.contains(word))
    };
    let gone = |line: &str| {
        ["server closed the connection", "terminating connection"]
            .iter()
            .any(|words| line.contains(words))
    };
    if said.any(by_tls) {
        return Some(environment_failure(
            reason::TLS_FAILED,
            format!(
                "TLS of PostgreSQL's own programs with the database failed ({line}); check sslmode, sslrootcert, sslcert \
                 and sslkey in the connection string."
            ),
        ));
    }
    let what = match (said.any(gone), said.any(refused)) {
        (true, _) => "The database went away during the backup",
        (false, true) => "PostgreSQL's own programs cannot reach the database",
        (false, false) => return None,
    };
    Some(environment_failure(
        reason::DATABASE_UNREACHABLE,
        format!("{what} ({line}); see that it stays reachable."),
    ))
}

/// Proves that `pg_dump` reaches the database: libpq is asked for more than the agent's own driver, such as a
/// private key that nobody else may read.
///
/// # Errors
/// What a backup would fail with.
pub(crate) fn check_reach(tools: &Tools, login: &Login, redactor: &Redactor) -> Result<(), Failure> {
    let mut command = tools.command("pg_dump", login);
    // It looks for the schema right after it has connected, and ends when there is none.
    command
        .args([
            "--schema-only",
            "--no-password",
            "--schema=fairway no such schema",
        ])
        .stdout(Stdio::null());
    let running =
        Running::start(&mut command, &Arc::default()).map_err(|error| program_failed("pg_dump", &error))?;
    let (status, said) = running.end().map_err(|error| program_failed("pg_dump", &error))?;
    match status.success() || said.any(|line| line.contains("no matching schemas were found")) {
        true => Ok(()),
        false => Err(dump_failed("pg_dump", &said, redactor)),
    }
}

/// `pg_dump -Fc`, streamed.
pub(crate) fn custom(source: &Source<'_>, folder: &Folder) -> Result<StoredFile, Failure> {
    folder.write(CUSTOM_FILE, |file| {
        let fill = |to: &mut dyn io::Write| {
            let mut command = source.tools.command("pg_dump", source.login);
            command
                .args(["--format=custom", "--compress=0", "--no-password", LOCK_WAIT])
                .arg(format!("--snapshot={}", source.snapshot))
                .stdout(Stdio::piped());
            stream_into(&mut command, "pg_dump", source, to)
        };
        compress(CUSTOM_FILE, file, fill)
            .map_err(FillError::failure)
            .and_then(not_empty)
    })
}

fn stream_into(
    command: &mut Command,
    program: &str,
    source: &Source<'_>,
    to: &mut dyn io::Write,
) -> Result<(), FillError> {
    match stream(command, program, source.programs, to)? {
        Ok(()) => Ok(()),
        Err(said) => Err(FillError::Failure(dump_failed(program, &said, source.redactor))),
    }
}

/// Copies what a program writes. When it fails, what it said.
fn stream(
    command: &mut Command,
    program: &str,
    programs: &Arc<Programs>,
    to: &mut dyn io::Write,
) -> Result<Result<(), Tail>, FillError> {
    let mut running = Running::start(command, programs)
        .map_err(|error| FillError::Failure(program_failed(program, &error)))?;
    if let Some(mut output) = running.child.stdout.take()
        && let Err(error) = pump(&mut output, to)
    {
        running.abandon();
        return Err(error.into());
    }
    let (status, said) = running.end()?;
    Ok(match status.success() {
        true => Ok(()),
        false => Err(said),
    })
}

fn not_empty(stored: StoredFile) -> Result<StoredFile, Failure> {
    match stored.plain_bytes {
        0 => Err(environment_failure(
            reason::DUMP_FAILED,
            "pg_dump succeeded and wrote nothing; take a new backup.",
        )),
        _ => Ok(stored),
    }
}

/// `pg_dump -Fd -j 2` into the scratch volume, then a tar archive into the store.
pub(crate) fn directory(source: &Source<'_>, folder: &Folder, scratch: &Path) -> Result<StoredFile, Failure> {
    let dumped = Scratch::new(scratch, "fairway-dump")?;
    let mut command = source.tools.command("pg_dump", source.login);
    command
        .args([
            "--format=directory",
            "--jobs=2",
            "--compress=0",
            "--no-password",
            LOCK_WAIT,
        ])
        .arg(format!("--snapshot={}", source.snapshot))
        .arg("--file")
        .arg(&dumped.path)
        .stdout(Stdio::null());
    let running =
        Running::start(&mut command, source.programs).map_err(|error| program_failed("pg_dump", &error))?;
    let (status, said) = running.end().map_err(|error| program_failed("pg_dump", &error))?;
    if !status.success() {
        return Err(dump_failed("pg_dump", &said, source.redactor));
    }
    folder.write(DIRECTORY_FILE, |file| {
        let fill = |to: &mut dyn io::Write| {
            let mut archive = tar::Builder::new(to);
            archive.mode(tar::HeaderMode::Deterministic);
            archive.append_dir_all(".", &dumped.path)?;
            archive.finish()
        };
        compress::<io::Error>(DIRECTORY_FILE, file, fill)
            .map_err(|error| FillError::Store(error).failure())
            .and_then(not_empty)
    })
}

/// Roles and tablespaces without passwords, or why the role may not read them.
pub(crate) fn globals(source: &Source<'_>, folder: &Folder) -> Result<Result<StoredFile, String>, Failure> {
    let mut command = source.tools.command("pg_dumpall", source.login);
    command
        .args([
            "--globals-only",
            "--no-role-passwords",
            "--no-password",
            "--database",
        ])
        .arg(&source.login.connection.database)
        .stdout(Stdio::piped());
    let mut text = Vec::new();
    let ended = stream(&mut command, "pg_dumpall", source.programs, &mut text).map_err(FillError::failure)?;
    if let Err(said) = ended {
        return why_without_globals(&said, source.redactor).map(Err);
    }
    folder
        .write(GLOBALS_FILE, |file| {
            compress::<io::Error>(GLOBALS_FILE, file, |to| to.write_all(&text))
                .map_err(|error| FillError::Store(error).failure())
        })
        .map(Ok)
}

/// The sentence for a backup without globals: where the role has no right to them, none ever will have them.
///
/// # Errors
/// Anything else, because another try may have them.
fn why_without_globals(said: &Tail, redactor: &Redactor) -> Result<String, Failure> {
    match said.mentions("permission denied") {
        true => Ok(format!(
            "roles and tablespaces are not in it: {}",
            last_line(said, redactor)
        )),
        false => Err(dump_failed("pg_dumpall", said, redactor)),
    }
}

/// A folder in the scratch volume that does not outlive its use.
pub(crate) struct Scratch {
    pub(crate) path: PathBuf,
}

impl Scratch {
    /// Names the folder and removes what an earlier run left there; does not create it.
    pub(crate) fn new(volume: &Path, name: &str) -> Result<Self, Failure> {
        let scratch = Self {
            path: volume.join(name),
        };
        match fs::remove_dir_all(&scratch.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(store::failure("clearing the scratch volume", &error))
            }
            _ => Ok(scratch),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The next backup clears what could not be removed now.
        let _ = fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(
        "pg_dump: error: connection to server at \"db\" (10.0.0.1), port 5432 failed: root certificate file \
         \"/root/.postgresql/root.crt\" does not exist\nEither provide the file or change sslmode.",
        reason::TLS_FAILED
    )]
    #[case(
        "pg_dump: error: connection to server at \"db\" (10.0.0.1), port 5432 failed: Connection refused",
        reason::DATABASE_UNREACHABLE
    )]
    #[case(
        "pg_dump: error: Dumping the contents of table \"a\" failed: PQgetCopyData() failed.\n\
         pg_dump: detail: Error message from server: server closed the connection unexpectedly",
        reason::DATABASE_UNREACHABLE
    )]
    #[case(
        "pg_dump: error: query failed: FATAL:  terminating connection due to administrator command",
        reason::DATABASE_UNREACHABLE
    )]
    #[case(
        "pg_dump: error: query failed: ERROR:  permission denied for table certificate",
        reason::DUMP_FAILED
    )]
    #[case(
        "pg_dump: error: could not write to output file: No space left on device",
        reason::STORE_FULL
    )]
    #[case(
        "pg_dump: error: Dumping the contents of table \"a\" failed: PQgetResult() failed.\n\
         pg_dump: detail: Error message from server: ERROR:  could not write to file \"base/pgsql_tmp/1\": \
         No space left on device",
        reason::DUMP_FAILED
    )]
    fn what_pg_dump_says_has_its_reason(#[case] said: &str, #[case] reason: &str) {
        let mut tail = Tail::default();
        said.lines().for_each(|line| tail.push(line.as_bytes()));
        assert_eq!(dump_failed("pg_dump", &tail, &Redactor::new([])).reason, reason);
    }
    #[rstest]
    #[case(
        "pg_dumpall: error: query failed: ERROR:  permission denied for table pg_auth_members",
        None
    )]
    #[case(
        "pg_dumpall: error: connection to server at \"db\", port 5432 failed: FATAL:  sorry, too many clients already",
        Some(reason::DATABASE_UNREACHABLE)
    )]
    #[case(
        "pg_dumpall: error: query failed: ERROR:  canceling statement due to statement timeout",
        Some(reason::DUMP_FAILED)
    )]
    fn only_a_missing_right_makes_a_backup_without_globals(#[case] said: &str, #[case] reason: Option<&str>) {
        let mut tail = Tail::default();
        tail.push(said.as_bytes());
        let failure = why_without_globals(&tail, &Redactor::new([])).err();
        assert_eq!(failure.map(|failure| failure.reason).as_deref(), reason);
    }
}
