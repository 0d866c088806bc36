//! A migration by a command of its own, as a child of the agent.

use std::{io::ErrorKind, time::Duration};

use fairway_protocol::{Failure, MigrationOutcome, MigrationReport, MigrationTask, reason};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::Instant,
};

use super::{
    checks::Checks,
    child::Child,
    claim::{Claim, OpenRun, claim},
    conclude::{Observed, Processes, Said, conclude, cut_off, failed},
    connection::Connection,
    environment::Environment,
    failure::environment as environment_failure,
    ledger::{self, State},
    lock::Lock,
    report::migration,
    session::sentence,
};

/// How long the database, and then the lock, are waited for.
const REACH: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a migration may go on without the lock's session while that is opened again.
const UNFENCED: Duration = Duration::from_secs(60);

/// Runs the task to its end.
pub(crate) async fn run(task: MigrationTask, environment: &Environment) -> MigrationReport {
    let limit = Duration::from_secs(task.timeout_seconds);
    // Heard from the first moment to the last, also while the ledger is asked.
    let mut terminate = termination();
    let checks = Checks::within(limit, &task.checks);
    match start(&task, environment, limit, &checks, &mut terminate).await {
        Ok(Started::Run(mut lock, connection, run)) => {
            let observed = carry_out(
                &task,
                environment,
                &mut lock,
                &connection,
                &run,
                limit,
                &mut terminate,
            )
            .await;
            conclude(&mut lock, &connection, &run, &checks, &observed).await
        }
        Ok(Started::Cut(mut lock, connection, run)) => {
            conclude(&mut lock, &connection, &run, &Checks::none(), &cut_off(&run)).await
        }
        Ok(Started::Settled(report)) => *report,
        Err(failure) => migration(MigrationOutcome::NotStarted, Some(failure)),
    }
}

/// What stands between the task and its child.
enum Started {
    Run(Lock, Connection, OpenRun),
    Cut(Lock, Connection, OpenRun),
    Settled(Box<MigrationReport>),
}

async fn start(
    task: &MigrationTask,
    environment: &Environment,
    limit: Duration,
    checks: &Checks<'_>,
    terminate: &mut Option<Signal>,
) -> Result<Started, Failure> {
    let connection = connection(environment)?;
    let mut lock = acquire_unless_stopped(&connection, limit, terminate).await?;
    let claimed = claim(
        &mut lock,
        &connection,
        environment,
        &task.requester,
        &task.run,
        checks,
    )
    .await?;
    Ok(match claimed {
        Claim::Begun(run) => Started::Run(lock, connection, run),
        Claim::Interrupted(row) => Started::Cut(lock, connection, OpenRun::of_row(&row)),
        Claim::Settled(report) => Started::Settled(report),
    })
}

/// Takes the lock; a pod that is asked to stop while it waits starts nothing any more.
pub(crate) async fn acquire_unless_stopped(
    connection: &Connection,
    limit: Duration,
    terminate: &mut Option<Signal>,
) -> Result<Lock, Failure> {
    tokio::select! {
        acquired = Lock::acquire(connection, REACH.min(limit), PATIENCE.min(limit)) => acquired,
        () = terminated(terminate) => Err(stopped("The migration's pod was stopped before anything was started.")),
    }
}

/// The failure of a task whose pod was asked to stop.
pub(crate) fn stopped(sentence: &str) -> Failure {
    environment_failure(reason::AGENT_FAILED, sentence)
}

/// The connection that the environment describes.
pub(crate) fn connection(environment: &Environment) -> Result<Connection, Failure> {
    Connection::from_variables(|name| environment.get(name)).map_err(|error| {
        let text = sentence(&error.to_string());
        environment_failure(
            reason::CONNECTION_INVALID,
            format!("{text} Correct the Secret of database.connection."),
        )
    })
}

/// How the child's life ended.
enum End {
    ByItself(i32),
    TimedOut(i32),
    /// Another agent took the lock, or nobody could be asked who has it.
    Unfenced(i32),
}

async fn carry_out(
    task: &MigrationTask,
    environment: &Environment,
    lock: &mut Lock,
    connection: &Connection,
    run: &OpenRun,
    limit: Duration,
    terminate: &mut Option<Signal>,
) -> Observed {
    let mut child = match Child::spawn(&task.command) {
        Ok(child) => child,
        Err(error) => return not_spawned(&task.command, &error),
    };
    tracing::info!("run {} started", run.run_id);
    let end = supervise(
        &mut child,
        lock,
        connection,
        run,
        Instant::now() + limit,
        terminate,
    )
    .await;
    let tail = child.clean_up().await;
    let (said, code) = match end {
        End::ByItself(0) => (Said::Success, 0),
        End::ByItself(code) => (failed(reason::MIGRATION_FAILED, exited(code)), code),
        End::TimedOut(code) => {
            let what = format!("did not end within {} s and was stopped", task.timeout_seconds);
            (failed(reason::MIGRATION_TIMED_OUT, what), code)
        }
        End::Unfenced(code) => {
            let what = "was stopped because its lock on the database was lost".to_owned();
            (failed(reason::MIGRATION_FAILED, what), code)
        }
    };
    let (sqlstate, last_error) = match said {
        Said::Success => (None, None),
        Said::Failure { .. } => (tail.sqlstate(), tail.last_error(&environment.redactor())),
    };
    Observed {
        said,
        processes: Processes::Gone,
        exit_code: Some(code),
        sqlstate,
        last_error,
    }
}

fn exited(code: i32) -> String {
    match code {
        137 => "was killed by SIGKILL (out of memory?)".to_owned(),
        // Of shells and ours: 128 and the signal's number, of which there are 64.
        129..=192 => format!("was killed by signal {}", code - 128),
        _ => format!("exited with code {code}"),
    }
}

fn not_spawned(command: &[String], error: &std::io::Error) -> Observed {
    let program = command.first().map_or("", String::as_str);
    let (what, code) = match error.kind() {
        ErrorKind::NotFound => (format!("could not start: {program:?} is not in the image"), 127),
        ErrorKind::PermissionDenied => (format!("could not start: {program:?} is not executable"), 126),
        _ => (format!("could not start {program:?}: {error}"), 126),
    };
    Observed {
        said: failed(reason::COMMAND_NOT_FOUND, what),
        processes: Processes::Gone,
        exit_code: Some(code),
        sqlstate: None,
        last_error: None,
    }
}

async fn supervise(
    child: &mut Child,
    lock: &mut Lock,
    connection: &Connection,
    run: &OpenRun,
    deadline: Instant,
    terminate: &mut Option<Signal>,
) -> End {
    loop {
        tokio::select! {
            biased;
            code = child.ended() => return End::ByItself(code),
            () = tokio::time::sleep_until(deadline) => return End::TimedOut(child.stop().await),
            () = terminated(terminate) => {
                tracing::warn!("asked to stop: the migration is not interrupted, it goes on to its end");
            }
            () = lock.session.lost() => match regain(connection, run).await {
                Some(again) => *lock = again,
                None => return End::Unfenced(child.stop().await),
            },
        }
    }
}

/// Takes the lock again after its session broke, if nobody else had it in between: whoever has it changes the
/// row.
pub(crate) async fn regain(connection: &Connection, run: &OpenRun) -> Option<Lock> {
    tracing::warn!("the session that holds the migration's lock was lost; taking the lock again");
    let lock = Lock::acquire(connection, UNFENCED, UNFENCED).await.ok()?;
    let row = ledger::find(lock.session.client(), &run.run_id).await.ok()??;
    (row.state == State::Running).then_some(lock)
}

/// SIGTERM, if the kernel lets us hear it.
pub(crate) fn termination() -> Option<Signal> {
    signal(SignalKind::terminate())
        .inspect_err(|error| tracing::warn!("SIGTERM cannot be heard: {error}"))
        .ok()
}

/// Resolves at the next SIGTERM.
pub(crate) async fn terminated(signal: &mut Option<Signal>) {
    if let Some(signal) = signal
        && signal.recv().await.is_some()
    {
        return;
    }
    std::future::pending().await
}
