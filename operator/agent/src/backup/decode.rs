//! Proves that a stored dump can be read: the bytes are those that were written, and `pg_restore` decodes them
//! all. (`pg_restore --list` reads only the table of contents and accepts truncated and corrupted dumps.)

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom},
    path::Path,
    process::{ExitStatus, Stdio},
    sync::Arc,
};

use fairway_protocol::{Failure, Reason};

use super::{
    diagnosis::SCRATCH_FULL,
    dump::{self, Scratch},
    large_objects::LargeObjects,
    manifest::StoredFile,
    process::Running,
    stream::{ReadBack, read_back},
    tools::{Kit, Tools},
};
use crate::{
    blocking::blocking,
    failure::environment as environment_failure,
    output::Tail,
    redact::Redactor,
    store::{Attempt, Content, ReadFailed},
};

/// Reads a stored file and compares its hashes.
pub(crate) async fn hashes(stored: &StoredFile, content: Content) -> Result<(), Failure> {
    let stored = stored.clone();
    blocking(move || compare(&stored, read_back(content, &mut io::sink()))).await
}

/// Reads the stored dump, compares its hashes and lets `pg_restore` decode it. `large_objects` are those of the database,
/// where they are known.
pub(crate) async fn database(
    kit: &Arc<Kit>,
    stored: &StoredFile,
    large_objects: Option<LargeObjects>,
    attempt: &dyn Attempt,
) -> Result<(), Failure> {
    let content = attempt.read(stored.objects()).await?;
    let (kit, stored) = (kit.clone(), stored.clone());
    let Some(scratch) = kit.scratch.clone() else {
        return blocking(move || from_stream(&kit.tools, &stored, content, &kit.redactor)).await;
    };
    hashes(&stored, content).await?;
    let content = attempt.read(stored.objects()).await?;
    blocking(move || from_directory(&kit.tools, content, &scratch, large_objects, &kit.redactor)).await
}

fn from_stream(
    tools: &Tools,
    stored: &StoredFile,
    content: Content,
    redactor: &Redactor,
) -> Result<(), Failure> {
    let mut command = tools.offline("pg_restore");
    command
        .args(["--format=custom", "--file=/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null());
    let mut running =
        Running::start(&mut command, &Arc::default()).map_err(|error| not_decoded(&error.to_string()))?;
    let read = match running.child.stdin.take() {
        Some(mut input) => read_back(content, &mut input),
        None => read_back(content, &mut io::sink()),
    };
    let ended = running.end();
    compare(stored, read)?;
    restored(ended, redactor)
}

fn from_directory(
    tools: &Tools,
    content: Content,
    scratch: &Path,
    large_objects: Option<LargeObjects>,
    redactor: &Redactor,
) -> Result<(), Failure> {
    let unpacked = Scratch::new(scratch, "fairway-check")?;
    unpack(content, &unpacked.path).map_err(|error| match error.kind() {
        _ if let Some(failure) = ReadFailed::of(&error) => failure.clone(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            environment_failure(Reason::StoreFull, SCRATCH_FULL)
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => dump::unusable(&error),
        _ => not_decoded(&error.to_string()),
    })?;
    check_ends(&unpacked.path)?;
    if let Some(expected) = large_objects {
        check_large_objects(&unpacked.path, expected)?;
    }
    let mut command = tools.offline("pg_restore");
    command
        .args(["--format=directory", "--file=/dev/null"])
        .arg(&unpacked.path)
        .stdout(Stdio::null());
    let running =
        Running::start(&mut command, &Arc::default()).map_err(|error| not_decoded(&error.to_string()))?;
    restored(running.end(), redactor)
}

/// What `pg_dump` writes after the rows of each table.
const END_OF_ROWS: &[u8] = b"\\.\n\n\n";

/// Proves that the rows of no table were cut off. `pg_restore` takes the end of a file for the end of the rows in it.
fn check_ends(folder: &Path) -> Result<(), Failure> {
    let without_end = || -> io::Result<Option<String>> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let has_rows = name
                .strip_suffix(".dat")
                .is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()));
            if has_rows && !ends_with_end_of_rows(&entry.path())? {
                return Ok(Some(name));
            }
        }
        Ok(None)
    };
    match without_end() {
        Ok(None) => Ok(()),
        Ok(Some(name)) => Err(not_decoded(&format!("the rows in {name} were cut off"))),
        Err(error) => Err(not_decoded(&error.to_string())),
    }
}

fn ends_with_end_of_rows(file: &Path) -> io::Result<bool> {
    let mut file = File::open(file)?;
    let length = END_OF_ROWS.len() as u64;
    let Some(start) = file.metadata()?.len().checked_sub(length) else {
        return Ok(false);
    };
    file.seek(SeekFrom::Start(start))?;
    let mut end = Vec::new();
    file.take(length).read_to_end(&mut end)?;
    Ok(end == END_OF_ROWS)
}

fn check_large_objects(folder: &Path, expected: LargeObjects) -> Result<(), Failure> {
    let found = LargeObjects::in_folder(folder).map_err(|error| not_decoded(&error.to_string()))?;
    match found == expected {
        true => Ok(()),
        false => Err(not_decoded(&format!(
            "it has {} large objects with {} bytes, and the database has {} with {}",
            found.count, found.bytes, expected.count, expected.bytes
        ))),
    }
}

fn restored(ended: io::Result<(ExitStatus, Tail)>, redactor: &Redactor) -> Result<(), Failure> {
    let (status, errors) = ended.map_err(|error| not_decoded(&error.to_string()))?;
    match status.success() {
        true => Ok(()),
        false => Err(not_decoded(
            &errors.last_error(redactor).unwrap_or_else(|| status.to_string()),
        )),
    }
}

fn unpack(content: Content, into: &Path) -> io::Result<()> {
    let mut archive = tar::Archive::new(zstd::Decoder::new(content)?);
    archive.set_preserve_mtime(false);
    archive.unpack(into)
}

/// Compares the hashes of a stored file with those of what was read.
pub(crate) fn compare(stored: &StoredFile, read: io::Result<ReadBack>) -> Result<(), Failure> {
    let corrupt = |what: String| {
        environment_failure(
            Reason::StoreCorrupt,
            format!(
                "The store of spec.backup does not return what was written to {} ({what}). Check the disk or service \
                 behind it.",
                stored.name
            ),
        )
    };
    let ReadBack { sha256, plain_sha256 } = read.map_err(|error| {
        let failed = ReadFailed::of(&error).cloned();
        failed.unwrap_or_else(|| corrupt(error.to_string()))
    })?;
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
        Reason::DecodeFailed,
        format!(
            "The dump was written, but pg_restore cannot read it ({what}). If that repeats, check the disk or service \
             behind the store of spec.backup."
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        backup::{manifest::DumpFormat, stream::compress, tools},
        environment::Environment,
        store::pipe,
    };

    /// What `pg_restore` takes for a dump until it misses the rest: the head of one.
    const HEAD: &[u8] = b"PGDMP\x01\x0e\x00\x04\x08\x01\x00\x00\x00\x00\x00\x00\x00\x00";

    fn head() -> (StoredFile, Content) {
        let (writer, content) = pipe();
        let compressed = compress(writer, |to| Ok(to.write_all(HEAD)?)).unwrap();
        (
            compressed.stored_as(DumpFormat::Custom.file(), Vec::new()),
            content,
        )
    }

    #[tokio::test]
    async fn a_well_stored_dump_that_cannot_be_restored_is_refused() {
        let installed = std::fs::read_dir("/usr/lib/postgresql").unwrap().flatten();
        let major = installed
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .max()
            .unwrap();
        let tools = tools::find(&Environment::of_process(std::collections::BTreeMap::new()), major).unwrap();
        let (stored, content) = blocking(|| Ok::<_, Failure>(head())).await.unwrap();
        hashes(&stored, content).await.unwrap();
        let (stored, content) = blocking(|| Ok::<_, Failure>(head())).await.unwrap();
        let failure = blocking(move || from_stream(&tools, &stored, content, &Redactor::new([])))
            .await
            .unwrap_err();
        assert_eq!(failure.reason, Reason::DecodeFailed);
        assert!(
            failure.message.contains("pg_restore: error"),
            "{}",
            failure.message
        );
    }
}
