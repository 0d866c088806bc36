//! Why a program of an image was not executed: the kernel's `No such file or directory` may mean the program, its
//! interpreter or its loader.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Read as _},
    path::{Path, PathBuf},
};

use fairway_protocol::MigratingContainer;

use crate::environment::Environment;

/// Where programs are looked for when no variable says it, as the C library has it.
const DEFAULT_PATH: &str = "/usr/local/bin:/bin:/usr/bin";
/// Bytes of a program that are read.
const HEAD: u64 = 4096;
/// The exec format error of Linux.
const ENOEXEC: i32 = 8;
/// A shell's exit code, and that of `env`, for a program that was not found.
const NOT_FOUND: i32 = 127;

/// Why the first word of a command was not executed: a clause that names interpreter, container and image.
pub(crate) fn why_not(
    program: &str,
    error: &io::Error,
    environment: &Environment,
    container: &MigratingContainer,
) -> String {
    let found = find(program, environment);
    match (error.kind(), &found) {
        (ErrorKind::NotFound, None) => {
            format!(
                "{program:?} is not in {}{}",
                image_of(container),
                other_containers(container)
            )
        }
        (ErrorKind::NotFound, Some(path)) => match needed_by(path) {
            Some(Needed::Interpreter(_, Ending::CrLf)) => ends_with_crlf(program),
            Some(Needed::Interpreter(interpreter, Ending::Lf)) => format!(
                "{interpreter:?}, the interpreter of {program:?}, is not in {}{}",
                image_of(container),
                other_containers(container)
            ),
            Some(Needed::Loader(loader)) => format!(
                "{loader:?}, the loader of {program:?}, is not in {}: the program was built for another C library",
                image_of(container)
            ),
            None => format!(
                "{program:?} cannot be executed in {} ({error})",
                image_of(container)
            ),
        },
        (ErrorKind::PermissionDenied, Some(path)) => match needed_by(path) {
            Some(Needed::Interpreter(interpreter, _)) if is_executable(path) => format!(
                "{interpreter:?}, the interpreter of {program:?}, is not executable in {}",
                image_of(container)
            ),
            _ => format!("{program:?} is not executable in {}", image_of(container)),
        },
        (ErrorKind::PermissionDenied, None) => {
            format!("{program:?} is not executable in {}", image_of(container))
        }
        _ if error.raw_os_error() == Some(ENOEXEC) => format!(
            "{program:?} in {} is neither a program for this platform nor a script whose first line names its interpreter \
             (#!/bin/sh)",
            image_of(container)
        ),
        _ => format!(
            "{program:?} in {} could not be executed: {error}",
            image_of(container)
        ),
    }
}

/// What the exit code of a command means whose script is started by `env`: that does not say that the name of the program it
/// looks for ends with an invisible character.
pub(crate) fn why_exited(program: &str, code: i32, environment: &Environment) -> Option<String> {
    let path = find(program, environment).filter(|_| code == NOT_FOUND)?;
    match needed_by(&path) {
        Some(Needed::Interpreter(_, Ending::CrLf)) => Some(ends_with_crlf(program)),
        _ => None,
    }
}

fn ends_with_crlf(program: &str) -> String {
    format!(
        "the first line of {program:?} ends with CR LF, so that its interpreter is not found; save the file with LF at the \
         end of lines"
    )
}

fn image_of(container: &MigratingContainer) -> String {
    match container.name.as_str() {
        "" => "the image".to_owned(),
        name => format!("the image of container {name} ({})", container.image),
    }
}

fn other_containers(container: &MigratingContainer) -> String {
    match container.others.as_slice() {
        [] => String::new(),
        others => format!(
            "; if it is in that of another container ({}), set migration.container",
            others.join(", ")
        ),
    }
}

/// The file that is executed for the first word of a command.
fn find(program: &str, environment: &Environment) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(|path| path.exists());
    }
    let folders = environment.get("PATH").unwrap_or_else(|| DEFAULT_PATH.to_owned());
    folders
        .split(':')
        .map(|folder| Path::new(folder).join(program))
        .find(|path| path.is_file())
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o111 != 0)
}

/// What the kernel needs to execute a file.
enum Needed {
    /// The program in the first line of a script, and how that line ends.
    Interpreter(String, Ending),
    /// The dynamic loader of a program.
    Loader(String),
}

/// How a line ends.
enum Ending {
    Lf,
    CrLf,
}

fn needed_by(path: &Path) -> Option<Needed> {
    let mut head = Vec::new();
    File::open(path).ok()?.take(HEAD).read_to_end(&mut head).ok()?;
    match head.strip_prefix(b"#!") {
        Some(rest) => interpreter(rest),
        None => loader(&head).map(Needed::Loader),
    }
}

fn interpreter(rest: &[u8]) -> Option<Needed> {
    let line = rest.split(|byte| *byte == b'\n').next()?;
    let line = String::from_utf8_lossy(line);
    let ending = match line.ends_with('\r') {
        true => Ending::CrLf,
        false => Ending::Lf,
    };
    let interpreter = line.split_whitespace().next()?;
    Some(Needed::Interpreter(interpreter.to_owned(), ending))
}

/// The loader that a 64-bit ELF file of this machine's byte order names in a program header of type `PT_INTERP`.
/// <https://refspecs.linuxfoundation.org/elf/gabi4+/ch5.pheader.html>
fn loader(head: &[u8]) -> Option<String> {
    const PT_INTERP: u32 = 3;
    if !head.starts_with(&[0x7f, b'E', b'L', b'F', 2]) {
        return None;
    }
    let half = |at: usize| {
        Some(usize::from(u16::from_ne_bytes(
            head.get(at..at + 2)?.try_into().ok()?,
        )))
    };
    let word = |at: usize| {
        Some(u32::from_ne_bytes(
            head.get(at..at.checked_add(4)?)?.try_into().ok()?,
        ))
    };
    let long = |at: usize| {
        let bytes = head.get(at..at.checked_add(8)?)?;
        usize::try_from(u64::from_ne_bytes(bytes.try_into().ok()?)).ok()
    };
    let (table, size, count) = (long(32)?, half(54)?, half(56)?);
    let headers = (0..count).filter_map(|index| table.checked_add(index.checked_mul(size)?));
    let header = headers.into_iter().find(|at| word(*at) == Some(PT_INTERP))?;
    let (offset, length) = (long(header + 8)?, long(header + 32)?);
    let name = head.get(offset..offset.checked_add(length)?)?;
    Some(String::from_utf8_lossy(name).trim_end_matches('\0').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f18_the_loader_of_a_program_is_found() {
        let Some(Needed::Loader(loader)) = needed_by(Path::new("/bin/sh")) else {
            panic!("/bin/sh is linked dynamically");
        };
        assert!(loader.contains("ld-") && Path::new(&loader).exists(), "{loader}");
        assert!(super::loader(b"\x7fELF\x02").is_none(), "cut off");
    }
}
