//! Reads the ledger, and settles a run whose pod was cut off.

use std::time::Duration;

use fairway_protocol::{Failure, MigrationOutcome, MigrationReport, SettleTask, reason};

use super::{
    checks::Checks,
    claim::OpenRun,
    conclude::{conclude, cut_off},
    connection::Connection,
    environment::Environment,
    failure::environment as environment_failure,
    ledger::{self, Run, State},
    lock::Lock,
    migrate::connection,
    report::migration,
    session::{SearchPath, Session, statement_failed},
};

/// How long the database is waited for.
const REACH: Duration = Duration::from_secs(60);

/// Reports how the run ended, if it did.
pub(crate) async fn run(task: SettleTask, environment: &Environment) -> MigrationReport {
    settle(&task, environment).await.unwrap_or_else(|failure| {
        // Whatever kept the ledger from being asked decides nothing about the run.
        migration(MigrationOutcome::Undecided, Some(failure))
    })
}

async fn settle(task: &SettleTask, environment: &Environment) -> Result<MigrationReport, Failure> {
    let connection = connection(environment)?;
    let patience = Duration::from_secs(task.timeout_seconds);
    if let Some(report) = read(task, &connection, REACH.min(patience)).await? {
        return Ok(report);
    }
    let mut lock = Lock::acquire(&connection, REACH.min(patience), patience).await?;
    match find(&lock.session, task).await? {
        None => Ok(never_started()),
        Some(run) if run.state == State::Running => {
            let run = OpenRun::of_row(&run);
            let report = conclude(&mut lock, &connection, &run, &Checks::none(), &cut_off(&run)).await;
            match (report.outcome, task.resolution) {
                (MigrationOutcome::Unknown, Some(_)) => resolved(&lock.session, task).await,
                _ => Ok(report),
            }
        }
        Some(_) => resolved(&lock.session, task).await,
    }
}

/// What the ledger says without the lock: enough when the run ended and no verdict is to be recorded.
async fn read(
    task: &SettleTask,
    connection: &Connection,
    reach: Duration,
) -> Result<Option<MigrationReport>, Failure> {
    let session = Session::connect_within(connection, SearchPath::Catalog, reach).await?;
    match find(&session, task).await? {
        Some(run) if run.state != State::Running && task.resolution.is_none() => {
            Ok(Some(run.report(ahead(&session, task).await?)))
        }
        // The row is written under the lock, so only under the lock does a missing one mean anything.
        _ => Ok(None),
    }
}

/// Records the verdict, where one is needed, and reports the row.
async fn resolved(session: &Session, task: &SettleTask) -> Result<MigrationReport, Failure> {
    if let Some(resolution) = task.resolution {
        let token = task.resolution_token.as_deref();
        ledger::resolve(session.client(), &task.run.run_id, resolution, token)
            .await
            .map_err(|error| statement_failed("recording the resolution", &error))?;
    }
    let schema_ahead = ahead(session, task).await?;
    Ok(find(session, task)
        .await?
        .map_or_else(never_started, |run| run.report(schema_ahead)))
}

async fn find(session: &Session, task: &SettleTask) -> Result<Option<Run>, Failure> {
    let doing = |error| statement_failed("reading the ledger", &error);
    match ledger::exists(session.client()).await.map_err(doing)? {
        true => ledger::find(session.client(), &task.run.run_id)
            .await
            .map_err(doing),
        false => Ok(None),
    }
}

async fn ahead(session: &Session, task: &SettleTask) -> Result<bool, Failure> {
    ledger::schema_ahead(session.client(), &task.run.image_digest)
        .await
        .map_err(|error| statement_failed("reading the ledger", &error))
}

fn never_started() -> MigrationReport {
    let failure = environment_failure(
        reason::MIGRATION_NOT_STARTED,
        "The ledger has no row of this run: its pod was gone before anything was started.",
    );
    migration(MigrationOutcome::NotStarted, Some(failure))
}
