//! The second step: the restored database takes the name of the one in use, which is kept under another.
//!
//! 1. The migration lock is taken, so that no migration is under way and none begins.
//! 2. Which runs of migrations the restore takes away is written into the restored ledger.
//! 3. Both databases are closed to new sessions, and the restored one says so: one transaction.
//! 4. All sessions in them are ended, and what would be lost is counted once more.
//! 5. Both are renamed, and the restored one is opened: one transaction.
//!
//! A pod that is killed leaves the databases as they were, or closed (between 3 and 5), or swapped; the next one finds out
//! which, and goes on from there. Whatever fails between 3 and 5 opens the database in use again.

use std::time::Instant;

use fairway_protocol::{Failure, Loss, Reason, SwappedDatabase};

use super::{
    context::Restore,
    mark::{Mark, State},
    prepare::count,
    rights, runs,
    server::{Server, Target, comment_on},
    sql::identifier,
};
use crate::{
    backup::manifest::Manifest,
    failure::{environment, version},
    lock,
    session::{Session, statement_failed},
    termination::Termination,
};

/// How a swap ended, and what was counted as lost, where it came that far.
pub(super) struct Ended {
    pub(super) outcome: Result<SwappedDatabase, Failure>,
    pub(super) loss: Option<Loss>,
}

/// Puts the restored database in place, unless an earlier pod has.
pub(super) async fn swap(restore: &Restore<'_>, agreed_rows: Option<u64>) -> Ended {
    let mut loss = None;
    let outcome = attempt(restore, agreed_rows, &mut loss).await;
    Ended { outcome, loss }
}

async fn attempt(
    restore: &Restore<'_>,
    agreed_rows: Option<u64>,
    loss: &mut Option<Loss>,
) -> Result<SwappedDatabase, Failure> {
    let mut server = Server::connect(&restore.connection).await?;
    if let Some(swapped) = swapped(restore, &server).await? {
        return Ok(swapped);
    }
    let target = server.locked_target().await?;
    // Meanwhile the pod that had the lock may have done it.
    if let Some(swapped) = swapped(restore, &server).await? {
        return Ok(swapped);
    }
    let Some((oid, mark)) = prepared(restore, &server).await? else {
        return Err(version(
            Reason::RestoreFailed,
            format!(
                "The restored database {:?} is not there any more, or is not whole. The database in use was not touched. \
                 Create a new Restore.",
                restore.beside
            ),
        ));
    };
    // Whoever finds the restored database in its new place asks for this lock.
    server.lock(oid).await?;
    if mark.state == State::Swapping {
        server.reopen(&restore.beside, &mark).await?;
    }
    let manifest = restore.reader().manifest().await?;
    if manifest.database.sha256 != mark.sha256 {
        return Err(version(
            Reason::RestoreFailed,
            "The backup was replaced after it was restored beside the database in use, which was not touched. Create a new \
             Restore.",
        ));
    }
    rights::check(&server, &target, &[]).await?;
    let in_use = restore.connection_session().await?;
    if let Some(running) = lock::hold(&in_use).await? {
        return Err(running);
    }
    let restored = server.session_in(&restore.beside).await?;
    runs::check(restore, &in_use, &restored).await?;
    runs::record(restore, &in_use, &restored, &mark.taken_at).await?;
    drop(restored);

    let mut termination = Termination::listen();
    let closed = Instant::now();
    let done = async {
        close(restore, &mut server, &target, &mark).await?;
        tokio::select! {
            biased;
            () = termination.requested() => return Err(environment(
                Reason::AgentFailed,
                "The pod was stopped before the restored database was put in place.",
            )),
            counted = empty(&server, &target, oid, in_use, &manifest, agreed_rows, loss) => counted?,
        }
        // From here on nothing stops it.
        rename(restore, &mut server, &target, &mark).await
    };
    match done.await {
        Ok(()) => {
            let refused = closed.elapsed().as_millis();
            let mut swapped = swapped(restore, &server).await?.ok_or_else(lost)?;
            swapped.refused_milliseconds = Some(u64::try_from(refused).unwrap_or(u64::MAX));
            Ok(swapped)
        }
        // The answer to a commit may be all that was lost, so that the catalog is asked, on a session of its own.
        Err(failure) => match settle(restore).await {
            Ok(Some(swapped)) => Ok(swapped),
            Ok(None) => Err(failure),
            Err(second) => Err(environment(
                second.reason,
                format!(
                    "{} The database accepts no connections until this Restore goes on or is aborted: {}",
                    failure.message, second.message
                ),
            )),
        },
    }
}

/// The database that was replaced by this Restore, if it was.
pub(super) async fn swapped(
    restore: &Restore<'_>,
    server: &Server<'_>,
) -> Result<Option<SwappedDatabase>, Failure> {
    let found = server.find(&restore.replaced).await?;
    let mark = found.and_then(|found| found.mark(restore.uid()));
    Ok(mark
        .filter(|mark| mark.state == State::Replaced)
        .map(|mark| SwappedDatabase {
            replaced: restore.replaced.clone(),
            at: mark.at.unwrap_or_default(),
            refused_milliseconds: None,
        }))
}

/// The restored database beside the one in use, when it is whole.
async fn prepared(restore: &Restore<'_>, server: &Server<'_>) -> Result<Option<(u32, Mark)>, Failure> {
    let Some(found) = server.find(&restore.beside).await? else {
        return Ok(None);
    };
    let mark = found.mark(restore.uid());
    Ok(mark
        .filter(|mark| matches!(mark.state, State::Restored | State::Swapping))
        .map(|mark| (found.oid, mark)))
}

/// Closes both databases to new sessions, superusers included.
async fn close(
    restore: &Restore<'_>,
    server: &mut Server<'_>,
    target: &Target,
    mark: &Mark,
) -> Result<(), Failure> {
    let swapping = mark.in_state(State::Swapping).comment();
    let statements = [
        comment_on(&restore.beside, Some(&swapping)),
        format!(
            "alter database {} with allow_connections false",
            identifier(&target.name)
        ),
        format!(
            "alter database {} with allow_connections false",
            identifier(&restore.beside)
        ),
    ];
    together(server, &statements, "closing the database").await
}

/// Ends all sessions in both databases, the agent's own last, and counts what would be lost when nobody writes any more.
async fn empty(
    server: &Server<'_>,
    target: &Target,
    restored: u32,
    in_use: Session,
    manifest: &Manifest,
    agreed_rows: Option<u64>,
    loss: &mut Option<Loss>,
) -> Result<(), Failure> {
    let databases = [target.oid, restored];
    let own: i32 = in_use
        .client()
        .query_one("select pg_backend_pid()", &[])
        .await
        .map_err(|error| statement_failed("ending the sessions in the database", &error))?
        .get(0);
    server.end_sessions(&databases, &[own]).await?;
    let counted = count(&in_use, manifest).await?;
    let agreed = agreed_rows.is_none_or(|agreed| counted.rows <= agreed && counted.uncounted.is_none());
    let refusal = (!agreed).then(|| loses_more(&counted, agreed_rows));
    *loss = Some(counted);
    if let Some(refusal) = refusal {
        return Err(refusal);
    }
    drop(in_use);
    server.end_sessions(&databases, &[]).await
}

fn loses_more(counted: &Loss, agreed_rows: Option<u64>) -> Failure {
    let Loss {
        rows,
        tables,
        largest: _,
        uncounted,
    } = counted;
    let agreed = agreed_rows.unwrap_or_default();
    let more = match uncounted {
        Some(why) => format!("and more than that may be lost ({why})"),
        None => format!("more than the {agreed} that were agreed to"),
    };
    environment(
        Reason::RestoreLosesMore,
        format!(
            "The restore would lose at least {rows} row changes (tables: {tables}), {more}. The database in use was not \
             changed and is open."
        ),
    )
}

/// Gives the restored database the name of the one in use, with all that belongs to that name.
async fn rename(
    restore: &Restore<'_>,
    server: &mut Server<'_>,
    target: &Target,
    mark: &Mark,
) -> Result<(), Failure> {
    let doing = |error| statement_failed("putting the restored database in place", &error);
    let now: String = server
        .client()
        .query_one(
            "select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')",
            &[],
        )
        .await
        .map_err(doing)?
        .get(0);
    let replaced = mark.replaced(now, target.comment.clone());
    let name = identifier(&target.name);
    let mut statements = vec![
        format!(
            "alter database {name} rename to {}",
            identifier(&restore.replaced)
        ),
        comment_on(&restore.replaced, Some(&replaced.comment())),
        format!("alter database {} rename to {name}", identifier(&restore.beside)),
        comment_on(&target.name, target.comment.as_deref()),
        // It may have changed since the restored one was created.
        format!("alter database {name} owner to {}", identifier(&target.owner)),
    ];
    statements.extend(target.settings_for(&target.name));
    statements.extend(target.grants_for(&target.name));
    statements.push(format!("alter database {name} with allow_connections true"));
    together(server, &statements, "putting the restored database in place").await
}

/// Executes statements in one transaction.
async fn together(server: &mut Server<'_>, statements: &[String], doing: &str) -> Result<(), Failure> {
    let doing = |error| statement_failed(doing, &error);
    let transaction = server.session.client_mut().transaction().await.map_err(doing)?;
    for statement in statements {
        transaction.batch_execute(statement).await.map_err(doing)?;
    }
    transaction.commit().await.map_err(doing)
}

/// Finds out what a swap came to that failed after it had closed the databases, and opens the one in use where it was not
/// replaced.
async fn settle(restore: &Restore<'_>) -> Result<Option<SwappedDatabase>, Failure> {
    let server = Server::connect(&restore.connection).await?;
    if let Some(swapped) = swapped(restore, &server).await? {
        return Ok(Some(swapped));
    }
    if let Some((_, mark)) = prepared(restore, &server).await? {
        server.reopen(&restore.beside, &mark).await?;
    }
    Ok(None)
}

fn lost() -> Failure {
    environment(
        Reason::RestoreFailed,
        "The replaced database is not there any more. Somebody has renamed or dropped it.",
    )
}
