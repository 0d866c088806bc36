//! How many health requests are under way at once, and how many of them for whom.
//!
//! A request takes at most about 100 KiB while it is under way: nothing of a body is kept, but connections and TLS have
//! buffers. So the number of requests bounds the memory, and a pod that answers slowly, or not at all, only takes up
//! places of its own App.

use fairway_engine::NamespacedName;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Requests under way at once, of all Apps.
const ALL: usize = 128;
/// Those of one namespace.
const OF_NAMESPACE: usize = ALL / 2;
/// Those of one App.
const OF_APP: usize = ALL / 4;

/// Places for requests. Who waits for one is served in the order in which they came, and waits in the queue of the App
/// before that of the namespace, and there before that of all: however many requests an App has, few of them are in the
/// way of others.
#[derive(Debug)]
pub(super) struct Budget {
    all: Arc<Semaphore>,
    shares: Mutex<BTreeMap<Share, Arc<Semaphore>>>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Share {
    Namespace(String),
    App(NamespacedName),
}

/// A place for one request.
#[derive(Debug)]
pub(super) struct Place {
    _permits: [Option<OwnedSemaphorePermit>; 3],
}

impl Budget {
    /// A budget of which nothing is used.
    pub(super) fn new() -> Self {
        Self {
            all: Arc::new(Semaphore::new(ALL)),
            shares: Mutex::default(),
        }
    }

    /// Waits for a place for a request of this App.
    pub(super) async fn place(&self, app: &NamespacedName) -> Place {
        let of_app = self.share(Share::App(app.clone()), OF_APP);
        let of_namespace = self.share(Share::Namespace(app.namespace.to_string()), OF_NAMESPACE);
        // None of them is ever closed.
        Place {
            _permits: [
                of_app.acquire_owned().await.ok(),
                of_namespace.acquire_owned().await.ok(),
                self.all.clone().acquire_owned().await.ok(),
            ],
        }
    }

    fn share(&self, share: Share, places: usize) -> Arc<Semaphore> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        // Of those that nobody uses or waits for, this map has the only reference.
        shares.retain(|_, places| Arc::strong_count(places) > 1);
        shares
            .entry(share)
            .or_insert_with(|| Arc::new(Semaphore::new(places)))
            .clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;
    use futures::stream::{FuturesUnordered, StreamExt as _};

    fn app(namespace: &str, number: usize) -> NamespacedName {
        NamespacedName::new(namespace, &format!("app-{number}"))
    }

    /// S6: an App whose pods never answer takes its share, and a namespace of such Apps that of the namespace.
    #[test]
    fn s6_each_app_has_a_fair_share() {
        let budget = Budget::new();
        let apps: Vec<_> = (0..50).map(|number| app("hostile", number)).collect();
        let mut hostile: FuturesUnordered<_> = apps
            .iter()
            .flat_map(|app| (0..100).map(|_| budget.place(app)))
            .collect();
        let mut held = Vec::new();
        while let Some(Some(place)) = hostile.next().now_or_never() {
            held.push(place);
        }
        assert_eq!(held.len(), OF_NAMESPACE);
        let other = app("shop", 0);
        let others: Vec<_> = (0..OF_APP).map(|_| budget.place(&other).now_or_never()).collect();
        assert!(others.iter().all(Option::is_some), "another namespace has room");
        assert!(
            budget.place(&other).now_or_never().is_none(),
            "an App has its share"
        );
    }

    #[test]
    fn a_place_is_free_again_and_forgotten() {
        let budget = Budget::new();
        let one = app("shop", 0);
        for _ in 0..3 * ALL {
            assert!(budget.place(&one).now_or_never().is_some());
        }
        assert_eq!(budget.shares.lock().unwrap().len(), 2);
        drop(budget.share(Share::App(app("other", 1)), 1));
        assert_eq!(budget.shares.lock().unwrap().len(), 1);
    }
}
