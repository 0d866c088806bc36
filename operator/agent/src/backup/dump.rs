//! From the database into the store.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

use fairway_protocol::{Failure, Reason};

use super::{
    diagnosis::{dump_failed, program_failed, why_without_globals},
    manifest::{DumpFormat, GLOBALS_FILE, StoredFile},
    process::{Programs, Running},
    snapshot::Snapshot,
    stream::{FillError, pump, upload},
    tools::{Kit, Login, Tools},
};
use crate::{
    blocking::blocking, failure::environment as environment_failure, output::Tail, redact::Redactor,
    store::Attempt,
};

/// Longest wait for a table that another session has locked.
const LOCK_WAIT: &str = "--lock-wait-timeout=300000";

/// Proves that `pg_dump` reaches the database: libpq has more conditions than the agent's own driver, such as a
/// private key that no other user may read.
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
    let (status, errors) = Running::start(&mut command, &Arc::default())
        .and_then(Running::end)
        .map_err(|error| program_failed("pg_dump", &error))?;
    match status.success() || errors.any(|line| line.contains("no matching schemas were found")) {
        true => Ok(()),
        false => Err(dump_failed("pg_dump", &errors, redactor)),
    }
}

/// Dumps the database under an exported snapshot.
pub(crate) async fn database(
    kit: &Arc<Kit>,
    snapshot: &Snapshot,
    attempt: &dyn Attempt,
) -> Result<StoredFile, Failure> {
    let stored = match &kit.scratch {
        None => custom(kit, snapshot, attempt).await?,
        Some(scratch) => directory(kit, snapshot, attempt, scratch).await?,
    };
    match stored.plain_bytes {
        0 => Err(environment_failure(
            Reason::DumpFailed,
            "pg_dump succeeded but wrote nothing. If that repeats, check database.image.",
        )),
        _ => Ok(stored),
    }
}

/// `pg_dump -Fc`, streamed.
async fn custom(kit: &Arc<Kit>, snapshot: &Snapshot, attempt: &dyn Attempt) -> Result<StoredFile, Failure> {
    let mut command = kit.tools.command("pg_dump", &kit.login);
    command
        .args(["--format=custom", "--compress=0", "--no-password", LOCK_WAIT])
        .args(snapshot.arguments())
        .stdout(Stdio::piped());
    let kit = kit.clone();
    upload(attempt, DumpFormat::Custom.file(), move |to| {
        match stream(&mut command, "pg_dump", &kit.programs, to)? {
            Ok(()) => Ok(()),
            Err(errors) => Err(dump_failed("pg_dump", &errors, &kit.redactor).into()),
        }
    })
    .await
}

/// `pg_dump -Fd -j 2` into the scratch volume, then a tar archive into the store.
async fn directory(
    kit: &Arc<Kit>,
    snapshot: &Snapshot,
    attempt: &dyn Attempt,
    scratch: &Path,
) -> Result<StoredFile, Failure> {
    let dumped = Scratch::new(scratch, "fairway-dump")?;
    let mut command = kit.tools.command("pg_dump", &kit.login);
    command
        .args([
            "--format=directory",
            "--jobs=2",
            "--compress=0",
            "--no-password",
            LOCK_WAIT,
        ])
        .args(snapshot.arguments())
        .arg("--file")
        .arg(&dumped.path)
        .stdout(Stdio::null());
    let kit = kit.clone();
    let dumped = blocking(move || {
        let (status, errors) = Running::start(&mut command, &kit.programs)
            .and_then(Running::end)
            .map_err(|error| program_failed("pg_dump", &error))?;
        match status.success() {
            true => Ok(dumped),
            false => Err(dump_failed("pg_dump", &errors, &kit.redactor)),
        }
    })
    .await?;
    upload(attempt, DumpFormat::Directory.file(), move |to| {
        let mut archive = tar::Builder::new(to);
        archive.mode(tar::HeaderMode::Deterministic);
        archive.append_dir_all(".", &dumped.path)?;
        Ok(archive.finish()?)
    })
    .await
}

/// Stores roles and tablespaces without passwords; or the note that says why the role may not read them.
pub(crate) async fn globals(
    kit: &Arc<Kit>,
    snapshot: &Snapshot,
    attempt: &dyn Attempt,
) -> Result<Result<StoredFile, String>, Failure> {
    let mut command = kit.tools.command("pg_dumpall", &kit.login);
    command
        .args(["--globals-only", "--no-role-passwords", "--no-password"])
        .arg(format!("--encoding={}", snapshot.encoding))
        .arg(format!("--database={}", by_name(&kit.login.connection.database)))
        .stdout(Stdio::piped());
    let reading = kit.clone();
    let read = blocking(move || {
        let mut text = Vec::new();
        let ended = stream(&mut command, "pg_dumpall", &reading.programs, &mut text);
        ended.map(|ended| ended.map(|()| text))
    });
    match read.await.map_err(FillError::failure)? {
        Ok(text) => upload(attempt, GLOBALS_FILE, move |to| Ok(to.write_all(&text)?))
            .await
            .map(Ok),
        Err(errors) => why_without_globals(&errors, &kit.redactor).map(Err),
    }
}

/// A connection string of libpq that names a database and nothing else. A bare name would be read as a connection string where
/// it has an equals sign in it, or begins like a URL. (`PGDATABASE` is always a name.)
pub(crate) fn by_name(database: &str) -> String {
    format!("dbname='{}'", database.replace('\\', r"\\").replace('\'', r"\'"))
}

/// Copies what a program writes; the last lines of its errors when the program failed.
fn stream(
    command: &mut Command,
    program: &str,
    programs: &Arc<Programs>,
    to: &mut dyn io::Write,
) -> Result<Result<(), Tail>, FillError> {
    let mut running = Running::start(command, programs).map_err(|error| program_failed(program, &error))?;
    if let Some(mut output) = running.child.stdout.take()
        && let Err(error) = pump(&mut output, to)
    {
        running.kill();
        return Err(error.into());
    }
    let (status, errors) = running.end()?;
    Ok(match status.success() {
        true => Ok(()),
        false => Err(errors),
    })
}

/// A folder in the scratch volume that does not outlive its use.
pub(crate) struct Scratch {
    /// The folder.
    pub(crate) path: PathBuf,
}

impl Scratch {
    /// Names the folder and removes what an earlier run left there; does not create it.
    pub(crate) fn new(volume: &Path, name: &str) -> Result<Self, Failure> {
        let scratch = Self {
            path: volume.join(name),
        };
        match fs::remove_dir_all(&scratch.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(unusable(&error)),
            _ => Ok(scratch),
        }
    }
}

/// The failure of a scratch volume that cannot be written to.
pub(crate) fn unusable(error: &io::Error) -> Failure {
    environment_failure(
        Reason::StoreReadOnly,
        format!("The scratch volume cannot be used ({error}). Check that the pod may write to it."),
    )
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The next backup removes what could not be removed now.
        let _ = fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::pairs;

    #[test]
    fn a_database_of_any_name_is_named_and_nothing_else() {
        for name in [
            "crm",
            "a=b",
            "postgresql://x",
            "it's",
            r"back\slash\",
            " two  words ",
            "host=x",
        ] {
            let read = pairs::libpq(&by_name(name)).unwrap();
            assert_eq!(read, [("dbname".to_owned(), name.to_owned())]);
        }
    }
}
