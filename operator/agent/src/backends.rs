//! The database sessions that a migration leaves behind.
//!
//! The statement of a killed process goes on in the server until it ends or its session is ended. A fingerprint
//! taken before that would describe a schema that is still changing.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::Client;

use crate::session::cause;

/// Longest time for which sessions may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause between two queries.
const PAUSE: Duration = Duration::from_millis(50);

/// How the sessions of a run are recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// By the pod's own address, which the server sees.
    Pod(String),
    /// Not at all: the server sees an address that other clients share (a node's, a socket).
    Shared,
}

impl Origin {
    /// The origin of a run whose pod has these addresses, separated by commas, and which the server saw at
    /// `client_address`. Unless that is the pod's own, sessions of other clients would be ended.
    pub(crate) fn of(client_address: Option<&str>, pod_ip: &str) -> Self {
        match client_address {
            Some(address) if pod_ip.split(',').any(|own| own.trim() == address) => {
                Self::Pod(address.to_owned())
            }
            _ => Self::Shared,
        }
    }
}

/// Why sessions of a run may still be at work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionsRemain {
    #[error("{} of it could not be ended within 60 s", processes(.0))]
    Sessions(Vec<i32>),
    #[error("{} that may belong to it were still active 60 s later", processes(.0))]
    Unrecognised(Vec<i32>),
    #[error("the database did not answer ({})", cause(.0))]
    Database(#[from] tokio_postgres::Error),
}

/// Database sessions by their process ids, as `pg_stat_activity` has them.
fn processes(pids: &[i32]) -> String {
    let shown: Vec<_> = pids.iter().take(5).map(i32::to_string).collect();
    let more = if pids.len() > shown.len() { " and more" } else { "" };
    format!("database sessions (pid {}{more})", shown.join(", "))
}

/// Sessions of this database other than the agent's own, and what tells one piece of their work from the next.
///
/// A session in a transaction holds a lock on it, and every role may see locks, also those of other roles, whose
/// addresses and times are hidden. Between the transactions of a `create index concurrently` the locks on its
/// table remain. Advisory locks and those of serializable transactions may be held by a session at rest.
const AT_WORK: &str = "select distinct a.pid, format('%s:%s', a.pid, l.virtualtransaction) \
    from pg_stat_activity a join pg_locks l on l.pid = a.pid and l.locktype <> 'advisory' and l.mode <> 'SIReadLock' \
    where a.datname = current_database() and a.usesysid is not null and a.pid <> pg_backend_pid() \
    and a.application_name <> 'fairway-agent' and coalesce(a.backend_type, 'client backend') = 'client backend'";

/// All work of other sessions that is in progress in the database now. What is found later beside it may be the
/// migration's.
pub(crate) async fn at_work(client: &Client) -> Result<Vec<String>, tokio_postgres::Error> {
    let rows = client.query(AT_WORK, &[]).await?;
    Ok(rows.iter().map(|row| row.get(1)).collect())
}

/// Ends the sessions that came from the run's pod. Its processes are gone, so that no session of theirs begins after the
/// first query: a later one belongs to a pod that was given the address since.
pub(crate) async fn end(client: &Client, run_id: &str, origin: &Origin) -> Result<(), SessionsRemain> {
    let Origin::Pod(address) = origin else {
        return Ok(());
    };
    let now: String = client
        .query_one("select clock_timestamp()::text", &[])
        .await?
        .get(0);
    let query = "select a.pid, pg_terminate_backend(a.pid) from pg_stat_activity a \
        where a.datname = current_database() and a.pid <> pg_backend_pid() \
        and a.backend_type = 'client backend' and a.application_name <> 'fairway-agent' \
        and a.backend_start >= (select r.started_at from fairway.migration_run r where r.run_id = $1) \
        and host(a.client_addr) = $2 and a.backend_start <= $3::text::timestamptz";
    let deadline = Instant::now() + END_TIMEOUT;
    loop {
        let left = client.query(query, &[&run_id, address, &now]).await?;
        if left.is_empty() {
            return Ok(());
        }
        tracing::info!("ending {} database sessions of the migration", left.len());
        if Instant::now() > deadline {
            return Err(SessionsRemain::Sessions(
                left.iter().map(|row| row.get(0)).collect(),
            ));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Waits until all work that is in progress now, and was not `before` the run, has ended. Through a pooler, with another
/// role or behind a translated address the migration's statements cannot be distinguished from others; its process is
/// gone and cannot begin anything new, so that nothing else can still change the schema.
pub(crate) async fn wait_for_unrecognised(client: &Client, before: &[String]) -> Result<(), SessionsRemain> {
    let mut suspects: Vec<i32> = client
        .query(AT_WORK, &[])
        .await?
        .iter()
        .filter(|row| !before.contains(&row.get(1)))
        .map(|row| row.get(0))
        .collect();
    let deadline = Instant::now() + END_TIMEOUT;
    while !suspects.is_empty() {
        if Instant::now() > deadline {
            return Err(SessionsRemain::Unrecognised(suspects));
        }
        tokio::time::sleep(PAUSE).await;
        let rows = client.query(AT_WORK, &[]).await?;
        let still: Vec<i32> = rows.iter().map(|row| row.get(0)).collect();
        suspects.retain(|suspect| still.contains(suspect));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_recognised_by_the_pods_own_address_only() {
        assert_eq!(
            Origin::of(Some("10.0.0.7"), "10.0.0.7"),
            Origin::Pod("10.0.0.7".into())
        );
        assert_eq!(
            Origin::of(Some("fd00::7"), "10.0.0.7,fd00::7"),
            Origin::Pod("fd00::7".into())
        );
        assert_eq!(
            Origin::of(Some("192.168.1.1"), "10.0.0.7"),
            Origin::Shared,
            "a node's address"
        );
        assert_eq!(Origin::of(None, "10.0.0.7"), Origin::Shared, "a socket");
        assert_eq!(Origin::of(None, ""), Origin::Shared);
    }
}
