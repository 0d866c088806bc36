//! What must hold after every write, whoever made it and whatever went wrong before.
//!
//! The planners do not look at this file; it states in other words what they are to guarantee. [`Checker`] is
//! asked after every write of every simulated story.

use crate::cluster::Cluster;
use crate::store::{ByName, Objects};
use fairway_crds::component::{Component, Strategy};
use fairway_crds::condition::{
    BAKING, DIVERGED_FROM_SPEC, READY, RECONCILING, SCHEMA_AHEAD, STALLED, SUCCEEDED,
};
use fairway_crds::migration::MigrationSpec;
use fairway_crds::release::{MilestoneKind, ReleaseOutcome};
use fairway_crds::{Release, ReleaseStatus};
use fairway_plan::readings::{has_finished, is_ready, replicas_of};
use fairway_plan::release::history::{happened, has_begun, has_ended};
use fairway_plan::snapshot::Snapshot;
use fairway_plan::{build, labels};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Types of the conditions that a kind always has, and of those that it has only while they are true.
type Types = (&'static [&'static str], &'static [&'static str]);
const OF_APP: Types = (
    &[READY],
    &[RECONCILING, STALLED, BAKING, DIVERGED_FROM_SPEC, SCHEMA_AHEAD],
);
const OF_RELEASE: Types = (&[SUCCEEDED, READY], &[RECONCILING, STALLED, BAKING, SCHEMA_AHEAD]);
/// Bounded work: a Migration, a Backup.
const OF_WORK: Types = (&[SUCCEEDED, READY], &[RECONCILING, STALLED]);

/// How current the operator's observations are, which some invariants need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sight {
    /// It sees everything, as far as its own writes go.
    #[default]
    Current,
    /// It acts on what is long past: it was stopped between planning and acting, or its caches lag. What is
    /// fenced must hold all the same; what is only seen may be set right a moment later.
    Past,
}

/// Watches the invariants over a whole story.
#[derive(Clone, Debug, Default)]
pub struct Checker {
    /// What did not hold, in the order in which it was found.
    pub broken: Vec<String>,
    /// How current the operator's observations are.
    pub sight: Sight,
    passes: BTreeMap<String, u32>,
    executions: usize,
    minted: BTreeSet<(String, i64)>,
    snapshots: BTreeMap<String, Arc<Snapshot>>,
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
        self.migrations(cluster);
        self.services(before, after);
        self.scaling(before, after);
        self.stopping(after);
        self.releases(before, after);
        self.kept(before, after);
        self.conditions(before, after);
    }

    fn is_broken(&mut self, what: String) {
        if !self.broken.contains(&what) {
            self.broken.push(what);
        }
    }

    fn remember_snapshots(&mut self, before: &Objects, after: &Objects) {
        for (name, revision) in changed(&before.revisions, &after.revisions) {
            if let Ok(snapshot) = build::control::snapshot_of(revision) {
                self.snapshots.insert(name.clone(), Arc::new(snapshot));
            }
        }
    }

    /// A migration is executed at most once for its run, never when the ledger says that it was applied, and
    /// never before a backup made for its release is proven.
    fn migrations(&mut self, cluster: &Cluster) {
        let executions = &cluster.database.executions;
        for (index, execution) in executions.iter().enumerate().skip(self.executions) {
            let identity = &execution.identity;
            let same = |other: &&crate::database::Execution| {
                other.identity.image_digest == identity.image_digest
                    && other.identity.command_hash == identity.command_hash
            };
            let earlier: Vec<_> = executions[..index].iter().filter(same).collect();
            if earlier.iter().any(|other| other.release == execution.release) {
                self.is_broken(format!(
                    "the migration of {} was executed twice",
                    execution.release
                ));
            }
            let applied = earlier
                .iter()
                .any(|other| cluster.database.has_applied(&other.identity));
            if applied {
                self.is_broken(format!(
                    "{} executed a migration that the ledger has",
                    execution.release
                ));
            }
            let proven = cluster.objects().backups.values().any(|backup| {
                backup.spec.release.as_deref() == Some(&execution.release)
                    && backup.status.as_ref().is_some_and(|status| {
                        status.outcome == Some(fairway_crds::backup::BackupOutcome::Succeeded)
                    })
            });
            if !proven {
                self.is_broken(format!("{} migrated without a proven backup", execution.release));
            }
        }
        self.executions = executions.len();
    }

    /// A selector is never empty, and only ever moves to a release whose pods are ready and, forward, healthy.
    fn services(&mut self, before: &Objects, after: &Objects) {
        for (name, service) in changed(&before.services, &after.services) {
            let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
            if selector.is_none_or(BTreeMap::is_empty) {
                self.is_broken(format!("Service {name} selects nothing"));
            }
            let old = before
                .services
                .get(name)
                .and_then(|old| build::service::selected_release(old));
            let Some(new) = build::service::selected_release(service) else {
                continue;
            };
            if old != Some(new) && !goes_on_serving(after, new) && self.sight == Sight::Current {
                self.switched(after, service, new);
            }
        }
    }

    fn switched(&mut self, after: &Objects, service: &Service, release: &str) {
        let Some(component) = self.serving_component(release, &service.name_any()) else {
            self.is_broken(format!(
                "Service {} selects {release}, which does not serve it",
                service.name_any()
            ));
            return;
        };
        let ready: Vec<_> = pods_of(after, &component.name, release)
            .filter(|pod| is_ready(pod))
            .collect();
        let unproven = ready.iter().find(|pod| {
            let passes = pod
                .uid()
                .and_then(|uid| self.passes.get(&uid))
                .copied()
                .unwrap_or_default();
            component
                .health
                .as_ref()
                .is_some_and(|health| passes < health.success_threshold)
        });
        let goes_back = after
            .releases
            .values()
            .filter_map(|found| found.status.as_ref())
            .any(|status| {
                happened(status, MilestoneKind::RollingBack).is_some()
                    && status.previous.as_deref() == Some(release)
            });
        if ready.is_empty() {
            self.is_broken(format!("traffic moved to {release}, which has no ready pod"));
        } else if let (Some(pod), false) = (unproven, goes_back) {
            self.is_broken(format!(
                "traffic moved to {release} before pod {} was healthy",
                pod.name_any()
            ));
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

    /// What a Service selects is not scaled below what the App wants today. A component that never runs twice
    /// has to be: its successor cannot be ready before.
    fn scaling(&mut self, before: &Objects, after: &Objects) {
        for (name, deployment) in changed(&before.deployments, &after.deployments) {
            let Some(old) = before.deployments.get(name) else {
                continue;
            };
            if replicas_of(deployment) >= replicas_of(old) || self.sight == Sight::Past {
                continue;
            }
            let labels = deployment.labels();
            let of = |key: &str| labels.get(key).map(String::as_str).unwrap_or_default();
            let (component, release) = (of(labels::COMPONENT), of(labels::RELEASE));
            let is_selected = after.services.values().any(|service| {
                let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
                selector.is_some_and(|selector| {
                    !selector.is_empty() && selector.iter().all(|(key, value)| labels.get(key) == Some(value))
                })
            });
            let desired = after.apps.get(of(labels::APP)).and_then(|app| {
                app.spec
                    .components
                    .iter()
                    .find(|found| found.name == component)
                    .map(|found| found.replicas)
            });
            let is_less = desired.is_some_and(|desired| replicas_of(deployment) < desired);
            if is_selected && is_less && !self.stops(release, component) {
                self.is_broken(format!("{name} was scaled down while a Service selects it"));
            }
        }
    }

    fn stops(&self, release: &str, component: &str) -> bool {
        let snapshot = self.snapshots.get(release);
        snapshot
            .and_then(|snapshot| snapshot.component(component))
            .is_some_and(|component| component.strategy == Strategy::Recreate)
    }

    /// Pods of two releases of a component that never runs twice never exist at once, terminating ones included.
    fn stopping(&mut self, after: &Objects) {
        let mut releases: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
        for pod in after.pods.values().filter(|pod| !has_finished(pod)) {
            let labels = pod.labels();
            let of = |key: &str| labels.get(key).map(String::as_str);
            if let (Some(app), Some(component), Some(release)) =
                (of(labels::APP), of(labels::COMPONENT), of(labels::RELEASE))
            {
                releases.entry((app, component)).or_default().insert(release);
            }
        }
        let twice: Vec<String> = releases
            .into_iter()
            .filter(|((_, component), releases)| {
                releases.len() > 1 && releases.iter().any(|release| self.stops(release, component))
            })
            .map(|((_, component), releases)| format!("component {component} ran in {releases:?} at once"))
            .collect();
        for what in twice {
            self.is_broken(what);
        }
    }

    fn releases(&mut self, before: &Objects, after: &Objects) {
        for (name, release) in changed(&before.releases, &after.releases) {
            match before.releases.get(name).filter(|old| old.uid() == release.uid()) {
                Some(old) => self.history(name, old, release),
                None => self.minted(after, name, release),
            }
        }
        let mut begun: BTreeMap<&str, Vec<&String>> = BTreeMap::new();
        for (name, release) in &after.releases {
            if has_begun(release) && !has_ended(release) {
                begun.entry(&release.spec.app).or_default().push(name);
            }
        }
        let twice: Vec<_> = begun
            .into_values()
            .filter(|names| names.len() > 1)
            .map(|names| format!("{names:?}"))
            .collect();
        for names in twice {
            self.is_broken(format!("{names} are past the point of no return at once"));
        }
    }

    /// No revision of an App is minted twice.
    fn minted(&mut self, after: &Objects, name: &str, release: &Release) {
        let app = after
            .apps
            .get(&release.spec.app)
            .and_then(|app| app.uid())
            .unwrap_or_default();
        if !self.minted.insert((app, release.spec.revision)) {
            self.is_broken(format!("{name} was minted twice"));
        }
    }

    /// Milestones are only appended to, and an outcome is for good, but that a person may take a success back.
    fn history(&mut self, name: &str, old: &Release, new: &Release) {
        let empty = ReleaseStatus::default();
        let (before, after) = (
            old.status.as_ref().unwrap_or(&empty),
            new.status.as_ref().unwrap_or(&empty),
        );
        if !after.milestones.starts_with(&before.milestones) {
            self.is_broken(format!("milestones of {name} were rewritten"));
        }
        let kinds: Vec<_> = after.milestones.iter().map(|milestone| milestone.kind).collect();
        if kinds
            .iter()
            .enumerate()
            .any(|(index, kind)| kinds[..index].contains(kind))
        {
            self.is_broken(format!("{name} reached a milestone twice: {kinds:?}"));
        }
        let by_person = happened(before, MilestoneKind::RollingBack).is_none()
            && happened(after, MilestoneKind::RollingBack)
                .is_some_and(|milestone| milestone.reason.as_deref() == Some("RollbackRequested"));
        match (before.outcome, after.outcome) {
            (Some(ReleaseOutcome::Succeeded), None) if by_person => {}
            (Some(old), new) if new != Some(old) => {
                self.is_broken(format!("the outcome of {name} changed from {old:?} to {new:?}"));
            }
            _ => {}
        }
    }

    /// Backups are not deleted, and what a revision releases does not change.
    fn kept(&mut self, before: &Objects, after: &Objects) {
        let gone: Vec<_> = before
            .backups
            .keys()
            .filter(|name| !after.backups.contains_key(*name))
            .cloned()
            .collect();
        for name in gone {
            self.is_broken(format!("Backup {name} was deleted"));
        }
        for (name, revision) in changed(&before.revisions, &after.revisions) {
            if before
                .revisions
                .get(name)
                .is_some_and(|old| old.uid() == revision.uid() && old.data != revision.data)
            {
                self.is_broken(format!("the snapshot of {name} changed"));
            }
        }
        for (name, release) in changed(&before.releases, &after.releases) {
            if before
                .releases
                .get(name)
                .is_some_and(|old| old.uid() == release.uid() && old.spec != release.spec)
            {
                self.is_broken(format!("the spec of {name} changed"));
            }
        }
        for (name, migration) in changed(&before.migrations, &after.migrations) {
            let same = |old: &MigrationSpec| *old == migration.spec;
            if before
                .migrations
                .get(name)
                .is_some_and(|old| old.uid() == migration.uid() && !same(&old.spec))
            {
                self.is_broken(format!("the spec of migration {name} changed"));
            }
        }
    }

    /// Conditions are complete from the first write on, `Reconciling` and `Stalled` are never true together, and
    /// the generation is told.
    fn conditions(&mut self, before: &Objects, after: &Objects) {
        let mut seen = Vec::new();
        for (name, app) in changed(&before.apps, &after.apps) {
            let status = app.status.clone().unwrap_or_default();
            seen.push((
                format!("App {name}"),
                status.observed_generation,
                status.conditions,
                OF_APP,
            ));
        }
        for (name, release) in changed(&before.releases, &after.releases) {
            let status = release.status.clone().unwrap_or_default();
            seen.push((
                format!("Release {name}"),
                status.observed_generation,
                status.conditions,
                OF_RELEASE,
            ));
        }
        for (name, migration) in changed(&before.migrations, &after.migrations) {
            let status = migration.status.clone().unwrap_or_default();
            seen.push((
                format!("Migration {name}"),
                status.observed_generation,
                status.conditions,
                OF_WORK,
            ));
        }
        for (name, backup) in changed(&before.backups, &after.backups) {
            let status = backup.status.clone().unwrap_or_default();
            seen.push((
                format!("Backup {name}"),
                status.observed_generation,
                status.conditions,
                OF_WORK,
            ));
        }
        for (name, generation, conditions, expected) in seen {
            if generation.is_some_and(|generation| generation > 0) {
                self.complete(&name, &conditions, expected);
            }
        }
    }

    fn complete(&mut self, name: &str, conditions: &[Condition], expected: Types) {
        let types: BTreeSet<_> = conditions
            .iter()
            .map(|condition| condition.type_.as_str())
            .collect();
        let (always, passing) = expected;
        let is_known = |type_: &&str| always.contains(type_) || passing.contains(type_);
        if !always.iter().all(|type_| types.contains(type_)) || !types.iter().all(is_known) {
            self.is_broken(format!("{name} has the conditions {types:?}"));
        }
        let passing = conditions
            .iter()
            .filter(|condition| passing.contains(&&*condition.type_));
        for condition in passing.filter(|condition| condition.status != "True") {
            self.is_broken(format!("{name} has {} although it is not true", condition.type_));
        }
        let is_true = |type_: &str| {
            conditions
                .iter()
                .any(|condition| condition.type_ == type_ && condition.status == "True")
        };
        if is_true(RECONCILING) && is_true(STALLED) {
            self.is_broken(format!("{name} is reconciling and stalled at once"));
        }
        if let Some(condition) = conditions.iter().find(|condition| {
            condition.reason.is_empty()
                || condition.message.is_empty()
                || condition.observed_generation.is_none()
        }) {
            self.is_broken(format!(
                "{name}: condition {} lacks a reason, a message or its generation",
                condition.type_
            ));
        }
    }
}

/// Whether a release had the traffic already and never gave it back: pointing a Service at it again sets right
/// what another hand has done.
fn goes_on_serving(after: &Objects, release: &str) -> bool {
    let status = after
        .releases
        .get(release)
        .and_then(|release| release.status.as_ref());
    status.is_some_and(|status| {
        happened(status, MilestoneKind::TrafficMoved).is_some()
            && happened(status, MilestoneKind::RollingBack).is_none()
    })
}

fn pods_of<'a>(objects: &'a Objects, component: &str, release: &str) -> impl Iterator<Item = &'a Arc<Pod>> {
    objects.pods.values().filter(move |pod| {
        let of = |key: &str| pod.labels().get(key).map(String::as_str);
        of(labels::COMPONENT) == Some(component) && of(labels::RELEASE) == Some(release) && !has_finished(pod)
    })
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
