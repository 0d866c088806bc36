//! What planners get to see. Reads the caches; only what no watch shows is asked for ([`foreign`]).

pub(crate) mod app;
pub(crate) mod backup;
pub(crate) mod foreign;
pub(crate) mod migration;
pub(crate) mod release;

use crate::world::cached::Frozen;
use crate::world::group::Group;
use fairway_crds::Release;
use fairway_plan::labels::{self, Work};
use fairway_plan::snapshot::Snapshot;
use kube::ResourceExt;
use std::sync::Arc;

/// The App's Releases but one, in order of revision.
fn releases(group: &Group, but: Option<&str>) -> Vec<Arc<Release>> {
    let mut releases: Vec<_> = group
        .releases
        .all()
        .filter(|release| but != release.metadata.name.as_deref())
        .collect();
    releases.sort_by_key(|release| release.spec.revision);
    releases
}

/// What is kept of the App's ControllerRevisions, by Release.
fn frozen(group: &Group) -> impl Iterator<Item = (&str, Arc<Frozen>)> {
    let names = group.revisions.names().map(|(name, _)| name);
    names.filter_map(|name| Some((name, group.revisions.get(name)?)))
}

/// The snapshot of the Release that work was made for, or what the App's spec is now when it was applied by
/// hand.
fn snapshot_for(group: &Group, release: Option<&str>) -> Option<Arc<Snapshot>> {
    match release {
        Some(release) => group.revisions.get(release).map(|frozen| frozen.spec.clone()),
        None => group.app().map(|app| Arc::new(Snapshot::of(&app.spec))),
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
