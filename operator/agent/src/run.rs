//! One run of a migration, from its claim in the ledger to its recorded end.

mod conclude;
mod observed;

use std::time::Duration;

use fairway_protocol::{
    Failure, GuardTask, MigrationOutcome, MigrationReport, MigrationTask, Reason, Requester, RunIdentity,
    SqlCheck,
};
use tokio::time::{Instant, timeout};

pub(crate) use observed::{Observed, Processes, Verdict};

use crate::{
    backends::{self, Origin},
    checks::{self, Checks},
    environment::Environment,
    failure::{environment as environment_failure, version},
    fingerprint,
    ledger::{self, Entry, NewEntry, State},
    lock::Lock,
    report::migration,
    session::{Session, statement_failed},
    termination::Termination,
};

/// Time to connect to the database before a run.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);
/// Time to wait for the migration lock before a run.
const LOCK_TIMEOUT: Duration = Duration::from_secs(120);
/// Time to take a lost migration lock again while the migration goes on, connecting and asking the ledger included.
const RELOCK_TIMEOUT: Duration = Duration::from_secs(60);

/// What is asked for by the tasks that migrate: the run, its time, and what must hold after it.
pub(crate) struct Request<'a> {
    /// The agent's environment.
    pub(crate) environment: &'a Environment,
    requester: &'a Requester,
    identity: &'a RunIdentity,
    /// The time that the migration may take.
    pub(crate) limit: Duration,
    checks: Checks<'a>,
}

impl<'a> Request<'a> {
    /// The request of a task that runs the migration as a child.
    pub(crate) fn of_migration(task: &'a MigrationTask, environment: &'a Environment) -> Self {
        Self::new(
            environment,
            &task.requester,
            &task.run,
            task.timeout_seconds,
            &task.checks,
        )
    }

    /// The request of a task that guards an application which migrates when it starts.
    pub(crate) fn of_guard(task: &'a GuardTask, environment: &'a Environment) -> Self {
        Self::new(
            environment,
            &task.requester,
            &task.run,
            task.timeout_seconds,
            &task.checks,
        )
    }

    fn new(
        environment: &'a Environment,
        requester: &'a Requester,
        identity: &'a RunIdentity,
        timeout_seconds: u64,
        checks: &'a [SqlCheck],
    ) -> Self {
        let limit = Duration::from_secs(timeout_seconds);
        Self {
            environment,
            requester,
            identity,
            limit,
            checks: Checks::within(limit, checks),
        }
    }
}

/// A run of a migration and the migration lock of its database, which this agent holds.
///
/// Connection, session, lock, ledger row and checks are in one place, so that the watcher of a run can wait for the
/// loss of its lock, take it again, and conclude the run.
pub(crate) struct Run<'a> {
    lock: Lock,
    entry: Entry,
    checks: Checks<'a>,
}

/// The ledger's answer to a request.
pub(crate) enum Claim<'a> {
    /// The run's row is written: it must now be executed, once.
    Begun(Run<'a>),
    /// An earlier agent began this very run and did not record its end. Whoever holds the lock knows that this agent
    /// is gone.
    Interrupted(Run<'a>),
    /// There is nothing to run.
    Settled(Box<MigrationReport>),
}

impl<'a> Run<'a> {
    /// Takes the migration lock, asks the ledger, and writes the run's row if the run may start. A pod that is asked to
    /// end while it waits for the lock starts nothing any more.
    ///
    /// # Errors
    /// What kept the ledger from being asked; nothing was started.
    pub(crate) async fn claim(
        request: &Request<'a>,
        termination: &mut Termination,
    ) -> Result<Claim<'a>, Failure> {
        let connection = request.environment.connection()?;
        let (reach, patience) = (
            CONNECT_TIMEOUT.min(request.limit),
            LOCK_TIMEOUT.min(request.limit),
        );
        let lock = tokio::select! {
            acquired = Lock::acquire(&connection, reach, patience) => acquired?,
            () = termination.requested() => {
                return Err(environment_failure(
                    Reason::AgentFailed,
                    "The migration's pod was stopped before anything was started.",
                ));
            }
        };
        Self::claim_under(lock, request).await
    }

    async fn claim_under(mut lock: Lock, request: &Request<'a>) -> Result<Claim<'a>, Failure> {
        let doing = |error| statement_failed("reading the ledger", &error);
        let identity = request.identity;
        ledger::ensure(lock.session.client_mut(), &lock.connection).await?;
        if let Some(entry) = ledger::interrupted(lock.session.client(), &identity.run_id)
            .await
            .map_err(doing)?
        {
            tracing::warn!("settling run {}, which was interrupted", entry.run_id);
            let mut other = Run::of_entry(lock, entry);
            other.settle().await;
            lock = other.lock;
        }
        let client = lock.session.client();
        if let Some(refusal) = ledger::claim_ownership(client, request.requester)
            .await
            .map_err(doing)?
        {
            return Err(refusal);
        }
        let schema_ahead = ledger::schema_ahead(client, &identity.image_digest)
            .await
            .map_err(doing)?;
        if let Some(entry) = ledger::find(client, &identity.run_id).await.map_err(doing)? {
            return Ok(match entry.state {
                State::Running => Claim::Interrupted(Self::of_entry(lock, entry)),
                State::Committed | State::Failed | State::Partial | State::Unknown => {
                    Claim::Settled(Box::new(entry.report(schema_ahead)))
                }
            });
        }
        if let Some(other) = ledger::unsettled(client, &identity.run_id).await.map_err(doing)? {
            let report = migration(MigrationOutcome::Blocked, Some(ledger::blocked_by(&other)));
            return Ok(Claim::Settled(Box::new(report)));
        }
        if let Some(applied) = ledger::applied(client, identity).await.map_err(doing)? {
            tracing::info!("run {} already applied this image and command", applied.run_id);
            // The checks are made again: a retry must not skip one that did not hold.
            let failed_check = Run {
                lock,
                entry: applied,
                checks: request.checks,
            }
            .failed_check()
            .await?;
            return Ok(Claim::Settled(Box::new(MigrationReport {
                schema_ahead,
                failed_check,
                ..migration(MigrationOutcome::AlreadyApplied, None)
            })));
        }
        Self::begin(lock, request).await.map(Claim::Begun)
    }

    async fn begin(mut lock: Lock, request: &Request<'a>) -> Result<Self, Failure> {
        let before = fingerprint::of_database(&mut lock.session)
            .await
            .map_err(|error| statement_failed("reading the schema", &error))?;
        let doing = |error| statement_failed("writing the ledger", &error);
        let client = lock.session.client();
        let invalid_indexes = checks::invalid_indexes(client).await.map_err(doing)?;
        let at_work = backends::at_work(client).await.map_err(doing)?;
        let new = NewEntry {
            requester: request.requester,
            identity: request.identity,
            pod_uid: &request.environment.pod_uid(),
            pod_ip: &request.environment.pod_ip(),
            client_address: lock.client_address.as_deref(),
            before: &before,
            invalid_indexes: &invalid_indexes,
            at_work: &at_work,
        };
        let entry = ledger::begin(client, new).await.map_err(doing)?;
        Ok(Self {
            lock,
            entry,
            checks: request.checks,
        })
    }

    /// A run that another agent began, of which only the end is still to be recorded.
    pub(crate) fn of_entry(lock: Lock, entry: Entry) -> Self {
        Self {
            lock,
            entry,
            checks: Checks::none(),
        }
    }

    /// This run with the checks of a request, because the pod that began it goes on with it.
    pub(crate) fn resumed(self, request: &Request<'a>) -> Self {
        Self {
            checks: request.checks,
            ..self
        }
    }

    /// The run's id, for the log.
    pub(crate) fn id(&self) -> &str {
        &self.entry.run_id
    }

    /// The session that holds the lock.
    pub(crate) fn session(&self) -> &Session {
        &self.lock.session
    }

    /// Whether the pod with this UID began the run.
    pub(crate) fn was_begun_by(&self, pod_uid: &str) -> bool {
        !pod_uid.is_empty() && self.entry.pod_uid == pod_uid
    }

    /// The moment at which the run has had `limit` of time, counted from its beginning in the ledger.
    ///
    /// # Errors
    /// When the database does not answer.
    pub(crate) async fn deadline(&self, limit: Duration) -> Result<Instant, Failure> {
        let ran = ledger::seconds_since_start(self.lock.session.client(), self.id())
            .await
            .map_err(|error| statement_failed("reading the ledger", &error))?;
        Ok(Instant::now() + limit.saturating_sub(Duration::from_secs_f64(ran.max(0.0))))
    }

    /// Resolves when the session that holds the lock is gone. May be awaited again after it was cancelled.
    pub(crate) async fn lock_lost(&mut self) {
        self.lock.session.lost().await;
    }

    /// Takes the lock again after its session was lost. False when another agent had it in between, which has then
    /// changed the row, or when it could not be had.
    pub(crate) async fn regain_lock(&mut self) -> bool {
        tracing::warn!("the session that holds the migration lock was lost; taking the lock again");
        let regained = async {
            if let Err(failure) = self.lock.reacquire(RELOCK_TIMEOUT).await {
                tracing::warn!("{}", failure.message);
                return false;
            }
            let found = ledger::find(self.lock.session.client(), self.id()).await;
            matches!(found, Ok(Some(entry)) if entry.state == State::Running)
        };
        // One bound for all of it: connecting, waiting for the lock and each query would otherwise add up.
        timeout(RELOCK_TIMEOUT, regained).await.unwrap_or(false)
    }

    /// Records and reports that the run's pod must be ended, and why: its processes are alive and must not go on. What
    /// it did is judged when the run is settled after that.
    pub(crate) async fn ask_for_end(self, reason: Reason, what: &str) -> MigrationReport {
        let recorded = ledger::record_stop_reason(self.lock.session.client(), self.id(), reason, what).await;
        if let Err(error) = recorded {
            // The run is then reported as interrupted.
            let failure = statement_failed("recording why the migration must end", &error);
            tracing::warn!("{}", failure.message);
        }
        migration(
            MigrationOutcome::Undecided,
            Some(version(reason, format!("{what}."))),
        )
    }

    /// The sentence of the first index that became invalid, or of the first check that does not hold.
    async fn failed_check(&self) -> Result<Option<String>, Failure> {
        let invalid = checks::invalid_indexes(self.lock.session.client())
            .await
            .map_err(|error| statement_failed("reading the schema", &error))?;
        match checks::newly_invalid(&self.entry.invalid_indexes, &invalid) {
            Some(sentence) => Ok(Some(sentence)),
            None => checks::first_failed(&self.lock.connection, &self.checks).await,
        }
    }

    /// How the sessions of the run are recognised.
    fn origin(&self) -> Origin {
        Origin::of(self.entry.client_address.as_deref(), &self.entry.pod_ip)
    }
}
