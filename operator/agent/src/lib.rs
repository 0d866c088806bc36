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
mod collation;
mod connection;
mod counters;
mod dumpable;
mod environment;
mod failure;
mod fingerprint;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod guard;
mod inputs;
mod install;
mod ledger;
mod lock;
mod migrate;
mod output;
mod pin;
mod preflight;
mod probe;
mod program;
mod prune;
mod redact;
mod report;
mod restore;
mod run;
mod seal;
mod session;
mod settle;
mod store;
mod tasks;
mod termination;
mod text;
mod tls;
mod trust;
mod values;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use fairway_protocol::{
    FIRST_PROTOCOL_VERSION, PROTOCOL_VARIABLE, PROTOCOL_VERSION, Reason, TASK_VARIABLE, Task, join_task,
};
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
    /// Look whether this node can run the programs of the image; that it was asked proves that the image was pulled.
    Pin,
    /// Do the task in the variable FAIRWAY_TASK.
    Run,
    /// Succeed when the application beside a guard may start: the guard's startup probe.
    Started,
}

/// Runs the agent and returns what the container exits with: 0 for success, 75 when another pod owns the run, 1
/// for any other failure.
pub fn main(arguments: Arguments) -> ExitCode {
    if let Err(error) = seal::close() {
        eprintln!("the agent cannot be closed to other processes of its user: {error}");
        return ExitCode::FAILURE;
    }
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
            let found = pin::other_platform(Path::new("/"), pin::can_run);
            match found {
                None => ExitCode::SUCCESS,
                Some(report) => {
                    let message = serde_json::to_string(&report).unwrap_or_default();
                    report::write(
                        &Environment::of_process(BTreeMap::new()).termination_log(),
                        &message,
                    );
                    fairway_protocol::EXIT_OTHER_PLATFORM.into()
                }
            }
        }
        Command::Started => match guard::started(&Environment::of_process(BTreeMap::new())) {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        },
        Command::Run => {
            let sealed = match seal::variables() {
                Ok(sealed) => sealed,
                Err(error) => {
                    eprintln!("the agent cannot keep its variables from the migration: {error}");
                    return ExitCode::FAILURE;
                }
            };
            log();
            let environment = Environment::of_process(sealed);
            let answer = do_task(&environment);
            report::write(&environment.termination_log(), &answer.message);
            answer.exit_code.into()
        }
    }
}

fn log() {
    tracing_subscriber::fmt()
        // Of libraries only errors: tokio-postgres logs notices, in which a database's user can write what he likes.
        .with_env_filter(EnvFilter::new("error,tokio_postgres=off,fairway=info"))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .init();
}

fn do_task(environment: &Environment) -> Answer {
    let text = join_task(|name| environment.get(name));
    let unusable = |what: String, protocol| {
        tracing::error!("{what}");
        tasks::without_work(&text, failure::environment(Reason::AgentFailed, what), protocol)
    };
    let asked = environment
        .get(PROTOCOL_VARIABLE)
        .unwrap_or_else(|| FIRST_PROTOCOL_VERSION.to_string());
    let protocol = match asked.parse() {
        Ok(version) if version <= PROTOCOL_VERSION => version,
        _ => {
            let what = format!(
                "The operator speaks version {asked} of the protocol, and this agent knows versions up to {PROTOCOL_VERSION}. Set \
                 agent.image of the chart to the operator's own version."
            );
            return unusable(what, PROTOCOL_VERSION);
        }
    };
    let task: Task = match serde_json::from_str(&text) {
        Ok(task) => task,
        Err(error) => {
            let what = format!(
                "The variable {TASK_VARIABLE} of the agent's container holds no task ({error}). Run operator and agent \
                 of the same version."
            );
            return unusable(what, protocol);
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return unusable(format!("The agent's runtime cannot start: {error}."), protocol),
    };
    if let Some(row) = tasks::row(&text) {
        tracing::info!("task {}, repeatable: {:?}", row.name, row.repeat);
    }
    let answer = runtime.block_on(tasks::run(task, environment, protocol));
    // A thread that still copies output must not keep the container.
    runtime.shutdown_background();
    answer
}
