//! Feeding the engine: one watch per kind, for as long as the process lives.

use crate::events::Events;
use crate::shared::SharedEngine;
use fairway_engine::kinds::Kind;
use fairway_engine::{Cached, ForKind, Key, for_each, version_of, without_values};
use futures::StreamExt;
use kube::core::DeserializeGuard;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource, ResourceExt};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::task::JoinSet;

/// Objects in one page of a list. Small: a page is in memory three times while it is parsed.
const PAGE: u32 = 100;

/// Watches every kind, in that namespace or in all, and feeds the engine. The tasks never end.
pub(crate) fn watch_all<T: Send + 'static>(
    tasks: &mut JoinSet<T>,
    client: &Client,
    namespace: Option<&str>,
    engine: &Arc<SharedEngine>,
    events: &Events,
    ended: fn() -> T,
) {
    struct Start<'a, T> {
        tasks: &'a mut JoinSet<T>,
        client: &'a Client,
        namespace: Option<&'a str>,
        engine: &'a Arc<SharedEngine>,
        events: &'a Events,
        ended: fn() -> T,
    }

    impl<T: Send + 'static> ForKind for Start<'_, T> {
        fn visit<K: Cached>(&mut self) {
            let api = match self.namespace {
                Some(namespace) => Api::namespaced(self.client.clone(), namespace),
                None => Api::all(self.client.clone()),
            };
            let feed = feed::<K>(api, self.engine.clone(), self.events.clone());
            let ended = self.ended;
            self.tasks.spawn(async move {
                feed.await;
                ended()
            });
        }
    }

    for_each(&mut Start {
        tasks,
        client,
        namespace,
        engine,
        events,
        ended,
    });
}

/// Feeds the engine with one kind. Never ends.
async fn feed<K: Cached>(api: Api<DeserializeGuard<K>>, engine: Arc<SharedEngine>, events: Events) {
    // ListWatch with the most recent semantics: an operator that restarts must never see older state than the
    // one before it did, which a list from any API server's cache could show it.
    let mut config = watcher::Config::default().page_size(PAGE);
    if let Some(selector) = K::KIND.selector() {
        config = config.labels(selector);
    }
    let mut stream = watcher::watcher(api, config).default_backoff().boxed();
    let mut listed = BTreeSet::new();
    while let Some(event) = stream.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(object)) => {
                listed.insert(key_of(&object));
                put(&engine, &events, object);
            }
            Ok(Event::Apply(object)) => put(&engine, &events, object),
            Ok(Event::Delete(object)) => {
                let key = key_of(&object);
                engine.with(|engine, now| engine.remove::<K>(&key, object.meta(), now));
            }
            Ok(Event::InitDone) => {
                let listed = std::mem::take(&mut listed);
                engine.with(|engine, now| engine.listed::<K>(&listed, now));
            }
            Err(error) => failed(K::KIND, &engine, &error),
        }
    }
}

fn put<K: Cached>(engine: &SharedEngine, events: &Events, object: DeserializeGuard<K>) {
    let (metadata, message) = match object.0 {
        Ok(object) if version_of(object.meta()).is_some() => {
            return engine.with(|engine, now| engine.put(object, now));
        }
        Ok(object) => (
            object.meta().clone(),
            "its resourceVersion is not a number".to_owned(),
        ),
        Err(invalid) => (invalid.metadata, without_values(&invalid.error)),
    };
    let announcement = engine.with(|engine, now| engine.put_unreadable::<K>(&metadata, &message, now));
    if let Some(announcement) = announcement {
        let name = metadata.name.as_deref().unwrap_or_default();
        tracing::warn!(kind = K::KIND.as_str(), name, %message, "object cannot be read");
        events.announce(announcement);
    }
}

fn key_of(object: &impl Resource<DynamicType = ()>) -> Key {
    let namespace = object.namespace().unwrap_or_default();
    Key::new(&namespace, &object.name_any())
}

fn failed(kind: Kind, engine: &SharedEngine, error: &watcher::Error) {
    let status = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status)) => Some(&**status),
        watcher::Error::WatchStartFailed(kube::Error::Api(status)) => Some(&**status),
        watcher::Error::WatchError(status) => Some(&**status),
        _ => None,
    };
    let why = match status.map(|status| status.code) {
        Some(404) => "its CustomResourceDefinition is not installed".to_owned(),
        Some(403) => "the operator's role does not allow to list it".to_owned(),
        // A watch that is too old, or that the server ended: the next list fixes it.
        Some(410) => return,
        Some(code) => format!("the API server answered {code}"),
        None => "the API server cannot be reached".to_owned(),
    };
    tracing::warn!(kind = kind.as_str(), why, "watch failed and will be retried");
    engine.with(|engine, _| engine.list_failed(kind, why));
}
