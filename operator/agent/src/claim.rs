//! Whether a run may start: the ledger is asked, and written, before anything is executed.

use fairway_protocol::{Failure, MigrationOutcome, MigrationReport, Requester, RunIdentity};

use super::{
    backends::{self, Origin},
    checks::{self, Checks},
    conclude::{conclude, cut_off},
    connection::Connection,
    environment::Environment,
    fingerprint,
    ledger::{self, Beginning, Run, State},
    lock::Lock,
    report::migration,
    session::statement_failed,
};

/// What the agent knows about the run that it carries out.
#[derive(Clone, Debug)]
pub(crate) struct OpenRun {
    /// Key of the ledger row.
    pub(crate) run_id: String,
    /// Fingerprint before anything ran.
    pub(crate) before: String,
    /// Indexes that were invalid before anything ran.
    pub(crate) invalid_indexes: Vec<String>,
    /// How the sessions of the run are recognised.
    pub(crate) origin: Origin,
    /// What was at work in the database before anything ran.
    pub(crate) at_work: Vec<String>,
    /// Why its guard gave it up while its processes were alive, if it did: reason, and what happened.
    pub(crate) given_up: Option<(String, String)>,
}

impl OpenRun {
    /// The run of a ledger row, whichever pod began it.
    pub(crate) fn of_row(run: &Run) -> Self {
        Self {
            run_id: run.run_id.clone(),
            before: run.before.clone(),
            invalid_indexes: run.invalid_indexes.clone(),
            origin: Origin::of(run.client_address.as_deref(), &run.pod_ip),
            at_work: run.at_work.clone(),
            given_up: run.reason.clone().zip(run.message.clone()),
        }
    }
}

/// The ledger's answer.
pub(crate) enum Claim {
    /// The row is written: the run is ours and must now be carried out, once.
    Begun(OpenRun),
    /// An earlier agent began this very run and did not end it. Whoever holds the lock knows that it is dead.
    Interrupted(Box<Run>),
    /// Nothing is to be run.
    Settled(Box<MigrationReport>),
}

/// Asks the ledger, under the lock, and writes the row if the run may start.
///
/// # Errors
/// What kept the ledger from being asked; nothing was started.
pub(crate) async fn claim(
    lock: &mut Lock,
    connection: &Connection,
    environment: &Environment,
    requester: &Requester,
    identity: &RunIdentity,
    sql_checks: &Checks<'_>,
) -> Result<Claim, Failure> {
    let doing = |error| statement_failed("asking the ledger", &error);
    ledger::ensure(lock.session.client_mut(), connection).await?;
    if let Some(dead) = ledger::dead(lock.session.client(), &identity.run_id)
        .await
        .map_err(doing)?
    {
        tracing::warn!("settling run {}, which was cut off", dead.run_id);
        let run = OpenRun::of_row(&dead);
        conclude(lock, connection, &run, &Checks::none(), &cut_off(&run)).await;
    }
    let client = lock.session.client();
    if let Some(refusal) = ledger::claim_ownership(client, requester).await.map_err(doing)? {
        return Err(refusal);
    }
    let schema_ahead = ledger::schema_ahead(client, &identity.image_digest)
        .await
        .map_err(doing)?;
    if let Some(run) = ledger::find(client, &identity.run_id).await.map_err(doing)? {
        return Ok(match run.state {
            State::Running => Claim::Interrupted(Box::new(run)),
            State::Committed | State::Failed | State::Partial | State::Unknown => {
                Claim::Settled(Box::new(run.report(schema_ahead)))
            }
        });
    }
    if let Some(other) = ledger::unsettled(client, &identity.run_id).await.map_err(doing)? {
        let report = migration(MigrationOutcome::Blocked, Some(ledger::blocked_by(&other)));
        return Ok(Claim::Settled(Box::new(report)));
    }
    if let Some(applied) = ledger::applied(client, identity).await.map_err(doing)? {
        tracing::info!("run {} already applied this image and command", applied.run_id);
        // What must hold is asked again: a retry must not step over what did not.
        let invalid = checks::invalid_indexes(client).await.map_err(doing)?;
        let failed_check = match checks::newly_invalid(&applied.invalid_indexes, &invalid) {
            Some(sentence) => Some(sentence),
            None => checks::first_broken(connection, sql_checks).await?,
        };
        let report = migration(MigrationOutcome::AlreadyApplied, None);
        return Ok(Claim::Settled(Box::new(MigrationReport {
            schema_ahead,
            failed_check,
            ..report
        })));
    }
    begin(lock, environment, requester, identity)
        .await
        .map(Claim::Begun)
}

async fn begin(
    lock: &mut Lock,
    environment: &Environment,
    requester: &Requester,
    identity: &RunIdentity,
) -> Result<OpenRun, Failure> {
    let before = fingerprint::of_database(&mut lock.session)
        .await
        .map_err(|error| statement_failed("reading the schema", &error))?;
    let doing = |error| statement_failed("writing the ledger", &error);
    let client = lock.session.client();
    let invalid_indexes = checks::invalid_indexes(client).await.map_err(doing)?;
    let at_work = backends::at_work(client).await.map_err(doing)?;
    let pod_ip = environment.pod_ip();
    let beginning = Beginning {
        requester,
        identity,
        pod_uid: &environment.pod_uid(),
        pod_ip: &pod_ip,
        client_address: lock.client_address.as_deref(),
        before: &before,
        invalid_indexes: &invalid_indexes,
        at_work: &at_work,
    };
    ledger::begin(client, beginning).await.map_err(doing)?;
    let origin = Origin::of(lock.client_address.as_deref(), &pod_ip);
    Ok(OpenRun {
        run_id: identity.run_id.clone(),
        before,
        invalid_indexes,
        origin,
        at_work,
        given_up: None,
    })
}
