//! The task `settle`: reads the ledger, and settles a run that was interrupted.

use std::time::Duration;

use fairway_protocol::{Failure, MigrationOutcome, MigrationReport, Reason, SettleTask};

use crate::{
    connection::Connection,
    environment::Environment,
    failure::{environment as environment_failure, version},
    ledger::{
        self, Entry, State,
        schema::{self, Found},
    },
    lock::Lock,
    report::migration,
    run::Run,
    session::{SearchPath, Session, statement_failed},
};

/// Longest time to connect to the database.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);

/// Reports how the run ended, if it did.
pub(crate) async fn run(task: SettleTask, environment: &Environment) -> MigrationReport {
    settle(&task, environment).await.unwrap_or_else(not_run)
}

/// The answer when the ledger could not be asked, which decides nothing about the run.
pub(crate) fn not_run(failure: Failure) -> MigrationReport {
    migration(MigrationOutcome::Undecided, Some(failure))
}

async fn settle(task: &SettleTask, environment: &Environment) -> Result<MigrationReport, Failure> {
    let connection = environment.connection()?;
    let lock_timeout = Duration::from_secs(task.timeout_seconds);
    let connect_timeout = CONNECT_TIMEOUT.min(lock_timeout);
    if let Some(report) = read(task, &connection, connect_timeout).await? {
        return Ok(report);
    }
    let mut lock = Lock::acquire(&connection, connect_timeout, lock_timeout).await?;
    if let Found::Earlier(_) = schema::find(lock.session.client()).await? {
        schema::ensure(lock.session.client_mut()).await?;
    }
    let found = match find(&lock.session, task).await? {
        None => match reverted(&lock.session, task).await? {
            Some(report) => return Ok(report),
            None => record_lost(&mut lock, task).await?,
        },
        found => found,
    };
    match found {
        None => Ok(never_started()),
        Some(entry) if entry.state == State::Running => {
            let mut run = Run::of_entry(lock, entry);
            let report = run.settle().await;
            match (report.outcome, task.resolution) {
                (MigrationOutcome::Unknown, Some(_)) => resolve(run.session(), task).await,
                _ => Ok(report),
            }
        }
        Some(_) => resolve(&lock.session, task).await,
    }
}

/// The report of a run whose row is missing because a restore took it away, with all that the run did.
async fn reverted(session: &Session, task: &SettleTask) -> Result<Option<MigrationReport>, Failure> {
    if schema::find(session.client()).await? != Found::Current {
        return Ok(None);
    }
    let taken_at = ledger::reverted_to(session.client(), &task.run.run_id)
        .await
        .map_err(|error| statement_failed("reading the ledger", &error))?;
    Ok(taken_at.map(|taken_at| {
        let failure = version(
            Reason::MigrationNotApplied,
            format!(
                "A restore took the database back to {taken_at}, before the migration: its work is not there."
            ),
        );
        migration(MigrationOutcome::Failed, Some(failure))
    }))
}

/// Records that the outcome of the run is unknown, where it is known that the run began, or where a user has resolved it.
async fn record_lost(lock: &mut Lock, task: &SettleTask) -> Result<Option<Entry>, Failure> {
    if task.before.is_none() && task.resolution.is_none() {
        return Ok(None);
    }
    schema::ensure(lock.session.client_mut()).await?;
    let before = task.before.as_deref().unwrap_or_default();
    ledger::record_lost(lock.session.client(), &task.requester, &task.run, before)
        .await
        .map_err(|error| statement_failed("writing the ledger", &error))
}

/// What the ledger says without the lock: enough when the run has ended and no verdict is to be recorded.
async fn read(
    task: &SettleTask,
    connection: &Connection,
    connect_timeout: Duration,
) -> Result<Option<MigrationReport>, Failure> {
    let session = Session::connect_within(connection, SearchPath::Catalog, connect_timeout).await?;
    match find(&session, task).await? {
        Some(entry) if entry.state != State::Running && task.resolution.is_none() => {
            Ok(Some(entry.report(is_schema_ahead(&session, task).await?)))
        }
        // The row is written under the lock, so only under the lock does a missing one mean anything.
        _ => Ok(None),
    }
}

/// Records the user's verdict, where one is needed, and reports the row.
async fn resolve(session: &Session, task: &SettleTask) -> Result<MigrationReport, Failure> {
    if let Some(resolution) = task.resolution {
        let token = task.resolution_token.as_deref();
        ledger::resolve(session.client(), &task.run.run_id, resolution, token)
            .await
            .map_err(|error| statement_failed("recording the resolution", &error))?;
    }
    let schema_ahead = is_schema_ahead(session, task).await?;
    Ok(find(session, task)
        .await?
        .map_or_else(never_started, |entry| entry.report(schema_ahead)))
}

/// The row of the run; none where there is none, or no ledger.
async fn find(session: &Session, task: &SettleTask) -> Result<Option<Entry>, Failure> {
    match schema::find(session.client()).await? {
        Found::Current => ledger::find(session.client(), &task.run.run_id)
            .await
            .map_err(|error| statement_failed("reading the ledger", &error)),
        Found::Nothing | Found::Earlier(_) => Ok(None),
    }
}

async fn is_schema_ahead(session: &Session, task: &SettleTask) -> Result<bool, Failure> {
    ledger::schema_ahead(session.client(), &task.run.image_digest)
        .await
        .map_err(|error| statement_failed("reading the ledger", &error))
}

fn never_started() -> MigrationReport {
    let failure = environment_failure(
        Reason::MigrationNotStarted,
        "The ledger has no row of this run: its pod was gone before anything was started.",
    );
    migration(MigrationOutcome::NotStarted, Some(failure))
}
