//! A migration that the application makes itself when it starts.
//!
//! The guard is a native sidecar: it takes the lock and writes the ledger's row, and only then does its startup
//! probe ([`started`]) let the kubelet start the application. Health passing is success. When the application
//! exits, the kubelet ends the sidecars, so SIGTERM before success means that the application exited (or its
//! pod is deleted), which is a failure whatever its code.
//!
//! The kubelet starts a sidecar again after every exit. What must survive that is in the ledger and in a folder
//! that lives as long as the pod.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    time::Duration,
};

use fairway_plan::protocol::{
    Failure, GuardTask, HttpRequest, MigrationOutcome, MigrationReport, ProbeVerdict, reason,
};
use tokio::{
    signal::unix::Signal,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{
    backends,
    claim::{Claim, OpenRun, claim},
    conclude::{Observed, Processes, Said, conclude, cut_off},
    connection::Connection,
    environment::Environment,
    fingerprint,
    ledger::{self, Ending, State},
    lock::Lock,
    migrate::{acquire_unless_stopped, connection, regain, terminated, termination},
    report::{fit, migration},
    session::statement_failed,
};
use crate::probe::request::request;

/// How long the database, and then the lock, are waited for.
const REACH: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(120);
/// Pause between looks for sessions of an application that must not go on.
const FENCE: Duration = Duration::from_millis(250);

/// The files of a guard.
struct Files {
    /// Exists when the application may start.
    started: PathBuf,
    /// The report, once there is one.
    report: PathBuf,
}

impl Files {
    fn of(environment: &Environment) -> Self {
        let folder = environment.guard_directory();
        Self {
            started: folder.join("guard.started"),
            report: folder.join("guard.report"),
        }
    }
}

/// Whether the application may start: the guard's startup probe.
pub(crate) fn started(environment: &Environment) -> bool {
    Files::of(environment).started.exists()
}

/// What a guard has to say.
pub(crate) enum Answer {
    /// The migration ended now.
    Report(Box<MigrationReport>),
    /// It had ended before the container was started again: the JSON of the report, to be said again.
    Again(String),
}

/// Watches over the application's migration.
///
/// After its report the kubelet starts the guard again; then it says the same again when the pod ends, and until
/// then keeps an application that failed from changing the database.
pub(crate) async fn run(task: GuardTask, environment: &Environment) -> Answer {
    let files = Files::of(environment);
    let mut terminate = termination();
    if let Ok(report) = std::fs::read_to_string(&files.report) {
        return Answer::Again(hold(&task, environment, &mut terminate, &files, report).await);
    }
    let report = watch(&task, environment, &mut terminate, &files)
        .await
        .unwrap_or_else(|failure| migration(MigrationOutcome::NotStarted, Some(failure)));
    keep(&files, &fit(report.clone()));
    Answer::Report(Box::new(report))
}

fn keep(files: &Files, report: &str) {
    // Without the file the ledger still has the outcome; the restarted guard asks it again.
    if let Err(error) = std::fs::write(&files.report, report) {
        tracing::warn!("{} could not be written: {error}", files.report.display());
    }
}

async fn watch(
    task: &GuardTask,
    environment: &Environment,
    terminate: &mut Option<Signal>,
    files: &Files,
) -> Result<MigrationReport, Failure> {
    let connection = connection(environment)?;
    let limit = Duration::from_secs(task.timeout_seconds);
    let mut lock = acquire_unless_stopped(&connection, limit, terminate).await?;
    let claimed = claim(
        &mut lock,
        &connection,
        environment,
        &task.requester,
        &task.run,
        &task.checks,
    )
    .await?;
    let run = match claimed {
        Claim::Begun(run) => run,
        // Our own container was started again; the application may be in the middle of its migration.
        Claim::Interrupted(row) if !row.pod_uid.is_empty() && row.pod_uid == environment.pod_uid() => {
            OpenRun::of_row(&row)
        }
        Claim::Interrupted(row) => {
            return Ok(conclude(&mut lock, &connection, &OpenRun::of_row(&row), &[], &cut_off()).await);
        }
        Claim::Settled(report) => return Ok(*report),
    };
    let ran = ledger::seconds_since_start(lock.session.client(), &run.run_id)
        .await
        .map_err(|error| statement_failed("reading the ledger", &error))?;
    let deadline = Instant::now() + limit.saturating_sub(Duration::from_secs_f64(ran.max(0.0)));
    let observed = match std::fs::write(&files.started, "") {
        Ok(()) => {
            tracing::info!("run {} started: the application may start", run.run_id);
            observe(
                task,
                environment,
                &mut lock,
                &connection,
                &run,
                deadline,
                terminate,
            )
            .await
        }
        Err(error) => failed(
            reason::MIGRATION_FAILED,
            format!(
                "was not started: {} cannot be written ({error})",
                files.started.display()
            ),
        ),
    };
    Ok(conclude(&mut lock, &connection, &run, &task.checks, &observed).await)
}

fn failed(reason: &'static str, what: String) -> Observed {
    Observed {
        said: Said::Failure {
            reason,
            what,
            changed: State::Partial,
        },
        processes: Processes::Gone,
        exit_code: None,
        sqlstate: None,
        last_error: None,
    }
}

/// Asks for health until it passes or the application's time is over.
async fn observe(
    task: &GuardTask,
    environment: &Environment,
    lock: &mut Lock,
    connection: &Connection,
    run: &OpenRun,
    deadline: Instant,
    terminate: &mut Option<Signal>,
) -> Observed {
    let mut rounds = Rounds {
        passed: 0,
        last: "it was not asked yet".to_owned(),
    };
    let mut ticks = interval(Duration::from_millis(task.every_milliseconds.max(10)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = terminated(terminate) => {
                let what = format!("exited or was stopped before its health passed ({})", rounds.last);
                return failed(reason::MIGRATION_FAILED, what);
            }
            () = tokio::time::sleep_until(deadline) => {
                let what = format!("did not become healthy within {} s ({})", task.timeout_seconds, rounds.last);
                return failed(reason::MIGRATION_TIMED_OUT, what);
            }
            () = lock.session.lost() => match regain(connection, run).await {
                Some(again) => *lock = again,
                None => {
                    let what = "was stopped because its lock on the database was lost".to_owned();
                    return failed(reason::MIGRATION_FAILED, what);
                }
            },
            verdict = async {
                ticks.tick().await;
                round(&task.health, environment.variables()).await
            } => if rounds.count(verdict) >= task.consecutive.max(1) {
                return Observed {
                    said: Said::Success,
                    processes: Processes::Serving,
                    exit_code: None,
                    sqlstate: None,
                    last_error: None,
                };
            },
        }
    }
}

/// Rounds of health requests so far.
struct Rounds {
    /// Passed in a row.
    passed: u32,
    /// The last verdict that was no pass.
    last: String,
}

impl Rounds {
    fn count(&mut self, verdict: ProbeVerdict) -> u32 {
        match verdict {
            ProbeVerdict::Passed => self.passed += 1,
            ProbeVerdict::Failed(why) | ProbeVerdict::Unreachable(why) => {
                if why != self.last {
                    tracing::info!("not healthy yet: {why}");
                }
                *self = Self { passed: 0, last: why };
            }
        }
        self.passed
    }
}

/// One request after the other; the first that does not pass is the round's verdict.
async fn round(health: &[(u16, HttpRequest)], variables: &BTreeMap<String, String>) -> ProbeVerdict {
    for (port, one) in health {
        match request(IpAddr::V4(Ipv4Addr::LOCALHOST), *port, one, variables).await {
            ProbeVerdict::Passed => {}
            verdict => return verdict,
        }
    }
    ProbeVerdict::Passed
}

/// Waits for the pod's end and returns the report that then holds.
async fn hold(
    task: &GuardTask,
    environment: &Environment,
    terminate: &mut Option<Signal>,
    files: &Files,
    report: String,
) -> String {
    let failed = serde_json::from_str::<MigrationReport>(&report).is_ok_and(|report| {
        matches!(
            report.outcome,
            MigrationOutcome::Failed | MigrationOutcome::Partial
        )
    });
    if !failed || !files.started.exists() {
        terminated(terminate).await;
        return report;
    }
    match fence(task, environment, terminate).await {
        Ok(Some(amended)) => {
            let amended = fit(amended);
            keep(files, &amended);
            amended
        }
        Ok(None) => report,
        Err(failure) => {
            tracing::error!("{}", failure.message);
            report
        }
    }
}

/// Ends every session that the failed application opens again, until the pod ends; if it changed the schema all
/// the same, the ledger says so.
async fn fence(
    task: &GuardTask,
    environment: &Environment,
    terminate: &mut Option<Signal>,
) -> Result<Option<MigrationReport>, Failure> {
    let connection = connection(environment)?;
    let doing = |error| statement_failed("watching a failed migration", &error);
    let mut lock = Lock::acquire(&connection, REACH, PATIENCE).await?;
    let Some(row) = ledger::find(lock.session.client(), &task.run.run_id)
        .await
        .map_err(doing)?
    else {
        return Ok(None);
    };
    let run = OpenRun::of_row(&row);
    loop {
        // Sessions that cannot be ended leave their mark on the fingerprint below.
        if let Err(error) = backends::end(lock.session.client(), &run.run_id, &run.origin).await {
            tracing::warn!("{error}");
        }
        tokio::select! {
            () = terminated(terminate) => break,
            () = tokio::time::sleep(FENCE) => {}
        }
    }
    backends::end(lock.session.client(), &run.run_id, &run.origin)
        .await
        .inspect_err(|error| tracing::warn!("{error}"))
        .ok();
    let after = fingerprint::of_database(&mut lock.session).await.map_err(doing)?;
    if row.state != State::Failed || after == run.before {
        return Ok(None);
    }
    let ending = Ending {
        state: State::Partial,
        after: Some(after),
        exit_code: row.exit_code,
        sqlstate: row.sqlstate,
        reason: Some(reason::MIGRATION_PARTIAL.to_owned()),
        message: Some(
            "The migration failed, and the application changed the schema after that; look at the database and \
             resolve the release as applied or not applied."
                .to_owned(),
        ),
        last_error: row.last_error,
        failed_check: None,
    };
    let row = ledger::finish(lock.session.client(), &run.run_id, State::Failed, &ending)
        .await
        .map_err(doing)?;
    Ok(row.map(|row| row.report(false)))
}
