//! The processes of the cluster: started inside its namespace, recorded, and found again.
//!
//! A record alone is not enough, since whoever starts a process may be killed before it writes the
//! record. What decides is membership: whatever runs inside the cluster's network namespace or
//! cgroup belongs to the cluster, and nothing else does.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use super::cgroups;
use super::network;
use crate::command::without_proxy;
use crate::paths::Paths;

/// A process as it was when it was started. A pid that was given to another process since then has
/// another start time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pid: i32,
    /// Clock ticks after boot, field 22 of /proc/PID/stat.
    started: u64,
}

impl Record {
    fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some(Self {
            pid,
            started: start_time(&stat)?,
        })
    }

    /// Whether this very process still runs; one that has ended and waits for its parent does not.
    pub(super) fn alive(&self) -> bool {
        let Ok(stat) = fs::read_to_string(format!("/proc/{}/stat", self.pid)) else {
            return false;
        };
        start_time(&stat) == Some(self.started) && !ended(&stat)
    }

    /// The process id.
    pub(super) fn pid(&self) -> i32 {
        self.pid
    }
}

/// Starts a program inside the cluster's namespace, with its output in the logs folder.
///
/// It gets a process group of its own, so that Ctrl-C in the terminal reaches only the command that
/// the user typed.
pub(super) fn start(
    paths: &Paths,
    name: &str,
    arguments: &[String],
    environment: &[(&str, &str)],
) -> Result<()> {
    let log = log_file(paths, name);
    let output = fs::File::create(&log).with_context(|| format!("create {}", log.display()))?;
    let (program, arguments) = arguments.split_first().context("a process needs a program")?;
    let mut command = network::inside(paths, program);
    // What they ask is inside the namespace, and no proxy is.
    without_proxy(&mut command)
        .args(arguments)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(output.try_clone().context("share the log file")?)
        .stderr(output)
        .process_group(0);
    let child = command.spawn().with_context(|| format!("start {name}"))?;
    // nsenter replaces itself by the program, so this is the program's pid for good.
    let pid = i32::try_from(child.id()).context("a pid fits an i32")?;
    cgroups::join(paths, pid).with_context(|| format!("{name} ended at once; see {}", log.display()))?;
    let record = Record::of(pid).with_context(|| format!("{name} ended at once; see {}", log.display()))?;
    let path = record_file(paths, name);
    fs::write(&path, serde_json::to_vec(&record)?).with_context(|| format!("write {}", path.display()))
}

/// Where a process writes.
pub(super) fn log_file(paths: &Paths, name: &str) -> PathBuf {
    paths.logs().join(format!("{name}.log"))
}

/// The recorded process of this name.
pub(super) fn recorded(paths: &Paths, name: &str) -> Option<Record> {
    serde_json::from_slice(&fs::read(record_file(paths, name)).ok()?).ok()
}

/// Ends every process of the cluster and waits until none is left.
///
/// What starts others goes first: the kubelet would restart containers, and containerd's shims would
/// be restarted by nothing, but their containers outlive them.
pub(super) fn end_all(paths: &Paths) -> Result<()> {
    const DEADLINE: Duration = Duration::from_secs(30);
    let since = Instant::now();
    loop {
        let members = members(paths)?;
        if members.is_empty() {
            return Ok(());
        }
        for pid in &members {
            // One that has ended meanwhile needs no signal.
            if let Some(pid) = Pid::from_raw(*pid) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        if since.elapsed() > DEADLINE {
            bail!(
                "processes {members:?} of the cluster do not end after SIGKILL; look at them with `ps -o pid,stat,wchan,args -p {}`",
                members
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(",")
            );
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Every living process inside the cluster's network namespace or cgroup, and every recorded one.
fn members(paths: &Paths) -> Result<BTreeSet<i32>> {
    let mut members: BTreeSet<i32> = cgroups::members(paths)?;
    if let Ok(namespace) = fs::metadata(paths.network_namespace()) {
        let namespace = (namespace.dev(), namespace.ino());
        members.extend(all_pids()?.filter(|pid| {
            fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|own| (own.dev(), own.ino()) == namespace)
        }));
    }
    if let Ok(records) = fs::read_dir(paths.cluster().join("run")) {
        for record in records {
            let bytes = fs::read(record?.path())?;
            // A record cut short by an interruption belongs to a process that membership finds.
            if let Ok(record) = serde_json::from_slice::<Record>(&bytes)
                && record.alive()
            {
                members.insert(record.pid);
            }
        }
    }
    members.remove(&i32::try_from(std::process::id())?);
    members.retain(|pid| fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !ended(&stat)));
    Ok(members)
}

fn all_pids() -> Result<impl Iterator<Item = i32>> {
    Ok(fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()))
}

fn record_file(paths: &Paths, name: &str) -> PathBuf {
    paths.cluster().join("run").join(format!("{name}.json"))
}

/// The fields of /proc/PID/stat after the program's name, which may itself hold spaces and brackets.
fn fields(stat: &str) -> impl Iterator<Item = &str> {
    stat.rsplit_once(')')
        .map_or("", |(_, rest)| rest)
        .split_whitespace()
}

fn start_time(stat: &str) -> Option<u64> {
    // Field 22 of the file; the first one after the name is field 3.
    fields(stat).nth(19)?.parse().ok()
}

fn ended(stat: &str) -> bool {
    matches!(fields(stat).next(), Some("Z" | "X" | "x") | None)
}

/// Whether a program of that name is somewhere in the search path.
#[must_use]
pub(super) fn installed(program: &str) -> bool {
    let Some(path) = std::env::var_os("PATH") else {
        return false;
    };
    std::env::split_paths(&path)
        .chain([Path::new("/usr/sbin").to_path_buf()])
        .any(|folder| folder.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const STAT: &str =
        "4711 (a (strange) name) S 1 4711 4711 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 987654 1000 1 2";

    #[test]
    fn the_start_time_is_found_after_a_name_with_brackets() {
        assert_eq!(start_time(STAT), Some(987_654));
        assert!(!ended(STAT));
        assert!(ended(&STAT.replace(" S ", " Z ")));
    }

    #[test]
    fn a_recycled_pid_is_not_taken_for_the_recorded_process() {
        let own = Record::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(own.alive());
        assert!(
            !Record {
                started: own.started + 1,
                ..own
            }
            .alive()
        );
    }

    #[test]
    fn a_process_that_ended_is_not_alive() {
        let mut child = Command::new("true").spawn().unwrap();
        let record = Record::of(i32::try_from(child.id()).unwrap()).unwrap();
        child.wait().unwrap();
        assert!(!record.alive());
    }
}
