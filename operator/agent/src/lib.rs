//! The agent: what Fairway runs inside pods, next to the database and the application.
//!
//! The agent is one static binary. It is copied into pods that use another image, so it must not need anything of
//! them: no shell, no libc, no home, no writable root, no name for its user. It reads one task from
//! [`TASK_VARIABLE`], does it and answers with one report in the termination message.

mod backends;
mod backup;
mod checks;
mod child;
mod claim;
mod conclude;
mod connection;
mod environment;
mod failure;
mod fingerprint;
mod guard;
mod install;
mod ledger;
mod lock;
mod migrate;
mod output;
mod preflight;
mod probe;
mod redact;
mod report;
mod session;
mod settle;
mod tls;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use fairway_protocol::{EXIT_OTHER_OWNER, MigrationOutcome, MigrationReport, TASK_VARIABLE, Task, reason};
use tracing_subscriber::EnvFilter;

use environment::Environment;
use report::fit;

/// The command line of `fairway-agent`.
#[derive(Debug, Parser)]
#[command(name = "fairway-agent", version, about)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Copy this program to a path, for pods that use another image.
    Install {
        /// Where to, e.g. /fairway/fairway-agent.
        destination: PathBuf,
    },
    /// Do nothing, successfully: that it could run proves that the image was pulled and fits the platform.
    Pin,
    /// Do the task in the variable FAIRWAY_TASK.
    Run,
    /// Succeed when the application beside a guard may start: the guard's startup probe.
    Started,
}

/// Runs the agent and returns what the container exits with: 0 for success, 75 when another pod owns the run, 1
/// for any other failure.
pub fn run(args: Arguments) -> ExitCode {
    match args.command {
        Command::Install { destination } => match install::install(&destination) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!(
                    "the agent could not be copied to {}: {error}",
                    destination.display()
                );
                ExitCode::FAILURE
            }
        },
        Command::Pin => {
            println!("this image runs on this node");
            ExitCode::SUCCESS
        }
        Command::Started => match guard::started(&Environment::of_process()) {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        },
        Command::Run => run_task(Environment::of_process()),
    }
}

fn run_task(environment: Environment) -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new("info"))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .init();
    let task = environment.get(TASK_VARIABLE).unwrap_or_default();
    let task: Task = match serde_json::from_str(&task) {
        Ok(task) => task,
        Err(error) => return unusable(&environment, &format!("{TASK_VARIABLE} holds no task: {error}")),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return unusable(&environment, &format!("the runtime cannot start: {error}")),
    };
    let code = runtime.block_on(carry_out(task, &environment));
    // A thread that still copies output must not keep the container.
    runtime.shutdown_background();
    code
}

fn unusable(environment: &Environment, what: &str) -> ExitCode {
    tracing::error!("{what}");
    let failure = failure::environment(reason::AGENT_FAILED, what);
    let task = environment.get(TASK_VARIABLE).unwrap_or_default();
    report::write(
        &environment.termination_log(),
        &report::without_work(&task, failure),
    );
    ExitCode::FAILURE
}

async fn carry_out(task: Task, environment: &Environment) -> ExitCode {
    let log = environment.termination_log();
    match task {
        Task::Preflight(task) => {
            let answer = tokio::select! {
                answer = preflight::run(task, environment) => answer,
                () = terminated() => return unusable(environment, STOPPED),
            };
            let code = success(answer.failure.is_none());
            report::write(&log, &fit(answer));
            code
        }
        Task::Backup(task) => {
            let answer = backup::run(task, environment).await;
            let code = success(answer.failure.is_none());
            report::write(&log, &fit(answer));
            code
        }
        Task::Migrate(task) => {
            let answer = migrate::run(task, environment).await;
            let code = migration_code(&answer);
            report::write(&log, &fit(answer));
            code
        }
        Task::Settle(task) => {
            let answer = tokio::select! {
                answer = settle::run(task, environment) => answer,
                () = terminated() => return unusable(environment, STOPPED),
            };
            let code = migration_code(&answer);
            report::write(&log, &fit(answer));
            code
        }
        Task::Guard(task) => match guard::run(task, environment).await {
            guard::Answer::Report(answer) => {
                let code = migration_code(&answer);
                report::write(&log, &fit(*answer));
                code
            }
            guard::Answer::Again(json) => {
                report::write(&log, &json);
                ExitCode::SUCCESS
            }
        },
        Task::Probe(task) => match probe::run(task, environment.clone()).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => unusable(environment, &format!("the probe port cannot be served: {error}")),
        },
    }
}

const STOPPED: &str = "the pod was stopped before the task was done";

/// Process 1 does not end by SIGTERM unless it listens to it.
async fn terminated() {
    migrate::terminated(&mut migrate::termination()).await;
}

fn success(succeeded: bool) -> ExitCode {
    if succeeded {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn migration_code(report: &MigrationReport) -> ExitCode {
    match (report.outcome, &report.failure) {
        (MigrationOutcome::Applied | MigrationOutcome::AlreadyApplied, _) => {
            success(report.failed_check.is_none())
        }
        (_, Some(failure)) if failure.reason == reason::MIGRATION_RUNNING => EXIT_OTHER_OWNER.into(),
        _ => ExitCode::FAILURE,
    }
}
