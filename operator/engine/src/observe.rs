//! What planners get to see. Reads the caches; what no watch shows is looked up by the pass ([`crate::lookups`]).

mod app;
mod backup;
mod migration;
mod release;

use crate::caches::{Group, KeptSnapshot};
use crate::clock::Instant;
use crate::key::Key;
use crate::kinds::Release;
use crate::lookups::{Found, Lookup};
use crate::planned::Planned;
use crate::probes::Probes;
use crate::refusals::Refusals;
use crate::state::State;
use fairway_plan::Step;
use fairway_plan::labels::{self, Work};
use fairway_plan::observed::{ProbeTarget, Settings};
use fairway_plan::snapshot::Snapshot;
use kube::ResourceExt;
use std::sync::Arc;

/// How the objects of a kind are observed.
pub(crate) trait Observe: Planned {
    /// What the caches show; `None` when the object is gone.
    fn observe(sight: &Sight<'_>, key: &Key) -> Option<Self::Observed>;

    /// What else has to be looked up.
    fn lookups(_observed: &Self::Observed, _key: &Key) -> Vec<Lookup> {
        Vec::new()
    }

    /// Adds what was looked up under a name.
    fn add(_observed: &mut Self::Observed, _name: &str, _found: Found) {}

    /// Which pods are to be asked from now on; `None` for a kind that asks none.
    fn probes(_observed: &Self::Observed, _settings: &Settings) -> Option<Vec<ProbeTarget>> {
        None
    }

    /// Forgets an object that is gone. Returns what it has left behind that nobody else removes.
    fn gone(_state: &mut State, _key: &Key) -> Vec<Step> {
        Vec::new()
    }
}

/// What there is to look at on behalf of one object.
pub(crate) struct Sight<'a> {
    /// The objects of the App.
    pub(crate) group: &'a Group,
    /// The App.
    pub(crate) app: &'a Key,
    /// What the API server has refused.
    pub(crate) refusals: &'a Refusals,
    /// What health requests have found.
    pub(crate) probes: &'a Probes,
    /// The time.
    pub(crate) now: Instant,
}

impl Sight<'_> {
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
            None => self.group.app().map(|app| Arc::new(Snapshot::of(&app.spec))),
        }
    }
}

/// Whether a Job or pod does one of these kinds of work for the object of that name.
fn works_for(object: &impl ResourceExt, name: &str, kinds: &[Work]) -> bool {
    let labels = object.labels();
    labels
        .get(labels::WORK_FOR)
        .is_some_and(|work_for| work_for == name)
        && labels
            .get(labels::WORK)
            .is_some_and(|work| kinds.iter().any(|kind| kind.as_str() == work))
}
