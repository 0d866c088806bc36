//! Writing the generated files, and comparing them with what is there.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// A generated file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Name of the file, without a folder.
    pub name: String,
    /// Contents of the file.
    pub text: String,
}

/// An error of a generator.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read or written.
    #[error("unable to {verb} {}", path.display())]
    Io {
        /// What was attempted.
        verb: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Files are out of date.
    #[error("{} out of date; run `make {target}` and commit the result", list(paths))]
    Drifted {
        /// Files that differ, are missing, or belong to no type.
        paths: Vec<PathBuf>,
        /// The make target that writes them.
        target: &'static str,
    },
}

/// What a generator does with its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Write the files.
    Write,
    /// Change nothing; fail if a file is out of date.
    Check,
}

/// Writes or checks the files of one folder. Other files with the same extension are left from an earlier version:
/// `Write` removes them, and `Check` names them.
///
/// # Errors
/// If a file cannot be read, written or removed, or if `Check` finds a difference.
pub fn settle(folder: &Path, files: &[File], mode: Mode, target: &'static str) -> Result<(), Error> {
    let left_over = left_over(folder, files)?;
    match mode {
        Mode::Write => {
            for path in left_over {
                fs::remove_file(&path).map_err(|source| Error::Io {
                    verb: "remove",
                    path,
                    source,
                })?;
            }
            files.iter().try_for_each(|file| {
                let path = folder.join(&file.name);
                fs::write(&path, &file.text).map_err(|source| Error::Io {
                    verb: "write",
                    path,
                    source,
                })
            })
        }
        Mode::Check => {
            let mut paths = left_over;
            for file in files {
                let path = folder.join(&file.name);
                // A file that is missing or is not text is out of date, too.
                if fs::read_to_string(&path).ok().as_deref() != Some(file.text.as_str()) {
                    paths.push(path);
                }
            }
            if paths.is_empty() {
                Ok(())
            } else {
                Err(Error::Drifted { paths, target })
            }
        }
    }
}

fn left_over(folder: &Path, files: &[File]) -> Result<Vec<PathBuf>, Error> {
    let failed = |source| Error::Io {
        verb: "list",
        path: folder.to_owned(),
        source,
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let generated = files
            .iter()
            .any(|file| path.extension() == Path::new(&file.name).extension());
        let desired = files
            .iter()
            .any(|file| path.file_name() == Some(file.name.as_ref()));
        if generated && !desired {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn list(paths: &[PathBuf]) -> String {
    let names: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    format!(
        "{} {}",
        names.join(", "),
        if names.len() == 1 { "is" } else { "are" }
    )
}

/// Runs a generator with its command line, `[--check] FOLDER`. On failure the exit code is 1, and the error is
/// printed on standard error.
pub fn main(files: &[File], target: &'static str) -> std::process::ExitCode {
    let mut arguments = std::env::args_os().skip(1).peekable();
    let mode = if arguments.next_if(|argument| argument == "--check").is_some() {
        Mode::Check
    } else {
        Mode::Write
    };
    let (Some(folder), None) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: [--check] FOLDER");
        return std::process::ExitCode::from(2);
    };
    match settle(Path::new(&folder), files, mode, target) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            let cause = std::error::Error::source(&error)
                .map(|source| format!(": {source}"))
                .unwrap_or_default();
            eprintln!("error: {error}{cause}");
            std::process::ExitCode::FAILURE
        }
    }
}
