//! One run of a migration, from its claim in the ledger to its recorded end.

mod conclude;
pub(crate) mod lock_watch;
mod observed;
mod stop;

use std::time::Duration;

use fairway_protocol::{
    Failure, MigrationOutcome, MigrationReport, Reason, RequestedRun, Requester, RunIdentity,
};
use tokio::time::Instant;

pub(crate) use observed::{Observed, Processes, Verdict};
pub(crate) use stop::StopReason;

use crate::{
    backends::{self, InTransaction, Origin},
    checks::{self, Checks, FailedCheck},
    environment::Environment,
    failure::{environment as environment_failure, version},
    fingerprint, inputs,
    ledger::{self, Entry, NewEntry, State},
    lock::Lock,
    report::{self, migration},
    session::{Session, statement_failed},
    termination::Termination,
};

/// Time to connect to the database before a run.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);
/// Time to wait for the migration lock before a run.
const LOCK_TIMEOUT: Duration = Duration::from_secs(120);

/// What is asked for by the tasks that migrate: the run, its time, and what must hold after it.
pub(crate) struct Request<'a> {
    /// The agent's environment.
    pub(crate) environment: &'a Environment,
    requester: &'a Requester,
    identity: &'a RunIdentity,
    literals_hash: Option<&'a str>,
    /// The time that the migration may take.
    pub(crate) limit: Duration,
    checks: Checks<'a>,
}

impl<'a> Request<'a> {
    /// The request of a task that migrates.
    pub(crate) fn new(environment: &'a Environment, run: &'a RequestedRun) -> Self {
        let limit = Duration::from_secs(run.timeout_seconds);
        Self {
            environment,
            requester: &run.requester,
            identity: &run.identity,
            literals_hash: run.literals_hash.as_deref(),
            limit,
            checks: Checks::within(limit, &run.checks),
        }
    }

    /// The hash of the run's inputs.
    fn inputs_hash(&self) -> Result<Option<String>, Failure> {
        let Some(literals) = self.literals_hash else {
            return Ok(None);
        };
        let hash = inputs::hash(literals, &self.environment.inputs_directory());
        hash.map(Some).map_err(|error| {
            environment_failure(
                Reason::AgentFailed,
                format!("The ConfigMaps that the migration reads cannot be read ({error})."),
            )
        })
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
    /// An earlier agent began this very run and did not record its end. Whoever holds the lock knows that the
    /// earlier agent is gone.
    Interrupted(Run<'a>),
    /// There is nothing to run.
    Settled(Box<MigrationReport>),
}

impl<'a> Run<'a> {
    /// Takes the migration lock, asks the ledger, and writes the run's row if the run may start. A pod that is asked to
    /// end before that starts nothing any more.
    ///
    /// # Errors
    /// What kept the ledger from being asked; nothing was started.
    pub(crate) async fn claim(
        request: &Request<'a>,
        termination: &mut Termination,
    ) -> Result<Claim<'a>, Failure> {
        let connection = request.environment.connection()?;
        let (connect_timeout, lock_timeout) = (
            CONNECT_TIMEOUT.min(request.limit),
            LOCK_TIMEOUT.min(request.limit),
        );
        let lock = tokio::select! {
            biased;
            () = termination.requested() => return Err(stopped()),
            acquired = Lock::acquire(&connection, connect_timeout, lock_timeout) => acquired?,
        };
        Self::claim_under(lock, request, termination).await
    }

    async fn claim_under(
        mut lock: Lock,
        request: &Request<'a>,
        termination: &mut Termination,
    ) -> Result<Claim<'a>, Failure> {
        ledger::schema::ensure(lock.session.client_mut()).await?;
        let lock = settle_interrupted(lock, &request.identity.run_id).await?;
        if let Some(refusal) = ledger::claim_ownership(lock.session.client(), request.requester)
            .await
            .map_err(|error| statement_failed("recording which App owns the database", &error))?
        {
            return Err(refusal);
        }
        let found = ledger::find(lock.session.client(), &request.identity.run_id)
            .await
            .map_err(ledger_not_read)?;
        if let Some(entry) = &found
            && entry.state == State::Running
        {
            return Ok(Claim::Interrupted(Self::of_entry(lock, entry.clone())));
        }
        let inputs_hash = request.inputs_hash()?;
        match report_without_running(&lock, request, inputs_hash.as_deref(), found).await? {
            Some(report) => Ok(Claim::Settled(Box::new(report))),
            // Settling another run may have taken minutes.
            None if termination.is_requested().await => Err(stopped()),
            None => Self::begin(lock, request, inputs_hash.as_deref())
                .await
                .map(Claim::Begun),
        }
    }

    async fn begin(
        mut lock: Lock,
        request: &Request<'a>,
        inputs_hash: Option<&str>,
    ) -> Result<Self, Failure> {
        let before = fingerprint::of_database(&mut lock.session)
            .await
            .map_err(|error| statement_failed("reading the schema", &error))?;
        let client = lock.session.client();
        let invalid_indexes = checks::invalid_indexes(client)
            .await
            .map_err(|error| statement_failed("reading the schema", &error))?;
        let at_work = backends::at_work(client)
            .await
            .map_err(|error| statement_failed("reading the database's sessions", &error))?;
        let new = NewEntry {
            requester: request.requester,
            identity: request.identity,
            inputs_hash,
            pod_uid: &request.environment.pod_uid(),
            pod_ip: &request.environment.pod_ip(),
            client_address: lock.client_address.as_deref(),
            before: &before,
            invalid_indexes: &invalid_indexes,
            at_work: &at_work,
        };
        let entry = ledger::begin(client, new)
            .await
            .map_err(|error| statement_failed("writing the ledger", &error))?;
        report::write_begun(&request.environment.termination_log(), &entry.before);
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
            .map_err(ledger_not_read)?;
        Ok(Instant::now() + limit.saturating_sub(Duration::from_secs_f64(ran.max(0.0))))
    }

    /// Records that the pod must be stopped, and why, and reports the run as undecided. Its processes are still running;
    /// settling determines the outcome.
    pub(crate) async fn request_stop(self, stop: &StopReason) -> MigrationReport {
        let what = stop.to_string();
        let recorded =
            ledger::record_stop_reason(self.lock.session.client(), self.id(), stop.reason(), &what).await;
        if let Err(error) = recorded {
            // The run is then reported as interrupted.
            let failure = statement_failed("recording why the migration must end", &error);
            tracing::warn!("{}", failure.message);
        }
        MigrationReport {
            before: Some(self.entry.before),
            ..migration(
                MigrationOutcome::Undecided,
                Some(version(stop.reason(), format!("{what}."))),
            )
        }
    }

    /// The open transactions of the healthy application's sessions.
    ///
    /// # Errors
    /// When the database does not answer.
    pub(crate) async fn in_transaction(
        &self,
        open_for: Duration,
    ) -> Result<InTransaction, tokio_postgres::Error> {
        let client = self.lock.session.client();
        backends::in_transaction(client, &self.entry, &self.origin(), open_for).await
    }

    /// How the sessions of the run are recognised.
    pub(crate) fn origin(&self) -> Origin {
        Origin::of(self.entry.client_address.as_deref(), &self.entry.pod_ip)
    }
}

/// A pod was asked to end before its run began.
fn stopped() -> Failure {
    environment_failure(
        Reason::AgentFailed,
        "The migration's pod was stopped before anything was started.",
    )
}

fn ledger_not_read(error: tokio_postgres::Error) -> Failure {
    statement_failed("reading the ledger", &error)
}

/// Settles the run that an earlier agent left without an end, if there is one, so that another may begin.
async fn settle_interrupted(lock: Lock, except_run_id: &str) -> Result<Lock, Failure> {
    let interrupted = ledger::interrupted(lock.session.client(), except_run_id)
        .await
        .map_err(ledger_not_read)?;
    let Some(entry) = interrupted else {
        return Ok(lock);
    };
    tracing::warn!("settling run {}, which was interrupted", entry.run_id);
    let mut other = Run::of_entry(lock, entry);
    other.settle().await;
    Ok(other.lock)
}

/// The report on a request for which nothing has to run: its run has ended, another one is not settled, or its image,
/// command and inputs were applied by an earlier run.
async fn report_without_running(
    lock: &Lock,
    request: &Request<'_>,
    inputs_hash: Option<&str>,
    found: Option<Entry>,
) -> Result<Option<MigrationReport>, Failure> {
    let (client, identity) = (lock.session.client(), request.identity);
    let schema_ahead = ledger::schema_ahead(client, &identity.image_digest)
        .await
        .map_err(ledger_not_read)?;
    if let Some(ended) = found {
        return Ok(Some(ended.report(schema_ahead)));
    }
    let unsettled = ledger::unsettled(client, &identity.run_id)
        .await
        .map_err(ledger_not_read)?;
    if let Some(other) = unsettled {
        let refusal = ledger::blocked_by(&other);
        return Ok(Some(migration(MigrationOutcome::Blocked, Some(refusal))));
    }
    let Some(applied) = ledger::applied(client, identity, inputs_hash)
        .await
        .map_err(ledger_not_read)?
    else {
        return Ok(None);
    };
    tracing::info!(
        "run {} already applied this image, command and inputs",
        applied.run_id
    );
    Ok(Some(MigrationReport {
        schema_ahead,
        // The checks are made again: a retry must not skip one that did not hold.
        failed_check: match applied.may_have_left_an_index() {
            true => failed_check(lock, &applied.invalid_indexes, &request.checks).await?,
            // One that is invalid now became invalid later, through another client.
            false => checks::first_failed(&lock.connection, &request.checks).await?,
        }
        .map(|failed| failed.to_string()),
        ..migration(MigrationOutcome::AlreadyApplied, None)
    }))
}

/// The first index that is invalid and was not `invalid_before`, or else the first check that does not hold.
async fn failed_check(
    lock: &Lock,
    invalid_before: &[String],
    checks: &Checks<'_>,
) -> Result<Option<FailedCheck>, Failure> {
    let invalid = checks::invalid_indexes(lock.session.client())
        .await
        .map_err(|error| statement_failed("reading the schema", &error))?;
    match checks::newly_invalid(invalid_before, &invalid) {
        Some(failed) => Ok(Some(failed)),
        None => checks::first_failed(&lock.connection, checks).await,
    }
}
