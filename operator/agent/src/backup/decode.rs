//! Proves that a stored dump can be read: the bytes are those that were written, and `pg_restore` decodes them
//! all. (`pg_restore --list` reads only the table of contents and accepts truncated and corrupted dumps.)

use std::{
    fs::File,
    io,
    path::Path,
    process::{ExitStatus, Stdio},
    sync::Arc,
};

use fairway_protocol::{Failure, reason};

use super::{
    dump::{DIRECTORY_FILE, Running, Scratch},
    manifest::StoredFile,
    store::{self, Folder},
    stream::{ReadBack, read_back},
    tools::Tools,
};
use crate::{failure::environment as environment_failure, output::Tail, redact::Redactor};

/// Reads the file and compares its hashes.
pub(crate) fn hashes(folder: &Folder, stored: &StoredFile) -> Result<(), Failure> {
    let file = folder.open(&stored.name)?;
    compare(stored, read_back(file, &mut io::sink()))
}

/// Reads the file, compares its hashes and lets `pg_restore` decode it.
pub(crate) fn database(
    tools: &Tools,
    folder: &Folder,
    stored: &StoredFile,
    scratch: Option<&Path>,
    redactor: &Redactor,
) -> Result<(), Failure> {
    match (stored.name == DIRECTORY_FILE, scratch) {
        (true, Some(scratch)) => from_directory(tools, folder, stored, scratch, redactor),
        _ => from_stream(tools, folder, stored, redactor),
    }
}

fn from_stream(
    tools: &Tools,
    folder: &Folder,
    stored: &StoredFile,
    redactor: &Redactor,
) -> Result<(), Failure> {
    let file = folder.open(&stored.name)?;
    let mut command = tools.offline("pg_restore");
    command
        .args(["--format=custom", "--file=/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null());
    let mut running =
        Running::start(&mut command, &Arc::default()).map_err(|error| not_decoded(&error.to_string()))?;
    let read = match running.child.stdin.take() {
        Some(mut input) => read_back(file, &mut input),
        None => read_back(file, &mut io::sink()),
    };
    let ended = running.end();
    compare(stored, read)?;
    restored(ended, redactor)
}

fn from_directory(
    tools: &Tools,
    folder: &Folder,
    stored: &StoredFile,
    scratch: &Path,
    redactor: &Redactor,
) -> Result<(), Failure> {
    hashes(folder, stored)?;
    let unpacked = Scratch::new(scratch, "fairway-check")?;
    unpack(folder.open(&stored.name)?, &unpacked.path).map_err(|error| match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => environment_failure(
            reason::STORE_FULL,
            "The scratch volume is full; raise backup.scratch.size above the size of the database.",
        ),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            store::failure("unpacking into the scratch volume", &error)
        }
        _ => not_decoded(&error.to_string()),
    })?;
    let mut command = tools.offline("pg_restore");
    command
        .args(["--format=directory", "--file=/dev/null"])
        .arg(&unpacked.path)
        .stdout(Stdio::null());
    let running =
        Running::start(&mut command, &Arc::default()).map_err(|error| not_decoded(&error.to_string()))?;
    restored(running.end(), redactor)
}

fn restored(ended: io::Result<(ExitStatus, Tail)>, redactor: &Redactor) -> Result<(), Failure> {
    let (status, said) = ended.map_err(|error| not_decoded(&error.to_string()))?;
    match status.success() {
        true => Ok(()),
        false => Err(not_decoded(
            &said.last_error(redactor).unwrap_or_else(|| status.to_string()),
        )),
    }
}

fn unpack(file: File, into: &Path) -> io::Result<()> {
    let mut archive = tar::Archive::new(zstd::Decoder::new(file)?);
    archive.set_preserve_mtime(false);
    archive.unpack(into)
}

fn compare(stored: &StoredFile, read: io::Result<ReadBack>) -> Result<(), Failure> {
    let corrupt = |what: String| {
        environment_failure(
            reason::STORE_CORRUPT,
            format!(
                "The store does not give back what was written to {} ({what}); check its volume.",
                stored.name
            ),
        )
    };
    let ReadBack { sha256, plain_sha256 } = read.map_err(|error| corrupt(error.to_string()))?;
    if sha256 != stored.sha256 {
        return Err(corrupt("another SHA-256".to_owned()));
    }
    match plain_sha256 {
        Ok(plain) if plain == stored.plain_sha256 => Ok(()),
        Ok(_) => Err(not_decoded("another SHA-256 after decompression")),
        Err(error) => Err(not_decoded(&error.to_string())),
    }
}

fn not_decoded(what: &str) -> Failure {
    environment_failure(
        reason::DECODE_FAILED,
        format!(
            "The dump was written but pg_restore cannot read it ({what}); if it repeats, check the store's volume."
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        backup::{dump::CUSTOM_FILE, stream::compress, tools},
        environment::Environment,
    };

    /// What `pg_restore` takes for a dump until it misses the rest: the head of one.
    const HEAD: &[u8] = b"PGDMP\x01\x0e\x00\x04\x08\x01\x00\x00\x00\x00\x00\x00\x00\x00";

    #[test]
    fn a_dump_that_was_stored_well_but_cannot_be_restored_is_refused() {
        let installed = std::fs::read_dir("/usr/lib/postgresql").unwrap().flatten();
        let major = installed
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .max()
            .unwrap();
        let tools = tools::find(&Environment::of_process(), major).unwrap();
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::of_set(root.path(), "set").unwrap();
        folder.begin().unwrap();
        let stored = folder
            .write(CUSTOM_FILE, |file| {
                Ok(compress::<io::Error>(CUSTOM_FILE, file, |to| to.write_all(HEAD)).unwrap())
            })
            .unwrap();
        hashes(&folder, &stored).unwrap();
        let failure = database(&tools, &folder, &stored, None, &Redactor::new([])).unwrap_err();
        assert_eq!(failure.reason, reason::DECODE_FAILED);
        assert!(
            failure.message.contains("pg_restore: error"),
            "{}",
            failure.message
        );
    }
}
