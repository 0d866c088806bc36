//! What the rungs look at: the observation, with the questions that several of them ask.

use crate::build::applied_hash;
use crate::labels;
use crate::names;
use crate::object::{self, Kind, Object, Step};
use crate::observed::{PodHealth, Refusal, ReleaseObserved, Settings};
use crate::snapshot::{Snapshot, Today, stops};
use fairway_crds::component::Component;
use fairway_crds::release::{Milestone, MilestoneKind, ReleaseOutcome, ReleaseStatus};
use fairway_crds::{Backup, Migration, Release};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use kube::ResourceExt;
use kube::core::ObjectMeta;
use std::sync::Arc;

/// The observation of one pass.
#[derive(Clone, Copy, Debug)]
pub struct World<'a> {
    /// What was observed.
    pub observed: &'a ReleaseObserved,
    /// What is fixed for this process.
    pub settings: &'a Settings,
    /// The time of this pass.
    pub now: Timestamp,
    /// What this release releases.
    pub snapshot: &'a Snapshot,
}

/// The Release that serves: the newest one whose traffic has moved, or that succeeded, and that has not been
/// rolled back. One that goes back serves until its traffic has returned.
pub fn live<'a>(releases: impl IntoIterator<Item = &'a Arc<Release>>) -> Option<&'a Arc<Release>> {
    releases
        .into_iter()
        .filter(|release| is_live(release))
        .max_by_key(|release| release.spec.revision)
}

/// Whether the Release that is observed is the one that serves.
pub fn serves(observed: &ReleaseObserved) -> bool {
    let all = observed.siblings.iter().chain([&observed.release]);
    live(all).is_some_and(|live| live.name_any() == observed.release.name_any())
}

fn is_live(release: &Release) -> bool {
    let Some(status) = &release.status else {
        return false;
    };
    let moved = happened(status, MilestoneKind::TrafficMoved).is_some();
    let serves = status.outcome == Some(ReleaseOutcome::Succeeded) || moved;
    let goes_back = happened(status, MilestoneKind::RollingBack).is_some();
    let returning = moved && happened(status, MilestoneKind::TrafficReturned).is_none();
    serves && (!goes_back || returning)
}

/// The milestone of that kind, if it is on record.
pub fn happened(status: &ReleaseStatus, kind: MilestoneKind) -> Option<&Milestone> {
    status.milestones.iter().find(|milestone| milestone.kind == kind)
}

/// Whether a release has done something that must be finished or rolled back before another may begin.
pub fn has_begun(release: &Release) -> bool {
    use MilestoneKind::{HandingOver, Migrating, RollingBack, TrafficMoved};
    release.status.as_ref().is_some_and(|status| {
        [Migrating, HandingOver, TrafficMoved, RollingBack]
            .into_iter()
            .any(|kind| happened(status, kind).is_some())
    })
}

/// Whether a release has been accepted with a predecessor on record: from then on it looks after both sides.
pub fn previous_is_known(release: &Release) -> bool {
    release
        .status
        .as_ref()
        .is_some_and(|status| status.previous.is_some())
}

/// Whether a release has ended.
pub fn has_ended(release: &Release) -> bool {
    release
        .status
        .as_ref()
        .is_some_and(|status| status.outcome.is_some())
}

impl<'a> World<'a> {
    /// This release.
    pub fn release(&self) -> &'a Release {
        &self.observed.release
    }

    /// Its name.
    pub fn name(&self) -> &'a str {
        self.observed.release.metadata.name.as_deref().unwrap_or_default()
    }

    /// Whether this very Release owns an object: a another object with the same name that is gone does not count.
    pub fn owns(&self, owners: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference]) -> bool {
        owned_by(owners, self.uid())
    }

    /// Its App's name.
    pub fn app_name(&self) -> &'a str {
        &self.observed.release.spec.app
    }

    /// Its namespace.
    pub fn namespace(&self) -> &'a str {
        self.observed
            .release
            .metadata
            .namespace
            .as_deref()
            .unwrap_or_default()
    }

    /// Its UID.
    pub fn uid(&self) -> &'a str {
        self.observed.release.metadata.uid.as_deref().unwrap_or_default()
    }

    /// What the App says today of what takes effect at once. Without the App nothing is scaled or traced to it.
    pub fn today(&self) -> Option<Today> {
        self.observed.app.as_ref().map(|app| Today::of(&app.spec))
    }

    /// Pods that a component of this release should have: as many as the App says today. Of one that the App has
    /// dropped since, as many as its Deployment has; without a Deployment none, unless it serves.
    pub fn replicas(&self, component: &Component) -> i32 {
        let deployment = self.deployment(&component.name, self.release().spec.revision);
        self.replicas_today(component)
            .or_else(|| deployment.map(|deployment| replicas_of(deployment)))
            .unwrap_or(component.serves.is_some().into())
    }

    /// The same of a component of the release that served before, whose Deployment may have been ended for its
    /// successor: then at least one.
    pub fn replicas_before(&self, component: &Component, deployment: Option<&Deployment>) -> i32 {
        self.replicas_today(component)
            .or_else(|| deployment.map(|deployment| replicas_of(deployment).max(1)))
            .unwrap_or(component.serves.is_some().into())
    }

    fn replicas_today(&self, component: &Component) -> Option<i32> {
        self.today()?.replicas.get(&component.name).copied()
    }

    /// Whether the App says that releases hold.
    pub fn suspended(&self) -> bool {
        self.observed.app.as_ref().is_some_and(|app| app.spec.suspend)
    }

    /// Whether a Release is the App's that is there now: one of a former App of the same name is about to go.
    pub fn is_of_this_app(&self, release: &Release) -> bool {
        let app = self
            .observed
            .app
            .as_ref()
            .and_then(|app| app.metadata.uid.as_deref());
        let owners = release.owner_references();
        app.is_none() || owners.is_empty() || owners.iter().any(|owner| Some(owner.uid.as_str()) == app)
    }

    /// The release that served when this one began.
    pub fn previous(&self, status: &ReleaseStatus) -> Option<&'a Arc<Release>> {
        let name = status.previous.as_deref()?;
        self.observed
            .siblings
            .iter()
            .find(|sibling| sibling.name_any() == name)
    }

    /// Its snapshot.
    pub fn snapshot_of(&self, release: &str) -> Option<&'a Snapshot> {
        self.observed.snapshots.get(release).map(Arc::as_ref)
    }

    /// The Deployment of a component of a release.
    pub fn deployment(&self, component: &str, revision: i64) -> Option<&'a Arc<Deployment>> {
        let name = names::deployment(self.app_name(), component, revision);
        self.observed
            .deployments
            .iter()
            .find(|deployment| deployment.metadata.name.as_deref() == Some(&*name))
    }

    /// Pods of a component of a release that have not ended, terminating ones included.
    pub fn pods(&self, component: &str, release: &str) -> impl Iterator<Item = &'a Arc<Pod>> {
        let desired = [
            (labels::COMPONENT, component.to_owned()),
            (labels::RELEASE, release.to_owned()),
        ];
        self.observed.pods.iter().filter(move |pod| {
            desired
                .iter()
                .all(|(key, value)| pod.labels().get(*key) == Some(value))
                && !has_finished(pod)
        })
    }

    /// Pods of a component of any other release that have not ended.
    pub fn pods_of_others(&self, component: &str, release: &str) -> Vec<&'a Arc<Pod>> {
        self.observed
            .pods
            .iter()
            .filter(|pod| {
                pod.labels()
                    .get(labels::COMPONENT)
                    .is_some_and(|value| value == component)
                    && pod
                        .labels()
                        .get(labels::RELEASE)
                        .is_some_and(|value| value != release)
                    && !has_finished(pod)
            })
            .collect()
    }

    /// Those of a component's pods that are ready and not terminating.
    pub fn ready_pods(&self, component: &str, release: &str) -> Vec<&'a Arc<Pod>> {
        self.pods(component, release)
            .filter(|pod| is_ready(pod))
            .collect()
    }

    /// The apiserver's last answer to this very object, when it was no.
    pub fn refusal(&self, kind: Kind, desired: &ObjectMeta) -> Option<&'a Refusal> {
        let refusal = self.observed.refused.get(&object::id(kind, desired))?;
        (applied_hash(desired) == Some(refusal.hash.as_str())).then_some(refusal)
    }

    /// The apiserver's last answer to this very write, when it was no.
    pub fn refused(&self, step: &Step) -> Option<&'a Refusal> {
        let refusal = self.observed.refused.get(&step.id())?;
        (refusal.hash == step.hash()).then_some(refusal)
    }

    /// The question whether the apiserver would take this very object, unless it has said yes.
    pub fn rehearsal(&self, object: Object) -> Option<Step> {
        let step = Step::DryRun(Box::new(object));
        let passed = format!("{}#{}", step.id(), step.hash());
        (!self.observed.dry_run_passed.contains(&passed)).then_some(step)
    }

    /// What the probes found about a pod.
    pub fn health(&self, pod: &Pod) -> Option<&'a PodHealth> {
        self.observed.probes.get(pod.metadata.uid.as_deref()?)
    }

    /// The migration of this release.
    pub fn migration(&self) -> Option<&'a Arc<Migration>> {
        self.observed.migrations.iter().find(|migration| {
            migration.spec.release.as_deref() == Some(self.name())
                && owned_by(migration.owner_references(), self.uid())
        })
    }

    /// The newest backup of this release, and which one it is.
    pub fn backup(&self) -> Option<(u32, &'a Arc<Backup>)> {
        let numbered = |number| {
            let name = names::backup(self.name(), self.uid(), number);
            let mut backups = self.observed.backups.iter();
            let found = backups.find(|backup| backup.metadata.name.as_deref() == Some(&*name));
            found.map(|backup| (number, backup))
        };
        (1..).map_while(numbered).last()
    }

    /// The component of the release that served before, by name.
    pub fn previous_component(&self, status: &ReleaseStatus, component: &str) -> Option<&'a Component> {
        self.snapshot_of(status.previous.as_deref()?)?
            .component(component)
    }

    /// Components that run side by side with their predecessors.
    pub fn overlapping(&self, status: &ReleaseStatus) -> Vec<&'a Component> {
        self.snapshot
            .components
            .iter()
            .filter(|component| !stops(self.previous_component(status, &component.name), component))
            .collect()
    }

    /// Components whose old pods must be gone first.
    pub fn stopping(&self, status: &ReleaseStatus) -> Vec<&'a Component> {
        self.snapshot
            .components
            .iter()
            .filter(|component| stops(self.previous_component(status, &component.name), component))
            .collect()
    }
}

fn owned_by(owners: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference], uid: &str) -> bool {
    owners.iter().any(|owner| owner.uid == uid)
}

/// Pods that a Deployment asks for.
pub fn replicas_of(deployment: &Deployment) -> i32 {
    let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas);
    replicas.unwrap_or(1)
}

/// Whether all containers of a pod have ended for good.
pub fn has_finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether a pod is ready to serve: its `Ready` condition is true and it is not being deleted.
pub fn is_ready(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none()
        && ready_condition(pod).is_some_and(|condition| condition.status == "True")
}

/// What the kubelet says of a pod's readiness.
pub fn ready_condition(pod: &Pod) -> Option<&PodCondition> {
    let conditions = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    conditions
        .into_iter()
        .find(|condition| condition.type_ == "Ready")
}
