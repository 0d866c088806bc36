//! Whether the node can run the programs of an image.
//!
//! The agent's own binary fits the node, so that it runs in an image of another architecture as well. Such an image is known
//! by its programs: their ELF headers name a machine. An image with programs for several machines, or without any that is
//! found, passes. So does one that the node runs under emulation, which is why a program is started before it is refused.

use std::{
    fs::{self, File},
    io::{ErrorKind, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use fairway_protocol::PinReport;

/// Folders in which images have their programs; an image from scratch often has its only one at the root.
const FOLDERS: [&str; 10] = [
    "bin",
    "usr/bin",
    "usr/local/bin",
    "sbin",
    "usr/sbin",
    "app",
    "usr/lib",
    "lib",
    "lib64",
    "",
];
/// Files that are looked at in one folder.
const FILES_OF_A_FOLDER: usize = 64;
/// The exec format error of Linux.
const ENOEXEC: i32 = 8;

/// Finds that every program of the image below `root` is for another machine than this node's, and that the node cannot
/// run one of them.
pub(crate) fn other_platform(root: &Path, can_run: fn(&Path) -> bool) -> Option<PinReport> {
    let node = machine(Path::new("/proc/self/exe"))?;
    let mut foreign: Option<(PathBuf, Machine)> = None;
    for program in FOLDERS.iter().flat_map(|folder| files(&root.join(folder))) {
        match machine(&program) {
            Some(found) if found == node => return None,
            Some(found) if is_executable(&program) => {
                foreign.get_or_insert((program, found));
            }
            Some(_) | None => {}
        }
    }
    let (program, image) = foreign?;
    if can_run(&program) {
        return None;
    }
    let inside = program.strip_prefix(root).unwrap_or(&program);
    Some(PinReport {
        image: image.name(),
        node: node.name(),
        program: Path::new("/").join(inside).display().to_string(),
    })
}

/// Whether the kernel starts a program at all. What it starts is ended at once.
pub(crate) fn can_run(program: &Path) -> bool {
    let started = Command::new(program)
        .arg("--version")
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    match started {
        Ok(mut child) => {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
            true
        }
        Err(error) => error.raw_os_error() != Some(ENOEXEC) && error.kind() != ErrorKind::NotFound,
    }
}

/// Regular files of a folder, those that links lead to included, in the order of their names.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries
        .map(|entry| entry.path())
        .filter(|path| path.is_file())
        .collect();
    files.sort_unstable();
    files.truncate(FILES_OF_A_FOLDER);
    files
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o111 != 0)
}

/// Word size, byte order and machine of an ELF file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Machine {
    class: u8,
    order: u8,
    number: u16,
}

impl Machine {
    /// The architecture as Kubernetes writes it in the label `kubernetes.io/arch`.
    fn name(self) -> String {
        let name = match (self.number, self.class, self.order) {
            (62, ..) => "amd64",
            (183, ..) => "arm64",
            (3, ..) => "386",
            (40, ..) => "arm",
            (243, ..) => "riscv64",
            (22, ..) => "s390x",
            (21, _, 1) => "ppc64le",
            (258, ..) => "loong64",
            (number, ..) => return format!("ELF machine {number}"),
        };
        name.to_owned()
    }
}

/// The machine of a program; `None` of what is no ELF file.
fn machine(path: &Path) -> Option<Machine> {
    let mut header = [0; 20];
    File::open(path).ok()?.read_exact(&mut header).ok()?;
    let [0x7f, b'E', b'L', b'F', class, order, .., low, high] = header else {
        return None;
    };
    let number = match order {
        2 => u16::from_be_bytes([low, high]),
        _ => u16::from_le_bytes([low, high]),
    };
    Some(Machine { class, order, number })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ELF header of a little-endian 64-bit program for a machine that no node here has.
    const RISCV: [u8; 20] = [
        0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 243, 0,
    ];

    fn image(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        root
    }

    fn own_program() -> Vec<u8> {
        fs::read("/proc/self/exe").unwrap()[..64].to_vec()
    }

    #[test]
    fn f17_an_image_for_another_machine_is_named_with_its_program() {
        let root = image(&[("app", b"#!/bin/sh"), ("bin/sh", &RISCV)]);
        let report = other_platform(root.path(), |_| false).unwrap();
        assert_eq!((&*report.image, &*report.program), ("riscv64", "/bin/sh"));
        assert!(["amd64", "arm64"].contains(&&*report.node), "{}", report.node);
    }

    #[test]
    fn f17_an_image_from_scratch_is_known_by_its_only_program() {
        let root = image(&[("server", &RISCV)]);
        assert!(other_platform(root.path(), |_| false).is_some());
    }

    #[test]
    fn f17_an_image_that_the_node_emulates_passes() {
        let root = image(&[("bin/sh", &RISCV)]);
        assert_eq!(other_platform(root.path(), |_| true), None);
    }

    #[test]
    fn f17_an_image_with_one_program_for_this_node_passes() {
        let own = own_program();
        let root = image(&[("bin/qemu", &RISCV), ("bin/sh", &own)]);
        assert_eq!(other_platform(root.path(), |_| false), None);
    }

    #[test]
    fn f17_an_image_without_programs_passes() {
        let root = image(&[("index.html", b"<html>")]);
        assert_eq!(other_platform(root.path(), |_| false), None);
    }

    #[test]
    fn f17_the_kernel_says_what_it_cannot_run() {
        let root = image(&[("bin/sh", &RISCV)]);
        assert!(!can_run(&root.path().join("bin/sh")));
        assert!(can_run(Path::new("/proc/self/exe")));
    }
}
