//! The Lease: of several operators one works. It saves work only; correctness rests on names, resource versions,
//! milestones and the ledger, so two that both believe to lead do no harm.

use kube::Client;
use kube_lease_manager::{LeaseManagerBuilder, LeaseManagerError};
use tokio::sync::watch;

/// Name of the Lease.
const LEASE: &str = "fairway";
/// Seconds after which a Lease that its holder does not renew is free.
const DURATION: u64 = 15;
/// Seconds before that at which the holder renews it.
const GRACE: u64 = 5;

/// Why there is no leader.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LeaderError {
    /// The Lease could not be made, read or renewed.
    #[error("cannot keep Lease {LEASE}")]
    Lease(#[source] LeaseManagerError),
    /// The task that keeps it has ended.
    #[error("the task that keeps Lease {LEASE} has ended")]
    Ended,
}

/// Takes the Lease whenever it is free, says on `leads` whether it is held, and gives it back when `stop` says
/// so. Returns before that only with an error.
///
/// # Errors
/// When the Lease cannot be made, for example because the role does not allow it.
pub(crate) async fn elect(
    client: Client,
    namespace: String,
    identity: String,
    leads: watch::Sender<bool>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), LeaderError> {
    let manager = LeaseManagerBuilder::new(client, LEASE)
        .with_namespace(namespace)
        .with_identity(identity)
        .with_duration(DURATION)
        .with_grace(GRACE)
        .build()
        .await
        .map_err(LeaderError::Lease)?;
    let (mut held, keeper) = manager.watch().await;
    let ended = tokio::select! {
        // The sender lives in `main` for as long as the process.
        _ = stop.wait_for(|stop| *stop) => None,
        error = follow(&mut held, &leads) => Some(error),
    };
    leads.send_replace(false);
    // The keeper gives the Lease back when nobody listens any more.
    drop(held);
    match (keeper.await, ended) {
        (Ok(Ok(_)), None) => Ok(()),
        (Ok(Err(error)), _) => Err(LeaderError::Lease(error)),
        _ => Err(LeaderError::Ended),
    }
}

/// Copies `held` to `leads` until the keeper ends.
async fn follow(held: &mut watch::Receiver<bool>, leads: &watch::Sender<bool>) -> watch::error::RecvError {
    loop {
        let leading = *held.borrow_and_update();
        if leads.send_if_modified(|leads| std::mem::replace(leads, leading) != leading) {
            tracing::info!(leading, "leadership");
        }
        if let Err(error) = held.changed().await {
            return error;
        }
    }
}

/// Without an election this process leads until `stop` says so.
pub(crate) async fn alone(leads: watch::Sender<bool>, mut stop: watch::Receiver<bool>) {
    leads.send_replace(true);
    // A closed channel means that `main` is gone, which is the same.
    let _ = stop.wait_for(|stop| *stop).await;
}
