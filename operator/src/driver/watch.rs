//! Feeding the engine: one watch per kind, for as long as the process lives.

use super::stream::{self, Failure, Place, SILENCE};
use crate::events::Events;
use crate::shared::SharedEngine;
use fairway_engine::kinds::Kind;
use fairway_engine::{
    Cached, ForKind, NamespacedName, Part, Reading, Splitter, Watched, for_each, read, read_answer,
};
use kube::Client;
use kube::api::{ListParams, WatchParams};
use kube::core::{ObjectMeta, Status};
use kube::runtime::utils::Backoff as _;
use kube::runtime::watcher::DefaultBackoff;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Objects in one page of a list. The API server holds a page, this process one object of it at a time.
const PAGE: u32 = 100;
/// The API server ends a watch after 290 s, kube's default, and a little later it is taken for dead.
const WATCH_SILENCE: Duration = Duration::from_secs(295);
/// A watch that ends sooner and has shown nothing is one that failed.
const SHORT: Duration = Duration::from_secs(1);
/// Bytes that are read between two looks at how much is held.
const PIECE: usize = 64 * 1024;

/// Watches every kind in each of these namespaces, or without any in all, and feeds the engine. The tasks never end.
pub(crate) fn watch_all<T: Send + 'static>(
    tasks: &mut JoinSet<T>,
    client: &Client,
    namespaces: &[String],
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
            let feed = Feed {
                client: self.client.clone(),
                watched: Watched::new(K::KIND, self.namespace),
                engine: self.engine.clone(),
                events: self.events.clone(),
            };
            let ended = self.ended;
            self.tasks.spawn(async move {
                feed.run::<K>().await;
                ended()
            });
        }
    }

    let everywhere = namespaces.is_empty().then_some(None);
    let each = namespaces.iter().map(|namespace| Some(&**namespace));
    for namespace in everywhere.into_iter().chain(each) {
        for_each(&mut Start {
            tasks,
            client,
            namespace,
            engine,
            events,
            ended,
        });
    }
}

/// What one kind is watched with.
struct Feed {
    client: Client,
    watched: Watched,
    engine: Arc<SharedEngine>,
    events: Events,
}

/// How a list or watch ended that did not come to its end.
enum Broken {
    /// A request failed, or what it answered.
    Failed(Failure),
    /// The version to watch from is too old: the next list fixes it.
    Expired,
}

impl From<Failure> for Broken {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Answered(status) if status.code == 410 => Self::Expired,
            failure => Self::Failed(failure),
        }
    }
}

/// What is around the items of a page.
#[derive(Deserialize)]
struct Page {
    metadata: PageMetadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PageMetadata {
    #[serde(default)]
    resource_version: String,
    #[serde(default, rename = "continue")]
    continuation: Option<String>,
}

/// What is around the object of an event.
#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: EventKind,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum EventKind {
    Added,
    Modified,
    Deleted,
    Bookmark,
    Error,
}

impl Feed {
    /// Path of the objects.
    fn path<K: Cached>(&self) -> String {
        K::url_path(&(), self.watched.namespace.as_deref())
    }

    /// Feeds the engine with one kind. Never ends.
    async fn run<K: Cached>(self) {
        let mut backoff = DefaultBackoff::default();
        // List and watch with the most recent semantics: an operator that restarts must never see older state than the
        // one before it did, which a list from any API server's cache could show it.
        let mut version = None;
        loop {
            let ended = match &mut version {
                None => self.list::<K>().await.map(|listed| version = Some(listed)),
                Some(version) => self.watch::<K>(version).await.map(|()| backoff.reset()),
            };
            match ended {
                Ok(()) => continue,
                Err(Broken::Expired) => {
                    tracing::info!(watched = %self.watched, "the API server no longer knows the last version; listing again");
                    version = None;
                }
                Err(Broken::Failed(failure)) => self.failed(&failure),
            }
            tokio::time::sleep(backoff.next().unwrap_or(SILENCE)).await;
        }
    }

    /// Lists all objects. Returns the version from which to watch.
    async fn list<K: Cached>(&self) -> Result<String, Broken> {
        let mut listed = BTreeSet::new();
        let mut continuation = None;
        loop {
            let parameters = ListParams {
                label_selector: K::KIND.selector().map(str::to_owned),
                limit: Some(PAGE),
                continue_token: continuation,
                ..ListParams::default()
            };
            let request = kube::core::Request::new(self.path::<K>());
            let request = request.list(&parameters).map_err(|_| Failure::Malformed)?;
            let page = self.page::<K>(request, &mut listed).await?;
            continuation = page.metadata.continuation.filter(|token| !token.is_empty());
            if continuation.is_none() {
                if page.metadata.resource_version.is_empty() {
                    return Err(Failure::Malformed.into());
                }
                self.engine.with(|engine, now| {
                    engine.listed::<K>(self.watched.namespace.as_deref(), &listed, now);
                    engine.watch_works(&self.watched);
                });
                return Ok(page.metadata.resource_version);
            }
        }
    }

    async fn page<K: Cached>(
        &self,
        request: hyper::Request<Vec<u8>>,
        listed: &mut BTreeSet<NamespacedName>,
    ) -> Result<Page, Broken> {
        let mut pieces = Pieces::new(stream::send(&self.client, request).await?, "items");
        while let Some(ended) = pieces.next().await? {
            match ended {
                Part::Item => {
                    if let Some(key) = self.put(read::<K>(pieces.splitter.item())) {
                        listed.insert(key);
                    }
                    pieces.splitter.forget_item();
                }
                Part::Frame => {
                    let page = serde_json::from_slice(pieces.splitter.frame());
                    return page.map_err(|_| Failure::Malformed.into());
                }
            }
        }
        Err(Failure::Unreachable.into())
    }

    /// Watches from a version on, which follows what is seen, until the API server ends the watch.
    async fn watch<K: Cached>(&self, version: &mut String) -> Result<(), Broken> {
        let begun = Instant::now();
        let parameters = WatchParams {
            label_selector: K::KIND.selector().map(str::to_owned),
            bookmarks: true,
            ..WatchParams::default()
        };
        let request = kube::core::Request::new(self.path::<K>());
        let request = request
            .watch(&parameters, version)
            .map_err(|_| Failure::Malformed)?;
        let answer = stream::send(&self.client, request).await?;
        let mut pieces = Pieces::new(answer, "object");
        let mut has_shown = false;
        while let Some(ended) = pieces.next().await? {
            if ended == Part::Item {
                // Its event's type is around it.
                continue;
            }
            let event: Event =
                serde_json::from_slice(pieces.splitter.frame()).map_err(|_| Failure::Malformed)?;
            let seen = self.event::<K>(event.kind, pieces.splitter.item())?;
            pieces.splitter.forget_item();
            if let Some(seen) = seen {
                *version = seen;
            }
            if !has_shown {
                has_shown = true;
                self.engine.with(|engine, _| engine.watch_works(&self.watched));
            }
        }
        if has_shown || begun.elapsed() >= SHORT {
            self.engine.with(|engine, _| engine.watch_works(&self.watched));
            return Ok(());
        }
        Err(Failure::Unreachable.into())
    }

    /// Feeds one event. Returns the version that it shows.
    fn event<K: Cached>(&self, kind: EventKind, object: &[u8]) -> Result<Option<String>, Broken> {
        match kind {
            EventKind::Error => {
                let status: Status = serde_json::from_slice(object).map_err(|_| Failure::Malformed)?;
                Err(Failure::Answered(Box::new(status)).into())
            }
            EventKind::Bookmark => {
                let bookmark = read_answer(object).map_err(|_| Failure::Malformed)?;
                Ok(bookmark.metadata.resource_version)
            }
            EventKind::Added | EventKind::Modified => {
                let reading = read::<K>(object);
                let version = metadata(&reading).and_then(|meta| meta.resource_version.clone());
                self.put(reading);
                Ok(version)
            }
            EventKind::Deleted => {
                let reading = read::<K>(object);
                let Some(metadata) = metadata(&reading) else {
                    nameless(K::KIND, &reading);
                    return Ok(None);
                };
                self.remove::<K>(metadata);
                Ok(metadata.resource_version.clone())
            }
        }
    }

    /// Feeds what a list or watch shows. Returns the object's key when it counts as one of its kind.
    fn put<K: Cached>(&self, reading: Reading<K>) -> Option<NamespacedName> {
        match reading {
            Reading::Object(object) => {
                let key = NamespacedName::of(object.meta());
                self.engine.with(|engine, now| engine.put(object, now));
                Some(key)
            }
            Reading::Foreign(metadata) => {
                // It may have been Fairway's until somebody took that off it.
                self.remove::<K>(&metadata);
                None
            }
            Reading::Unreadable(metadata, message) => {
                let key = NamespacedName::of(&metadata);
                let announcement = self
                    .engine
                    .with(|engine, now| engine.put_unreadable::<K>(&metadata, &message, now));
                if let Some(announcement) = announcement {
                    tracing::warn!(kind = K::KIND.as_str(), object = %key, %message, "object cannot be read");
                    self.events.announce(announcement);
                }
                Some(key)
            }
            Reading::Nameless(_) => {
                nameless(K::KIND, &reading);
                None
            }
        }
    }

    fn remove<K: Cached>(&self, metadata: &ObjectMeta) {
        let key = NamespacedName::of(metadata);
        self.engine
            .with(|engine, now| engine.remove::<K>(&key, metadata, now));
    }

    fn failed(&self, failure: &Failure) {
        let why = match failure {
            Failure::Answered(status) => match status.code {
                404 => "its CustomResourceDefinition is not installed".to_owned(),
                403 => "the operator's role does not allow to list and watch it".to_owned(),
                code => format!("the API server answered {code}"),
            },
            Failure::Credentials => "the operator's credentials cannot be read".to_owned(),
            Failure::Unreachable => "the API server cannot be reached".to_owned(),
            Failure::Malformed => "the API server's answer cannot be read".to_owned(),
        };
        let watched = self.watched.clone();
        tracing::warn!(%watched, why, "watch failed and will be retried");
        self.engine
            .with(|engine, now| engine.watch_failed(watched, why, now));
    }
}

/// An answer in pieces, and the objects in them.
struct Pieces {
    answer: stream::Answer,
    splitter: Splitter,
    place: Place,
    unread: hyper::body::Bytes,
}

impl Pieces {
    fn new(answer: stream::Answer, member: &'static str) -> Self {
        Self {
            answer,
            splitter: Splitter::new(member),
            place: Place::default(),
            unread: hyper::body::Bytes::new(),
        }
    }

    /// Reads up to the end of the next item or frame; `None` at the end of the answer.
    async fn next(&mut self) -> Result<Option<Part>, Failure> {
        loop {
            // Of an item that was taken nothing is held any more.
            self.place.hold(self.splitter.item().len()).await;
            if self.unread.is_empty() {
                // In the middle of an object nothing is waited for that takes its time.
                let silence = match self.splitter.is_between_frames() {
                    true => WATCH_SILENCE,
                    false => SILENCE,
                };
                match self.answer.next(silence).await? {
                    Some(bytes) => self.unread = bytes,
                    None if self.splitter.is_between_frames() => return Ok(None),
                    None => return Err(Failure::Unreachable),
                }
            }
            let piece = &self.unread[..self.unread.len().min(PIECE)];
            let (read, ended) = self.splitter.read(piece).map_err(|_| Failure::Malformed)?;
            self.unread = self.unread.slice(read..);
            if ended.is_some() {
                return Ok(ended);
            }
        }
    }
}

fn metadata<K: Cached>(reading: &Reading<K>) -> Option<&ObjectMeta> {
    match reading {
        Reading::Object(object) => Some(object.meta()),
        Reading::Foreign(metadata) | Reading::Unreadable(metadata, _) => Some(metadata),
        Reading::Nameless(_) => None,
    }
}

fn nameless<K: Cached>(kind: Kind, reading: &Reading<K>) {
    if let Reading::Nameless(message) = reading {
        tracing::warn!(kind = kind.as_str(), %message, "an object without a name cannot be read");
    }
}

#[cfg(test)]
mod memory;
#[cfg(test)]
pub(crate) mod tests;
