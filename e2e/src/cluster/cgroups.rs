//! The two cgroups of a cluster: one under which the kubelet puts all pods, so that two clusters on one machine do
//! not mix and so that the processes of pods can be found without asking containerd, and one of the cluster's own
//! components.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::paths::Paths;

const MOUNT: &str = "/sys/fs/cgroup";

/// The share of the processors that each of the two has, in a file of each version of cgroups. By default all pods
/// together would have that of one single process beside them, such as one of a compiler, and their clients would
/// time out; and the components that of one process each, so that busy pods would starve the API server.
const SHARES: [(&str, &str); 2] = [("cpu.shares", "8192"), ("cpu.weight", "800")];

/// Makes both in every hierarchy; the kubelet insists that the root of the pods exists.
pub(super) fn create(paths: &Paths) -> Result<()> {
    for hierarchy in hierarchies()? {
        for name in [paths.name(), components(paths)] {
            make(&hierarchy, &name)?;
        }
    }
    Ok(())
}

fn components(paths: &Paths) -> String {
    format!("{}-components", paths.name())
}

fn make(hierarchy: &Path, name: &str) -> Result<()> {
    let folder = hierarchy.join(name);
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
    Ok(())
}

/// Puts a component, and what it starts from now on, where its share of the processors is counted.
pub(super) fn join(paths: &Paths, pid: i32) -> Result<()> {
    for hierarchy in hierarchies()? {
        let folder = hierarchy.join(components(paths));
        if SHARES.iter().any(|(file, _)| folder.join(file).exists()) {
            let file = folder.join("cgroup.procs");
            fs::write(&file, pid.to_string()).with_context(|| format!("write {}", file.display()))?;
        }
    }
    Ok(())
}

/// Every process of a pod or a component.
pub(super) fn members(paths: &Paths) -> Result<BTreeSet<i32>> {
    let mut members = BTreeSet::new();
    for root in roots(paths)? {
        each_folder(&root, &mut |folder| {
            // The folder may vanish while it is read.
            let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            members.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
        });
    }
    Ok(members)
}

/// Removes both, which must be empty of living processes. One that was killed holds its folder until the kernel has
/// taken it apart.
pub(super) fn remove(paths: &Paths) -> Result<()> {
    const DEADLINE: Duration = Duration::from_secs(30);
    let since = Instant::now();
    for root in roots(paths)? {
        let mut folders = Vec::new();
        each_folder(&root, &mut |folder| folders.push(folder.to_path_buf()));
        for folder in folders {
            while let Err(error) = fs::remove_dir(&folder) {
                match error.kind() {
                    ErrorKind::NotFound => break,
                    ErrorKind::ResourceBusy if since.elapsed() < DEADLINE => {
                        std::thread::sleep(Duration::from_millis(10));
                    }
                    _ => {
                        return Err(error).with_context(|| format!("remove the cgroup {}", folder.display()));
                    }
                }
            }
        }
    }
    Ok(())
}

/// Both, in every hierarchy.
fn roots(paths: &Paths) -> Result<Vec<PathBuf>> {
    let names = [paths.name(), components(paths)];
    Ok(hierarchies()?
        .into_iter()
        .flat_map(|hierarchy| names.clone().map(|name| hierarchy.join(name)))
        .collect())
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
