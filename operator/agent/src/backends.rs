//! The database sessions that a migration leaves behind.
//!
//! The statement of a killed process goes on in the server until it ends or its session is ended. A fingerprint
//! taken before that would describe a schema that is still changing.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::Client;

use crate::{ledger::Entry, session::cause};

/// Longest time for which sessions may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause between two queries.
const PAUSE: Duration = Duration::from_millis(50);
/// Shortest and longest time for which sessions are followed to see whether they come to rest.
const FOLLOWED: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(2)];

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

/// Work of sessions of this database other than the agent's own, one row for each session: its process, what tells this
/// work from the session's next, whether it may have changed anything, whether role or visible address are those of the
/// run, and whether address and state are hidden.
///
/// Who is in a transaction holds a lock on it, and every role may see locks, also those of other roles, whose addresses and
/// statements are hidden. A statement may go on through several transactions (`create index concurrently`, `call`): where it
/// is hidden, its locks on a table remain between them. Advisory locks and those of serializable transactions may be held by
/// a session at rest.
const AT_WORK: &str = "
    with locks as (
        select l.pid, min(l.virtualtransaction) as transaction,
          bool_or(l.locktype = 'transactionid' and l.mode = 'ExclusiveLock'
            or l.locktype = 'relation' and l.mode not in ('AccessShareLock', 'RowShareLock')) as writes,
          array_agg(distinct l.relation) filter (where l.locktype = 'relation'
            and l.mode not in ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock')) as held
        from pg_locks l where l.locktype <> 'advisory' and l.mode <> 'SIReadLock' group by l.pid
    )
    select a.pid,
      format('%s:%s', a.pid, l.transaction) || case
        when a.query_start is not null then array[format('%s@%s', a.pid, extract(epoch from a.query_start))]
        else (select coalesce(array_agg(format('%s/%s', a.pid, r)), '{}') from unnest(l.held) r) end as marks,
      l.writes,
      a.usesysid = (select r.oid from pg_roles r where r.rolname = session_user)
        or coalesce(host(a.client_addr) = $1, false) as of_run,
      a.backend_type is null as hidden
    from pg_stat_activity a join locks l on l.pid = a.pid
    where a.datname = current_database() and a.usesysid is not null and a.pid <> pg_backend_pid()
      and a.application_name <> 'fairway-agent' and coalesce(a.backend_type, 'client backend') = 'client backend'";

/// The work of one session that is in progress.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Work {
    /// The session's process.
    pid: i32,
    /// Its transaction, and its statement or the tables that it has locked. One of them remains as long as the work goes on.
    marks: Vec<String>,
    /// Whether it may have changed anything: it has the number of a transaction that writes, or a lock to write.
    writes: bool,
    /// Whether its role, or its address where that is not hidden, are those of the run.
    of_run: bool,
    /// Whether its address and state are hidden, as those of another role are without the rights of `pg_read_all_stats`.
    hidden: bool,
}

impl Work {
    /// Whether it may be the run's. One of another role, whose address is another or hidden, may be so as well, but what has
    /// changed nothing there yet is taken for somebody's report.
    fn is_suspect(&self) -> bool {
        self.writes || self.of_run
    }

    fn is_among(&self, marks: &[String]) -> bool {
        self.marks.iter().any(|mark| marks.contains(mark))
    }
}

async fn work_in_progress(
    client: &Client,
    client_address: Option<&str>,
) -> Result<Vec<Work>, tokio_postgres::Error> {
    let rows = client.query(AT_WORK, &[&client_address]).await?;
    Ok(rows
        .iter()
        .map(|row| Work {
            pid: row.get(0),
            marks: row.get(1),
            writes: row.get(2),
            of_run: row.get(3),
            hidden: row.get(4),
        })
        .collect())
}

/// What the sessions of a healthy application are in the middle of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum InTransaction {
    /// Nothing.
    No,
    /// A transaction of the pod's own sessions.
    Own(String),
    /// One transaction that goes on and has written, of sessions that may be the pod's.
    Writing(String),
    /// Transactions of sessions that may be the pod's; none that goes on has written.
    Unproven(String),
}

/// Whether sessions of the run's pod are in the middle of a transaction: it may have changed something, or has been open
/// for `open_for`.
///
/// Where the server sees another address than the pod's own (address translation, a pooler, a mesh), every session that
/// may be the pod's counts; where it sees the pod's own, also every session whose address it hides, as that of an
/// application with another role than the agent's. Most are those of the previous version, which serves, so that each is
/// looked at until it is seen at rest, at most for `open_for` and never for more than [`FOLLOWED`].
pub(crate) async fn in_transaction(
    client: &Client,
    run: &Entry,
    origin: &Origin,
    open_for: Duration,
) -> Result<InTransaction, tokio_postgres::Error> {
    let [shortest, longest] = FOLLOWED;
    let time = open_for.clamp(shortest, longest);
    match origin {
        Origin::Pod(address) => match own_in_transaction(client, address, open_for).await? {
            InTransaction::No => follow(client, run, time, |work| work.hidden).await,
            own => Ok(own),
        },
        Origin::Shared => follow(client, run, time, Work::is_suspect).await,
    }
}

async fn own_in_transaction(
    client: &Client,
    address: &str,
    open_for: Duration,
) -> Result<InTransaction, tokio_postgres::Error> {
    let query = "select distinct a.pid from pg_stat_activity a join pg_locks l on l.pid = a.pid \
        where a.datname = current_database() and a.pid <> pg_backend_pid() and a.backend_type = 'client backend' \
        and a.application_name <> 'fairway-agent' and host(a.client_addr) = $1 \
        and (l.locktype = 'transactionid' and l.mode = 'ExclusiveLock' \
          or l.locktype = 'relation' and l.mode not in ('AccessShareLock', 'RowShareLock') \
          or a.xact_start <= clock_timestamp() - make_interval(secs => $2)) order by 1";
    let rows = client.query(query, &[&address, &open_for.as_secs_f64()]).await?;
    let pids: Vec<i32> = rows.iter().map(|row| row.get(0)).collect();
    Ok(match pids.is_empty() {
        true => InTransaction::No,
        false => InTransaction::Own(processes(&pids)),
    })
}

/// Looks at all sessions that may be the run's and are at work now, until each was seen at rest once or the time is over.
async fn follow(
    client: &Client,
    run: &Entry,
    time: Duration,
    may_be_of_run: impl Fn(&Work) -> bool,
) -> Result<InTransaction, tokio_postgres::Error> {
    let suspects = || async {
        let mut work = work_in_progress(client, run.client_address.as_deref()).await?;
        work.retain(|work| may_be_of_run(work) && !work.is_among(&run.at_work));
        Ok::<_, tokio_postgres::Error>(work)
    };
    let first = suspects().await?;
    let mut left = first.clone();
    let end = Instant::now() + time;
    while !left.is_empty() && Instant::now() < end {
        tokio::time::sleep(PAUSE).await;
        let mut now = suspects().await?;
        // By process: between the transactions of one migration there is hardly any rest.
        now.retain(|work| left.iter().any(|before| before.pid == work.pid));
        left = now;
    }
    let goes_on = |work: &Work| first.iter().any(|before| work.is_among(&before.marks));
    let pids = |work: &[Work]| processes(&work.iter().map(|work| work.pid).collect::<Vec<_>>());
    let (writing, others): (Vec<_>, Vec<_>) = left.into_iter().partition(|work| work.writes && goes_on(work));
    Ok(match (writing.as_slice(), others.as_slice()) {
        ([], []) => InTransaction::No,
        ([], others) => InTransaction::Unproven(pids(others)),
        (writing, _) => InTransaction::Writing(pids(writing)),
    })
}

/// The marks of all work of other sessions that is in progress in the database now. What is found later without one of them
/// may be the migration's.
pub(crate) async fn at_work(client: &Client) -> Result<Vec<String>, tokio_postgres::Error> {
    let work = work_in_progress(client, None).await?;
    Ok(work.into_iter().flat_map(|work| work.marks).collect())
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

/// Waits until all work that is in progress now, was not `before` the run and may be the run's has ended. Through a pooler,
/// with another role or behind a translated address the migration's statements cannot be distinguished from others; its
/// process is gone and cannot begin anything new, so that nothing else can still change the schema.
///
/// What has changed nothing when the time is over is taken for a report of somebody else.
pub(crate) async fn wait_for_unrecognised(
    client: &Client,
    client_address: Option<&str>,
    before: &[String],
) -> Result<(), SessionsRemain> {
    let mut suspects = work_in_progress(client, client_address).await?;
    suspects.retain(|work| work.is_suspect() && !work.is_among(before));
    let deadline = Instant::now() + END_TIMEOUT;
    while !suspects.is_empty() {
        if Instant::now() > deadline {
            let writing = suspects.iter().filter(|work| work.writes);
            let writing: Vec<_> = writing.map(|work| work.pid).collect();
            return match writing.is_empty() {
                true => Ok(()),
                false => Err(SessionsRemain::Unrecognised(writing)),
            };
        }
        tokio::time::sleep(PAUSE).await;
        let now = work_in_progress(client, client_address).await?;
        // Its latest state, as it may have begun to write.
        suspects = suspects
            .iter()
            .filter_map(|suspect| now.iter().find(|work| work.is_among(&suspect.marks)))
            .cloned()
            .collect();
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
