//! The locks of a database: that of migrations, and that of dumps.
//!
//! The migration lock is one session advisory lock per database, on a direct connection of its own.
//! It is taken by polling, never by waiting inside the server: a session that waits for an advisory lock holds
//! a snapshot, and `create index concurrently` waits for snapshots, so the two would wait for each other for ever
//! (flyway#1654, golang-migrate#960).

use std::time::Duration;

use fairway_protocol::{Failure, Reason};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use tokio_postgres::Transaction;

use crate::{
    connection::Connection,
    failure::environment,
    session::{SearchPath, Session, pooler, statement_failed},
};

/// The lock's key: the bytes of `fairway`. Advisory locks are per database, so one key is enough.
const KEY: i64 = 0x0066_6169_7277_6179;
/// First key of the locks that announce dumps: the bytes of `fwdp`. The second is a hash of the Backup.
const DUMP_KEY: i32 = 0x6677_6470;
/// Pause between two attempts to take the lock.
const PAUSE: Duration = Duration::from_millis(250);

/// A database whose migration lock this agent holds. The lock ends with its session.
pub(crate) struct Lock {
    /// How the database is reached, also for the next session when this one is lost.
    pub(crate) connection: Connection,
    /// The session that holds the lock. Everything that may only happen under the lock happens on it.
    pub(crate) session: Session,
    /// The address from which the server sees this pod; none for a socket.
    pub(crate) client_address: Option<String>,
}

impl Lock {
    /// Connects within `connect_timeout` and then takes the lock within `lock_timeout`.
    ///
    /// # Errors
    /// Why the database cannot be reached, that a pooler is in between, or which session holds the lock.
    pub(crate) async fn acquire(
        connection: &Connection,
        connect_timeout: Duration,
        lock_timeout: Duration,
    ) -> Result<Self, Failure> {
        let session = Session::connect_within(connection, SearchPath::Catalog, connect_timeout).await?;
        let doing = |error| statement_failed("taking the migration lock", &error);
        // Before the lock: a pooler's session outlives this one, and would keep it.
        if pooled(connection, &session).await? {
            return Err(pooler(connection));
        }
        let deadline = Instant::now() + lock_timeout;
        while !try_lock(&session).await.map_err(doing)? {
            if Instant::now() + PAUSE > deadline {
                return Err(held_by_other(&session).await.map_err(doing)?);
            }
            tokio::time::sleep(PAUSE).await;
        }
        // And after it: that no two statements met on one session proves nothing while a pooler is busy.
        if pooled(connection, &session).await? {
            return Err(pooler(connection));
        }
        let row = session
            .client()
            .query_one("select host(inet_client_addr())", &[])
            .await
            .map_err(doing)?;
        Ok(Self {
            connection: connection.clone(),
            session,
            client_address: row.get(0),
        })
    }

    /// Takes the lock again on a new session: connects within `limit`, and then takes the lock within `limit`. May be
    /// cancelled.
    ///
    /// # Errors
    /// Those of [`Lock::acquire`]; the lock is then still the lost one, as after a cancellation.
    pub(crate) async fn reacquire(&mut self, limit: Duration) -> Result<(), Failure> {
        *self = Self::acquire(&self.connection, limit, limit).await?;
        Ok(())
    }
}

async fn try_lock(session: &Session) -> Result<bool, tokio_postgres::Error> {
    Ok(session
        .client()
        .query_one("select pg_try_advisory_lock($1)", &[&KEY])
        .await?
        .get(0))
}

/// The refusal that names the session that holds the lock; none when the lock is free.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn held(session: &Session) -> Result<Option<Failure>, Failure> {
    let doing = |error| statement_failed("looking for the migration lock", &error);
    if !try_lock(session).await.map_err(doing)? {
        return held_by_other(session).await.map(Some).map_err(doing);
    }
    session
        .client()
        .query_one("select pg_advisory_unlock($1)", &[&KEY])
        .await
        .map_err(doing)?;
    Ok(None)
}

/// Takes the lock on this session, until the session ends; the refusal that names the holder when another session has it.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn hold(session: &Session) -> Result<Option<Failure>, Failure> {
    let doing = |error| statement_failed("taking the migration lock", &error);
    match try_lock(session).await.map_err(doing)? {
        true => Ok(None),
        false => held_by_other(session).await.map(Some).map_err(doing),
    }
}

async fn held_by_other(session: &Session) -> Result<Failure, tokio_postgres::Error> {
    let holder = session
        .client()
        .query_opt(
            // Of a session of another role only the role is visible.
            "select case when a.backend_start is null then format('pid %s of role %I', a.pid, a.usename) \
             else format('pid %s from %s, connected since %s', a.pid, coalesce(host(a.client_addr), 'a socket'), \
             to_char(a.backend_start at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')) end \
             from pg_locks l join pg_stat_activity a using (pid) where l.locktype = 'advisory' and l.granted \
             and l.objsubid = 1 and (l.classid::int8 << 32) | l.objid::int8 = $1 \
             and l.database = (select oid from pg_database where datname = current_database()) limit 1",
            &[&KEY],
        )
        .await?;
    let message = match holder {
        Some(row) => {
            let holder: &str = row.get(0);
            format!(
                "Another migration pod holds the migration lock of this database ({holder}). Wait until its run has ended."
            )
        }
        None => "The migration lock was held until a moment ago; the attempt is repeated.".to_owned(),
    };
    Ok(environment(Reason::MigrationRunning, message))
}

/// Announces the dump of a Backup in this transaction and refuses it while a dump of another Backup goes on, whichever App
/// or namespace it belongs to: each reads the whole database.
///
/// The lock is shared, so that nobody waits in the server, and ends with the transaction, so that a pooler does not matter.
/// Two dumps that begin in the same moment may both be refused; they are attempted again.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn other_dump(
    transaction: &Transaction<'_>,
    backup_uid: &str,
) -> Result<Option<Failure>, tokio_postgres::Error> {
    let hash = Sha256::digest(backup_uid.as_bytes());
    let own = i32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
    transaction
        .execute("select pg_advisory_xact_lock_shared($1, $2)", &[&DUMP_KEY, &own])
        .await?;
    let other = transaction
        .query_opt(
            "select l.pid from pg_locks l where l.locktype = 'advisory' and l.granted and l.objsubid = 2 \
             and l.classid = $1::int4::oid and l.objid <> $2::int4::oid \
             and l.database = (select oid from pg_database where datname = current_database()) limit 1",
            &[&DUMP_KEY, &own],
        )
        .await?;
    Ok(other.map(|row| {
        let pid: i32 = row.get(0);
        environment(
            Reason::WaitingForBackup,
            format!(
                "Another Backup dumps this database (pid {pid}). There is one dump of a database at a time: this one is \
                 attempted again; wait, or delete the other Backup."
            ),
        )
    }))
}

/// The refusal of a dump while a migration runs on the database: the locks of each would hold the other up. The lock is only
/// looked for; taking it would keep a migration from it.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn migration(
    transaction: &Transaction<'_>,
) -> Result<Option<Failure>, tokio_postgres::Error> {
    let holder = transaction
        .query_opt(
            "select l.pid from pg_locks l where l.locktype = 'advisory' and l.granted and l.objsubid = 1 \
             and (l.classid::int8 << 32) | l.objid::int8 = $1 \
             and l.database = (select oid from pg_database where datname = current_database()) limit 1",
            &[&KEY],
        )
        .await?;
    Ok(holder.map(|row| {
        let pid: i32 = row.get(0);
        environment(
            Reason::WaitingForMigration,
            format!("A migration runs on this database (pid {pid}), and no dump begins beside it."),
        )
    }))
}

/// Whether statements of one connection reach the server on different sessions.
///
/// A pooler in transaction mode passes a session on between statements: then a second connection is served by the very
/// process that the first believes to be its own, or the lock is not where it was taken.
pub(crate) async fn pooled(connection: &Connection, session: &Session) -> Result<bool, Failure> {
    let doing = |error| statement_failed("looking for a pooler", &error);
    let own = session
        .client()
        .query_one("select pg_backend_pid(), current_setting('search_path')", &[])
        .await
        .map_err(doing)?;
    let (own, path): (i32, &str) = (own.get(0), own.get(1));
    if path != "pg_catalog" {
        return Ok(true);
    }
    let mut other = Session::connect(connection, SearchPath::Catalog).await?;
    // The open transaction keeps the pooler from moving this session, too.
    let transaction = other.client_mut().transaction().await.map_err(doing)?;
    let row = transaction
        .query_one(
            "select pg_backend_pid(), exists (select from pg_locks l where l.locktype = 'advisory' and l.granted \
             and l.pid = pg_backend_pid() and (l.classid::int8 << 32) | l.objid::int8 = $1)",
            &[&KEY],
        )
        .await
        .map_err(doing)?;
    let (pid, holds): (i32, bool) = (row.get(0), row.get(1));
    let again: i32 = session
        .client()
        .query_one("select pg_backend_pid()", &[])
        .await
        .map_err(doing)?
        .get(0);
    Ok(pid == own || holds || again != own)
}
