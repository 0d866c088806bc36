//! The end of a run: its sessions are ended, then the schema is looked at, then the ledger is written.

use std::time::Duration;

use fairway_protocol::{Failure, MigrationOutcome, MigrationReport, reason};
use tokio::time::Instant;

use super::{
    backends::{self, StillThere},
    checks::{self, Checks},
    claim::OpenRun,
    connection::Connection,
    failure::version,
    fingerprint,
    ledger::{self, Ending, State},
    lock::Lock,
    report::migration,
    session::statement_failed,
};

/// How long the database may be away at the end of a run before the agent leaves the rest to a settle task.
const PATIENCE: Duration = Duration::from_secs(300);
/// Pause before what did not work is tried again on the same session.
const PAUSE: Duration = Duration::from_secs(1);

/// What the run itself said.
#[derive(Clone, Debug)]
pub(crate) enum Said {
    /// The process exited 0, or health passed.
    Success,
    /// Anything else.
    Failure {
        /// One of [`reason`].
        reason: String,
        /// What happened, as the predicate of `The migration …`, e.g. `exited with code 1`.
        what: String,
        /// The state to record when the schema changed.
        changed: State,
    },
}

/// The end of a run as its observer saw it.
#[derive(Clone, Debug)]
pub(crate) struct Observed {
    pub(crate) said: Said,
    /// Whether the run's processes are gone, so that its sessions are leftovers. They are not where an
    /// application became healthy: it goes on.
    pub(crate) processes: Processes,
    pub(crate) exit_code: Option<i32>,
    pub(crate) sqlstate: Option<String>,
    pub(crate) last_error: Option<String>,
}

/// What became of the run's processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Processes {
    /// They are gone or must go; their sessions are ended.
    Gone,
    /// They go on serving.
    Serving,
}

/// Ends the run's sessions, compares the schema and writes the ledger, however often the connection breaks; then
/// `lock` is the one that was taken last.
pub(crate) async fn conclude(
    lock: &mut Lock,
    connection: &Connection,
    run: &OpenRun,
    sql_checks: &Checks<'_>,
    observed: &Observed,
) -> MigrationReport {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let failure = match attempt(lock, connection, run, sql_checks, observed).await {
            Ok(report) => return report,
            Err(failure) => failure,
        };
        tracing::warn!("{}", failure.message);
        let left = deadline.saturating_duration_since(Instant::now());
        if !lock.session.client().is_closed() {
            match left.is_zero() {
                true => return give_up(lock, run, observed, failure).await,
                false => tokio::time::sleep(PAUSE).await,
            }
            continue;
        }
        match Lock::acquire(connection, left, left).await {
            Ok(again) => *lock = again,
            // The ledger still says `running`, which a settle task will find.
            Err(failure) if left.is_zero() => return migration(MigrationOutcome::Unknown, Some(failure)),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Records that nothing could be found out, so that a person can resolve it.
async fn give_up(lock: &Lock, run: &OpenRun, observed: &Observed, failure: Failure) -> MigrationReport {
    let message = format!("What the migration did cannot be decided: {}", failure.message);
    let ending = seen(
        ending(State::Unknown, None, Some((reason::MIGRATION_UNKNOWN, message))),
        observed,
    );
    match ledger::finish(lock.session.client(), &run.run_id, &ending).await {
        Ok(Some(row)) => row.report(false),
        Ok(None) | Err(_) => migration(MigrationOutcome::Unknown, Some(failure)),
    }
}

/// The ending with what was seen of the process.
fn seen(ending: Ending, observed: &Observed) -> Ending {
    Ending {
        exit_code: observed.exit_code,
        sqlstate: observed.sqlstate.clone(),
        last_error: observed.last_error.clone(),
        ..ending
    }
}

async fn attempt(
    lock: &mut Lock,
    connection: &Connection,
    run: &OpenRun,
    sql_checks: &Checks<'_>,
    observed: &Observed,
) -> Result<MigrationReport, Failure> {
    let ending = match end_sessions(lock, run, observed).await? {
        Some(unknown) => unknown,
        None => judge(lock, connection, run, sql_checks, observed).await?,
    };
    let ending = seen(ending, observed);
    let doing = |error| statement_failed("writing the ledger", &error);
    let row = ledger::finish(lock.session.client(), &run.run_id, &ending)
        .await
        .map_err(doing)?;
    Ok(match row {
        Some(row) => row.report(false),
        // The database was restored to a time before the run, or the row was deleted.
        None => migration(
            MigrationOutcome::Unknown,
            Some(version(
                reason::MIGRATION_UNKNOWN,
                "The run's row is gone from fairway.migration_run, so its outcome cannot be recorded.",
            )),
        ),
    })
}

/// Ends the sessions; when that cannot be proven, the outcome is unknown. A run that says that it did its work has
/// awaited its statements, so nobody else's are waited for then.
async fn end_sessions(lock: &Lock, run: &OpenRun, observed: &Observed) -> Result<Option<Ending>, Failure> {
    if observed.processes == Processes::Serving {
        return Ok(None);
    }
    let client = lock.session.client();
    let ended = async {
        backends::end(client, &run.run_id, &run.origin).await?;
        match observed.said {
            Said::Success => Ok(()),
            Said::Failure { .. } => backends::outlast(client, &run.at_work).await,
        }
    };
    match ended.await {
        Ok(()) => Ok(None),
        Err(StillThere::Database(error)) if error.as_db_error().is_none() => {
            Err(statement_failed("ending the migration's sessions", &error))
        }
        Err(error) => Ok(Some(ending(
            State::Unknown,
            None,
            Some((
                reason::MIGRATION_UNKNOWN,
                format!("The migration ended, but {error}, so what it did cannot be decided."),
            )),
        ))),
    }
}

async fn judge(
    lock: &mut Lock,
    connection: &Connection,
    run: &OpenRun,
    sql_checks: &Checks<'_>,
    observed: &Observed,
) -> Result<Ending, Failure> {
    let doing = |error| statement_failed("reading the schema", &error);
    let after = fingerprint::of_database(&mut lock.session).await.map_err(doing)?;
    match &observed.said {
        Said::Success => {
            let invalid = checks::invalid_indexes(lock.session.client())
                .await
                .map_err(doing)?;
            let broken = match checks::newly_invalid(&run.invalid_indexes, &invalid) {
                Some(sentence) => Some(sentence),
                None => checks::first_broken(connection, sql_checks).await?,
            };
            Ok(Ending {
                failed_check: broken,
                ..ending(State::Committed, Some(after), None)
            })
        }
        Said::Failure { reason, what, .. } if after == run.before => {
            let line = observed
                .last_error
                .as_ref()
                .map(|line| format!(": {line}"))
                .unwrap_or_default();
            let message =
                format!("The migration {what}{line} (the schema is unchanged; rows may have changed).");
            Ok(ending(State::Failed, Some(after), Some((reason, message))))
        }
        Said::Failure { what, changed, .. } => {
            let line = observed
                .last_error
                .as_ref()
                .map(|line| format!(": {line}"))
                .unwrap_or_default();
            let message = format!(
                "The migration {what}{line} (the schema changed); look at the database and resolve the release as \
                 applied or not applied."
            );
            let reason = match changed {
                State::Unknown => reason::MIGRATION_UNKNOWN,
                _ => reason::MIGRATION_PARTIAL,
            };
            Ok(ending(*changed, Some(after), Some((reason, message))))
        }
    }
}

fn ending(state: State, after: Option<String>, why: Option<(&str, String)>) -> Ending {
    let (reason, message) = why.map(|(reason, message)| (reason.to_owned(), message)).unzip();
    Ending {
        state,
        after,
        exit_code: None,
        sqlstate: None,
        reason,
        message,
        last_error: None,
        failed_check: None,
    }
}

/// What settles a run whose pod was cut off, or whose guard gave it up.
pub(crate) fn cut_off(run: &OpenRun) -> Observed {
    let said = match run.given_up.clone() {
        Some((reason, what)) => failed(&reason, what),
        None => Said::Failure {
            reason: reason::MIGRATION_CUT_OFF.to_owned(),
            what: "was cut off before it ended".to_owned(),
            changed: State::Unknown,
        },
    };
    Observed {
        said,
        processes: Processes::Gone,
        exit_code: None,
        sqlstate: None,
        last_error: None,
    }
}

/// A run that is known to have failed: when it changed the schema, only a part of it was done.
pub(crate) fn failed(reason: &str, what: String) -> Said {
    Said::Failure {
        reason: reason.to_owned(),
        what,
        changed: State::Partial,
    }
}
