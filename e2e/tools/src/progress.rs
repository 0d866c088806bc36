//! Progress of a long step: what is done, how far it is and since when.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// One long step. It writes to standard error: on a terminal the line is rewritten in place, and in
/// a log each change is a line of its own.
#[derive(Debug)]
pub struct Progress {
    what: String,
    since: Instant,
    in_place: bool,
}

impl Progress {
    /// Begins a step.
    #[must_use]
    pub fn start(what: &str) -> Self {
        let progress = Self {
            what: what.to_owned(),
            since: Instant::now(),
            in_place: std::io::stderr().is_terminal(),
        };
        progress.line("…", false);
        progress
    }

    /// Shows how far it is, for example `12 of 40`.
    pub fn step(&self, state: &str) {
        self.line(state, false);
    }

    /// Shows that it is done.
    pub fn done(&self, state: &str) {
        self.line(state, true);
    }

    /// How long it has taken so far.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.since.elapsed()
    }

    fn line(&self, state: &str, last: bool) {
        let line = format!("[{:>6}] {}: {state}", seconds(self.since.elapsed()), self.what);
        let mut out = std::io::stderr().lock();
        // Progress that nobody can read is no reason to fail.
        let _ = match (self.in_place, last) {
            (true, false) => write!(out, "\r\x1b[K{line}"),
            (true, true) => writeln!(out, "\r\x1b[K{line}"),
            (false, _) => writeln!(out, "{line}"),
        };
        let _ = out.flush();
    }
}

/// A duration as `9.5s` or `3m20s`.
#[must_use]
pub fn seconds(duration: Duration) -> String {
    if duration.as_secs() < 60 {
        format!("{:.1}s", duration.as_secs_f64())
    } else {
        format!("{}m{:02}s", duration.as_secs() / 60, duration.as_secs() % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        assert_eq!(seconds(Duration::from_millis(9_540)), "9.5s");
        assert_eq!(seconds(Duration::from_secs(200)), "3m20s");
    }
}
