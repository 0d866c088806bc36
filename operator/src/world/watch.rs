//! Feeding the caches: one watch per kind, for as long as the process lives.

use super::World;
use super::cached::{Cached, key_of, selector};
use crate::key::{Key, Watched, Work};
use crate::queue::Queue;
use futures::StreamExt;
use kube::core::DeserializeGuard;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client, Resource};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// Objects in one page of a list. Small: a page is in memory three times while it is parsed.
const PAGE: u32 = 100;

/// The queues of the controllers.
pub(crate) type Queues = BTreeMap<crate::key::Reconciled, Arc<Queue>>;

/// What is told of an object that cannot be parsed.
pub(crate) type OnUnreadable =
    Arc<dyn Fn(Watched, &k8s_openapi::api::core::v1::ObjectReference, &str) + Send + Sync>;

/// Feeds the cache of one kind and hands out the work that its events make. Never ends.
pub(crate) async fn feed<K: Cached>(
    client: Client,
    namespace: Option<String>,
    world: Arc<World>,
    queues: Queues,
    on_unreadable: OnUnreadable,
) {
    let api: Api<DeserializeGuard<K>> = match &namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    };
    // ListWatch with the most recent semantics: an operator that restarts must never see older state than the
    // one before it did, which a list from any apiserver's cache could show it.
    let mut config = watcher::Config::default().page_size(PAGE);
    if let Some(selector) = selector(K::KIND) {
        config = config.labels(selector);
    }
    let mut stream = watch(api, config).default_backoff().boxed();
    let mut listed = HashSet::new();
    while let Some(event) = stream.next().await {
        let work = match event {
            Ok(Event::Init) => {
                listed.clear();
                continue;
            }
            Ok(Event::InitApply(object)) => {
                listed.insert(key_of(&object));
                seen(&world, object, &on_unreadable)
            }
            Ok(Event::Apply(object)) => seen(&world, object, &on_unreadable),
            Ok(Event::Delete(object)) => world.remove::<K>(&key_of(&object), object.meta()),
            Ok(Event::InitDone) => {
                let work = world.retain::<K>(&std::mem::take(&mut listed));
                world.set_missing(K::KIND, None);
                work
            }
            Err(error) => {
                failed(K::KIND, &world, &error);
                continue;
            }
        };
        hand_out(&queues, work);
    }
}

/// Puts work into its controllers' queues.
pub(crate) fn hand_out(queues: &Queues, work: Vec<Work>) {
    for Work { kind, key } in work {
        if let Some(queue) = queues.get(&kind) {
            queue.add(&key);
        }
    }
}

fn seen<K: Cached>(world: &World, object: DeserializeGuard<K>, on_unreadable: &OnUnreadable) -> Vec<Work> {
    match object.0 {
        Ok(object) => world.put(object),
        Err(invalid) => {
            if world.put_unreadable(K::KIND, &invalid.metadata) {
                let reference = kube::core::DeserializeGuard::<K>(Err(invalid.clone())).object_ref(&());
                let key: Key = Key::new(
                    invalid.metadata.namespace.as_deref().unwrap_or_default(),
                    invalid.metadata.name.as_deref().unwrap_or_default(),
                );
                let message = crate::execute::refusal::without_values(&invalid.error);
                tracing::warn!(kind = K::KIND.as_str(), object = %key, %message, "object cannot be read");
                on_unreadable(K::KIND, &reference, &message);
            }
            Vec::new()
        }
    }
}

fn failed(kind: Watched, world: &World, error: &watcher::Error) {
    let status = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status)) => Some(&**status),
        watcher::Error::WatchStartFailed(kube::Error::Api(status)) => Some(&**status),
        watcher::Error::WatchError(status) => Some(&**status),
        _ => None,
    };
    let why = match status.map(|status| status.code) {
        Some(404) => "its CustomResourceDefinition is not installed".to_owned(),
        Some(403) => "the operator's role does not allow to list it".to_owned(),
        // A watch that is too old, or that the server ended: the next list mends it.
        Some(410) => return,
        Some(code) => format!("the apiserver answered {code}"),
        None => "the apiserver cannot be reached".to_owned(),
    };
    tracing::warn!(kind = kind.as_str(), why, "watch failed and will be tried again");
    world.set_missing(kind, Some(why));
}
