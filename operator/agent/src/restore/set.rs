//! A backup set as a restore reads it: nothing of it is used before all of it was read, hashed and known to be the Backup's
//! own.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};

use fairway_protocol::{Failure, Reason, RestoreTask};
use tempfile::NamedTempFile;

use crate::{
    backup::{
        decode::compare,
        dump::Scratch,
        manifest::{DumpFormat, Manifest},
        process::{Programs, Running},
        stream::{ReadBack, read_back},
        tools::Tools,
    },
    blocking::blocking,
    failure::{environment, version},
    output::Tail,
    redact::Redactor,
    store::{Content, SetPath, Store},
};

/// An extension that the set's database has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Extension {
    pub(super) name: String,
    pub(super) schema: String,
}

/// A set that was read and proven.
pub(super) struct Set {
    pub(super) manifest: Manifest,
    pub(super) contents: Contents,
    pub(super) extensions: Vec<Extension>,
    /// Where the dump was unpacked; none for one that is read from the store as a stream.
    folder: Option<Scratch>,
}

impl Set {
    /// The folder with the unpacked dump.
    pub(super) fn folder(&self) -> Option<&Path> {
        self.folder.as_ref().map(|folder| folder.path.as_path())
    }
}

/// What reads a set.
pub(super) struct Reader<'a> {
    pub(super) task: &'a RestoreTask,
    pub(super) store: &'a dyn Store,
    pub(super) set: &'a SetPath,
    pub(super) scratch: Option<PathBuf>,
    pub(super) redactor: Arc<Redactor>,
    pub(super) programs: Arc<Programs>,
}

impl Reader<'_> {
    /// The manifest, which an agent of the Backup has written.
    pub(super) async fn manifest(&self) -> Result<Manifest, Failure> {
        let Some(found) = self.store.find(self.set).await? else {
            return Err(version(
                Reason::RestoreFailed,
                format!(
                    "The store has no backup {}: it was removed, or was never complete. Restore another Backup.",
                    self.set.as_str()
                ),
            ));
        };
        let manifest = Manifest::parse(&found.manifest)?;
        manifest.check_seal(&self.task.backup_uid)?;
        Ok(manifest)
    }

    /// Reads all of the set and compares its hashes.
    ///
    /// # Errors
    /// `StoreCorrupt` when it is not what the manifest says, `RestoreFailed` when these programs cannot read it.
    pub(super) async fn read(&self, manifest: Manifest, tools: &Tools, major: u32) -> Result<Set, Failure> {
        let of_set = manifest.server_version.split('.').next().unwrap_or_default();
        if of_set.parse::<u32>().is_ok_and(|of_set| of_set > major) {
            return Err(version(
                Reason::RestoreFailed,
                format!(
                    "The backup was taken of PostgreSQL {}, and the server is PostgreSQL {major}, which may not read it. \
                     Restore it on a server of that version.",
                    manifest.server_version
                ),
            ));
        }
        let folder = match manifest.database_format {
            DumpFormat::Custom => None,
            DumpFormat::Directory => Some(self.unpack(&manifest).await?),
        };
        let list = temporary()?;
        let listing = self.program(
            tools,
            &manifest,
            folder.as_ref().map(|folder| folder.path.as_path()),
            vec!["--list".into(), "--file".into(), list.path().into()],
            Hashes::Compared,
        );
        listing.await?;
        let contents = Contents::parse(&read(list.path())?);
        let extensions = self
            .extensions(tools, &manifest, folder.as_ref(), &contents)
            .await?;
        Ok(Set {
            manifest,
            contents,
            extensions,
            folder,
        })
    }

    /// Unpacks the archive of a folder into the scratch volume.
    async fn unpack(&self, manifest: &Manifest) -> Result<Scratch, Failure> {
        let Some(scratch) = &self.scratch else {
            return Err(environment(
                Reason::RestoreFailed,
                "The backup was written by way of a scratch volume and needs one to be restored. Set backup.scratch of the \
                 App.",
            ));
        };
        let folder = Scratch::new(scratch, "fairway-restore")?;
        let stored = manifest.database.clone();
        let content = self.store.read(self.set, stored.objects()).await?;
        blocking(move || {
            let (reader, mut writer) = io::pipe().map_err(|error| not_unpacked(&error))?;
            let path = folder.path.clone();
            let unpacking = std::thread::spawn(move || {
                let mut archive = tar::Archive::new(io::BufReader::new(reader));
                archive.set_preserve_mtime(false);
                archive.unpack(path)
            });
            let read = read_back(content, &mut writer);
            drop(writer);
            let unpacked = unpacking
                .join()
                .unwrap_or_else(|_| Err(io::ErrorKind::Other.into()));
            // What does not unpack because it is corrupt is corrupt.
            compare(&stored, read)?;
            unpacked.map_err(|error| not_unpacked(&error))?;
            Ok(folder)
        })
        .await
    }

    /// The extensions of the set, by the statements that create them.
    async fn extensions(
        &self,
        tools: &Tools,
        manifest: &Manifest,
        folder: Option<&Scratch>,
        contents: &Contents,
    ) -> Result<Vec<Extension>, Failure> {
        let entries = contents.only(Entry::is_extension);
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        let (list, script) = (list_file(&entries)?, temporary()?);
        let arguments = vec![
            "--use-list".into(),
            list.path().into(),
            "--file".into(),
            script.path().into(),
        ];
        let folder = folder.map(|folder| folder.path.as_path());
        self.program(tools, manifest, folder, arguments, Hashes::Known)
            .await?;
        let script = read(script.path())?;
        let found: Vec<_> = script.lines().filter_map(Extension::parse).collect();
        match found.len() == entries.len() {
            true => Ok(found),
            false => Err(version(
                Reason::RestoreFailed,
                "The extensions that the backup names cannot be read from it. Restore it by hand.",
            )),
        }
    }

    /// Lets `pg_restore` read the dump without a database.
    async fn program(
        &self,
        tools: &Tools,
        manifest: &Manifest,
        folder: Option<&Path>,
        arguments: Vec<std::ffi::OsString>,
        hashes: Hashes,
    ) -> Result<(), Failure> {
        let mut command = tools.offline("pg_restore");
        command.args(arguments).stdout(Stdio::null());
        let (redactor, programs) = (self.redactor.clone(), self.programs.clone());
        let stored = manifest.database.clone();
        let input = match folder {
            Some(folder) => {
                command.arg("--format=directory").arg(folder);
                None
            }
            None => {
                command.arg("--format=custom").stdin(Stdio::piped());
                Some(self.store.read(self.set, stored.objects()).await?)
            }
        };
        blocking(move || {
            let (ended, read) =
                run(&mut command, input, &programs).map_err(|error| failed(&error.to_string()))?;
            if let (Some(read), Hashes::Compared) = (read, hashes) {
                compare(&stored, read)?;
            }
            match ended {
                (status, _) if status.success() => Ok(()),
                (status, errors) => Err(failed(
                    &errors.last_error(&redactor).unwrap_or_else(|| status.to_string()),
                )),
            }
        })
        .await
    }
}

/// Whether the hashes of what is read are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hashes {
    Compared,
    /// They were compared when the dump was first read, and this time only its head is looked at.
    Known,
}

/// What a program left: its status and its errors, and what was read to feed it.
type Ran = ((std::process::ExitStatus, Tail), Option<io::Result<ReadBack>>);

/// Runs a program to its end, fed with the content where there is one.
pub(super) fn run(
    command: &mut std::process::Command,
    input: Option<Content>,
    programs: &Arc<Programs>,
) -> io::Result<Ran> {
    let mut running = Running::start(command, programs)?;
    let read = input.map(|content| match running.child.stdin.take() {
        Some(mut stdin) => read_back(content, &mut stdin),
        None => read_back(content, &mut io::sink()),
    });
    Ok((running.end()?, read))
}

/// The table of contents of a dump, as `pg_restore --list` prints it.
#[derive(Clone, Debug, Default)]
pub(super) struct Contents(Vec<Entry>);

/// One line of it: `215; 1259 16397 TABLE public lead crm`. Names are not quoted, so that where one ends may be open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry(String);

impl Contents {
    fn parse(list: &str) -> Self {
        let lines = list
            .lines()
            .filter(|line| !line.starts_with(';') && !line.trim().is_empty());
        Self(lines.map(|line| Entry(line.to_owned())).collect())
    }

    /// The entries of one kind.
    pub(super) fn only(&self, kind: impl Fn(&Entry) -> bool) -> Vec<Entry> {
        self.0.iter().filter(|entry| kind(entry)).cloned().collect()
    }
}

impl Entry {
    /// What follows the three numbers.
    fn rest(&self) -> &str {
        self.0.splitn(4, ' ').nth(3).unwrap_or_default()
    }

    pub(super) fn is_extension(&self) -> bool {
        self.rest().starts_with("EXTENSION - ")
    }

    /// The comment on an extension, which only its owner may write, and which the extension brings along.
    pub(super) fn is_comment_on_extension(&self) -> bool {
        self.rest().starts_with("COMMENT - EXTENSION ")
    }

    /// Whether it creates that schema.
    pub(super) fn is_schema(&self, name: &str) -> bool {
        let rest = self.rest().strip_prefix("SCHEMA - ");
        rest.and_then(|rest| rest.strip_prefix(name))
            .is_some_and(|rest| rest.starts_with(' '))
    }

    /// Whether it may be part of Fairway's ledger, schema `fairway`: its first name is that, or that of what it is about.
    pub(super) fn may_be_of_ledger(&self) -> bool {
        let is_kind = |word: &&str| *word == "-" || word.chars().all(|c| c.is_ascii_uppercase());
        self.rest().split(' ').find(|word| !is_kind(word)) == Some("fairway")
    }
}

impl Extension {
    /// Parses `CREATE EXTENSION IF NOT EXISTS "uuid-ossp" WITH SCHEMA public;`.
    fn parse(line: &str) -> Option<Self> {
        let rest = line.strip_prefix("CREATE EXTENSION IF NOT EXISTS ")?;
        let (name, rest) = unquoted(rest)?;
        let (schema, rest) = unquoted(rest.strip_prefix(" WITH SCHEMA ")?)?;
        (rest == ";").then_some(Self { name, schema })
    }
}

/// The name with which a text begins, and what follows it.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '$' || !c.is_ascii();
        let end = text.find(|c| !is_bare(c)).unwrap_or(text.len());
        return (end > 0).then(|| (text[..end].to_owned(), &text[end..]));
    };
    let mut name = String::new();
    let mut characters = quoted.char_indices().peekable();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' if characters.next_if(|(_, next)| *next == '"').is_none() => {
                return Some((name, &quoted[at + 1..]));
            }
            c => name.push(c),
        }
    }
    None
}

/// A file with these entries, for `--use-list`.
pub(super) fn list_file(entries: &[Entry]) -> Result<NamedTempFile, Failure> {
    let mut file = temporary()?;
    for Entry(line) in entries {
        writeln!(file, "{line}").map_err(|error| no_file(&error))?;
    }
    file.flush().map_err(|error| no_file(&error))?;
    Ok(file)
}

fn temporary() -> Result<NamedTempFile, Failure> {
    NamedTempFile::new().map_err(|error| no_file(&error))
}

fn read(path: &Path) -> Result<String, Failure> {
    let bytes = fs::read(path).map_err(|error| no_file(&error))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn no_file(error: &io::Error) -> Failure {
    environment(
        Reason::AgentFailed,
        format!("A file of the restore in /tmp cannot be used: {error}."),
    )
}

fn not_unpacked(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            environment(Reason::StoreFull, crate::backup::diagnosis::SCRATCH_FULL)
        }
        _ => environment(
            Reason::RestoreFailed,
            format!(
                "The backup cannot be unpacked into the scratch volume ({error}). Check the scratch volume."
            ),
        ),
    }
}

fn failed(what: &str) -> Failure {
    version(
        Reason::RestoreFailed,
        format!("pg_restore cannot read the backup ({what}). Restore another Backup."),
    )
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const LIST: &str = ";\n; Archive created at 2026-01-01\n;\n6; 2615 16385 SCHEMA - fairway crm\n\
        7; 2615 16386 SCHEMA - ext crm\n2; 3079 16387 EXTENSION - pg_trgm \n3; 0 0 COMMENT - EXTENSION pg_trgm \n\
        215; 1259 16397 TABLE public lead crm\n216; 1259 16398 TABLE fairway owner crm\n\
        217; 0 16398 TABLE DATA fairway owner crm\n218; 0 0 ACL - SCHEMA fairway crm\n\
        219; 1259 16399 TABLE public fairway crm\n";

    #[test]
    fn entries_are_told_apart() {
        let contents = Contents::parse(LIST);
        let numbers = |kind: fn(&Entry) -> bool| -> Vec<String> {
            let entries = contents.only(kind);
            entries
                .iter()
                .map(|Entry(line)| line.split(';').next().unwrap().to_owned())
                .collect()
        };
        assert_eq!(numbers(|_| true).len(), 9);
        assert_eq!(numbers(Entry::is_extension), ["2"]);
        assert_eq!(numbers(Entry::is_comment_on_extension), ["3"]);
        assert_eq!(numbers(|entry| entry.is_schema("ext")), ["7"]);
        assert_eq!(numbers(Entry::may_be_of_ledger), ["6", "216", "217", "218"]);
    }

    #[rstest]
    #[case("CREATE EXTENSION IF NOT EXISTS pg_trgm WITH SCHEMA public;", Some(("pg_trgm", "public")))]
    #[case("CREATE EXTENSION IF NOT EXISTS \"uuid-ossp\" WITH SCHEMA \"a \"\"b\";", Some(("uuid-ossp", "a \"b")))]
    #[case("CREATE EXTENSION IF NOT EXISTS a WITH SCHEMA b; drop table c;", None)]
    #[case("CREATE EXTENSION IF NOT EXISTS \"a WITH SCHEMA b;", None)]
    #[case("-- CREATE EXTENSION IF NOT EXISTS a WITH SCHEMA b;", None)]
    fn an_extension_is_read_and_nothing_else(#[case] line: &str, #[case] read: Option<(&str, &str)>) {
        let read = read.map(|(name, schema)| Extension {
            name: name.to_owned(),
            schema: schema.to_owned(),
        });
        assert_eq!(Extension::parse(line), read);
    }
}
