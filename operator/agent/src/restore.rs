//! The task `restore`: a backup becomes a database beside the one in use, and then takes its place.
//!
//! Nothing is removed that was in use: the replaced database is renamed and kept. Each step may be repeated, after a kill
//! between any two statements: what a database is stands in a comment on it ([`mark`]).

mod context;
mod discard;
mod load;
mod mark;
mod prepare;
mod rights;
mod runs;
mod server;
mod set;
mod sql;
mod swap;

use fairway_protocol::{Failure, Reason, RestoreReport, RestoreStep, RestoreTask};

use crate::{
    environment::Environment, failure::environment as environment_failure, termination::Termination,
};
use context::Restore;

/// Does one step of a restore.
pub(crate) async fn run(task: RestoreTask, environment: &Environment) -> RestoreReport {
    let restore = match Restore::new(&task, environment) {
        Ok(restore) => restore,
        Err(failure) => return not_run(failure),
    };
    step(&restore).await
}

/// The answer to a task that was not started.
pub(crate) fn not_run(failure: Failure) -> RestoreReport {
    RestoreReport {
        failure: Some(failure),
        ..nothing()
    }
}

fn nothing() -> RestoreReport {
    RestoreReport {
        prepared: None,
        swapped: None,
        loss: None,
        failure: None,
    }
}

async fn step(restore: &Restore<'_>) -> RestoreReport {
    match &restore.task.step {
        RestoreStep::Prepare => match unless_stopped(restore, prepare::prepare(restore)).await {
            Ok((prepared, loss)) => RestoreReport {
                prepared: Some(prepared),
                loss: Some(loss),
                ..nothing()
            },
            Err(failure) => not_run(failure),
        },
        RestoreStep::Swap { agreed_rows } => {
            // It decides itself until when it may be stopped.
            let swap::Ended { outcome, loss } = swap::swap(restore, *agreed_rows).await;
            match outcome {
                Ok(swapped) => RestoreReport {
                    swapped: Some(swapped),
                    loss,
                    ..nothing()
                },
                Err(failure) => RestoreReport {
                    loss,
                    ..not_run(failure)
                },
            }
        }
        RestoreStep::Discard => match unless_stopped(restore, discard::discard(restore)).await {
            Ok(swapped) => RestoreReport { swapped, ..nothing() },
            Err(failure) => not_run(failure),
        },
    }
}

/// Does some work, or ends it with the programs that it runs when the pod is stopped. What it leaves is removed by the
/// next one.
async fn unless_stopped<T>(
    restore: &Restore<'_>,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let mut termination = Termination::listen();
    tokio::select! {
        outcome = work => outcome,
        () = termination.requested() => {
            restore.programs.end();
            Err(environment_failure(
                Reason::AgentFailed,
                "The restore's pod was stopped before its step was done.",
            ))
        }
    }
}
