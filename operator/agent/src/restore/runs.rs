//! The runs of migrations that a restore takes away: the ledger is in the database and goes back with it.

use fairway_protocol::{Failure, Reason};

use super::context::Restore;
use crate::{
    failure::version,
    ledger::{
        self, KnownRun,
        schema::{self, Found},
    },
    session::{Session, statement_failed},
};

/// Number of runs that a message names.
const NAMED: usize = 3;

/// What the ledger of the database in use knows of runs.
struct InUse {
    runs: Vec<KnownRun>,
    /// Of runs that earlier restores took away.
    reverted: Vec<String>,
}

impl InUse {
    async fn read(session: &Session) -> Result<Self, Failure> {
        let doing = |error| statement_failed("reading the ledger", &error);
        let client = session.client();
        let found = schema::find(client).await?;
        Ok(match found {
            Found::Nothing => Self {
                runs: Vec::new(),
                reverted: Vec::new(),
            },
            Found::Earlier(_) => Self {
                runs: ledger::known_runs(client).await.map_err(doing)?,
                reverted: Vec::new(),
            },
            Found::Current => Self {
                runs: ledger::known_runs(client).await.map_err(doing)?,
                reverted: ledger::reverted_runs(client).await.map_err(doing)?,
            },
        })
    }
}

/// Checks that the restored database has seen every migration that was applied to the one in use, where the task does not
/// allow that one is reverted: otherwise the application would meet an older schema than it needs.
///
/// # Errors
/// `RestoreRevertsMigration` when it has not.
pub(super) async fn check(
    restore: &Restore<'_>,
    in_use: &Session,
    restored: &Session,
) -> Result<(), Failure> {
    if restore.task.may_revert {
        return Ok(());
    }
    let here = InUse::read(in_use).await?.runs;
    let there = InUse::read(restored).await?.runs;
    let is_missing = |run: &&KnownRun| {
        let applied = there.iter().filter(|other| other.is_applied);
        run.is_applied && !applied.clone().any(|other| other.run_id == run.run_id)
    };
    let missing: Vec<_> = here.iter().filter(is_missing).map(name).collect();
    match missing.is_empty() {
        true => Ok(()),
        false => Err(version(
            Reason::RestoreRevertsMigration,
            format!(
                "The backup is from before {} of the migrations of the database ({}{}): the version that runs would meet an \
                 older schema. The database in use was not changed. Restore a later backup, or this one by hand together with \
                 the version that belongs to it.",
                missing.len(),
                missing.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", "),
                if missing.len() > NAMED { " and more" } else { "" },
            ),
        )),
    }
}

fn name(run: &KnownRun) -> String {
    match run.release.as_str() {
        "" => format!("run {}", run.run_id),
        release => format!("that of Release {release}"),
    }
}

/// Writes into the restored ledger which runs are gone with the database in use: of a run whose row is missing it is then
/// known why.
pub(super) async fn record(
    restore: &Restore<'_>,
    in_use: &Session,
    restored: &Session,
    taken_at: &str,
) -> Result<(), Failure> {
    let InUse { runs, mut reverted } = InUse::read(in_use).await?;
    reverted.extend(runs.into_iter().map(|run| run.run_id));
    reverted.sort();
    reverted.dedup();
    ledger::record_reverted(restored.client(), &reverted, restore.uid(), taken_at)
        .await
        .map_err(|error| statement_failed("writing the restored ledger", &error))
}
