//! The task `restore`: a backup becomes a database beside the one in use, and then takes its place.
//!
//! Nothing is removed that was in use: the replaced database is renamed and kept. Each step may be repeated, after a kill
//! between any two statements: what a database is stands in a comment on it ([`mark`]).

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

use std::{path::PathBuf, sync::Arc};

use fairway_protocol::{Failure, Reason, RestoreReport, RestoreStep, RestoreTask};

use crate::{
    backup::process::Programs,
    connection::Connection,
    environment::Environment,
    failure::environment as environment_failure,
    redact::Redactor,
    store::{self, SetPath, Store},
    termination::Termination,
};
use set::Reader;

/// Does one step of a restore.
pub(crate) async fn run(task: RestoreTask, environment: &Environment) -> RestoreReport {
    let restore = match Restore::new(&task, environment) {
        Ok(restore) => restore,
        Err(failure) => return not_run(failure),
    };
    restore.step().await
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

/// A restore, whichever step of it is done.
struct Restore<'a> {
    task: &'a RestoreTask,
    environment: &'a Environment,
    /// How the database in use is reached.
    connection: Connection,
    store: Box<dyn Store>,
    set: SetPath,
    /// Name of the restored database beside the one in use.
    beside: String,
    /// Name under which the one in use is kept when it was replaced.
    replaced: String,
    redactor: Arc<Redactor>,
    programs: Arc<Programs>,
}

impl<'a> Restore<'a> {
    fn new(task: &'a RestoreTask, environment: &'a Environment) -> Result<Self, Failure> {
        let connection = environment.connection()?;
        Ok(Self {
            task,
            environment,
            store: store::open(&task.store, environment)?,
            set: SetPath::parse(&task.set)?,
            beside: sql::beside(&connection.database, &task.restore_uid),
            replaced: sql::replaced(&connection.database, &task.restore_uid),
            redactor: Arc::new(environment.redactor()),
            programs: Arc::default(),
            connection,
        })
    }

    fn uid(&self) -> &str {
        &self.task.restore_uid
    }

    fn reader(&self) -> Reader<'_> {
        Reader {
            task: self.task,
            store: self.store.as_ref(),
            set: &self.set,
            scratch: self.scratch(),
            redactor: self.redactor.clone(),
            programs: self.programs.clone(),
        }
    }

    fn scratch(&self) -> Option<PathBuf> {
        self.task.scratch.then(|| self.environment.scratch_directory())
    }

    async fn step(&self) -> RestoreReport {
        match &self.task.step {
            RestoreStep::Prepare => match self.unless_stopped(prepare::prepare(self)).await {
                Ok((prepared, loss)) => RestoreReport {
                    prepared: Some(prepared),
                    loss: Some(loss),
                    ..nothing()
                },
                Err(failure) => not_run(failure),
            },
            RestoreStep::Swap { agreed_rows } => {
                // It decides itself until when it may be stopped.
                let swap::Ended { outcome, loss } = swap::swap(self, *agreed_rows).await;
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
            RestoreStep::Discard => match self.unless_stopped(discard::discard(self)).await {
                Ok(()) => nothing(),
                Err(failure) => not_run(failure),
            },
        }
    }

    /// Does some work, or ends it with the programs that it runs when the pod is stopped. What it leaves is removed by the
    /// next one.
    async fn unless_stopped<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let mut termination = Termination::listen();
        tokio::select! {
            outcome = work => outcome,
            () = termination.requested() => {
                self.programs.end();
                Err(environment_failure(
                    Reason::AgentFailed,
                    "The restore's pod was stopped before its step was done.",
                ))
            }
        }
    }
}
