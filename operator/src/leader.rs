//! The Lease: of several operators one works. It saves work only; correctness rests on names, resource versions,
//! milestones and the ledger, so two that both believe to lead do no harm.

use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watch_object};
use kube::{Api, Client};
use kube_lease_manager::{LeaseManagerBuilder, LeaseManagerError};
use std::pin::pin;
use tokio::sync::watch;

/// Seconds after which a Lease that its holder does not renew is free.
const DURATION: u64 = 15;
/// Seconds before that at which the holder renews it.
const GRACE: u64 = 5;

/// Why there is no leader.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LeaderError {
    /// The Lease could not be made, read or renewed.
    #[error("cannot keep Lease {name}")]
    Lease {
        /// Its name.
        name: String,
        /// Why.
        source: LeaseManagerError,
    },
    /// The task that keeps it has ended.
    #[error("the task that keeps Lease {name} has ended")]
    Ended {
        /// Its name.
        name: String,
    },
}

/// Which Lease a candidate asks for, and as whom.
#[derive(Clone, Debug)]
pub(crate) struct Candidacy {
    /// Name of the Lease.
    pub(crate) lease: String,
    /// Its namespace.
    pub(crate) namespace: String,
    /// Who asks, unique among operators.
    pub(crate) identity: String,
}

/// How one candidacy ended.
enum End {
    Stopped,
    /// The holder gave the Lease back, or somebody deleted it.
    Freed,
    KeeperEnded,
}

/// Takes the Lease whenever it is free, says on `leads` whether it is held, and gives it back when `stop` says
/// so. Returns before that only with an error.
///
/// # Errors
/// When the Lease cannot be made, for example because the role does not allow it.
pub(crate) async fn elect(
    client: Client,
    candidacy: Candidacy,
    leads: watch::Sender<bool>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), LeaderError> {
    let Candidacy {
        lease,
        namespace,
        identity,
    } = candidacy;
    let failed = |source| LeaderError::Lease {
        name: lease.clone(),
        source,
    };
    loop {
        let manager = LeaseManagerBuilder::new(client.clone(), lease.clone())
            .with_namespace(namespace.clone())
            .with_identity(identity.clone())
            .with_duration(DURATION)
            .with_grace(GRACE)
            .build()
            .await
            .map_err(failed)?;
        let (mut held, keeper) = manager.watch().await;
        let end = tokio::select! {
            // A closed channel means that `main` is gone, which is the same.
            _ = stop.wait_for(|stop| *stop) => End::Stopped,
            () = freed(Api::namespaced(client.clone(), &namespace), &lease) => End::Freed,
            () = follow(&mut held, &leads) => End::KeeperEnded,
        };
        let led = leads.send_replace(false);
        // The keeper gives the Lease back, if it holds it, when nobody listens any more.
        drop(held);
        match (keeper.await, end) {
            (Ok(Ok(_)), End::Stopped) => {
                if led {
                    tracing::info!("gave the Lease back");
                }
                return Ok(());
            }
            // The manager looks at a Lease that someone holds only when it expires: a new one looks now.
            (Ok(_), End::Freed) => tracing::debug!("the Lease is free"),
            (Ok(Err(error)), _) => return Err(failed(error)),
            _ => return Err(LeaderError::Ended { name: lease }),
        }
    }
}

/// Copies `held` to `leads` until the keeper ends.
async fn follow(held: &mut watch::Receiver<bool>, leads: &watch::Sender<bool>) {
    loop {
        let leading = *held.borrow_and_update();
        if leads.send_if_modified(|leads| std::mem::replace(leads, leading) != leading) {
            tracing::info!(leading, "leadership");
        }
        if held.changed().await.is_err() {
            return;
        }
    }
}

/// Ends when a Lease that had a holder has none any more.
async fn freed(leases: Api<Lease>, name: &str) {
    let mut seen = pin!(watch_object(leases, name).default_backoff());
    let mut had_holder = false;
    while let Some(lease) = seen.next().await {
        match lease {
            Ok(lease) => match holder(lease.as_ref()) {
                Some(_) => had_holder = true,
                None if had_holder => return,
                None => {}
            },
            // The watch goes on by itself; meanwhile the Lease still expires.
            Err(error) => log(&error),
        }
    }
}

fn holder(lease: Option<&Lease>) -> Option<&str> {
    lease?
        .spec
        .as_ref()?
        .holder_identity
        .as_deref()
        .filter(|holder| !holder.is_empty())
}

fn log(error: &watcher::Error) {
    tracing::debug!(%error, "the watch of the Lease failed and will be tried again");
}

/// Without an election this process leads until `stop` says so.
pub(crate) async fn alone(leads: watch::Sender<bool>, mut stop: watch::Receiver<bool>) {
    leads.send_replace(true);
    // A closed channel means that `main` is gone, which is the same.
    let _ = stop.wait_for(|stop| *stop).await;
}
