//! The agent's tasks: one table, from which follows how a task is dispatched and answered.
//!
//! A new task is a variant of [`Task`], a file with a `run` and a `not_run`, and a row in this table. Its pod is the
//! planner's.

use std::future::Future;

use fairway_protocol::{
    BackupReport, Failure, MigrationReport, PreflightReport, PruneReport, Reason, RestoreReport, Task,
};

use crate::{
    backup,
    environment::Environment,
    failure::environment as environment_failure,
    guard, migrate, preflight, probe, prune,
    report::{Answer, not_started},
    restore, settle,
    termination::Termination,
};

/// One task of the table.
pub(crate) struct Row {
    /// The task's name in JSON, and the name of its file.
    pub(crate) name: &'static str,
    /// Whether another pod may do the task again.
    pub(crate) repeat: Repeat,
}

/// Whether another pod may do a task again when the answer of the first one was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Again and again.
    Yes,
    /// At most once: the ledger's row and the migration lock see to it.
    Once,
}

/// What SIGTERM does to a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sigterm {
    /// It ends the task at once: nothing is left to clean up.
    Ends,
    /// The task receives it and decides.
    Reaches,
}

macro_rules! tasks {
    ($($task:ident: $file:ident -> $report:ty, $sigterm:ident, $repeat:ident;)+) => {
        /// Every task.
        pub(crate) const TASKS: &[Row] = &[
            $(Row { name: stringify!($file), repeat: Repeat::$repeat },)+
        ];

        /// Does a task and answers it, in that version of the protocol.
        pub(crate) async fn run(task: Task, environment: &Environment, protocol: u32) -> Answer {
            match task {
                $(Task::$task(task) => {
                    let work = $file::run(task, environment);
                    let report: $report = match Sigterm::$sigterm {
                        Sigterm::Ends => unless_stopped(work, $file::not_run).await,
                        Sigterm::Reaches => work.await,
                    };
                    Answer::of(report, protocol)
                })+
            }
        }

        /// The answer to the task of this name when it was not started, in the form in which that task is answered.
        fn not_run(name: Option<&str>, failure: Failure, protocol: u32) -> Answer {
            match name {
                $(Some(stringify!($file)) => Answer::of($file::not_run(failure), protocol),)+
                _ => Answer::of(not_started(failure), protocol),
            }
        }
    };
}

tasks! {
    // task       its file     what it answers      SIGTERM    may be repeated
    Preflight:    preflight -> PreflightReport,     Ends,      Yes;
    Backup:       backup    -> BackupReport,        Reaches,   Yes;
    Prune:        prune     -> PruneReport,         Ends,      Yes;
    Migrate:      migrate   -> MigrationReport,     Reaches,   Once;
    Guard:        guard     -> MigrationReport,     Reaches,   Once;
    Settle:       settle    -> MigrationReport,     Ends,      Yes;
    Probe:        probe     -> probe::ProbeReport,  Reaches,   Yes;
    Restore:      restore   -> RestoreReport,       Reaches,   Yes;
}

/// The row of a task that is given as JSON, which may be of another version and not be a task of this one.
pub(crate) fn row(task: &str) -> Option<&'static Row> {
    let task: serde_json::Value = serde_json::from_str(task).ok()?;
    TASKS.iter().find(|row| task.get(row.name).is_some())
}

/// The answer to a task that could not be started, in the form in which that task is answered and in that version of the
/// protocol.
pub(crate) fn without_work(task: &str, failure: Failure, protocol: u32) -> Answer {
    not_run(row(task).map(|row| row.name), failure, protocol)
}

async fn unless_stopped<R>(work: impl Future<Output = R>, not_run: fn(Failure) -> R) -> R {
    let mut termination = Termination::listen();
    tokio::select! {
        report = work => report,
        () = termination.requested() => not_run(environment_failure(
            Reason::AgentFailed,
            "The agent's pod was stopped before its task was done.",
        )),
    }
}

#[cfg(test)]
mod tests {
    use fairway_protocol::{MigrationOutcome, PROTOCOL_VERSION};

    use super::*;

    fn stopped(task: &str) -> String {
        let failure = environment_failure(Reason::AgentFailed, "The pod was stopped.");
        without_work(task, failure, PROTOCOL_VERSION).message
    }

    #[test]
    fn a_task_that_was_not_started_is_answered_in_its_form() {
        let preflight: PreflightReport =
            serde_json::from_str(&stopped(r#"{"preflight":{}}"#)).expect("a report");
        let backup: BackupReport = serde_json::from_str(&stopped(r#"{"backup":{}}"#)).expect("a report");
        let prune: PruneReport = serde_json::from_str(&stopped(r#"{"prune":{}}"#)).expect("a report");
        assert_eq!(prune.outcome, None);
        for failure in [preflight.failure, backup.failure, prune.failure] {
            assert_eq!(failure.expect("a failure").message, "The pod was stopped.");
        }
        for (task, outcome) in [
            (r#"{"migrate":{}}"#, MigrationOutcome::NotStarted),
            (r#"{"guard":{}}"#, MigrationOutcome::NotStarted),
            (r#"{"settle":{}}"#, MigrationOutcome::Undecided),
            ("no JSON", MigrationOutcome::NotStarted),
        ] {
            let report: MigrationReport = serde_json::from_str(&stopped(task)).expect("a report");
            assert_eq!(report.outcome, outcome, "{task}");
            assert!(report.failure.is_some());
        }
    }

    #[test]
    fn the_architecture_page_has_the_table_of_tasks() {
        let page = include_str!("../../ARCHITECTURE.md");
        for Row { name, repeat } in TASKS {
            let row = page
                .lines()
                .find(|line| line.starts_with(&format!("| {name} |")))
                .unwrap_or_else(|| panic!("operator/ARCHITECTURE.md has no row for the task {name}"));
            let repeated = row.rsplit('|').nth(1).unwrap_or_default().trim();
            assert_eq!(repeated.starts_with("yes"), *repeat == Repeat::Yes, "{row}");
        }
    }
}
