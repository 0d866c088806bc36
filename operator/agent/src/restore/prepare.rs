//! The first step: the set becomes a database beside the one in use, which it does not touch.

use std::time::{Duration, Instant};

use fairway_protocol::{Failure, Loss, PreparedDatabase, Reason};

use super::{
    context::Restore,
    load::Load,
    mark::{Mark, State},
    rights, runs,
    server::{Database, Server, Target, other},
    sql::identifier,
};
use crate::{
    backup::{manifest::Manifest, tools},
    checks::{self, Checks},
    counters::Counters,
    failure::{environment, version},
    fingerprint,
    ledger::schema,
    session::{Session, statement_failed},
};

/// Time that the checks may take.
const CHECKS: Duration = Duration::from_secs(600);

/// Prepares the restored database, unless an earlier pod has; counts what putting it in place would lose.
pub(super) async fn prepare(restore: &Restore<'_>) -> Result<(PreparedDatabase, Loss), Failure> {
    let start = Instant::now();
    let reader = restore.reader();
    let manifest = reader.manifest().await?;
    let server = Server::connect(&restore.connection).await?;
    let target = server.locked_target().await?;
    if server.find(&restore.replaced).await?.is_some() {
        return Err(version(
            Reason::RestoreFailed,
            "This Restore has put its database in place already. Create a new Restore.",
        ));
    }
    let seconds = match is_prepared(restore, &server, &manifest).await? {
        true => 0.0,
        false => {
            let (_, major) = server
                .session
                .server_version()
                .await
                .map_err(|error| statement_failed("reading the server's version", &error))?;
            let tools = tools::find(restore.environment, major)?;
            // Before the whole set is read.
            rights::check(&server, &target, &[]).await?;
            let set = reader.read(manifest.clone(), &tools, major).await?;
            let role = rights::check(&server, &target, &set.extensions).await?;
            let mark = create(restore, &server, &target, &manifest).await?;
            let load = Load {
                server: &server,
                reader: &reader,
                set: &set,
                tools: &tools,
                major,
                target: &target,
                role,
                database: &restore.beside,
            };
            tracing::info!("loading the backup beside the database in use");
            load.everything().await?;
            prove(restore, &server, &target, &manifest).await?;
            server.mark(&restore.beside, &mark, State::Restored).await?;
            // Nobody needs more than milliseconds.
            (start.elapsed().as_secs_f64() * 1000.0).round() / 1000.0
        }
    };
    let in_use = restore.connection_session().await?;
    runs::check(restore, &in_use, &server.session_in(&restore.beside).await?).await?;
    let loss = count(&in_use, &manifest).await?;
    let prepared = PreparedDatabase {
        database: restore.beside.clone(),
        taken_at: manifest.taken_at.clone(),
        fingerprint: manifest.fingerprint.clone(),
        bytes: size(&server, &restore.beside).await?,
        seconds,
    };
    Ok((prepared, loss))
}

/// What was changed in the session's database since the backup.
pub(super) async fn count(session: &Session, manifest: &Manifest) -> Result<Loss, Failure> {
    let now = Counters::read(session.client())
        .await
        .map_err(|error| statement_failed("counting what would be lost", &error))?;
    Ok(now.since(manifest.counters.as_ref()))
}

/// Whether an earlier pod has prepared the database. What one has left half done is removed.
async fn is_prepared(
    restore: &Restore<'_>,
    server: &Server<'_>,
    manifest: &Manifest,
) -> Result<bool, Failure> {
    let Some(found) = server.find(&restore.beside).await? else {
        return Ok(false);
    };
    let mark = found.mark(restore.uid());
    if let Some(mark) = &mark {
        if mark.state == State::Swapping {
            server.reopen(&restore.beside, mark).await?;
        }
        if mark.state != State::Restoring && mark.sha256 == manifest.database.sha256 {
            tracing::info!("an earlier pod has restored the backup");
            return Ok(true);
        }
    }
    if mark.is_none() && !is_new(restore, server, &found).await? {
        return Err(environment(
            Reason::RestoreFailed,
            format!(
                "The database {:?} has the name that this Restore needs, and was not made by it. Rename or drop it.",
                restore.beside
            ),
        ));
    }
    tracing::info!("removing what an earlier pod has left half restored");
    server.drop_database(&restore.beside, found.oid).await?;
    Ok(false)
}

/// Whether a database without a mark is as it was created: then a pod was killed before it could write the mark.
async fn is_new(restore: &Restore<'_>, server: &Server<'_>, found: &Database) -> Result<bool, Failure> {
    if found.comment.is_some() {
        return Ok(false);
    }
    let session = server.session_in(&restore.beside).await?;
    let row = session
        .client()
        .query_one(
            "select not exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace \
               where n.nspname !~ '^pg_' and n.nspname <> 'information_schema') \
             and not exists (select from pg_largeobject_metadata)",
            &[],
        )
        .await
        .map_err(|error| statement_failed("looking into the restored database", &error))?;
    Ok(row.get(0))
}

/// Creates the empty database, which nobody but its owner may enter.
async fn create(
    restore: &Restore<'_>,
    server: &Server<'_>,
    target: &Target,
    manifest: &Manifest,
) -> Result<Mark, Failure> {
    let doing = |error| statement_failed("creating the database beside the one in use", &error);
    let name = &restore.beside;
    let client = server.client();
    client
        .batch_execute(&target.creation_of(name))
        .await
        .map_err(doing)?;
    let mark = Mark::new(restore.uid(), &manifest.database.sha256, &manifest.taken_at);
    server.mark(name, &mark, State::Restoring).await?;
    client
        .batch_execute(&format!(
            "revoke all on database {} from public",
            identifier(name)
        ))
        .await
        .map_err(doing)?;
    Ok(mark)
}

/// Proves what was loaded, and makes it ready to be put in place.
async fn prove(
    restore: &Restore<'_>,
    server: &Server<'_>,
    target: &Target,
    manifest: &Manifest,
) -> Result<(), Failure> {
    let mut session = server.session_in(&restore.beside).await?;
    let found = fingerprint::of_database(&mut session)
        .await
        .map_err(|error| statement_failed("reading the restored schema", &error))?;
    if found != manifest.fingerprint {
        return Err(version(
            Reason::RestoreFailed,
            "The restored schema is not that of the backup: an extension may have another version on this server now. The \
             database in use was not touched. Restore another Backup, or this one by hand.",
        ));
    }
    schema::ensure(session.client_mut()).await?;
    let doing = |error| statement_failed("preparing the restored database", &error);
    // A restored table has no statistics.
    session
        .client()
        .batch_execute("set statement_timeout = 0")
        .await
        .map_err(doing)?;
    session.client().batch_execute("analyze").await.map_err(doing)?;
    drop(session);
    let settings = target.settings_for(&restore.beside).join("; ");
    server.client().batch_execute(&settings).await.map_err(doing)?;
    // These open the database to everybody who may enter the one in use; so only whether they can be written is seen now.
    let grants = target.grants_for(&restore.beside).join("; ");
    server
        .client()
        .batch_execute(&format!("begin; {grants}; rollback"))
        .await
        .map_err(doing)?;
    let checks = Checks::within(CHECKS, &restore.task.checks);
    match checks::first_failed(&other(&restore.connection, &restore.beside), &checks).await? {
        None => Ok(()),
        Some(failed) => Err(version(
            Reason::RestoreFailed,
            format!(
                "In the restored database, {failed}. The database in use was not touched. Restore another Backup, or \
                 change migration.checks of the App."
            ),
        )),
    }
}

async fn size(server: &Server<'_>, name: &str) -> Result<u64, Failure> {
    let row = server
        .client()
        .query_one("select pg_database_size($1::name)", &[&name])
        .await
        .map_err(|error| statement_failed("reading the restored database's size", &error))?;
    Ok(row.get::<_, i64>(0).unsigned_abs())
}
