//! The end of a run: its sessions are ended, then the schema is compared, then the ledger is written.

use std::time::Duration;

use fairway_protocol::{Failure, MigrationOutcome, MigrationReport, Reason};
use tokio::time::{Instant, timeout};

use super::{
    Run, failed_check, ledger_not_read,
    observed::{Execution, Observed, Processes, Verdict},
};
use crate::{
    backends::{self, SessionsRemain},
    failure::version,
    fingerprint,
    ledger::{
        self, Ending, State,
        schema::{self, Found},
    },
    report::migration,
    session::statement_failed,
};

/// Longest time for which the database may be away at the end of a run before the agent leaves the rest to a settle
/// task.
const CONCLUDE_TIMEOUT: Duration = Duration::from_secs(300);
/// Pause before an attempt to conclude is repeated on the same session.
const PAUSE: Duration = Duration::from_secs(1);

impl Run<'_> {
    /// Ends the run's sessions, compares the schema and records the end, however often the connection breaks.
    pub(crate) async fn conclude(&mut self, observed: &Observed) -> MigrationReport {
        let deadline = Instant::now() + CONCLUDE_TIMEOUT;
        loop {
            let failure = match self.attempt(observed).await {
                Ok(report) => return report,
                Err(failure) => failure,
            };
            tracing::warn!("{}", failure.message);
            if self.lock.session.client().is_closed() {
                if let Err(failure) = self.relock(failure, deadline).await {
                    // The ledger still says `running`, which a settle task will find.
                    return self.unknown(failure);
                }
            } else if Instant::now() >= deadline {
                return self.record_unknown(observed, failure).await;
            } else {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Takes the lock again after its session was lost.
    ///
    /// # Errors
    /// Why it was not taken before the deadline; `failure` where the reason is not known.
    async fn relock(&mut self, mut failure: Failure, deadline: Instant) -> Result<(), Failure> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match timeout(left, self.lock.reacquire(left)).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(latest)) => failure = latest,
                Err(_) => return Err(failure),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Concludes a run whose agent is gone: its pod was interrupted, or its guard asked for its end.
    pub(crate) async fn settle(&mut self) -> MigrationReport {
        let verdict = match self.entry.stop_reason() {
            Some((reason, what)) => Verdict::failed(reason, what),
            None => Verdict::Failure {
                reason: Reason::MigrationInterrupted,
                what: "The migration was interrupted before it ended".to_owned(),
                execution: Execution::Possible,
                if_changed: State::Unknown,
            },
        };
        self.conclude(&Observed::new(verdict, Processes::Gone)).await
    }

    /// Records that nothing could be found out, so that a user can resolve the run.
    async fn record_unknown(&self, observed: &Observed, failure: Failure) -> MigrationReport {
        let message = format!("The outcome of the migration is unknown. {}", failure.message);
        let ending = observed.ending(State::Unknown, None, Some((Reason::MigrationUnknown, message)));
        match ledger::finish(self.lock.session.client(), self.id(), &ending).await {
            Ok(Some(entry)) => entry.report(false),
            Ok(None) | Err(_) => self.unknown(failure),
        }
    }

    async fn attempt(&mut self, observed: &Observed) -> Result<MigrationReport, Failure> {
        if !self.has_row().await? {
            return Ok(self.row_is_gone());
        }
        let ending = match self.end_sessions(observed).await? {
            Some(unknown) => unknown,
            None => self.judge(observed).await?,
        };
        let recorded = ledger::finish(self.lock.session.client(), self.id(), &ending)
            .await
            .map_err(|error| statement_failed("writing the ledger", &error))?;
        Ok(match recorded {
            Some(entry) => entry.report(false),
            None => self.row_is_gone(),
        })
    }

    async fn has_row(&self) -> Result<bool, Failure> {
        let client = self.lock.session.client();
        if schema::find(client).await? != Found::Current {
            return Ok(false);
        }
        let found = ledger::find(client, self.id()).await.map_err(ledger_not_read)?;
        Ok(found.is_some())
    }

    /// The report of a run whose row was deleted, or that began after the time to which the database was restored.
    fn row_is_gone(&self) -> MigrationReport {
        self.unknown(version(
            Reason::MigrationUnknown,
            format!(
                "The row of run {} is gone from fairway.migration_run, so the outcome cannot be recorded.",
                self.id()
            ),
        ))
    }

    /// The report of this run when its outcome could not be recorded.
    pub(crate) fn unknown(&self, failure: Failure) -> MigrationReport {
        MigrationReport {
            before: Some(self.entry.before.clone()),
            ..migration(MigrationOutcome::Unknown, Some(failure))
        }
    }

    /// Ends the run's sessions; the ending to record when their end cannot be proven. A run that succeeded has awaited
    /// its statements, so that sessions of unknown origin are not waited for then.
    async fn end_sessions(&self, observed: &Observed) -> Result<Option<Ending>, Failure> {
        if observed.processes == Processes::Serving {
            return Ok(None);
        }
        let client = self.lock.session.client();
        let ended = async {
            backends::end(client, self.id(), &self.origin()).await?;
            match observed.verdict {
                Verdict::Success => Ok(()),
                Verdict::Failure { .. } => {
                    let (address, before) = (self.entry.client_address.as_deref(), &self.entry.at_work);
                    backends::wait_for_unrecognised(client, address, before).await
                }
            }
        };
        match ended.await {
            Ok(()) => Ok(None),
            Err(SessionsRemain::Database(error)) if error.as_db_error().is_none() => {
                Err(statement_failed("ending the migration's sessions", &error))
            }
            Err(error) => {
                let message = format!("The migration ended, but {error}, so its outcome is unknown.");
                Ok(Some(observed.ending(
                    State::Unknown,
                    None,
                    Some((Reason::MigrationUnknown, message)),
                )))
            }
        }
    }

    async fn judge(&mut self, observed: &Observed) -> Result<Ending, Failure> {
        let after = fingerprint::of_database(&mut self.lock.session)
            .await
            .map_err(|error| statement_failed("reading the schema", &error))?;
        let Verdict::Failure {
            reason,
            what,
            execution,
            if_changed,
        } = &observed.verdict
        else {
            return Ok(Ending {
                failed_check: failed_check(&self.lock, &self.entry.invalid_indexes, &self.checks).await?,
                message: observed.note.clone(),
                ..observed.ending(State::Committed, Some(after), None)
            });
        };
        let what = match &observed.last_error {
            Some(line) => format!("{what}: {line}"),
            None => what.clone(),
        };
        if after == self.entry.before {
            let rows = match execution {
                Execution::Possible => "the schema is unchanged; rows may have changed",
                Execution::None => "nothing was executed",
            };
            let why = (*reason, format!("{what} ({rows})."));
            return Ok(observed.ending(State::Failed, Some(after), Some(why)));
        }
        let reason = match if_changed {
            State::Unknown => Reason::MigrationUnknown,
            _ => Reason::MigrationPartial,
        };
        let message = format!("{what}. The schema has changed.");
        Ok(observed.ending(*if_changed, Some(after), Some((reason, message))))
    }
}
