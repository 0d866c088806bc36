//! A story as a user would have seen it: what was done, and what Fairway said and did about it, line by
//! line with the seconds since the beginning.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::Result;
use fairway_crds::{App, Backup, Migration, Release};
use futures::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Service;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;

use crate::context::Context;
use crate::load::{Running, assert_going_well};
use crate::seen;

/// The longest text of a line; statuses say more to whoever asks.
const WIDTH: usize = 150;

/// The lines of one story.
#[derive(Clone)]
pub struct Timeline {
    since: Instant,
    /// The last lines of each object, because a watch also reports what does not matter here.
    shown: Arc<Mutex<HashMap<String, Vec<String>>>>,
}

/// Prints what happens to Fairway's objects until it is dropped.
pub struct Watching {
    _tasks: JoinSet<()>,
}

impl Timeline {
    /// A story that begins now.
    #[must_use]
    #[expect(
        clippy::new_without_default,
        reason = "it begins at a moment, which is no default"
    )]
    pub fn new() -> Self {
        Self {
            since: Instant::now(),
            shown: Arc::default(),
        }
    }

    /// A heading.
    pub fn chapter(&self, title: &str) {
        println!("\n{:>7.1}s  ━━ {title}", self.since.elapsed().as_secs_f64());
    }

    /// What the user in the story does.
    pub fn act(&self, what: &str) {
        self.line("you", what);
    }

    /// What was proven.
    pub fn proven(&self, what: &str) {
        self.line("✓", what);
    }

    /// Prints how the load is doing, and fails if a request has failed.
    ///
    /// # Errors
    /// When one has failed.
    pub async fn requests(&self, of: &str, load: &Running) -> Result<()> {
        let report = load.report().await?;
        assert_going_well(&report)?;
        self.line(
            "✓",
            &format!(
                "clients of {of}: {} requests so far, {} failed, half of them within {} ms, 99 of 100 within {} ms",
                report.sent, report.failed, report.latency.p50_ms, report.latency.p99_ms
            ),
        );
        Ok(())
    }

    fn line(&self, who: &str, text: &str) {
        let mut text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if let Some((cut, _)) = text.char_indices().nth(WIDTH) {
            text.truncate(cut);
            text.push('…');
        }
        println!("{:>7.1}s  {who:<10} {text}", self.since.elapsed().as_secs_f64());
    }

    /// Prints from now on what happens to Fairway's objects in the namespace.
    #[must_use]
    pub fn watch(&self, context: &Context) -> Watching {
        let mut tasks = JoinSet::new();
        self.follow(&mut tasks, context, releases);
        self.follow(&mut tasks, context, backups);
        self.follow(&mut tasks, context, migrations);
        self.follow(&mut tasks, context, services);
        self.follow(&mut tasks, context, apps);
        Watching { _tasks: tasks }
    }

    fn follow<K>(&self, tasks: &mut JoinSet<()>, context: &Context, lines: fn(&K) -> Vec<String>)
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + 'static,
    {
        let timeline = self.clone();
        let events = watcher(context.api::<K>(), watcher::Config::default());
        tasks.spawn(async move {
            let mut events = events.default_backoff().boxed();
            let mut begun = false;
            while let Some(event) = events.next().await {
                let (object, news) = match event {
                    Ok(watcher::Event::Apply(object)) => (object, true),
                    Ok(watcher::Event::InitApply(object)) => (object, begun),
                    Ok(watcher::Event::InitDone) => {
                        begun = true;
                        continue;
                    }
                    // A watch that breaks reconnects by itself.
                    Ok(watcher::Event::Init | watcher::Event::Delete(_)) | Err(_) => continue,
                };
                let key = format!("{} {}", K::kind(&()), object.name_any());
                timeline.show(&key, &object.name_any(), lines(&object), news);
            }
        });
    }

    /// Prints what is new about an object; what was so before is no news.
    fn show(&self, key: &str, name: &str, lines: Vec<String>, news: bool) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let before = shown.entry(key.to_owned()).or_default();
        for line in &lines {
            if news && !before.contains(line) {
                self.line(name, line);
            }
        }
        *before = lines;
    }
}

fn releases(release: &Release) -> Vec<String> {
    let status = release.status.clone().unwrap_or_default();
    let reached = status.milestones.iter().map(|milestone| {
        let why = milestone
            .message
            .as_ref()
            .map(|why| format!(": {why}"))
            .unwrap_or_default();
        format!("● {:?}{why}", milestone.kind)
    });
    let said = seen::release_condition(release, "Succeeded");
    let said = said.map(|condition| {
        // The milestone says why it rolls back; what it does now comes after that.
        let mut causes = status
            .milestones
            .iter()
            .filter_map(|milestone| milestone.message.as_deref());
        let message = condition
            .message
            .strip_prefix("Rolling back: ")
            .unwrap_or(&condition.message);
        let message = causes
            .find_map(|cause| message.strip_prefix(cause))
            .unwrap_or(message)
            .trim_start();
        format!("{}: {message}", condition.reason)
    });
    reached.chain(said).collect()
}

fn backups(backup: &Backup) -> Vec<String> {
    let status = backup.status.clone().unwrap_or_default();
    let line = status.outcome.map(|outcome| {
        format!(
            "backup {outcome:?}: {} bytes, proven to level {}, sha256 {:.12}…",
            status.bytes.unwrap_or_default(),
            status.level.as_deref().unwrap_or("none"),
            status.sha256.as_deref().unwrap_or("none"),
        )
    });
    line.into_iter().collect()
}

fn migrations(migration: &Migration) -> Vec<String> {
    let status = migration.status.clone().unwrap_or_default();
    let line = status.outcome.map(|outcome| {
        let seconds = status
            .seconds
            .map(|seconds| format!(" after {seconds:.1} s"))
            .unwrap_or_default();
        format!("migration {outcome:?}{seconds}")
    });
    line.into_iter().collect()
}

fn services(service: &Service) -> Vec<String> {
    let line = seen::selected(service).map(|release| format!("Service selects {release}"));
    line.into_iter().collect()
}

fn apps(app: &App) -> Vec<String> {
    let line = seen::app_condition(app, "Ready");
    let line = line.map(|ready| format!("App is Ready={}: {}", ready.status, ready.reason));
    line.into_iter().collect()
}
