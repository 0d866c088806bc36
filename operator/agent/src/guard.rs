//! The task `guard`: a migration that the application makes itself when it starts.
//!
//! The guard is a native sidecar: it takes the migration lock and writes the ledger's row, and only then does its
//! startup probe ([`started`]) let the kubelet start the application. Health passing is success, once no transaction of
//! the pod is open: some applications answer before their migration is over. When the application exits, the kubelet ends
//! the sidecars, so SIGTERM before success means that the application exited (or its pod is deleted), which is a failure
//! whatever its code.
//!
//! An application whose time is over may still change the database. Its guard reports that, and leaves the row open:
//! the operator ends the pod, and what was done is judged when none of its processes runs any more.
//!
//! The kubelet starts a sidecar again after every exit. What must survive that is in the ledger and in a folder
//! that lives as long as the pod.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    time::Duration,
};

use fairway_health::request;
use fairway_protocol::{
    Failure, GuardTask, HttpRequest, MigrationOutcome, MigrationReport, ProbeVerdict, Reason,
};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::{
    backends::InTransaction,
    environment::Environment,
    report::{fit, migration, not_started},
    run::{Claim, Observed, Processes, Request, Run, StopReason, Verdict, lock_watch::LockWatch},
    session::cause,
    termination::Termination,
};

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

    /// The report of this pod's guard from before its container was started again.
    fn earlier_report(&self) -> Option<MigrationReport> {
        let text = std::fs::read(&self.report).ok()?;
        serde_json::from_slice(&text).ok()
    }

    fn keep_report(&self, report: &MigrationReport) {
        // Without the file a recorded outcome is still in the ledger, which the restarted guard asks again.
        if let Err(error) = std::fs::write(&self.report, fit(report.clone())) {
            tracing::warn!("{} could not be written: {error}", self.report.display());
        }
    }
}

/// Whether the application may start: the guard's startup probe.
pub(crate) fn started(environment: &Environment) -> bool {
    Files::of(environment).started.exists()
}

/// The answer to a task that was not started.
pub(crate) fn not_run(failure: Failure) -> MigrationReport {
    not_started(failure)
}

/// Watches over the application's migration. After its report the kubelet starts the guard again, which then waits for
/// the end of the pod and reports the same again.
pub(crate) async fn run(task: GuardTask, environment: &Environment) -> MigrationReport {
    let files = Files::of(environment);
    let mut termination = Termination::listen();
    if let Some(report) = files.earlier_report() {
        termination.requested().await;
        return report;
    }
    let report = watch(&task, environment, &mut termination, &files)
        .await
        .unwrap_or_else(|failure| match files.started.exists() {
            true => lost_sight(failure),
            false => not_run(failure),
        });
    files.keep_report(&report);
    report
}

/// The report of a guard that was started again and cannot go on: the application may be in the middle of its migration.
fn lost_sight(failure: Failure) -> MigrationReport {
    let message = format!(
        "The agent beside the application was started again and could not go on watching its migration. {}",
        failure.message
    );
    migration(MigrationOutcome::Undecided, Some(Failure { message, ..failure }))
}

async fn watch(
    task: &GuardTask,
    environment: &Environment,
    termination: &mut Termination,
    files: &Files,
) -> Result<MigrationReport, Failure> {
    let request = Request::new(environment, &task.run);
    let mut run = match Run::claim(&request, termination).await? {
        Claim::Begun(run) => run,
        // Our own container was started again; the application may be in the middle of its migration.
        Claim::Interrupted(run) if run.was_begun_by(&environment.pod_uid()) => run.resumed(&request),
        Claim::Interrupted(mut run) => return Ok(run.settle().await),
        Claim::Settled(report) => return Ok(*report),
    };
    let deadline = match run.deadline(request.limit).await {
        Ok(deadline) => deadline,
        // The row is written, and how the run goes on cannot be seen.
        Err(failure) => return Ok(run.unknown(failure)),
    };
    if !files.started.exists()
        && let Err(error) = std::fs::write(&files.started, "")
    {
        let what = format!(
            "The application was not started: {} cannot be written ({error})",
            files.started.display()
        );
        let verdict = Verdict::not_started(Reason::AgentFailed, what);
        return Ok(run.conclude(&Observed::new(verdict, Processes::Gone)).await);
    }
    tracing::info!("run {} started: the application may start", run.id());
    let observed = match observe(task, &request, &mut run, deadline, termination).await {
        End::Healthy(note) => Observed {
            note,
            ..Observed::new(Verdict::Success, Processes::Serving)
        },
        End::Ended(what) => Observed::new(Verdict::failed(Reason::MigrationFailed, what), Processes::Gone),
        End::StillRunning(stop) => return Ok(run.request_stop(&stop).await),
    };
    Ok(run.conclude(&observed).await)
}

/// How the watch ended.
enum End {
    /// Health passed; the application goes on. What could not be proven of its migration, as whole sentences.
    Healthy(Option<String>),
    /// The application is gone. What happened, as a sentence without its period.
    Ended(String),
    /// The application is alive and must not go on.
    StillRunning(StopReason),
}

/// Makes health requests until they pass or the application's time is over.
async fn observe(
    task: &GuardTask,
    request: &Request<'_>,
    run: &mut Run<'_>,
    deadline: Instant,
    termination: &mut Termination,
) -> End {
    let environment = request.environment;
    let address = own_address(environment);
    let mut lock = run.watch_lock();
    let mut rounds = Rounds {
        passed: 0,
        last: "no request has been made yet".to_owned(),
        note: None,
    };
    let mut check = TransactionCheck {
        patience: PATIENCE.min(request.limit / 2),
        doubted_since: None,
    };
    let period = Duration::from_millis(task.period_milliseconds).max(MIN_PERIOD);
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = termination.requested() => return rounds.exited(),
            () = tokio::time::sleep_until(deadline) => return rounds.too_late(request.limit),
            stop = lock.lost() => return End::StillRunning(stop),
            verdict = async {
                ticks.tick().await;
                round(address, &task.health, environment.variables()).await
            } => {
                let progress = match verdict {
                    // An application that exits meanwhile has no session left, and would pass.
                    ProbeVerdict::Passed => tokio::select! {
                        biased;
                        () = termination.requested() => return rounds.exited(),
                        () = tokio::time::sleep_until(deadline) => return rounds.too_late(request.limit),
                        progress = check.progress(&lock, period) => progress,
                    },
                    ProbeVerdict::Failed(why) | ProbeVerdict::Refused(why) | ProbeVerdict::Unreachable(why) => {
                        Progress::NotYet(why)
                    }
                };
                if rounds.count(progress) >= task.success_threshold.max(1) {
                    return End::Healthy(rounds.note);
                }
            }
        }
    }
}

/// Shortest time between two rounds, whatever the task says: [`interval`] panics where there is none. The API allows no less
/// than 100 ms.
const MIN_PERIOD: Duration = Duration::from_millis(10);

/// Longest time for which the database is asked whether the application is in a transaction.
const AT_REST_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest time for which sessions that may be the application's keep it from counting as migrated although nothing
/// shows that they migrate; half of the application's time where that is less.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a round of health requests, and the database, say.
enum Progress {
    /// Healthy, and at rest.
    Done,
    /// Healthy. That its migration is over is not proven: why, as whole sentences.
    Unproven(String),
    /// Not healthy, or in the middle of its migration: why.
    NotYet(String),
}

/// Checks that a healthy application has no transaction open, as one that is migrating would.
struct TransactionCheck {
    /// How long sessions that may be the application's own count.
    patience: Duration,
    /// When the first of them was seen.
    doubted_since: Option<Instant>,
}

impl TransactionCheck {
    async fn progress(&mut self, lock: &LockWatch<'_, '_>, period: Duration) -> Progress {
        let not_yet = |why: String| Progress::NotYet(format!("its health requests pass, but {why}"));
        match timeout(AT_REST_TIMEOUT, lock.run().in_transaction(period)).await {
            Ok(Ok(InTransaction::No)) => Progress::Done,
            Ok(Ok(InTransaction::Own(sessions))) => {
                not_yet(format!("it is in the middle of a transaction: {sessions}"))
            }
            Ok(Ok(InTransaction::Writing(sessions))) => not_yet(format!(
                "{sessions}, which may be its own, are in the middle of a transaction that writes"
            )),
            Ok(Ok(InTransaction::Unproven(sessions))) => {
                let since = *self.doubted_since.get_or_insert_with(Instant::now);
                if since.elapsed() < self.patience {
                    not_yet(format!("{sessions}, which may be its own, are in a transaction"))
                } else {
                    Progress::Unproven(format!(
                        "That it was over when the health requests passed is not proven: {sessions} were in a \
                         transaction, and the database does not show whether they are the application's, because \
                         its pod reaches the database from an address that is not its own, or as another role: grant \
                         the role of database.connection pg_read_all_stats. Check that the migration is complete."
                    ))
                }
            }
            Ok(Err(error)) => not_yet(unanswered(&cause(&error))),
            Err(_) => not_yet(unanswered(&format!(
                "it did not answer within {} s",
                AT_REST_TIMEOUT.as_secs()
            ))),
        }
    }
}

fn unanswered(why: &str) -> String {
    format!("the database does not say whether it is in a transaction ({why})")
}

/// Rounds of health requests so far.
struct Rounds {
    /// Rounds that passed in a row.
    passed: u32,
    /// The last verdict other than passed.
    last: String,
    /// What was not proven in the rounds that passed in a row.
    note: Option<String>,
}

impl Rounds {
    fn count(&mut self, progress: Progress) -> u32 {
        match progress {
            Progress::Done => self.passed += 1,
            Progress::Unproven(note) => {
                self.passed += 1;
                self.note = Some(note);
            }
            Progress::NotYet(why) => {
                if why != self.last {
                    tracing::info!("not healthy yet: {why}");
                }
                *self = Self {
                    passed: 0,
                    last: why,
                    note: None,
                };
            }
        }
        self.passed
    }

    fn exited(&self) -> End {
        End::Ended(format!(
            "The application exited or was stopped before its migration was seen to be complete ({})",
            self.last
        ))
    }

    fn too_late(&self, limit: Duration) -> End {
        End::StillRunning(StopReason::Unhealthy {
            limit,
            last: self.last.clone(),
        })
    }
}

/// The address to which health requests are sent: the pod's own, as everybody else will reach it. Many applications
/// listen on no other.
fn own_address(environment: &Environment) -> IpAddr {
    let own = environment.pod_ip();
    let first = own.split(',').next().unwrap_or_default().trim().parse();
    first.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// Makes one request after the other; the first that does not pass is the round's verdict.
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
