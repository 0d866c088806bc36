//! The agent's answer: one JSON document in the container's termination message.

use std::{io::Write as _, path::Path};

use fairway_protocol::{
    BackupReport, Failure, MigrationOutcome, MigrationReport, PreflightReport, REPORT_LIMIT,
};
use serde::Serialize;

/// A report whose free texts may be shortened so that it fits into the termination message.
pub(crate) trait Report: Serialize {
    /// Texts that may be shortened without changing what the operator decides.
    fn texts(&mut self) -> Vec<&mut String>;
}

impl Report for PreflightReport {
    fn texts(&mut self) -> Vec<&mut String> {
        message(&mut self.failure).into_iter().collect()
    }
}

impl Report for BackupReport {
    fn texts(&mut self) -> Vec<&mut String> {
        let notes = self.evidence.iter_mut().flat_map(|evidence| &mut evidence.notes);
        message(&mut self.failure).into_iter().chain(notes).collect()
    }
}

impl Report for MigrationReport {
    fn texts(&mut self) -> Vec<&mut String> {
        message(&mut self.failure)
            .into_iter()
            .chain(self.last_error.as_mut())
            .chain(self.failed_check.as_mut())
            .collect()
    }
}

fn message(failure: &mut Option<Failure>) -> Option<&mut String> {
    failure.as_mut().map(|failure| &mut failure.message)
}

/// The report's JSON, at most [`REPORT_LIMIT`] bytes: the longest text is cut first, at a character.
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
        *longest = shortened(longest, keep.max(1));
    }
}

/// At most `limit` bytes of a text, ending in `…` when it was cut.
pub(crate) fn shortened(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(limit.saturating_sub('…'.len_utf8()));
    format!("{}…", &text[..end])
}

/// Writes the report where the kubelet picks it up. Failing to is only logged: the ledger and the manifest
/// hold the truth.
pub(crate) fn write(path: &Path, json: &str) {
    tracing::info!("report: {json}");
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

/// The answer to a task that was not worked on, in the form in which that task is answered; it may be one that
/// cannot be read.
pub(crate) fn without_work(task: &str, failure: Failure) -> String {
    let task: serde_json::Value = serde_json::from_str(task).unwrap_or_default();
    let is = |kind: &str| task.get(kind).is_some();
    if is("preflight") {
        return fit(PreflightReport {
            checks: Vec::new(),
            failure: Some(failure),
            server_version: None,
            database_bytes: None,
        });
    }
    if is("backup") {
        return fit(BackupReport {
            evidence: None,
            failure: Some(failure),
        });
    }
    let outcome = match is("settle") {
        // Nothing is decided about the run.
        true => MigrationOutcome::Undecided,
        false => MigrationOutcome::NotStarted,
    };
    fit(migration(outcome, Some(failure)))
}

/// A migration report that says only how it ended.
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
    }
}

#[cfg(test)]
mod tests {
    use fairway_protocol::reason;

    use super::*;
    use crate::failure::{environment, version};

    #[test]
    fn a_long_report_is_cut_and_stays_json() {
        let mut report = migration(
            MigrationOutcome::Failed,
            Some(version(reason::MIGRATION_FAILED, "ä\"\n".repeat(900))),
        );
        report.last_error = Some("\u{1}".repeat(200));
        report.before = Some("a".repeat(64));
        report.after = Some("b".repeat(64));
        let json = fit(report);
        assert!(json.len() <= REPORT_LIMIT, "{} bytes", json.len());
        let read: MigrationReport = serde_json::from_str(&json).expect("valid JSON");
        assert_eq!(read.after, Some("b".repeat(64)), "what decides is never cut");
        assert!(read.failure.expect("kept").message.ends_with('…'));
    }

    #[test]
    fn what_was_not_worked_on_is_answered_as_the_operator_reads_it() {
        let answer =
            |task: &str| without_work(task, environment(reason::AGENT_FAILED, "The pod was stopped."));
        let preflight: PreflightReport =
            serde_json::from_str(&answer(r#"{"preflight":{}}"#)).expect("a report");
        let backup: BackupReport = serde_json::from_str(&answer(r#"{"backup":{}}"#)).expect("a report");
        for failure in [preflight.failure, backup.failure] {
            assert_eq!(failure.expect("a failure").message, "The pod was stopped.");
        }
        for (task, outcome) in [
            (r#"{"migrate":{}}"#, MigrationOutcome::NotStarted),
            (r#"{"guard":{}}"#, MigrationOutcome::NotStarted),
            (r#"{"settle":{}}"#, MigrationOutcome::Undecided),
            ("no JSON", MigrationOutcome::NotStarted),
        ] {
            let report: MigrationReport = serde_json::from_str(&answer(task)).expect("a report");
            assert_eq!(report.outcome, outcome, "{task}");
            assert!(report.failure.is_some());
        }
    }

    #[test]
    fn a_short_report_is_left_alone() {
        let json = fit(migration(
            MigrationOutcome::Failed,
            Some(version(reason::MIGRATION_FAILED, "No.")),
        ));
        assert!(json.contains("\"No.\""));
    }
}
