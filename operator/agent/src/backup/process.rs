//! PostgreSQL's programs while they run: their errors are read beside their work, and they can be ended from elsewhere.

use std::{
    io,
    os::unix::process::CommandExt as _,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
};

use rustix::{
    io::retry_on_intr,
    process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid},
};

use super::stream::pump;
use crate::output::Tail;

/// The program that runs, for threads that do not wait for it.
#[derive(Debug, Default)]
pub(crate) struct Programs(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    group: Option<Pid>,
    /// Whether nothing may run any more.
    over: bool,
}

impl Programs {
    /// Kills the program that runs, with its helpers, and any that is started later.
    pub(crate) fn end(&self) {
        let mut known = self.known();
        known.over = true;
        known.kill();
    }

    fn started(&self, child: &Child) {
        let mut known = self.known();
        known.group = Some(Pid::from_child(child));
        if known.over {
            known.kill();
        }
    }

    fn ended(&self) {
        self.known().group = None;
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // What is known is written at once, so a thread that panicked has left it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn kill(&self) {
        if let Some(group) = self.group {
            // It may have ended by itself.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// A program whose standard error is read beside its work.
pub(crate) struct Running {
    pub(crate) child: Child,
    errors: JoinHandle<Tail>,
    programs: Arc<Programs>,
}

impl Running {
    /// Starts the program in a process group of its own.
    pub(crate) fn start(command: &mut Command, programs: &Arc<Programs>) -> io::Result<Self> {
        let mut child = command.process_group(0).stderr(Stdio::piped()).spawn()?;
        programs.started(&child);
        let errors = child.stderr.take();
        let errors = std::thread::spawn(move || {
            let mut tail = Tail::default();
            let mut text = Vec::new();
            if let Some(mut errors) = errors {
                // What cannot be read is missing from a message, no more.
                let _ = pump(&mut errors, &mut text);
            }
            text.split(|byte| *byte == b'\n').for_each(|line| tail.push(line));
            tail
        });
        Ok(Self {
            child,
            errors,
            programs: programs.clone(),
        })
    }

    /// Waits for the end of the program; returns its status and the last lines of its errors.
    pub(crate) fn end(mut self) -> io::Result<(ExitStatus, Tail)> {
        drop(self.child.stdin.take());
        let status = self.reap()?;
        Ok((status, self.errors.join().unwrap_or_default()))
    }

    /// Kills the program.
    pub(crate) fn kill(mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.reap();
    }

    /// Until its status is taken, its process id belongs to nobody else: so it is forgotten before that.
    fn reap(&mut self) -> io::Result<ExitStatus> {
        let pid = Pid::from_child(&self.child);
        let seen = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        retry_on_intr(|| waitid(WaitId::Pid(pid), seen))?;
        self.programs.ended();
        self.child.wait()
    }
}
