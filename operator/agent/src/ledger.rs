//! The ledger: what ran on this database, kept in the database itself so that a restore rewinds it together
//! with the data.
//!
//! Every write happens on the session that holds the migration's lock, so an agent that lost the lock cannot
//! write either.

use fairway_protocol::{
    Failure, MigrationOutcome, MigrationReport, Requester, Resolution, RunIdentity, reason,
};
use tokio_postgres::{Client, GenericClient, Row, error::SqlState};

use super::{
    connection::Connection,
    failure::{environment, version},
    report::migration,
};

/// Created once, under the lock.
const TABLES: &str = "
    create table if not exists fairway.owner (
        singleton boolean primary key default true check (singleton),
        namespace text not null,
        app text not null,
        claimed_at timestamptz not null default clock_timestamp()
    );
    create table if not exists fairway.migration_run (
        run_id text primary key,
        ordinal bigint generated always as identity unique,
        namespace text not null,
        app text not null,
        release text not null,
        image_digest text not null,
        command_hash text not null,
        pod_uid text not null,
        pod_ip text not null,
        client_address text,
        state text not null check (state in ('running', 'committed', 'failed', 'partial', 'unknown')),
        started_at timestamptz not null default clock_timestamp(),
        finished_at timestamptz,
        pre_fingerprint text not null,
        post_fingerprint text,
        invalid_indexes text[] not null,
        at_work text[] not null,
        exit_code int4,
        sqlstate text,
        reason text,
        message text,
        last_error text,
        failed_check text,
        resolution text check (resolution in ('applied', 'notApplied')),
        resolution_token text,
        resolved_at timestamptz
    );
    revoke all on schema fairway from public;
    revoke all on all tables in schema fairway from public;";

/// How far a run came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Its process may be alive; it is dead for whoever holds the lock.
    Running,
    /// It did its work.
    Committed,
    /// It failed and the schema is what it was.
    Failed,
    /// It failed and the schema changed.
    Partial,
    /// What it did cannot be decided.
    Unknown,
}

impl State {
    fn as_text(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Committed => "committed",
            Self::Failed => "failed",
            Self::Partial => "partial",
            Self::Unknown => "unknown",
        }
    }

    /// An unknown word can only come from a newer agent; it must never look like success.
    fn parse(text: &str) -> Self {
        match text {
            "running" => Self::Running,
            "committed" => Self::Committed,
            "failed" => Self::Failed,
            "partial" => Self::Partial,
            _ => Self::Unknown,
        }
    }
}

/// One row of the ledger.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) run_id: String,
    pub(crate) release: String,
    pub(crate) pod_uid: String,
    pub(crate) pod_ip: String,
    /// The address that the server saw, when it was the pod's own.
    pub(crate) client_address: Option<String>,
    pub(crate) state: State,
    pub(crate) seconds: Option<f64>,
    pub(crate) before: String,
    pub(crate) after: Option<String>,
    pub(crate) invalid_indexes: Vec<String>,
    /// What was at work in the database when it began.
    pub(crate) at_work: Vec<String>,
    pub(crate) exit_code: Option<i32>,
    pub(crate) sqlstate: Option<String>,
    /// Of one that is running: why its guard gave it up.
    pub(crate) reason: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) last_error: Option<String>,
    pub(crate) failed_check: Option<String>,
    pub(crate) resolution: Option<Resolution>,
}

/// What a run starts with.
pub(crate) struct Beginning<'a> {
    pub(crate) requester: &'a Requester,
    pub(crate) identity: &'a RunIdentity,
    pub(crate) pod_uid: &'a str,
    pub(crate) pod_ip: &'a str,
    pub(crate) client_address: Option<&'a str>,
    pub(crate) before: &'a str,
    pub(crate) invalid_indexes: &'a [String],
    pub(crate) at_work: &'a [String],
}

/// How a run ended.
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    pub(crate) state: State,
    pub(crate) after: Option<String>,
    pub(crate) exit_code: Option<i32>,
    pub(crate) sqlstate: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) last_error: Option<String>,
    pub(crate) failed_check: Option<String>,
}

const COLUMNS: &str = "run_id, release, pod_uid, pod_ip, client_address, state, \
    round(extract(epoch from finished_at - started_at)::numeric, 3)::float8 as seconds, pre_fingerprint, post_fingerprint, \
    invalid_indexes, at_work, exit_code, sqlstate, reason, message, last_error, failed_check, resolution";

impl Run {
    fn from_row(row: &Row) -> Self {
        Self {
            run_id: row.get("run_id"),
            release: row.get("release"),
            pod_uid: row.get("pod_uid"),
            pod_ip: row.get("pod_ip"),
            client_address: row.get("client_address"),
            state: State::parse(row.get("state")),
            seconds: row.get("seconds"),
            before: row.get("pre_fingerprint"),
            after: row.get("post_fingerprint"),
            invalid_indexes: row.get("invalid_indexes"),
            at_work: row.get("at_work"),
            exit_code: row.get("exit_code"),
            sqlstate: row.get("sqlstate"),
            reason: row.get("reason"),
            message: row.get("message"),
            last_error: row.get("last_error"),
            failed_check: row.get("failed_check"),
            resolution: match row.get::<_, Option<&str>>("resolution") {
                Some("applied") => Some(Resolution::Applied),
                Some(_) => Some(Resolution::NotApplied),
                None => None,
            },
        }
    }

    /// The report of a run that ended; for one that has not, that its outcome is unknown.
    pub(crate) fn report(self, schema_ahead: bool) -> MigrationReport {
        let outcome = match (self.state, self.resolution) {
            (State::Committed, _) | (_, Some(Resolution::Applied)) => MigrationOutcome::Applied,
            (State::Failed, _) | (_, Some(Resolution::NotApplied)) => MigrationOutcome::Failed,
            (State::Partial, None) => MigrationOutcome::Partial,
            (State::Running | State::Unknown, None) => MigrationOutcome::Unknown,
        };
        let failure = match (outcome, self.resolution) {
            (MigrationOutcome::Applied, _) => None,
            (_, Some(Resolution::NotApplied)) => Some(version(
                reason::MIGRATION_NOT_APPLIED,
                "A person looked at the database and resolved the migration as not applied.",
            )),
            _ => Some(version(
                self.reason.as_deref().unwrap_or(reason::MIGRATION_UNKNOWN),
                self.message
                    .unwrap_or_else(|| "The migration was cut off.".to_owned()),
            )),
        };
        MigrationReport {
            before: Some(self.before),
            after: self.after,
            seconds: self.seconds,
            exit_code: self.exit_code,
            sqlstate: self.sqlstate,
            last_error: self.last_error,
            failed_check: self.failed_check,
            schema_ahead,
            ..migration(outcome, failure)
        }
    }
}

/// Whether the ledger's tables are there.
pub(crate) async fn exists(client: &impl GenericClient) -> Result<bool, tokio_postgres::Error> {
    let row = client
        .query_one("select to_regclass('fairway.migration_run') is not null", &[])
        .await?;
    Ok(row.get(0))
}

/// Creates the ledger where it is missing. Call it under the lock.
pub(crate) async fn ensure(client: &mut Client, connection: &Connection) -> Result<(), Failure> {
    let created = async {
        if exists(client).await? {
            return Ok(());
        }
        let transaction = client.transaction().await?;
        // `create schema if not exists` would ask for the right to create it even where it exists.
        let row = transaction
            .query_one("select to_regnamespace('fairway') is null", &[])
            .await?;
        if row.get(0) {
            transaction.batch_execute("create schema fairway").await?;
        }
        transaction.batch_execute(TABLES).await?;
        transaction.commit().await
    };
    created.await.map_err(|error| not_permitted(connection, &error))
}

/// The refusal of a database in which the ledger cannot be kept.
pub(crate) fn not_permitted(connection: &Connection, error: &tokio_postgres::Error) -> Failure {
    match error.code() {
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => ledger_forbidden(connection),
        _ => super::session::statement_failed("creating the ledger", error),
    }
}

/// The sentence for a role that may not create or use schema `fairway`.
pub(crate) fn ledger_forbidden(connection: &Connection) -> Failure {
    environment(
        reason::LEDGER_NOT_PERMITTED,
        format!(
            "Role {user:?} may not keep Fairway's ledger in database {database:?}; run GRANT CREATE ON DATABASE \
             \"{database}\" TO \"{user}\", or let the owner of schema fairway grant USAGE and CREATE on it and ALL on \
             its tables.",
            user = connection.user,
            database = connection.database
        ),
    )
}

/// The App that releases to this database, if any does yet.
pub(crate) async fn owner(
    client: &impl GenericClient,
) -> Result<Option<(String, String)>, tokio_postgres::Error> {
    let row = client
        .query_opt("select namespace, app from fairway.owner", &[])
        .await?;
    Ok(row.map(|row| (row.get(0), row.get(1))))
}

/// Makes the App the database's owner, or says whose it is.
pub(crate) async fn claim_ownership(
    client: &Client,
    requester: &Requester,
) -> Result<Option<Failure>, tokio_postgres::Error> {
    client
        .execute(
            "insert into fairway.owner (namespace, app) values ($1, $2) on conflict do nothing",
            &[&requester.namespace, &requester.app],
        )
        .await?;
    Ok(owner(client)
        .await?
        .and_then(|owner| owned_by_other(&owner, requester)))
}

/// The refusal when another App owns the database.
pub(crate) fn owned_by_other((namespace, app): &(String, String), requester: &Requester) -> Option<Failure> {
    let same = *namespace == requester.namespace && *app == requester.app;
    (!same).then(|| {
        environment(
            reason::DATABASE_OWNED,
            format!(
                "This database belongs to App {namespace}/{app}; give App {}/{} a database of its own, or, if \
                 {namespace}/{app} is gone for good, run DELETE FROM fairway.owner in this database.",
                requester.namespace, requester.app
            ),
        )
    })
}

/// The row of a run.
pub(crate) async fn find(
    client: &impl GenericClient,
    run_id: &str,
) -> Result<Option<Run>, tokio_postgres::Error> {
    let query = format!("select {COLUMNS} from fairway.migration_run where run_id = $1");
    Ok(client
        .query_opt(&query, &[&run_id])
        .await?
        .as_ref()
        .map(Run::from_row))
}

/// Another run that is not ended. For whoever holds the lock it is dead: its agent let go of the lock without
/// writing its end. There is at most one, because none starts before the one before it is settled.
pub(crate) async fn dead(
    client: &impl GenericClient,
    except_run_id: &str,
) -> Result<Option<Run>, tokio_postgres::Error> {
    let query = format!(
        "select {COLUMNS} from fairway.migration_run where run_id <> $1 and state = 'running' limit 1"
    );
    Ok(client
        .query_opt(&query, &[&except_run_id])
        .await?
        .as_ref()
        .map(Run::from_row))
}

/// Another run whose outcome nobody knows or has resolved.
pub(crate) async fn unsettled(
    client: &impl GenericClient,
    except_run_id: &str,
) -> Result<Option<Run>, tokio_postgres::Error> {
    let query = format!(
        "select {COLUMNS} from fairway.migration_run where run_id <> $1 and resolution is null \
         and state not in ('committed', 'failed') order by ordinal limit 1"
    );
    Ok(client
        .query_opt(&query, &[&except_run_id])
        .await?
        .as_ref()
        .map(Run::from_row))
}

/// The refusal because of such a run.
pub(crate) fn blocked_by(run: &Run) -> Failure {
    let Run { run_id, release, .. } = run;
    let what = match run.state {
        State::Partial => "failed and left the schema changed",
        State::Running | State::Unknown | State::Committed | State::Failed => {
            "has an outcome that cannot be decided"
        }
    };
    environment(
        reason::MIGRATION_UNSETTLED,
        format!(
            "Migration {run_id} of release {release} {what}, so no other may start; look at the database and resolve \
             that release (if it is gone: UPDATE fairway.migration_run SET resolution = 'applied' or 'notApplied' \
             WHERE run_id = '{run_id}')."
        ),
    )
}

/// The newest run of this image and command that did its work.
pub(crate) async fn applied(
    client: &impl GenericClient,
    identity: &RunIdentity,
) -> Result<Option<Run>, tokio_postgres::Error> {
    let query = format!(
        "select {COLUMNS} from fairway.migration_run where image_digest = $1 and command_hash = $2 \
         and (state = 'committed' or resolution = 'applied') order by ordinal desc limit 1"
    );
    let row = client
        .query_opt(&query, &[&identity.image_digest, &identity.command_hash])
        .await?;
    Ok(row.as_ref().map(Run::from_row))
}

/// Whether the newest run that did its work is of another image.
pub(crate) async fn schema_ahead(
    client: &impl GenericClient,
    image_digest: &str,
) -> Result<bool, tokio_postgres::Error> {
    let row = client
        .query_opt(
            "select image_digest from fairway.migration_run \
             where state = 'committed' or resolution = 'applied' order by ordinal desc limit 1",
            &[],
        )
        .await?;
    Ok(row.is_some_and(|row| row.get::<_, &str>(0) != image_digest))
}

/// Writes the row of a run that is about to start.
pub(crate) async fn begin(client: &Client, beginning: Beginning<'_>) -> Result<(), tokio_postgres::Error> {
    let Beginning {
        requester,
        identity,
        pod_uid,
        pod_ip,
        client_address,
        before,
        invalid_indexes,
        at_work,
    } = beginning;
    client
        .execute(
            "insert into fairway.migration_run (run_id, namespace, app, release, image_digest, command_hash, \
             pod_uid, pod_ip, client_address, state, pre_fingerprint, invalid_indexes, at_work) \
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'running', $10, $11, $12)",
            &[
                &identity.run_id,
                &requester.namespace,
                &requester.app,
                &requester.release,
                &identity.image_digest,
                &identity.command_hash,
                &pod_uid,
                &pod_ip,
                &client_address,
                &before,
                &invalid_indexes,
                &at_work,
            ],
        )
        .await?;
    Ok(())
}

/// How long ago a run began.
pub(crate) async fn seconds_since_start(client: &Client, run_id: &str) -> Result<f64, tokio_postgres::Error> {
    let row = client
        .query_one(
            "select extract(epoch from clock_timestamp() - started_at)::float8 from fairway.migration_run \
             where run_id = $1",
            &[&run_id],
        )
        .await?;
    Ok(row.get(0))
}

/// Notes why a run is given up whose processes are still alive: what it did is judged when they are gone.
pub(crate) async fn give_up(
    client: &Client,
    run_id: &str,
    reason: &str,
    what: &str,
) -> Result<(), tokio_postgres::Error> {
    client
        .execute(
            "update fairway.migration_run set reason = $2, message = $3 where run_id = $1 and state = 'running'",
            &[&run_id, &reason, &what],
        )
        .await?;
    Ok(())
}

/// Writes how a run ended, unless that is written already; returns the row as it then is.
pub(crate) async fn finish(
    client: &Client,
    run_id: &str,
    ending: &Ending,
) -> Result<Option<Run>, tokio_postgres::Error> {
    let Ending {
        state,
        after,
        exit_code,
        sqlstate,
        reason,
        message,
        last_error,
        failed_check,
    } = ending;
    client
        .execute(
            "update fairway.migration_run set state = $2, finished_at = coalesce(finished_at, clock_timestamp()), \
             post_fingerprint = $3, exit_code = $4, sqlstate = $5, reason = $6, message = $7, last_error = $8, \
             failed_check = $9 where run_id = $1 and state = 'running'",
            &[
                &run_id,
                &state.as_text(),
                after,
                exit_code,
                sqlstate,
                reason,
                message,
                last_error,
                failed_check,
            ],
        )
        .await?;
    find(client, run_id).await
}

/// Records a person's verdict. The first one stays.
pub(crate) async fn resolve(
    client: &Client,
    run_id: &str,
    resolution: Resolution,
    token: Option<&str>,
) -> Result<(), tokio_postgres::Error> {
    let text = match resolution {
        Resolution::Applied => "applied",
        Resolution::NotApplied => "notApplied",
    };
    client
        .execute(
            "update fairway.migration_run set resolution = $2, resolution_token = $3, resolved_at = clock_timestamp() \
             where run_id = $1 and resolution is null and state in ('partial', 'unknown')",
            &[&run_id, &text, &token],
        )
        .await?;
    Ok(())
}
