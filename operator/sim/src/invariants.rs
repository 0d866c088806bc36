//! What must hold after every write, whoever made it and whatever went wrong before.
//!
//! [`Checker`] is asked after every write of every simulated story. How an object is read, such as whether a pod is ready
//! or which release serves, it shares with the planners ([`fairway_plan::readings`], [`fairway_plan::release::history`]);
//! those readings have tests of their own.

pub(crate) mod at_rest;
mod backups;
mod conditions;
mod history;
mod migrations;
mod restores;
mod scaling;
mod traffic;

use crate::cluster::Cluster;
use crate::store::{ByName, Objects};
use fairway_crds::component::Component;
use fairway_plan::build;
use fairway_plan::release::history::live;
use fairway_plan::snapshot::Snapshot;
use jiff::Timestamp;
use kube::ResourceExt;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How current the operator's observations are, which some invariants need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Observations {
    /// The operator sees everything, as far as its own writes go.
    #[default]
    Current,
    /// The operator was paused between planning and acting, or its caches lag. Only what is fenced must hold.
    Stale,
}

/// Watches the invariants over a whole story.
#[derive(Clone, Debug, Default)]
pub struct Checker {
    /// What did not hold, in the order in which it was found.
    pub violations: Vec<String>,
    /// How current the operator's observations are.
    pub observations: Observations,
    passes: BTreeMap<String, u32>,
    /// UID of the App that is there, or was there last.
    app: Option<String>,
    /// UIDs of the Apps for which the migrations were executed that the database remembers.
    executions: Vec<Option<String>>,
    /// UID of the Release of each name that is there, or was there last.
    release_uids: BTreeMap<String, String>,
    /// Releases, with their UIDs, for which a backup was proven, whether or not it is still there.
    proven: BTreeSet<(String, Option<String>)>,
    created: BTreeSet<(String, i64)>,
    snapshots: BTreeMap<String, Arc<Snapshot>>,
    /// Names of scheduled Backups that were created and that no user has deleted.
    scheduled: BTreeSet<String>,
    /// Sets of backups that were ever verified, by path: when each was taken, and the name of the Backup.
    verified: BTreeMap<String, (Timestamp, String)>,
    /// UIDs of the Restores to whose loss a user agreed.
    agreed: BTreeSet<String>,
    /// Sets of backups in the store as they were last, by path: whether the manifest is there.
    sets: BTreeMap<String, bool>,
}

impl Checker {
    /// Takes note that a pod has passed that many rounds of health requests in a row.
    pub fn passed(&mut self, uid: &str, passes: u32) {
        let best = self.passes.entry(uid.to_owned()).or_default();
        *best = passes.max(*best);
    }

    /// Checks the step from one state to the next.
    pub fn after_write(&mut self, before: &Objects, cluster: &Cluster) {
        let after = cluster.objects();
        self.remember_snapshots(before, after);
        if let Some(app) = after.apps.values().next() {
            self.app = app.uid();
        }
        for (name, release) in changed(&before.releases, &after.releases) {
            self.release_uids
                .insert(name.clone(), release.uid().unwrap_or_default());
        }
        self.migrations(cluster);
        self.dumps(after);
        self.scheduled(before, cluster);
        self.removals(before, cluster);
        self.restores(before, cluster);
        self.services(before, after);
        self.scaling(before, after);
        self.stopping(after);
        self.releases(before, after);
        self.kept(before, after);
        self.ended(before, cluster);
        self.retired(before, after);
        self.ending(before, after);
        self.conditions(before, after);
    }

    /// Takes note of what does not hold.
    pub(crate) fn violated(&mut self, what: String) {
        if !self.violations.contains(&what) {
            self.violations.push(what);
        }
    }

    /// A Release that is there, or was there last, with its UID.
    fn release_of(&self, name: &str) -> (String, Option<String>) {
        (name.to_owned(), self.release_uids.get(name).cloned())
    }

    fn remember_snapshots(&mut self, before: &Objects, after: &Objects) {
        for (name, revision) in changed(&before.revisions, &after.revisions) {
            if let Ok(snapshot) = build::control::snapshot_of(revision) {
                self.snapshots.insert(name.clone(), Arc::new(snapshot));
            }
        }
    }

    fn serving_component(&self, release: &str, service: &str) -> Option<Component> {
        let snapshot = self.snapshots.get(release)?;
        let serves = |component: &&Component| {
            component
                .serves
                .as_ref()
                .is_some_and(|serves| serves.service == service)
        };
        snapshot.components.iter().find(serves).cloned()
    }

    /// Whether the release that serves does not serve this Service: it was renamed or dropped, or the rollback did. If none
    /// serves, because its Release was deleted, the one that takes its place counts.
    fn is_left(&self, objects: &Objects, service: &str) -> bool {
        let newest = objects
            .releases
            .values()
            .max_by_key(|release| release.spec.revision);
        let live = live(objects.releases.values()).or(newest);
        live.is_some_and(|live| {
            self.snapshots.contains_key(&live.name_any())
                && self.serving_component(&live.name_any(), service).is_none()
        })
    }
}

/// An object as it was before; `None` when it is new, also if another one had its name.
fn same_in<'a, T: ResourceExt>(before: &'a ByName<T>, object: &Arc<T>) -> Option<&'a Arc<T>> {
    before
        .get(&object.name_any())
        .filter(|old| old.uid() == object.uid())
}

/// Objects that are new or not what they were.
fn changed<'a, T>(
    before: &'a ByName<T>,
    after: &'a ByName<T>,
) -> impl Iterator<Item = (&'a String, &'a Arc<T>)> {
    after
        .iter()
        .filter(|(name, object)| before.get(*name).is_none_or(|old| !Arc::ptr_eq(old, object)))
}

#[cfg(test)]
mod tests;
