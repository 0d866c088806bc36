//! The database sessions that a migration leaves behind.
//!
//! A killed process's statement goes on in the server until it ends or its session is ended. A fingerprint
//! taken before that would describe a schema that is still changing.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::{Client, Row, types::ToSql};

use super::session::cause;

/// How long sessions may take to end.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between looks.
const PAUSE: Duration = Duration::from_millis(50);

/// How the sessions of a run are recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// By the pod's own address, which the server sees.
    Pod(String),
    /// Not at all: the server sees another address (a node's, a socket), shared with other clients.
    Shared,
}

impl Origin {
    /// The server must see the pod's own address, or other clients' sessions would be ended.
    /// A pod may have two, one of each family, separated by a comma.
    pub(crate) fn of(client_address: Option<&str>, pod_ip: &str) -> Self {
        match client_address {
            Some(address) if pod_ip.split(',').any(|own| own.trim() == address) => {
                Self::Pod(address.to_owned())
            }
            _ => Self::Shared,
        }
    }
}

/// Why the sessions of a run may still be at work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StillThere {
    #[error("{0} database sessions of the migration could not be ended within 60 s")]
    Sessions(usize),
    #[error(
        "{0} sessions that may be the migration's, but have another address or role, were still at work after 60 s"
    )]
    Unrecognised(usize),
    #[error("the database did not answer ({})", cause(.0))]
    Database(#[from] tokio_postgres::Error),
}

/// Sessions that began after the run's row was written, other than the agent's own.
const SINCE_RUN: &str = "from pg_stat_activity a where a.datname = current_database() and a.pid <> pg_backend_pid() \
    and a.backend_type = 'client backend' and a.application_name <> 'fairway-agent' \
    and a.backend_start >= (select r.started_at from fairway.migration_run r where r.run_id = $1)";

/// Transactions of other roles that have written something. Their addresses are hidden from this role, so they
/// cannot be ended as the run's, but what they write must be in the fingerprint or rolled back.
const HIDDEN_WRITERS: &str = "select l.pid, l.transactionid::text from pg_locks l join pg_stat_activity a using (pid) \
    where a.datname = current_database() and a.backend_start is null and l.locktype = 'transactionid' \
    and l.mode = 'ExclusiveLock' and l.granted";

/// Ends the run's sessions and returns when none is left.
pub(crate) async fn end(client: &Client, run_id: &str, origin: &Origin) -> Result<(), StillThere> {
    match origin {
        Origin::Pod(address) => end_from(client, run_id, address).await?,
        Origin::Shared => {
            let busy = format!("select a.pid, a.backend_start::text {SINCE_RUN} and a.state <> 'idle'");
            outlast(client, &busy, &[&run_id]).await?;
        }
    }
    outlast(client, HIDDEN_WRITERS, &[]).await
}

async fn end_from(client: &Client, run_id: &str, address: &str) -> Result<(), StillThere> {
    let query = format!("select a.pid, pg_terminate_backend(a.pid) {SINCE_RUN} and host(a.client_addr) = $2");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = client.query(&query, &[&run_id, &address]).await?.len();
        if left == 0 {
            return Ok(());
        }
        tracing::info!("ending {left} database sessions of the migration");
        if Instant::now() > deadline {
            return Err(StillThere::Sessions(left));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Waits until everything that a query finds now has ended or come to rest. The dead process cannot begin
/// anything new, so that is all that can still change something.
async fn outlast(client: &Client, query: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<(), StillThere> {
    let identity = |row: &Row| (row.get::<_, i32>(0), row.get::<_, String>(1));
    let mut suspects: Vec<_> = client
        .query(query, parameters)
        .await?
        .iter()
        .map(identity)
        .collect();
    let deadline = Instant::now() + PATIENCE;
    while !suspects.is_empty() {
        if Instant::now() > deadline {
            return Err(StillThere::Unrecognised(suspects.len()));
        }
        tokio::time::sleep(PAUSE).await;
        let still: Vec<_> = client
            .query(query, parameters)
            .await?
            .iter()
            .map(identity)
            .collect();
        suspects.retain(|suspect| still.contains(suspect));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_pods_own_address_recognises_its_sessions() {
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
