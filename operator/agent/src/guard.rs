//! A migration that the application makes itself when it starts.
//!
//! The guard is a native sidecar: it takes the lock and writes the ledger's row, and only then does its startup
//! probe ([`started`]) let the kubelet start the application. Health passing is success. When the application
//! exits, the kubelet ends the sidecars, so SIGTERM before success means that the application exited (or its
//! pod is deleted), which is a failure whatever its code.
//!
//! An application whose time is over may still change the database. Its guard says so, and leaves the row open:
//! the operator ends the pod, and what was done is judged when nothing of it runs any more.
//!
//! The kubelet starts a sidecar again after every exit. What must survive that is in the ledger and in a folder
//! that lives as long as the pod.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    time::Duration,
};

use fairway_protocol::{
    Failure, GuardTask, HttpRequest, MigrationOutcome, MigrationReport, ProbeVerdict, reason,
};
use tokio::{
    signal::unix::Signal,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{
    checks::Checks,
    claim::{Claim, OpenRun, claim},
    conclude::{Observed, Processes, Said, conclude, cut_off, failed},
    connection::Connection,
    environment::Environment,
    failure::version,
    ledger,
    lock::Lock,
    migrate::{acquire_unless_stopped, connection, regain, terminated, termination},
    report::{fit, migration},
    session::statement_failed,
};
use fairway_health::request;

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

/// Watches over the application's migration. After its report the kubelet starts the guard again; then it says the
/// same again when the pod ends.
pub(crate) async fn run(task: GuardTask, environment: &Environment) -> Answer {
    let files = Files::of(environment);
    let mut terminate = termination();
    if let Ok(report) = std::fs::read_to_string(&files.report) {
        terminated(&mut terminate).await;
        return Answer::Again(report);
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
    let checks = Checks::within(limit, &task.checks);
    let mut lock = acquire_unless_stopped(&connection, limit, terminate).await?;
    let claimed = claim(
        &mut lock,
        &connection,
        environment,
        &task.requester,
        &task.run,
        &checks,
    )
    .await?;
    let run = match claimed {
        Claim::Begun(run) => run,
        // Our own container was started again; the application may be in the middle of its migration.
        Claim::Interrupted(row) if !row.pod_uid.is_empty() && row.pod_uid == environment.pod_uid() => {
            OpenRun::of_row(&row)
        }
        Claim::Interrupted(row) => {
            let run = OpenRun::of_row(&row);
            return Ok(conclude(&mut lock, &connection, &run, &Checks::none(), &cut_off(&run)).await);
        }
        Claim::Settled(report) => return Ok(*report),
    };
    let ran = ledger::seconds_since_start(lock.session.client(), &run.run_id)
        .await
        .map_err(|error| statement_failed("reading the ledger", &error))?;
    let deadline = Instant::now() + limit.saturating_sub(Duration::from_secs_f64(ran.max(0.0)));
    let end = match std::fs::write(&files.started, "") {
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
        Err(error) => End::Ended(format!(
            "was not started: {} cannot be written ({error})",
            files.started.display()
        )),
    };
    let (said, processes) = match end {
        End::Healthy => (Said::Success, Processes::Serving),
        End::Ended(what) => (failed(reason::MIGRATION_FAILED, what), Processes::Gone),
        End::GivenUp { reason, what } => return Ok(give_up(&lock, &run, reason, &what).await),
    };
    let observed = Observed {
        said,
        processes,
        exit_code: None,
        sqlstate: None,
        last_error: None,
    };
    Ok(conclude(&mut lock, &connection, &run, &checks, &observed).await)
}

/// How the watch ended.
enum End {
    /// Health passed; the application goes on.
    Healthy,
    /// The application is gone. What happened, as the predicate of `The migration …`.
    Ended(String),
    /// The application is alive and must not go on.
    GivenUp { reason: &'static str, what: String },
}

/// Says that the pod must be ended, and why, for whoever judges the run after that.
async fn give_up(lock: &Lock, run: &OpenRun, reason: &'static str, what: &str) -> MigrationReport {
    if let Err(error) = ledger::give_up(lock.session.client(), &run.run_id, reason, what).await {
        // Then it will be told as cut off.
        tracing::warn!(
            "{}",
            statement_failed("noting why the migration is given up", &error).message
        );
    }
    migration(
        MigrationOutcome::Undecided,
        Some(version(reason, format!("The migration {what}."))),
    )
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
) -> End {
    let address = own_address(environment);
    let mut rounds = Rounds {
        passed: 0,
        last: "it was not asked yet".to_owned(),
    };
    let mut ticks = interval(Duration::from_millis(task.period_milliseconds.max(10)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = terminated(terminate) => {
                return End::Ended(format!("exited or was stopped before its health passed ({})", rounds.last));
            }
            () = tokio::time::sleep_until(deadline) => {
                let what = format!("did not become healthy within {} s ({})", task.timeout_seconds, rounds.last);
                return End::GivenUp { reason: reason::MIGRATION_TIMED_OUT, what };
            }
            () = lock.session.lost() => match regain(connection, run).await {
                Some(again) => *lock = again,
                None => {
                    let what = "was stopped because its lock on the database was lost".to_owned();
                    return End::GivenUp { reason: reason::MIGRATION_FAILED, what };
                }
            },
            verdict = async {
                ticks.tick().await;
                round(address, &task.health, environment.variables()).await
            } => if rounds.count(verdict) >= task.success_threshold.max(1) {
                return End::Healthy;
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
            ProbeVerdict::Failed(why) | ProbeVerdict::Refused(why) | ProbeVerdict::Unreachable(why) => {
                if why != self.last {
                    tracing::info!("not healthy yet: {why}");
                }
                *self = Self { passed: 0, last: why };
            }
        }
        self.passed
    }
}

/// The address under which the application is asked, as everybody else will ask it: many listen on no other.
fn own_address(environment: &Environment) -> IpAddr {
    let own = environment.pod_ip();
    let first = own.split(',').next().unwrap_or_default().trim().parse();
    first.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// One request after the other; the first that does not pass is the round's verdict.
async fn round(
    address: IpAddr,
    health: &[(u16, HttpRequest)],
    variables: &BTreeMap<String, String>,
) -> ProbeVerdict {
    for (port, one) in health {
        match request(address, *port, one, variables).await {
            ProbeVerdict::Passed => {}
            verdict => return verdict,
        }
    }
    ProbeVerdict::Passed
}
