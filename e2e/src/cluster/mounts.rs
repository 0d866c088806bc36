//! Mounts that containerd, the kubelet and the volumes of tests make below the state folder.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::mount::{UnmountFlags, unmount};

/// Unmounts everything that lies below one of the folders, the deepest first.
pub(super) fn unmount_below(folders: &[PathBuf]) -> Result<()> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("read the table of mounts")?;
    for point in below(&table, folders) {
        unmount(&point, UnmountFlags::DETACH).with_context(|| format!("unmount {}", point.display()))?;
    }
    Ok(())
}

/// Mount points below the folders in the reverse of the order in which they were mounted.
fn below(table: &str, folders: &[PathBuf]) -> Vec<PathBuf> {
    let mut points: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|point| PathBuf::from(unescape(point)))
        .filter(|point| {
            folders
                .iter()
                .any(|folder| point.starts_with(folder) && point != Path::new(folder))
        })
        .collect();
    points.reverse();
    points
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn unescape(point: &str) -> String {
    point
        .replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mounts_below_the_folder_are_taken_and_the_last_one_first() {
        let table = "\
            1 0 8:1 / / rw - ext4 /dev/vda rw\n\
            2 1 0:5 / /state/a rw - tmpfs tmpfs rw\n\
            3 2 0:6 / /state/a/b\\040c rw - tmpfs tmpfs rw\n\
            4 1 0:7 / /state-of-another rw - tmpfs tmpfs rw\n";
        assert_eq!(
            below(table, &["/state".into()]),
            [PathBuf::from("/state/a/b c"), PathBuf::from("/state/a")]
        );
    }
}
