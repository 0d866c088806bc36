//! What must hold after every write, whoever made it and whatever went wrong before.
//!
//! The planners do not look at this file; it states in other words what they are to guarantee. [`Checker`] is
//! asked after every write of every simulated story.

mod rest;

use crate::cluster::Cluster;
use crate::pod_run::task_of;
use crate::store::{ByName, Objects};
use crate::traffic::destination;
use fairway_crds::backup::BackupOutcome;
use fairway_crds::component::{Component, Strategy};
use fairway_crds::condition::{
    BAKING, DIVERGED_FROM_SPEC, READY, RECONCILING, SCHEMA_AHEAD, STALLED, SUCCEEDED, WARNED,
};
use fairway_crds::migration::{MigrationOutcome, MigrationSpec};
use fairway_crds::release::{MilestoneKind, ReleaseOutcome};
use fairway_crds::{Release, ReleaseStatus};
use fairway_engine::kinds::Kind;
use fairway_plan::build;
use fairway_plan::labels;
use fairway_plan::protocol::Task;
use fairway_plan::readings::{has_finished, is_legacy, is_ready, owned_by, replicas_of};
use fairway_plan::release::history::{happened, has_begun, has_ended, live};
use fairway_plan::snapshot::Snapshot;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, OwnerReference};
use kube::ResourceExt;
use kube::core::ObjectMeta;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Types of the conditions that a kind always has, and of those that it has only while they are true.
type Types = (&'static [&'static str], &'static [&'static str]);
const OF_APP: Types = (
    &[READY],
    &[RECONCILING, STALLED, BAKING, DIVERGED_FROM_SPEC, SCHEMA_AHEAD],
);
const OF_RELEASE: Types = (
    &[SUCCEEDED, READY],
    &[RECONCILING, STALLED, BAKING, SCHEMA_AHEAD, WARNED],
);
/// Bounded work: a Migration, a Backup, a Restore.
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
    /// UID of the App that is there, or was there last.
    app: Option<String>,
    /// UIDs of the Apps for which the migrations were executed that the database remembers.
    executions: Vec<Option<String>>,
    /// UID of the Release of each name that is there, or was there last.
    release_uids: BTreeMap<String, String>,
    /// Releases, with their UIDs, for which a backup was proven, whether or not it is still there.
    proven: BTreeSet<(String, Option<String>)>,
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
        if let Some(app) = after.apps.values().next() {
            self.app = app.uid();
        }
        for (name, release) in changed(&before.releases, &after.releases) {
            self.release_uids
                .insert(name.clone(), release.uid().unwrap_or_default());
        }
        self.migrations(cluster);
        self.dumps(after);
        self.services(before, after);
        self.scaling(before, after);
        self.stopping(after);
        self.releases(before, after);
        self.kept(before, after);
        self.ended(before, after);
        self.retired(before, after);
        self.ending(before, after);
        self.conditions(before, after);
    }

    /// Takes note of what does not hold.
    pub(crate) fn is_broken(&mut self, what: String) {
        if !self.broken.contains(&what) {
            self.broken.push(what);
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

    /// There is one dump of the database at a time, whoever applies how many Backups.
    fn dumps(&mut self, after: &Objects) {
        if self.sight == Sight::Past {
            // The agent's lock in the database is what holds then.
            return;
        }
        let is_of_backup = |pod: &&Pod| {
            let work = pod.labels().get(labels::WORK);
            work.is_some_and(|work| work == labels::Work::Backup.as_str())
        };
        let runs = |pod: &&Pod| !has_finished(pod) && pod.metadata.deletion_timestamp.is_none();
        let pods = after.pods.values().map(AsRef::as_ref);
        let dumped: BTreeSet<_> = pods
            .filter(is_of_backup)
            .filter(runs)
            .filter_map(|pod| pod.labels().get(labels::WORK_FOR))
            .collect();
        if dumped.len() > 1 {
            self.is_broken(format!(
                "the database is dumped for several Backups at once: {dumped:?}"
            ));
        }
    }

    /// A migration is executed at most once for its run and for its release, never when the ledger says that it was
    /// applied, and never before a backup made for its release is proven. One applied by hand has no release.
    fn migrations(&mut self, cluster: &Cluster) {
        let executions = &cluster.database.executions;
        for (index, execution) in executions.iter().enumerate().skip(self.executions.len()) {
            let identity = &execution.identity;
            let app = self.app.clone();
            let same = |(_, other): &(usize, &crate::database::Execution)| {
                other.identity.image_digest == identity.image_digest
                    && other.identity.command_hash == identity.command_hash
            };
            let earlier: Vec<_> = executions[..index].iter().enumerate().filter(same).collect();
            let by_hand = execution.release.is_empty() || is_by_hand(cluster.objects(), &identity.run_id);
            let is_same_release = |index: usize, other: &crate::database::Execution| {
                // An App that was created again counts its releases from 1 again.
                !by_hand && other.release == execution.release && self.executions.get(index) == Some(&app)
            };
            let again = earlier.iter().any(|(index, other)| {
                other.identity.run_id == identity.run_id || is_same_release(*index, other)
            });
            if again {
                self.is_broken(format!(
                    "the migration of {} was executed twice",
                    execution.release
                ));
            }
            let applied = earlier
                .iter()
                .any(|(_, other)| cluster.database.has_applied(&other.identity));
            if applied {
                self.is_broken(format!(
                    "{} executed a migration that the ledger has",
                    execution.release
                ));
            }
            let proven = self.proven.contains(&self.release_of(&execution.release));
            if !proven && !by_hand {
                self.is_broken(format!("{} migrated without a proven backup", execution.release));
            }
            self.executions.push(app);
        }
    }

    /// A selector is never empty, and only ever moves to a release whose pods are ready and, forward, healthy. A Service
    /// is only deleted when Fairway created it, the release that serves does not serve it, and no pod is behind it.
    fn services(&mut self, before: &Objects, after: &Objects) {
        let removed = before.services.iter();
        let removed: Vec<_> = removed
            .filter(|(name, _)| !after.services.contains_key(*name))
            // What a user deletes in the foreground goes later.
            .filter(|(_, service)| service.metadata.deletion_timestamp.is_none())
            .collect();
        for (name, service) in removed {
            if service.owner_references().is_empty() {
                self.is_broken(format!(
                    "Service {name}, which Fairway did not create, was deleted"
                ));
            }
            // The garbage collector deletes what belonged to an App that is gone or going.
            let app_stays = after.apps.values().any(|app| {
                let owns = |owner: &OwnerReference| Some(&owner.uid) == app.metadata.uid.as_ref();
                app.metadata.deletion_timestamp.is_none() && service.owner_references().iter().any(owns)
            });
            if self.sight == Sight::Current && app_stays && !self.is_left(after, name) {
                self.is_broken(format!("Service {name} was deleted although it is served"));
            }
        }
        for (name, service) in changed(&before.services, &after.services) {
            let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
            let old = before
                .services
                .get(name)
                .and_then(|service| service.spec.as_ref());
            // What a user emptied may be touched by others.
            let was_empty = old.is_some_and(|spec| spec.selector.as_ref().is_none_or(BTreeMap::is_empty));
            if selector.is_none_or(BTreeMap::is_empty) && !was_empty {
                self.is_broken(format!("Service {name} selects nothing"));
            }
            let old = before.services.get(name).and_then(destination);
            let Some(new) = destination(service) else {
                continue;
            };
            if old.as_ref() != Some(&new) && !goes_on_serving(after, &new) && self.sight == Sight::Current {
                self.switched(after, service, &new);
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
            let served = |name: Option<&String>| name.is_some_and(|name| !self.is_left(after, name));
            let is_selected = after.services.iter().any(|(name, service)| {
                let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
                selector.is_some_and(|selector| {
                    !selector.is_empty() && selector.iter().all(|(key, value)| labels.get(key) == Some(value))
                }) && served(Some(name))
            });
            let is_shown = after
                .endpoint_slices
                .values()
                .filter(|slice| {
                    // Slices without their Service bring nobody to its pods.
                    let service = slice.labels().get("kubernetes.io/service-name");
                    served(service) && service.is_some_and(|name| after.services.contains_key(name))
                })
                .flat_map(|slice| &slice.endpoints)
                .any(|endpoint| {
                    let pod = endpoint
                        .target_ref
                        .as_ref()
                        .and_then(|target| after.pods.get(target.name.as_ref()?));
                    pod.is_some_and(|pod| {
                        let same = |key: &str| pod.labels().get(key) == labels.get(key);
                        same(labels::RELEASE) && same(labels::COMPONENT)
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
            // One that is BlueGreen stops too where the next release says that it is Recreate, or where it is rolled back
            // to one that is.
            let stops = self.stops(release, component)
                || after.releases.iter().any(|(name, open)| {
                    let previous = open.status.as_ref().and_then(|status| status.previous.as_deref());
                    let either_stops = || {
                        [Some(&**name), previous]
                            .into_iter()
                            .flatten()
                            .any(|side| self.stops(side, component))
                    };
                    has_begun(open) && !has_ended(open) && either_stops()
                });
            if is_less && !stops {
                if is_selected {
                    self.is_broken(format!("{name} was scaled down while a Service selects it"));
                } else if is_shown {
                    self.is_broken(format!("{name} was scaled down while endpoints show its pods"));
                }
            }
        }
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

    fn stops(&self, release: &str, component: &str) -> bool {
        let snapshot = self.snapshots.get(release);
        snapshot
            .and_then(|snapshot| snapshot.component(component))
            .is_some_and(|component| component.strategy == Strategy::Recreate)
    }

    /// Pods of two releases of a component that never runs twice never exist at once, terminating ones included; those of
    /// the team's Deployment from which it takes over neither; and the application that migrates when it starts is one of
    /// them.
    fn stopping(&mut self, after: &Objects) {
        let mut releases: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
        for deployment in after
            .deployments
            .values()
            .filter(|found| is_legacy(&found.metadata))
        {
            let uid = deployment.uid().unwrap_or_default();
            let mut pods = after.pods.values();
            let runs = pods.any(|pod| owned_by(pod.owner_references(), &uid) && !has_finished(pod));
            let of = |key: &str| {
                deployment
                    .labels()
                    .get(key)
                    .map(String::as_str)
                    .unwrap_or_default()
            };
            if runs {
                let component = (of(labels::APP), of(labels::COMPONENT));
                releases
                    .entry(component)
                    .or_default()
                    .insert("the team's Deployment");
            }
        }
        for pod in after.pods.values().filter(|pod| !has_finished(pod)) {
            let labels = pod.labels();
            let of = |key: &str| labels.get(key).map(String::as_str);
            let component = of(labels::COMPONENT).or_else(|| migrates_on_start(after, pod));
            if let (Some(app), Some(component), Some(release)) =
                (of(labels::APP), component, of(labels::RELEASE))
            {
                releases.entry((app, component)).or_default().insert(release);
            }
        }
        let twice: Vec<String> = releases
            .into_iter()
            .filter(|((_, component), releases)| {
                // Of one whose snapshot a user deleted, nobody knows the strategy any more.
                let stops =
                    |release: &&str| after.revisions.contains_key(*release) && self.stops(release, component);
                releases.len() > 1 && releases.iter().any(stops)
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
                None => {
                    // Without its snapshot, nothing says that the Release was there: a user deleted both.
                    let is_known = before.revisions.contains_key(name);
                    self.minted(after, name, release, is_known);
                }
            }
        }
        let mut begun: BTreeMap<&str, Vec<&String>> = BTreeMap::new();
        for (name, release) in &after.releases {
            let is_taken_over = release
                .status
                .as_ref()
                .is_some_and(|status| status.taken_over_by.is_some());
            // One that is being deleted does nothing any more.
            let stays = release.metadata.deletion_timestamp.is_none();
            if has_begun(release) && !has_ended(release) && !is_taken_over && stays {
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
    fn minted(&mut self, after: &Objects, name: &str, release: &Release, is_known: bool) {
        let app = after
            .apps
            .get(&release.spec.app)
            .and_then(|app| app.uid())
            .unwrap_or_default();
        if !self.minted.insert((app, release.spec.revision)) && is_known {
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

    /// How a Migration, a Backup or a Restore ended is for good, but that a user resolves a migration; and an App's revision never
    /// goes back.
    fn ended(&mut self, before: &Objects, after: &Objects) {
        use MigrationOutcome::{Applied, Failed, Partial, Unknown};
        for (name, migration) in changed(&before.migrations, &after.migrations) {
            let old = before
                .migrations
                .get(name)
                .filter(|old| old.uid() == migration.uid());
            let old = old.and_then(|old| old.status.as_ref()?.outcome);
            let new = migration.status.as_ref().and_then(|status| status.outcome);
            match (old, new) {
                (Some(Unknown | Partial), Some(Applied | Failed | Unknown | Partial)) => {}
                (Some(old), new) if new != Some(old) => {
                    self.is_broken(format!(
                        "the outcome of Migration {name} changed from {old:?} to {new:?}"
                    ));
                }
                _ => {}
            }
        }
        for (name, backup) in changed(&before.backups, &after.backups) {
            let old = before.backups.get(name).filter(|old| old.uid() == backup.uid());
            let old = old.and_then(|old| old.status.as_ref()?.outcome);
            let new = backup.status.as_ref().and_then(|status| status.outcome);
            if let (Some(BackupOutcome::Succeeded), Some(release)) = (new, &backup.spec.release) {
                let release = self.release_of(release);
                self.proven.insert(release);
            }
            if old.is_some() && new != old {
                self.is_broken(format!(
                    "the outcome of Backup {name} changed from {old:?} to {new:?}"
                ));
            }
        }
        for (name, restore) in changed(&before.restores, &after.restores) {
            let old = before.restores.get(name).filter(|old| old.uid() == restore.uid());
            let old = old.and_then(|old| old.status.as_ref()?.outcome);
            let new = restore.status.as_ref().and_then(|status| status.outcome);
            if old.is_some() && new != old {
                self.is_broken(format!(
                    "the outcome of Restore {name} changed from {old:?} to {new:?}"
                ));
            }
        }
        for (name, app) in changed(&before.apps, &after.apps) {
            let old = before.apps.get(name).filter(|old| old.uid() == app.uid());
            let old = old.and_then(|old| old.status.as_ref()?.revision);
            let new = app.status.as_ref().and_then(|status| status.revision);
            if old > new {
                self.is_broken(format!(
                    "the revision of App {name} went back from {old:?} to {new:?}"
                ));
            }
        }
    }

    /// Nothing is called retired of which a pod is there.
    fn retired(&mut self, before: &Objects, after: &Objects) {
        if self.sight == Sight::Past {
            return;
        }
        for (name, release) in changed(&before.releases, &after.releases) {
            let messages = |objects: &Objects| -> BTreeSet<String> {
                let status = objects
                    .releases
                    .get(name)
                    .and_then(|release| release.status.clone());
                let conditions = status.map(|status| status.conditions).unwrap_or_default();
                conditions
                    .into_iter()
                    .map(|condition| condition.message)
                    .collect()
            };
            let old = messages(before);
            let news = messages(after)
                .into_iter()
                .filter(|message| !old.contains(message));
            for message in news {
                let Some(retired) = message
                    .split(" is retired")
                    .next()
                    .filter(|said| said.len() < message.len())
                else {
                    continue;
                };
                let retired = retired.rsplit(' ').next().unwrap_or_default();
                let runs = after.pods.values().find(|pod| {
                    let of = |key: &str| pod.labels().get(key).map(String::as_str);
                    of(labels::APP) == Some(&*release.spec.app)
                        && of(labels::RELEASE) == Some(retired)
                        && of(labels::COMPONENT).is_some()
                        && !has_finished(pod)
                });
                if let Some(pod) = runs {
                    self.is_broken(format!(
                        "{retired} is called retired, but pod {} is there",
                        pod.name_any()
                    ));
                }
            }
        }
    }

    /// Nothing is created for an App that is being deleted.
    fn ending(&mut self, before: &Objects, after: &Objects) {
        let is_ending = |meta: &ObjectMeta| meta.deletion_timestamp.is_some();
        let Some(app) = after.apps.values().find(|app| is_ending(&app.metadata)) else {
            return;
        };
        if self.sight == Sight::Past {
            return;
        }
        let created = [
            Kind::Release,
            Kind::Migration,
            Kind::Backup,
            Kind::ControllerRevision,
            Kind::Deployment,
            Kind::Service,
        ];
        let known: BTreeSet<_> = before
            .all()
            .into_iter()
            .map(|(_, meta)| meta.uid.clone())
            .collect();
        let new: Vec<_> = after
            .all()
            .into_iter()
            .filter(|(kind, meta)| created.contains(kind) && !known.contains(&meta.uid))
            .map(|(kind, meta)| format!("{} {}", kind.as_str(), meta.name.clone().unwrap_or_default()))
            .collect();
        for what in new {
            self.is_broken(format!(
                "{what} was created although App {} is being deleted",
                app.name_any()
            ));
        }
    }

    /// Backups are not deleted, and what a revision releases does not change.
    fn kept(&mut self, before: &Objects, after: &Objects) {
        let gone: Vec<_> = before
            .backups
            .keys()
            .filter(|name| !after.backups.contains_key(*name))
            // What a user deletes goes later.
            .filter(|name| before.backups[*name].metadata.deletion_timestamp.is_none())
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
    /// each has its generation.
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
        for (name, restore) in changed(&before.restores, &after.restores) {
            let status = restore.status.clone().unwrap_or_default();
            seen.push((
                format!("Restore {name}"),
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
/// what another client has done.
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

/// Whether a user applied the Migration of a run, which backs up nothing then.
fn is_by_hand(objects: &Objects, run_id: &str) -> bool {
    let mut migrations = objects.migrations.values();
    migrations.any(|migration| {
        let of_the_run = migration
            .status
            .as_ref()
            .and_then(|status| status.run_id.as_deref())
            == Some(run_id);
        of_the_run && migration.owner_references().is_empty()
    })
}

/// The component whose application a pod runs for a migration on start.
fn migrates_on_start<'a>(objects: &'a Objects, pod: &Pod) -> Option<&'a str> {
    let Some(Task::Guard(_)) = task_of(pod) else {
        return None;
    };
    let migration = objects.migrations.get(pod.labels().get(labels::WORK_FOR)?)?;
    // A pod that an operator creates late, when the run has ended, never starts its application: its guard reads the ledger.
    let conditions = migration.status.iter().flat_map(|status| &status.conditions);
    let ended = conditions
        .filter(|condition| condition.type_ == SUCCEEDED && condition.status != "Unknown")
        .map(|condition| condition.last_transition_time.0)
        .next();
    let created = pod.metadata.creation_timestamp.as_ref().map(|created| created.0);
    let is_late = ended.is_some_and(|ended| created > Some(ended));
    (!is_late).then_some(&migration.spec.component)
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
