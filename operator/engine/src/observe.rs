//! What planners get to see. Reads the caches; what no watch shows is looked up by the pass ([`crate::lookups`]).

mod app;
mod backup;
mod migration;
mod release;
mod restore;

use crate::answers::Answers;
use crate::caches::{Group, KeptSnapshot, Serving, Shared};
use crate::clock::Instant;
use crate::key::NamespacedName;
use crate::kinds::{App, Release};
use crate::lookups::{Lookup, LookupResult};
use crate::planned::Planned;
use crate::probe_pods::ProbePods;
use crate::probes::Probes;
use crate::state::State;
use fairway_plan::Step;
use fairway_plan::observed::{ProbeTarget, Settings};
use fairway_plan::snapshot::Snapshot;
use kube::core::ObjectMeta;
use std::sync::Arc;

/// How the objects of a kind are observed.
pub(crate) trait Observe: Planned {
    /// What the caches show; `None` when the object is gone.
    fn observe(scope: &mut Scope<'_>, key: &NamespacedName) -> Option<Self::Observed>;

    /// What else has to be looked up.
    fn lookups(_observed: &Self::Observed, _key: &NamespacedName) -> Vec<Lookup> {
        Vec::new()
    }

    /// Adds what was looked up under a name.
    fn add(_observed: &mut Self::Observed, _name: &str, _found: LookupResult) {}

    /// Which pods are to be asked from now on; `None` for a kind that asks none.
    fn probes(_observed: &Self::Observed, _settings: &Settings) -> Option<Vec<ProbeTarget>> {
        None
    }

    /// Forgets an object that is gone. Returns what it has left behind that nobody else removes.
    fn gone(_state: &mut State, _key: &NamespacedName) -> Vec<Step> {
        Vec::new()
    }
}

/// What the planner's view of one object is made from: the App's cached objects and what this process has learned.
pub(crate) struct Scope<'a> {
    /// The objects of the App.
    pub(crate) group: &'a Group,
    /// The App.
    pub(crate) app: &'a NamespacedName,
    /// Which Apps serve which Services.
    pub(crate) serving: &'a Serving,
    /// Objects that belong to no App.
    pub(crate) shared: Shared<'a>,
    /// What the API server has refused.
    pub(crate) answers: &'a Answers,
    /// What health requests have found.
    pub(crate) probes: &'a Probes,
    /// The pods through which they are made.
    pub(crate) probe_pods: &'a mut ProbePods,
    /// What is fixed for the process.
    pub(crate) settings: &'a Settings,
    /// The time.
    pub(crate) now: Instant,
}

impl Scope<'_> {
    /// The App, unless it is being deleted: then it is gone to whatever is planned for it.
    fn app(&self) -> Option<Arc<App>> {
        self.group.app().filter(|app| stays(&app.metadata))
    }

    /// The App's Releases but one, in order of revision.
    fn releases(&self, but: Option<&str>) -> Vec<Arc<Release>> {
        let mut releases: Vec<_> = self
            .group
            .releases
            .all()
            .filter(|release| but != release.metadata.name.as_deref())
            .collect();
        releases.sort_by_key(|release| release.spec.revision);
        releases
    }

    /// What is kept of the App's ControllerRevisions, by Release.
    fn snapshots(&self) -> impl Iterator<Item = (&str, Arc<KeptSnapshot>)> {
        let revisions = &self.group.revisions;
        let names = revisions.names().map(|(name, _)| name);
        names.filter_map(|name| Some((name, revisions.get(name)?)))
    }

    /// The snapshot of the Release that work runs for, or what the App's spec is now when a user applied the work.
    fn snapshot_for(&self, release: Option<&str>) -> Option<Arc<Snapshot>> {
        match release {
            Some(release) => self
                .group
                .revisions
                .get(release)
                .map(|kept| kept.snapshot.clone()),
            None => self.app().map(|app| Arc::new(Snapshot::of(&app.spec))),
        }
    }
}

/// Whether an object is not being deleted.
fn stays(meta: &ObjectMeta) -> bool {
    meta.deletion_timestamp.is_none()
}
