//! What planners get to see. Reads the caches; only a Service that Fairway has not applied yet is asked for.

pub(crate) mod app;
pub(crate) mod backup;
pub(crate) mod foreign;
pub(crate) mod migration;
pub(crate) mod release;

use crate::world::group::{Group, Keep, name_of};
use fairway_crds::Release;
use fairway_plan::labels::{self, Work};
use fairway_plan::snapshot::Snapshot;
use kube::ResourceExt;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The App's Releases but one, in order of revision.
fn releases(group: &Group, but: Option<&str>) -> Vec<Arc<Release>> {
    let mut releases: Vec<_> = group
        .releases
        .all()
        .filter(|release| but != Some(name_of(&***release)))
        .cloned()
        .collect();
    releases.sort_by_key(|release| release.spec.revision);
    releases
}

/// The frozen specs of the App, parsed.
fn snapshots(group: &Group) -> BTreeMap<String, Arc<Snapshot>> {
    group
        .releases
        .all()
        .filter_map(|release| Some((release.name_any(), snapshot(group, name_of(&**release))?)))
        .collect()
}

/// The frozen spec of one Release.
fn snapshot(group: &Group, release: &str) -> Option<Arc<Snapshot>> {
    let keep = if group.is_active() {
        Keep::Parsed
    } else {
        Keep::Compact
    };
    match group.revisions.get(release)?.snapshot(keep) {
        Ok(snapshot) => Some(snapshot),
        Err(error) => {
            let message = crate::execute::refusal::without_values(&error.to_string());
            tracing::warn!(release, %message, "the frozen spec of a release cannot be read");
            None
        }
    }
}

/// The frozen spec of the Release that work was made for, or what the App's spec is now when it was applied by
/// hand.
fn snapshot_for(group: &Group, release: Option<&str>) -> Option<Arc<Snapshot>> {
    match release {
        Some(release) => snapshot(group, release),
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
