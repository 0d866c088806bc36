//! Reports: one JSON document in the container's termination message, and an exit code.

use std::{io::Write as _, path::Path};

use fairway_protocol::{
    BackupReport, Begun, EXIT_OTHER_OWNER, Failure, MigrationOutcome, MigrationReport, PreflightReport,
    PruneReport, REPORT_LIMIT, Reason, RestoreReport, Versioned,
};
use serde::Serialize;

use crate::text::abridged;

/// Exit code of an agent whose task ended with a failure.
const EXIT_FAILURE: u8 = 1;

/// A report on a task. Its free texts may be shortened so that it fits into the termination message.
pub(crate) trait Report: Serialize {
    /// Texts that may be shortened without changing what the operator decides.
    fn texts(&mut self) -> Vec<&mut String>;

    /// What the agent's container exits with.
    fn exit_code(&self) -> u8;
}

/// A report as the container gives it.
pub(crate) struct Answer {
    /// The termination message.
    pub(crate) message: String,
    /// The container's exit code.
    pub(crate) exit_code: u8,
}

impl Answer {
    /// The answer with this report, in that version of the protocol.
    pub(crate) fn of(report: impl Report, protocol: u32) -> Self {
        Self {
            exit_code: report.exit_code(),
            message: fit(Versioned { protocol, report }),
        }
    }
}

impl<R: Report> Report for Versioned<R> {
    fn texts(&mut self) -> Vec<&mut String> {
        self.report.texts()
    }

    fn exit_code(&self) -> u8 {
        self.report.exit_code()
    }
}

/// The exit code of a task that failed, or did not.
pub(crate) fn exit_code(failed: bool) -> u8 {
    if failed { EXIT_FAILURE } else { 0 }
}

impl Report for PreflightReport {
    fn texts(&mut self) -> Vec<&mut String> {
        message(&mut self.failure).into_iter().collect()
    }

    fn exit_code(&self) -> u8 {
        exit_code(self.failure.is_some())
    }
}

impl Report for BackupReport {
    fn texts(&mut self) -> Vec<&mut String> {
        let notes = self.evidence.iter_mut().flat_map(|evidence| &mut evidence.notes);
        message(&mut self.failure).into_iter().chain(notes).collect()
    }

    fn exit_code(&self) -> u8 {
        exit_code(self.failure.is_some())
    }
}

impl Report for PruneReport {
    fn texts(&mut self) -> Vec<&mut String> {
        message(&mut self.failure)
            .into_iter()
            .chain(self.note.as_mut())
            .collect()
    }

    fn exit_code(&self) -> u8 {
        exit_code(self.failure.is_some())
    }
}

impl Report for MigrationReport {
    fn texts(&mut self) -> Vec<&mut String> {
        message(&mut self.failure)
            .into_iter()
            .chain(self.last_error.as_mut())
            .chain(self.failed_check.as_mut())
            .chain(self.note.as_mut())
            .collect()
    }

    fn exit_code(&self) -> u8 {
        match (self.outcome, &self.failure) {
            (MigrationOutcome::Applied | MigrationOutcome::AlreadyApplied, _) => {
                exit_code(self.failed_check.is_some())
            }
            (_, Some(failure)) if failure.reason == Reason::MigrationRunning => EXIT_OTHER_OWNER,
            _ => EXIT_FAILURE,
        }
    }
}

impl Report for RestoreReport {
    fn texts(&mut self) -> Vec<&mut String> {
        let loss = self.loss.iter_mut().flat_map(|loss| {
            let tables = loss.largest.iter_mut().map(|(table, _)| table);
            tables.chain(&mut loss.uncounted)
        });
        message(&mut self.failure).into_iter().chain(loss).collect()
    }

    fn exit_code(&self) -> u8 {
        exit_code(self.failure.is_some())
    }
}

fn message(failure: &mut Option<Failure>) -> Option<&mut String> {
    failure.as_mut().map(|failure| &mut failure.message)
}

/// The JSON of a report, at most [`REPORT_LIMIT`] bytes: the longest text is cut first, in its middle.
pub(crate) fn fit(mut report: impl Report) -> String {
    loop {
        let json = serde_json::to_string(&report).unwrap_or_else(|_| "{}".to_owned());
        if json.len() <= REPORT_LIMIT {
            return json;
        }
        let excess = json.len() - REPORT_LIMIT;
        let Some(longest) = report
            .texts()
            .into_iter()
            .max_by_key(|text| text.len())
            .filter(|text| text.len() > 4)
        else {
            return json;
        };
        let keep = longest.len().saturating_sub(excess.max(4) + 4);
        *longest = abridged(longest, keep.max(1));
    }
}

/// Writes a report where the kubelet reads it. A failure to do so is only logged: the ledger and the manifest hold the
/// truth.
pub(crate) fn write(path: &Path, json: &str) {
    tracing::info!("report: {json}");
    write_message(path, json);
}

/// Leaves word that a migration has begun, for the case that this process is killed: whoever finds no row of the run then
/// knows that it was there.
pub(crate) fn write_begun(path: &Path, before: &str) {
    let begun = Begun {
        begun: before.to_owned(),
    };
    write_message(path, &serde_json::to_string(&begun).unwrap_or_default());
}

fn write_message(path: &Path, json: &str) {
    let written = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .and_then(|mut file| file.write_all(json.as_bytes()));
    if let Err(error) = written {
        tracing::error!("the report could not be written to {}: {error}", path.display());
    }
}

/// The report on a migration that was not started.
pub(crate) fn not_started(failure: Failure) -> MigrationReport {
    migration(MigrationOutcome::NotStarted, Some(failure))
}

/// A migration report that says how the migration ended and nothing else.
pub(crate) fn migration(outcome: MigrationOutcome, failure: Option<Failure>) -> MigrationReport {
    MigrationReport {
        outcome,
        failure,
        before: None,
        after: None,
        seconds: None,
        exit_code: None,
        sqlstate: None,
        last_error: None,
        schema_ahead: false,
        failed_check: None,
        row_missing: false,
        note: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::version;

    #[test]
    fn a_long_report_is_shortened_and_stays_json() {
        let mut report = migration(
            MigrationOutcome::Failed,
            Some(version(Reason::MigrationFailed, "ä\"\n".repeat(900))),
        );
        report.last_error = Some("\u{1}".repeat(200));
        report.before = Some("a".repeat(64));
        report.after = Some("b".repeat(64));
        let protocol = u32::MAX;
        let json = fit(Versioned { protocol, report });
        assert!(json.len() <= REPORT_LIMIT, "{} bytes", json.len());
        let read: MigrationReport = serde_json::from_str(&json).expect("valid JSON");
        assert_eq!(read.after, Some("b".repeat(64)), "what decides is never cut");
        assert!(read.failure.expect("kept").message.ends_with('…'));
    }

    #[test]
    fn a_short_report_is_not_changed() {
        let json = fit(migration(
            MigrationOutcome::Failed,
            Some(version(Reason::MigrationFailed, "No.")),
        ));
        assert!(json.contains("\"No.\""));
    }
}
