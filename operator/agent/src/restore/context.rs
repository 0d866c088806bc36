//! What each step of a restore works with.

use std::{path::PathBuf, sync::Arc};

use fairway_protocol::{Failure, RestoreTask};

use super::{set::Reader, sql};
use crate::{
    backup::process::Programs,
    connection::Connection,
    environment::Environment,
    redact::Redactor,
    session::{SearchPath, Session},
    store::{self, SetPath, Store},
};

/// A restore, whichever step of it is done.
pub(super) struct Restore<'a> {
    pub(super) task: &'a RestoreTask,
    pub(super) environment: &'a Environment,
    /// How the database in use is reached.
    pub(super) connection: Connection,
    store: Box<dyn Store>,
    set: SetPath,
    /// Name of the restored database beside the one in use.
    pub(super) beside: String,
    /// Name under which the one in use is kept when it was replaced.
    pub(super) replaced: String,
    redactor: Arc<Redactor>,
    pub(super) programs: Arc<Programs>,
}

impl<'a> Restore<'a> {
    pub(super) fn new(task: &'a RestoreTask, environment: &'a Environment) -> Result<Self, Failure> {
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

    pub(super) fn uid(&self) -> &str {
        &self.task.restore_uid
    }

    pub(super) fn reader(&self) -> Reader<'_> {
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

    /// A session in the database in use.
    pub(super) async fn connection_session(&self) -> Result<Session, Failure> {
        Session::connect(&self.connection, SearchPath::Catalog).await
    }
}
