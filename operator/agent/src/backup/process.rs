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

/// Longest line of errors that is kept, in bytes.
const LONGEST_LINE: usize = 4096;

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

/// Keeps the last lines of what is written, however much and however long the lines are: what a program prints may be
/// the words of a function in a dump.
#[derive(Default)]
struct Lines {
    tail: Tail,
    begun: Vec<u8>,
}

impl Lines {
    fn end(mut self) -> Tail {
        self.tail.push(&self.begun);
        self.tail
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let room = LONGEST_LINE.saturating_sub(self.begun.len());
            let (text, ends) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            self.begun.extend_from_slice(&text[..text.len().min(room)]);
            if ends {
                self.tail.push(&self.begun);
                self.begun.clear();
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
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
            let mut lines = Lines::default();
            if let Some(mut errors) = errors {
                // What cannot be read is missing from a message, no more.
                let _ = pump(&mut errors, &mut lines);
            }
            lines.end()
        });
        Ok(Self {
            child,
            errors,
            programs: programs.clone(),
        })
    }

    /// Whether the program has ended; its status is left for [`Running::end`].
    pub(crate) fn has_ended(&self) -> io::Result<bool> {
        let pid = Pid::from_child(&self.child);
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        Ok(retry_on_intr(|| waitid(WaitId::Pid(pid), look))?.is_some())
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

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_flood_of_errors_is_not_kept() {
        let mut lines = Lines::default();
        for number in 0..200 {
            lines
                .write_all(format!("{number}: {}", "x".repeat(100_000)).as_bytes())
                .unwrap();
            lines.write_all(b"\n").unwrap();
        }
        lines.write_all(b"the end").unwrap();
        let tail = lines.end();
        assert!(tail.lines().all(|line| line.len() <= LONGEST_LINE));
        assert!(tail.lines().len() < 100);
        assert_eq!(tail.lines().next_back(), Some("the end"));
    }
}
