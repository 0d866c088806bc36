//! The cgroup under which the kubelet puts all pods, so that two clusters on one machine do not mix
//! and so that the processes of pods can be found without asking containerd.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::paths::Paths;

const MOUNT: &str = "/sys/fs/cgroup";

/// The share of the processors that all pods together have, in a file of each version of cgroups. By default it
/// would be that of one single process beside them, such as one of a compiler, and their clients would time out.
const SHARES: [(&str, &str); 2] = [("cpu.shares", "8192"), ("cpu.weight", "800")];

/// Makes the cgroup in every hierarchy; the kubelet insists that its root exists.
pub(super) fn create(paths: &Paths) -> Result<()> {
    for hierarchy in hierarchies()? {
        let folder = hierarchy.join(paths.name());
        fs::create_dir_all(&folder).with_context(|| format!("make the cgroup {}", folder.display()))?;
        for (file, share) in SHARES {
            let file = folder.join(file);
            if file.exists() {
                fs::write(&file, share).with_context(|| format!("write {}", file.display()))?;
            }
        }
        // cgroup v1: an empty cpuset takes no process, so it starts as a copy of its parent's.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let (own, parent) = (folder.join(file), hierarchy.join(file));
            if own.exists() && parent.exists() {
                fs::write(&own, fs::read(&parent)?).with_context(|| format!("write {}", own.display()))?;
            }
        }
    }
    Ok(())
}

/// Every process of a pod.
pub(super) fn members(paths: &Paths) -> Result<BTreeSet<i32>> {
    let mut members = BTreeSet::new();
    for hierarchy in hierarchies()? {
        each_folder(&hierarchy.join(paths.name()), &mut |folder| {
            // The folder may vanish while it is read.
            let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            members.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
        });
    }
    Ok(members)
}

/// Removes the cgroup, which must be empty of processes.
pub(super) fn remove(paths: &Paths) -> Result<()> {
    for hierarchy in hierarchies()? {
        let mut folders = Vec::new();
        each_folder(&hierarchy.join(paths.name()), &mut |folder| {
            folders.push(folder.to_path_buf())
        });
        for folder in folders {
            fs::remove_dir(&folder).with_context(|| format!("remove the cgroup {}", folder.display()))?;
        }
    }
    Ok(())
}

/// Calls for each folder, the deepest first.
fn each_folder(folder: &Path, call: &mut dyn FnMut(&Path)) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            each_folder(&entry.path(), call);
        }
    }
    call(folder);
}

/// The unified hierarchy of version 2, or each hierarchy of version 1 and the mixed setup.
fn hierarchies() -> Result<Vec<PathBuf>> {
    let root = Path::new(MOUNT);
    if root.join("cgroup.controllers").exists() {
        return Ok(vec![root.to_path_buf()]);
    }
    let mut hierarchies = Vec::new();
    for entry in fs::read_dir(root).with_context(|| format!("read {MOUNT}; the kubelet needs cgroups"))? {
        let entry = entry?;
        // Symbolic links are second names such as cpu,cpuacct.
        if entry.file_type()?.is_dir() && entry.path().join("cgroup.procs").exists() {
            hierarchies.push(entry.path());
        }
    }
    Ok(hierarchies)
}
