//! The task `guard`: a migration that the application makes itself when it starts.
//!
//! The guard is a native sidecar: it takes the migration lock and writes the ledger's row, and only then does its
//! startup probe ([`started`]) let the kubelet start the application. Health passing is success. When the application
//! exits, the kubelet ends the sidecars, so SIGTERM before success means that the application exited (or its
//! pod is deleted), which is a failure whatever its code.
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
use fairway_protocol::{Failure, GuardTask, HttpRequest, MigrationReport, ProbeVerdict, Reason};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::{
    environment::Environment,
    report::{fit, not_started},
    run::{Claim, Observed, Processes, Request, Run, Verdict},
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
        // Without the file the ledger still has the outcome, which the restarted guard reads again.
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
        .unwrap_or_else(not_run);
    files.keep_report(&report);
    report
}

async fn watch(
    task: &GuardTask,
    environment: &Environment,
    termination: &mut Termination,
    files: &Files,
) -> Result<MigrationReport, Failure> {
    let request = Request::of_guard(task, environment);
    let mut run = match Run::claim(&request, termination).await? {
        Claim::Begun(run) => run,
        // Our own container was started again; the application may be in the middle of its migration.
        Claim::Interrupted(run) if run.was_begun_by(&environment.pod_uid()) => run.resumed(&request),
        Claim::Interrupted(mut run) => return Ok(run.settle().await),
        Claim::Settled(report) => return Ok(*report),
    };
    let deadline = run.deadline(request.limit).await?;
    let end = match std::fs::write(&files.started, "") {
        Ok(()) => {
            tracing::info!("run {} started: the application may start", run.id());
            observe(task, environment, &mut run, deadline, termination).await
        }
        Err(error) => End::Ended(format!(
            "The application was not started: {} cannot be written ({error})",
            files.started.display()
        )),
    };
    let (verdict, processes) = match end {
        End::Healthy => (Verdict::Success, Processes::Serving),
        End::Ended(what) => (Verdict::failed(Reason::MigrationFailed, what), Processes::Gone),
        End::StillRunning { reason, what } => return Ok(run.ask_for_end(reason, &what).await),
    };
    Ok(run.conclude(&Observed::new(verdict, processes)).await)
}

/// How the watch ended.
enum End {
    /// Health passed; the application goes on.
    Healthy,
    /// The application is gone. What happened, as a sentence without its period.
    Ended(String),
    /// The application is alive and must not go on.
    StillRunning { reason: Reason, what: String },
}

/// Makes health requests until they pass or the application's time is over.
async fn observe(
    task: &GuardTask,
    environment: &Environment,
    run: &mut Run<'_>,
    deadline: Instant,
    termination: &mut Termination,
) -> End {
    let address = own_address(environment);
    let mut rounds = Rounds {
        passed: 0,
        last: "no request has been made yet".to_owned(),
    };
    let mut ticks = interval(Duration::from_millis(task.period_milliseconds.max(10)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = termination.requested() => {
                return End::Ended(format!("The application exited or was stopped before its health requests passed ({})", rounds.last));
            }
            () = tokio::time::sleep_until(deadline) => {
                let what = format!("The application did not become healthy within {} s ({})", task.timeout_seconds, rounds.last);
                return End::StillRunning { reason: Reason::MigrationTimedOut, what };
            }
            () = run.lock_lost() => if !run.regain_lock().await {
                let what = "The migration was stopped because its lock on the database was lost".to_owned();
                return End::StillRunning { reason: Reason::MigrationFailed, what };
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
    /// Rounds that passed in a row.
    passed: u32,
    /// The last verdict other than passed.
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
