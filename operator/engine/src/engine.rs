//! The operator's state between passes.

use crate::announcement::{Announcement, Severity};
use crate::caches::{Backups, Cached};
use crate::clock::{Instant, Now};
use crate::key::{NamespacedName, ObjectKey};
use crate::kinds::{Kind, OwnKind, Unreadable};
use crate::pass::{Action, Pass};
use crate::probes::{Probe, Probing};
use crate::queue::Load;
use crate::request::Answer;
use crate::state::State;
use crate::watched::Watched;
use fairway_crds::Reason;
use fairway_plan::observed::{PodHealth, ProbeTarget, Settings};
use fairway_plan::protocol::ProbeVerdict;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::core::ObjectMeta;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// An operator without its I/O. A driver feeds it what watches show, starts the passes that it has ready, carries
/// their requests to the API server and their answers back, and asks pods.
#[derive(Clone, Debug)]
pub struct Engine {
    state: State,
    /// Kinds whose first list has not come in, and why.
    missing: BTreeMap<Watched, String>,
    failing: BTreeMap<Watched, Failing>,
    leads: bool,
    /// Since when passes may start.
    works_since: Option<Instant>,
}

/// A watch that has worked and fails now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failing {
    /// When it failed first.
    pub since: Timestamp,
    /// Why it failed last.
    pub why: String,
}

impl Engine {
    /// An operator that has seen nothing yet, and starts up to `concurrency` passes of each kind at once.
    pub fn new(settings: Settings, concurrency: u16) -> Self {
        Self::of_namespaces(settings, concurrency, &[])
    }

    /// An operator of the Apps in these namespaces, each of which has watches of its own; without any, in all namespaces.
    pub fn of_namespaces(settings: Settings, concurrency: u16, namespaces: &[String]) -> Self {
        let missing =
            Watched::all(namespaces).map(|watched| (watched, "the first list is under way".to_owned()));
        Self {
            state: State::new(settings, concurrency),
            missing: missing.collect(),
            failing: BTreeMap::new(),
            leads: false,
            works_since: None,
        }
    }

    /// Sets the image that holds the agent.
    pub fn set_agent_image(&mut self, image: &str) {
        Arc::make_mut(&mut self.state.settings).agent_image = image.to_owned();
    }

    /// Takes in an object as a watch or list shows it.
    pub fn put<K: Cached>(&mut self, object: K, now: Now) {
        let work = self.state.caches.put(object);
        self.enqueue(work, now);
    }

    /// Takes in that an object is gone.
    pub fn remove<K: Cached>(&mut self, key: &NamespacedName, meta: &ObjectMeta, now: Now) {
        let work = self.state.caches.remove::<K>(key, meta);
        self.enqueue(work, now);
    }

    /// Takes in an object that could not be parsed; what follows for its App is in the table of kinds. Returns the
    /// Event to announce, if that is news.
    pub fn put_unreadable<K: Cached>(
        &mut self,
        meta: &ObjectMeta,
        message: &str,
        now: Now,
    ) -> Option<Announcement> {
        let kind = K::KIND;
        let work = self.state.caches.put_unreadable::<K>(meta)?;
        self.enqueue(work, now);
        let resource = kind.api_resource();
        let about = ObjectReference {
            api_version: Some(resource.api_version),
            kind: Some(resource.kind),
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
            field_path: None,
        };
        let blocks_app = self.state.caches.blocks_app(kind, meta);
        let consequence = match (kind, kind.unreadable()) {
            (Kind::App, _) => "nothing is done for it",
            (_, Unreadable::BlocksApp) if !blocks_app => {
                "it is ignored, because nothing says to which App it belongs"
            }
            (_, Unreadable::BlocksApp) => "nothing is done for its App",
            (_, Unreadable::Ignored) => "it is ignored",
        };
        let kind = kind.as_str();
        Some(Announcement {
            about,
            severity: Severity::Warning,
            reason: Reason::Unreadable.to_string(),
            message: format!(
                "This version of Fairway cannot read this {kind}, so {consequence}: {message}. Correct or delete this \
                 object."
            ),
        })
    }

    /// Ends a list of a namespace, or of all, which makes the cache of the kind complete there: what it did not hold is gone.
    pub fn listed<K: Cached>(
        &mut self,
        namespace: Option<&str>,
        listed: &BTreeSet<NamespacedName>,
        now: Now,
    ) {
        let work = self.state.caches.retain::<K>(namespace, listed);
        self.enqueue(work, now);
        self.missing.remove(&Watched::new(K::KIND, namespace));
        self.look_whether_it_works(now);
    }

    /// Takes in why a list or watch fails. A cache that is complete stays complete: what is planned from it is
    /// as old as the failure, and a write that was decided on an older object is refused.
    pub fn watch_failed(&mut self, watched: Watched, why: String, now: Now) {
        match self.missing.get_mut(&watched) {
            Some(missing) => *missing = why,
            None => {
                let failing = self.failing.entry(watched).or_insert_with(|| Failing {
                    since: now.wall,
                    why: String::new(),
                });
                failing.why = why;
            }
        }
    }

    /// Takes in that a list or watch works.
    pub fn watch_works(&mut self, watched: &Watched) {
        self.failing.remove(watched);
    }

    /// Kinds whose watch fails although their first list came in.
    pub fn failing(&self) -> &BTreeMap<Watched, Failing> {
        &self.failing
    }

    /// Kinds whose first list has not come in, and why: no pass starts before, since a plan on half of the caches
    /// would be a plan on a cluster that never was.
    pub fn missing(&self) -> &BTreeMap<Watched, String> {
        &self.missing
    }

    /// Takes in whether this process leads. A new leader looks at everything: timers and probes of its predecessor
    /// are gone. One that no longer leads asks no pod any more.
    pub fn set_leads(&mut self, leads: bool, now: Now) {
        self.leads = leads;
        self.look_whether_it_works(now);
        if leads {
            let everything = self.state.caches.everything();
            self.enqueue(everything, now);
        } else {
            self.state.probes.clear();
        }
    }

    fn look_whether_it_works(&mut self, now: Now) {
        let works = self.leads && self.missing.is_empty();
        self.works_since = works.then(|| self.works_since.unwrap_or(now.monotonic));
    }

    /// Starts the next pass, if one is due and may start.
    pub fn start(&mut self, now: Now) -> Option<Pass> {
        let works_since = self.works_since?;
        let (work, since) = self.state.queue.start(now.monotonic)?;
        // What waited for the caches, or for another process, did not wait for this one.
        let waited = now.monotonic.since(since.max(works_since));
        Some(Pass::new(work, since, waited))
    }

    /// Goes on with a pass: takes the answer to what it asked for last, [`Answer::Nothing`] to begin, and returns what
    /// it asks for next. After [`Action::Done`] the pass is of no more use.
    pub fn next(&mut self, pass: &mut Pass, answer: Answer, now: Now) -> Action {
        pass.next(&mut self.state, answer, now)
    }

    /// Whether a pass can be started now, timers aside.
    pub fn is_ready(&self) -> bool {
        self.works_since.is_some() && self.state.queue.is_ready()
    }

    /// When the next timer goes off; `None` while no pass may start.
    pub fn next_timer(&self) -> Option<Instant> {
        self.works_since.and_then(|_| self.state.queue.next_timer())
    }

    /// From now on, for this Release, exactly these pods are to be asked; a pass says so with [`Action::Probe`]. Returns
    /// the probes that begin.
    pub fn probe(&mut self, release: &NamespacedName, targets: Vec<ProbeTarget>) -> Vec<Probe> {
        self.state.probes.set(release, targets)
    }

    /// Whether a pod is to be asked again by this probe.
    pub fn wants(&mut self, probe: &Probe) -> Probing {
        if self.state.probes.is_wanted(probe) {
            Probing::Continues
        } else {
            Probing::Ends
        }
    }

    /// Counts a round of a probe, and enqueues the Release to which it is news.
    pub fn probed(&mut self, probe: &Probe, verdict: ProbeVerdict, now: Now) -> Probing {
        match self.state.probes.count(probe, verdict) {
            None => Probing::Ends,
            Some(is_news) => {
                if is_news {
                    let work = ObjectKey::new(OwnKind::Release, probe.release.clone());
                    self.state.queue.add(work, now.monotonic);
                }
                Probing::Continues
            }
        }
    }

    /// Every pod that is asked, and what was found.
    pub fn probes(&self) -> impl Iterator<Item = (&Probe, &PodHealth)> {
        self.state.probes.all()
    }

    /// How busy a kind is.
    pub fn load(&self, kind: OwnKind) -> Load {
        self.state.queue.load(kind)
    }

    /// Number of objects of a kind that are cached.
    pub fn cached<K: Cached>(&self) -> usize {
        self.state.caches.count(K::KIND)
    }

    /// The backups of each App with a schedule, as metrics show them.
    pub fn backed_up(&self) -> impl Iterator<Item = (&NamespacedName, Backups)> {
        self.state.caches.backed_up()
    }

    /// Number of objects that could not be parsed.
    pub fn unreadable(&self) -> usize {
        self.state.caches.unreadable()
    }

    fn enqueue(&mut self, work: Vec<ObjectKey>, now: Now) {
        for work in work {
            self.state.queue.add(work, now.monotonic);
        }
    }
}
