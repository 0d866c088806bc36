//! The migration lock while the migration goes on: a lock that is lost is taken again.

use std::time::Duration;

use fairway_protocol::Failure;
use futures::{FutureExt as _, future::BoxFuture};
use tokio::time::{Instant, timeout_at};

use super::{Run, StopReason, ledger_not_read};
use crate::{
    connection::Connection,
    ledger::{self, State},
    lock::Lock,
};

/// Time to take a lost migration lock again while the migration goes on, connecting and asking the ledger included.
const RELOCK_TIMEOUT: Duration = Duration::from_secs(60);

/// Watches the lock of a run while its migration goes on, and takes it again when its session is lost.
///
/// An attempt to take it again ends with the watch, so that it cannot hold the lock against whoever concludes the run.
pub(crate) struct LockWatch<'w, 'a> {
    run: &'w mut Run<'a>,
    relock: Option<Relock>,
}

/// The attempt to take a lost lock again. It is kept while its watch waits for something else, too.
struct Relock {
    deadline: Instant,
    outcome: BoxFuture<'static, Result<Relocked, Failure>>,
}

/// How an attempt to take a lost lock again ended.
enum Relocked {
    /// The lock is held on a new session, and nobody has changed the run's row.
    Held(Box<Lock>),
    /// Another agent held the lock in between and has recorded how the run ended.
    RunChanged,
}

impl<'a> Run<'a> {
    /// Watches the lock of this run while its migration goes on.
    pub(crate) fn watch_lock(&mut self) -> LockWatch<'_, 'a> {
        LockWatch {
            run: self,
            relock: None,
        }
    }
}

impl<'a> LockWatch<'_, 'a> {
    /// The run whose lock is watched.
    pub(crate) fn run(&self) -> &Run<'a> {
        self.run
    }

    /// Resolves, with the reason to stop the migration, when the lock is lost and was not taken again within
    /// [`RELOCK_TIMEOUT`]. May be cancelled: the next call goes on with an attempt that has begun.
    pub(crate) async fn lost(&mut self) -> StopReason {
        loop {
            let relock = match &mut self.relock {
                Some(relock) => relock,
                none => {
                    self.run.lock.session.lost().await;
                    tracing::warn!(
                        "the session that holds the migration lock was lost; taking the lock again"
                    );
                    none.insert(Relock::begin(self.run))
                }
            };
            // One bound for all of it: connecting, waiting for the lock and each query would otherwise add up.
            let outcome = timeout_at(relock.deadline, &mut relock.outcome).await;
            self.relock = None;
            match outcome {
                Ok(Ok(Relocked::Held(lock))) => {
                    tracing::info!("the migration lock is held again");
                    self.run.lock = *lock;
                }
                Ok(Ok(Relocked::RunChanged)) => return StopReason::SettledElsewhere,
                Ok(Err(failure)) => {
                    tracing::warn!("{}", failure.message);
                    return StopReason::LockLost;
                }
                Err(_) => {
                    tracing::warn!(
                        "the lock was not taken again within {} s",
                        RELOCK_TIMEOUT.as_secs()
                    );
                    return StopReason::LockLost;
                }
            }
        }
    }
}

impl Relock {
    fn begin(run: &Run<'_>) -> Self {
        let (connection, run_id) = (run.lock.connection.clone(), run.id().to_owned());
        Self {
            deadline: Instant::now() + RELOCK_TIMEOUT,
            outcome: relock(connection, run_id).boxed(),
        }
    }
}

/// Takes the migration lock again after its session was lost.
async fn relock(connection: Connection, run_id: String) -> Result<Relocked, Failure> {
    let lock = Lock::acquire(&connection, RELOCK_TIMEOUT, RELOCK_TIMEOUT).await?;
    let found = ledger::find(lock.session.client(), &run_id)
        .await
        .map_err(ledger_not_read)?;
    Ok(match found {
        Some(entry) if entry.state == State::Running => Relocked::Held(Box::new(lock)),
        _ => Relocked::RunChanged,
    })
}
