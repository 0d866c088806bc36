//! The ledger: which migrations ran on this database. It is a table in the database itself, so that a restore rewinds
//! it together with the data.
//!
//! Every write happens on the session that holds the migration lock, so an agent that lost the lock cannot write
//! either.

pub(crate) mod schema;

use fairway_protocol::{
    Failure, MigrationOutcome, MigrationReport, Reason, Requester, Resolution, RunIdentity,
};
use tokio_postgres::{Client, GenericClient, Row};

use crate::{
    checks::FailedCheck,
    failure::{environment, version},
    report::migration,
};

/// How far a run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Its processes may be alive. Whoever holds the migration lock knows that its agent is gone.
    Running,
    /// It ended successfully.
    Committed,
    /// It failed and the schema is what it was.
    Failed,
    /// It failed and the schema changed.
    Partial,
    /// Its outcome is unknown.
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

    /// An unknown state can only come from a newer agent; it must never be taken for success.
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

/// One run, as its row in the ledger has it.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Key of the row.
    pub(crate) run_id: String,
    /// The Release that asked for the run.
    pub(crate) release: String,
    /// UID of the pod that began the run.
    pub(crate) pod_uid: String,
    /// Addresses of that pod, separated by commas.
    pub(crate) pod_ip: String,
    /// The address from which the server saw that pod; none for a socket.
    pub(crate) client_address: Option<String>,
    /// How far the run has come.
    pub(crate) state: State,
    /// Duration of a run that has ended.
    pub(crate) seconds: Option<f64>,
    /// Fingerprint of the schema before the run.
    pub(crate) before: String,
    /// Fingerprint of the schema after the run.
    pub(crate) after: Option<String>,
    /// Indexes that were invalid before the run.
    pub(crate) invalid_indexes: Vec<String>,
    /// Work of other sessions that was in progress in the database when the run began.
    pub(crate) at_work: Vec<String>,
    /// Exit code of the migration's process.
    pub(crate) exit_code: Option<i32>,
    /// The last SQLSTATE in its output.
    pub(crate) sqlstate: Option<String>,
    /// Why the run failed; of one that is running: why its guard asked for its end.
    pub(crate) reason: Option<String>,
    /// What happened; of one that is running: why its pod must be stopped, as a sentence without its period; of one that
    /// is committed: what could not be proven of it.
    pub(crate) message: Option<String>,
    /// The last error line of its output.
    pub(crate) last_error: Option<String>,
    /// A check that did not hold after it.
    pub(crate) failed_check: Option<FailedCheck>,
    /// A user's verdict on an outcome that could not be decided.
    pub(crate) resolution: Option<Resolution>,
}

/// The row of a run that is about to start. The fields are those of [`Entry`].
pub(crate) struct NewEntry<'a> {
    pub(crate) requester: &'a Requester,
    pub(crate) identity: &'a RunIdentity,
    pub(crate) inputs_hash: Option<&'a str>,
    pub(crate) pod_uid: &'a str,
    pub(crate) pod_ip: &'a str,
    pub(crate) client_address: Option<&'a str>,
    pub(crate) before: &'a str,
    pub(crate) invalid_indexes: &'a [String],
    pub(crate) at_work: &'a [String],
}

/// How a run ended. The fields are those of [`Entry`].
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    pub(crate) state: State,
    pub(crate) after: Option<String>,
    pub(crate) exit_code: Option<i32>,
    pub(crate) sqlstate: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) last_error: Option<String>,
    pub(crate) failed_check: Option<FailedCheck>,
}

const COLUMNS: &str = "run_id, release, pod_uid, pod_ip, client_address, state, \
    round(extract(epoch from finished_at - started_at)::numeric, 3)::float8 as seconds, pre_fingerprint, post_fingerprint, \
    invalid_indexes, at_work, exit_code, sqlstate, reason, message, last_error, failed_check, resolution";

/// The reason that the ledger recorded of a run; where an agent of another version recorded one that this version does
/// not know, the reason that its state implies.
fn known_reason(recorded: Option<&str>, state: State) -> Reason {
    recorded
        .and_then(|reason| reason.parse().ok())
        .unwrap_or(match state {
            State::Failed => Reason::MigrationFailed,
            State::Partial => Reason::MigrationPartial,
            State::Running | State::Committed | State::Unknown => Reason::MigrationUnknown,
        })
}

impl Entry {
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
            failed_check: row.get::<_, Option<&str>>("failed_check").map(FailedCheck::parse),
            resolution: match row.get::<_, Option<&str>>("resolution") {
                Some("applied") => Some(Resolution::Applied),
                Some(_) => Some(Resolution::NotApplied),
                None => None,
            },
        }
    }

    /// Why the run's guard asked for its end while its processes were alive, if it did: the reason, and what happened.
    pub(crate) fn stop_reason(&self) -> Option<(Reason, String)> {
        let reason = known_reason(Some(self.reason.as_deref()?), State::Failed);
        self.message.clone().map(|message| (reason, message))
    }

    /// Whether an index may have been left invalid by the run: one was found after it, or nobody looked.
    pub(crate) fn may_have_left_an_index(&self) -> bool {
        self.state != State::Committed || matches!(self.failed_check, Some(FailedCheck::InvalidIndex(_)))
    }

    /// The report of a run that has ended; of one that has not: that its outcome is unknown.
    pub(crate) fn report(self, schema_ahead: bool) -> MigrationReport {
        let outcome = match (self.state, self.resolution) {
            (State::Committed, _) | (_, Some(Resolution::Applied)) => MigrationOutcome::Applied,
            (State::Failed, _) | (_, Some(Resolution::NotApplied)) => MigrationOutcome::Failed,
            (State::Partial, None) => MigrationOutcome::Partial,
            (State::Running | State::Unknown, None) => MigrationOutcome::Unknown,
        };
        let note = match self.state {
            State::Committed => self.message.clone(),
            _ => None,
        };
        let failure = match (outcome, self.resolution) {
            (MigrationOutcome::Applied, _) => None,
            (_, Some(Resolution::NotApplied)) => Some(version(
                Reason::MigrationNotApplied,
                "A user resolved the migration as not applied: its work is not in the database.",
            )),
            _ => Some(version(
                known_reason(self.reason.as_deref(), self.state),
                self.message
                    .unwrap_or_else(|| "The migration was interrupted.".to_owned()),
            )),
        };
        MigrationReport {
            before: Some(self.before),
            after: self.after,
            seconds: self.seconds,
            exit_code: self.exit_code,
            sqlstate: self.sqlstate,
            last_error: self.last_error,
            failed_check: self.failed_check.map(|failed| failed.to_string()),
            schema_ahead,
            note,
            // Written by `record_lost`.
            row_missing: self.pod_uid.is_empty() && outcome == MigrationOutcome::Unknown,
            ..migration(outcome, failure)
        }
    }
}

/// Namespace and name of the App that releases to this database; none when no App has released to it yet.
pub(crate) async fn owner(
    client: &impl GenericClient,
) -> Result<Option<(String, String)>, tokio_postgres::Error> {
    let row = client
        .query_opt("select namespace, app from fairway.owner", &[])
        .await?;
    Ok(row.map(|row| (row.get(0), row.get(1))))
}

/// Makes the App the database's owner, unless another App is; then returns the refusal.
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

/// The refusal of an App that is not the database's owner.
pub(crate) fn owned_by_other((namespace, app): &(String, String), requester: &Requester) -> Option<Failure> {
    let same = *namespace == requester.namespace && *app == requester.app;
    (!same).then(|| {
        environment(
            Reason::DatabaseOwned,
            format!(
                "The database belongs to App {namespace}/{app}. Give App {}/{} a database of its own; if {namespace}/{app} \
                 was deleted for good, run DELETE FROM fairway.owner in the database.",
                requester.namespace, requester.app
            ),
        )
    })
}

/// The row of a run, if there is one.
pub(crate) async fn find(
    client: &impl GenericClient,
    run_id: &str,
) -> Result<Option<Entry>, tokio_postgres::Error> {
    let query = format!("select {COLUMNS} from fairway.migration_run where run_id = $1");
    Ok(client
        .query_opt(&query, &[&run_id])
        .await?
        .as_ref()
        .map(Entry::from_row))
}

/// Another run that has not ended. Whoever holds the migration lock knows that it was interrupted: its agent released
/// the lock without recording an end. There is at most one, because none starts before the previous one is settled.
pub(crate) async fn interrupted(
    client: &impl GenericClient,
    except_run_id: &str,
) -> Result<Option<Entry>, tokio_postgres::Error> {
    let query = format!(
        "select {COLUMNS} from fairway.migration_run where run_id <> $1 and state = 'running' limit 1"
    );
    Ok(client
        .query_opt(&query, &[&except_run_id])
        .await?
        .as_ref()
        .map(Entry::from_row))
}

/// Another run whose outcome is neither decided nor resolved by a user.
pub(crate) async fn unsettled(
    client: &impl GenericClient,
    except_run_id: &str,
) -> Result<Option<Entry>, tokio_postgres::Error> {
    let query = format!(
        "select {COLUMNS} from fairway.migration_run where run_id <> $1 and resolution is null \
         and state not in ('committed', 'failed') order by ordinal limit 1"
    );
    Ok(client
        .query_opt(&query, &[&except_run_id])
        .await?
        .as_ref()
        .map(Entry::from_row))
}

/// The refusal to start a run because of an [`unsettled`] one.
pub(crate) fn blocked_by(unsettled: &Entry) -> Failure {
    let run_id = &unsettled.run_id;
    let outcome = match unsettled.state {
        State::Partial => "failed and left the schema changed",
        // Neither of the last two is unsettled.
        State::Running | State::Unknown | State::Committed | State::Failed => "has an unknown outcome",
    };
    let (run, object) = match unsettled.release.as_str() {
        "" => (
            format!("Migration {run_id}, which was applied by hand,"),
            format!("the Migration with status.runId {run_id}"),
        ),
        release => (
            format!("Migration {run_id} of Release {release}"),
            format!("Release {release}"),
        ),
    };
    environment(
        Reason::MigrationUnresolved,
        format!(
            "{run} {outcome}, so no other migration of this database starts. Look at the database, then resolve {object}. \
             If it was deleted, record what you found: UPDATE fairway.migration_run SET resolution = 'applied' WHERE \
             run_id = '{run_id}'; or the same with 'notApplied'."
        ),
    )
}

/// The newest run of this image, command and inputs that was applied. Where the inputs of one of the two are not known, as of
/// a run by an earlier version, they count as the same.
pub(crate) async fn applied(
    client: &impl GenericClient,
    identity: &RunIdentity,
    inputs_hash: Option<&str>,
) -> Result<Option<Entry>, tokio_postgres::Error> {
    let query = format!(
        "select {COLUMNS} from fairway.migration_run where image_digest = $1 and command_hash = $2 \
         and coalesce(inputs_hash = $3, true) \
         and (state = 'committed' or resolution = 'applied') order by ordinal desc limit 1"
    );
    let row = client
        .query_opt(
            &query,
            &[&identity.image_digest, &identity.command_hash, &inputs_hash],
        )
        .await?;
    Ok(row.as_ref().map(Entry::from_row))
}

/// Whether the newest run that was applied is of another image.
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

/// Writes the row of a run that is about to start, and returns it.
pub(crate) async fn begin(client: &Client, entry: NewEntry<'_>) -> Result<Entry, tokio_postgres::Error> {
    let NewEntry {
        requester,
        identity,
        inputs_hash,
        pod_uid,
        pod_ip,
        client_address,
        before,
        invalid_indexes,
        at_work,
    } = entry;
    let statement = format!(
        "insert into fairway.migration_run (run_id, namespace, app, release, image_digest, command_hash, \
         pod_uid, pod_ip, client_address, state, pre_fingerprint, invalid_indexes, at_work, inputs_hash) \
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'running', $10, $11, $12, $13) returning {COLUMNS}"
    );
    let row = client
        .query_one(
            &statement,
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
                &inputs_hash,
            ],
        )
        .await?;
    Ok(Entry::from_row(&row))
}

/// Writes the row of a run that is known to have begun and of which the ledger has no row any more, and returns it: its
/// outcome is unknown, and no other run starts before a user has resolved it.
pub(crate) async fn record_lost(
    client: &Client,
    requester: &Requester,
    identity: &RunIdentity,
    before: &str,
) -> Result<Option<Entry>, tokio_postgres::Error> {
    client
        .execute(
            "insert into fairway.migration_run (run_id, namespace, app, release, image_digest, command_hash, pod_uid, pod_ip, \
             state, pre_fingerprint, invalid_indexes, at_work, reason, message) \
             values ($1, $2, $3, $4, $5, $6, '', '', 'unknown', $7, '{}', '{}', $8, $9) \
             on conflict do nothing",
            &[
                &identity.run_id,
                &requester.namespace,
                &requester.app,
                &requester.release,
                &identity.image_digest,
                &identity.command_hash,
                &before,
                &Reason::MigrationUnknown.as_str(),
                &format!(
                    "The migration began, and the row of run {} is missing from fairway.migration_run: the database was \
                     restored or replaced, or the migration removed it.",
                    identity.run_id
                ),
            ],
        )
        .await?;
    find(client, &identity.run_id).await
}

/// A run as another database's ledger is compared with this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KnownRun {
    /// Key of the row.
    pub(crate) run_id: String,
    /// The Release that asked for the run; empty for a Migration that was applied by hand.
    pub(crate) release: String,
    /// Whether its work is in the database.
    pub(crate) is_applied: bool,
}

/// Every run of this ledger, in order.
pub(crate) async fn known_runs(client: &impl GenericClient) -> Result<Vec<KnownRun>, tokio_postgres::Error> {
    let rows = client
        .query(
            "select run_id, release, state = 'committed' or resolution is not distinct from 'applied' \
             from fairway.migration_run order by ordinal",
            &[],
        )
        .await?;
    Ok(rows
        .iter()
        .map(|row| KnownRun {
            run_id: row.get(0),
            release: row.get(1),
            is_applied: row.get(2),
        })
        .collect())
}

/// Runs whose rows earlier restores have taken away.
pub(crate) async fn reverted_runs(client: &impl GenericClient) -> Result<Vec<String>, tokio_postgres::Error> {
    let rows = client
        .query("select run_id from fairway.reverted_run", &[])
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// The moment to which a restore has taken the database back, where that took the row of this run away.
pub(crate) async fn reverted_to(
    client: &impl GenericClient,
    run_id: &str,
) -> Result<Option<String>, tokio_postgres::Error> {
    let row = client
        .query_opt(
            "select taken_at from fairway.reverted_run where run_id = $1",
            &[&run_id],
        )
        .await?;
    Ok(row.map(|row| row.get(0)))
}

/// Records in a restored ledger which of these runs a restore to that moment takes away: those that it has no row of.
pub(crate) async fn record_reverted(
    client: &impl GenericClient,
    runs: &[String],
    restore_uid: &str,
    taken_at: &str,
) -> Result<(), tokio_postgres::Error> {
    client
        .execute(
            "insert into fairway.reverted_run (run_id, restore_uid, taken_at) \
             select r.run_id, $2, $3 from unnest($1::text[]) as r (run_id) \
             where not exists (select from fairway.migration_run m where m.run_id = r.run_id) \
             on conflict (run_id) do update set restore_uid = excluded.restore_uid, taken_at = excluded.taken_at, \
               reverted_at = excluded.reverted_at",
            &[&runs, &restore_uid, &taken_at],
        )
        .await?;
    Ok(())
}

/// Seconds since a run began, by the server's clock.
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

/// Records why a run is to be ended whose processes are still alive. What it did is judged when they are gone.
pub(crate) async fn record_stop_reason(
    client: &Client,
    run_id: &str,
    reason: Reason,
    what: &str,
) -> Result<(), tokio_postgres::Error> {
    client
        .execute(
            "update fairway.migration_run set reason = $2, message = $3 where run_id = $1 and state = 'running'",
            &[&run_id, &reason.as_str(), &what],
        )
        .await?;
    Ok(())
}

/// Records how a run ended, unless an end is recorded already; returns the row as it then is.
pub(crate) async fn finish(
    client: &Client,
    run_id: &str,
    ending: &Ending,
) -> Result<Option<Entry>, tokio_postgres::Error> {
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
                &failed_check.as_ref().map(FailedCheck::to_string),
            ],
        )
        .await?;
    find(client, run_id).await
}

/// Records a user's verdict on a run whose outcome could not be decided. The first verdict stays.
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
