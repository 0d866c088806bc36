//! The migration's own process and everything that it leaves behind.
//!
//! In its container the agent is process 1, so that orphans become its children; elsewhere it asks the kernel for
//! them. Either way no process of the migration outlives the comparison of the schema.

use std::{
    io::{Read, Write},
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use fairway_protocol::VARIABLE_PREFIX;
use rustix::process::{
    Pid, Signal, WaitOptions, getpid, kill_process, kill_process_group, set_child_subreaper, wait,
};
use tokio::{
    signal::unix::{Signal as SignalStream, SignalKind, signal},
    sync::oneshot,
};

use crate::output::Tail;

/// Longest time for which a process may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(10);
/// Longest time for which the output of ended processes is read.
const DRAIN: Duration = Duration::from_secs(5);

/// The process of a running migration.
pub(crate) struct Child {
    pid: Pid,
    signals: SignalStream,
    code: Option<i32>,
    tail: Arc<Mutex<Tail>>,
    readers: Vec<oneshot::Receiver<()>>,
}

impl Child {
    /// Starts the command in a process group of its own, without the agent's variables.
    ///
    /// # Errors
    /// When there is no such program, or the kernel refuses.
    pub(crate) fn spawn(command: &[String]) -> std::io::Result<Self> {
        let (program, arguments) = command.split_first().ok_or(std::io::ErrorKind::InvalidInput)?;
        // Before the spawn, so that no end is missed.
        let signals = signal(SignalKind::child())?;
        // QEMU's emulation of another processor refuses this (7.2), and process 1 has no need of it.
        if getpid() != Pid::INIT {
            set_child_subreaper(Some(getpid()))?;
        }
        let mut child = Command::new(program);
        child
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with(VARIABLE_PREFIX) {
                child.env_remove(name);
            }
        }
        let mut child = child.spawn()?;
        let tail = Arc::new(Mutex::new(Tail::default()));
        let mut readers = Vec::new();
        if let Some(output) = child.stdout.take() {
            readers.push(copy(output, std::io::stdout(), tail.clone()));
        }
        if let Some(output) = child.stderr.take() {
            readers.push(copy(output, std::io::stderr(), tail.clone()));
        }
        let pid = Pid::from_child(&child);
        Ok(Self {
            pid,
            signals,
            code: None,
            tail,
            readers,
        })
    }

    /// Resolves with the exit code (128 + signal) when the process has ended. May be cancelled.
    pub(crate) async fn ended(&mut self) -> i32 {
        loop {
            self.reap();
            if let Some(code) = self.code {
                return code;
            }
            self.signals.recv().await;
        }
    }

    /// Collects every child that ended: the migration and the orphans that it left.
    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if pid == self.pid {
                let killed = status.terminating_signal().map(|signal| 128 + signal);
                self.code = status.exit_status().or(killed).or(Some(1));
            }
        }
    }

    /// Asks the whole process group to end, and kills it after a grace period. Returns the exit code.
    pub(crate) async fn stop(&mut self) -> i32 {
        self.signal_group(Signal::TERM);
        if let Ok(code) = tokio::time::timeout(GRACE, self.ended()).await {
            return code;
        }
        tracing::warn!("the migration did not end within 10 s of SIGTERM");
        self.signal_group(Signal::KILL);
        self.ended().await
    }

    fn signal_group(&self, signal: Signal) {
        if let Err(error) = kill_process_group(self.pid, signal) {
            tracing::warn!("the migration's process group could not be signalled: {error}");
        }
    }

    /// Kills whatever the migration left running, reads the rest of its output and returns the last lines.
    pub(crate) async fn clean_up(mut self) -> Tail {
        // Ends the members that are no children of ours yet; there may be none left.
        let _ = kill_process_group(self.pid, Signal::KILL);
        loop {
            self.reap();
            let left = children();
            if left.is_empty() {
                break;
            }
            for pid in left {
                let _ = kill_process(pid, Signal::KILL);
            }
            self.signals.recv().await;
        }
        for reader in self.readers {
            // A reader that cannot finish only costs the last lines of the output.
            let _ = tokio::time::timeout(DRAIN, reader).await;
        }
        std::mem::take(&mut self.tail.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Children of this process that have not ended.
fn children() -> Vec<Pid> {
    let own = getpid().as_raw_pid();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let status = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            // The name in parentheses may hold anything; state and parent follow it.
            let mut fields = status.rsplit_once(')')?.1.split_whitespace();
            let (state, parent) = (fields.next()?, fields.next()?);
            (parent.parse() == Ok(own) && state != "Z").then_some(Pid::from_raw(pid)?)
        })
        .collect()
}

/// Copies a pipe to the container's log on a thread of its own, and keeps the last lines.
fn copy(
    mut from: impl Read + Send + 'static,
    mut to: impl Write + Send + 'static,
    tail: Arc<Mutex<Tail>>,
) -> oneshot::Receiver<()> {
    let (done, receiver) = oneshot::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 8192];
        let mut line = Vec::new();
        let keep = |line: &mut Vec<u8>| {
            tail.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            line.clear();
        };
        loop {
            let count = match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(_) => break,
            };
            let read = &buffer[..count];
            // A closed log must not stop the migration.
            let _ = to.write_all(read).and_then(|()| to.flush());
            for byte in read {
                match byte {
                    b'\n' => keep(&mut line),
                    // The rest of an endless line is not kept.
                    _ if line.len() < 8192 => line.push(*byte),
                    _ => {}
                }
            }
        }
        keep(&mut line);
        let _ = done.send(());
    });
    receiver
}
