//! The agent: what Fairway runs inside pods, next to the database and the application.
//!
//! The agent is one static binary. It is copied into pods that use another image, so it must not need anything of
//! them: no shell, no libc, no home, no writable root, no name for its user. It reads one task from
//! [`TASK_VARIABLE`], does it and answers with one report in the termination message.
//!
//! [`tasks`] is the table of tasks; [`run`] is a migration's run, which three of them share; [`store`] is
//! where backups are kept.

mod backends;
mod backup;
mod blocking;
mod checks;
mod child;
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
mod run;
mod session;
mod settle;
mod store;
mod tasks;
mod termination;
mod text;
mod tls;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use fairway_protocol::{Reason, TASK_VARIABLE, Task};
use tracing_subscriber::EnvFilter;

use environment::Environment;
use report::Answer;

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
        /// The file to write, e.g. /fairway/fairway-agent.
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
pub fn main(arguments: Arguments) -> ExitCode {
    match arguments.command {
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
        Command::Run => {
            log();
            let environment = Environment::of_process();
            let answer = do_task(&environment);
            report::write(&environment.termination_log(), &answer.message);
            answer.exit_code.into()
        }
    }
}

fn log() {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new("info"))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .init();
}

fn do_task(environment: &Environment) -> Answer {
    let text = environment.get(TASK_VARIABLE).unwrap_or_default();
    let unusable = |what: String| {
        tracing::error!("{what}");
        tasks::without_work(&text, failure::environment(Reason::AgentFailed, what))
    };
    let task: Task = match serde_json::from_str(&text) {
        Ok(task) => task,
        Err(error) => {
            return unusable(format!(
                "The variable {TASK_VARIABLE} of the agent's container holds no task ({error}). Run operator and agent \
                 of the same version."
            ));
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return unusable(format!("The agent's runtime cannot start: {error}.")),
    };
    if let Some(row) = tasks::row(&text) {
        tracing::info!("task {}, repeatable: {:?}", row.name, row.repeat);
    }
    let answer = runtime.block_on(tasks::run(task, environment));
    // A thread that still copies output must not keep the container.
    runtime.shutdown_background();
    answer
}
