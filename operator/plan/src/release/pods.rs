//! Deployments, pods and replicas of a release and of others, as observed.

use super::view::View;
use crate::readings::{has_finished, is_ready, replicas_of};
use crate::snapshot::stops;
use crate::tasks::{self, GUARD};
use crate::{labels, names};
use fairway_crds::component::{Component, Strategy};
use fairway_crds::release::ReleaseStatus;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use std::sync::Arc;

impl<'a> View<'a> {
    /// Pods that a component of this release should have: as many as the App says today. Of one that the App has
    /// dropped since, as many as its Deployment has; if it serves at least one, since a user may have scaled that to zero.
    pub fn replicas(&self, component: &Component) -> i32 {
        let deployment = self.deployment(&component.name, self.release().spec.revision);
        let least = component.serves.is_some().into();
        self.replicas_today(component).unwrap_or_else(|| {
            deployment
                .map_or(0, |deployment| replicas_of(deployment))
                .max(least)
        })
    }

    /// Pods that a component of the release that served before should have. Its Deployment may have been ended for its
    /// successor: then at least one.
    pub fn replicas_before(&self, component: &Component, deployment: Option<&Deployment>) -> i32 {
        self.replicas_today(component)
            .or_else(|| deployment.map(|deployment| replicas_of(deployment).max(1)))
            .unwrap_or(component.serves.is_some().into())
    }

    fn replicas_today(&self, component: &Component) -> Option<i32> {
        self.today()?.replicas.get(&component.name).copied()
    }

    /// The Deployment of a component of a release. One that was created under the former name keeps it.
    pub fn deployment(&self, component: &str, revision: i64) -> Option<&'a Arc<Deployment>> {
        let named = |name: String| {
            let mut deployments = self.observed.deployments.iter();
            deployments.find(|deployment| deployment.metadata.name.as_deref() == Some(&*name))
        };
        let is_of = |deployment: &&Arc<Deployment>| {
            deployment
                .labels()
                .get(labels::COMPONENT)
                .is_some_and(|label| label == component)
        };
        let app = self.app_name();
        named(names::deployment(app, component, revision))
            .or_else(|| named(names::former_deployment(app, component, revision)).filter(is_of))
    }

    /// Name of the Deployment of a component of a release, whether it is there or not.
    pub fn deployment_name(&self, component: &str, revision: i64) -> String {
        self.deployment(component, revision).map_or_else(
            || names::deployment(self.app_name(), component, revision),
            |deployment| deployment.name_any(),
        )
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

    /// Whether a Deployment of another release desires pods of a component.
    pub fn desires_pods_of_others(&self, component: &str, release: &str) -> bool {
        self.observed.deployments.iter().any(|deployment| {
            let has =
                |key: &str, value: &str| deployment.labels().get(key).map(String::as_str) == Some(value);
            has(labels::COMPONENT, component)
                && deployment.labels().contains_key(labels::RELEASE)
                && !has(labels::RELEASE, release)
                && replicas_of(deployment) > 0
        })
    }

    /// Pods in which the application of one of these components migrates the database when it starts, and which have not
    /// ended. One whose Migration is gone may be of any component.
    pub fn migrating_pods(&self, components: &[&str]) -> Vec<&'a Arc<Pod>> {
        let migration_of = |pod: &Pod| {
            let name = pod.labels().get(labels::WORK_FOR)?;
            let mut migrations = self.observed.migrations.iter();
            migrations.find(|migration| migration.metadata.name.as_ref() == Some(name))
        };
        let pods = self.observed.pods.iter();
        pods.filter(|pod| {
            let runs_application =
                tasks::does(&pod.metadata, &GUARD) && !pod.labels().contains_key("job-name");
            let is_concerned = || {
                migration_of(pod)
                    .is_none_or(|migration| components.contains(&migration.spec.component.as_str()))
            };
            runs_application && !has_finished(pod) && is_concerned()
        })
        .collect()
    }

    /// A pod of any component of any other release that has not ended.
    pub fn pod_of_another(&self) -> Option<&'a Pod> {
        let mut pods = self.observed.pods.iter().map(AsRef::as_ref);
        pods.find(|pod: &&Pod| {
            let release = pod.labels().get(labels::RELEASE);
            pod.labels().contains_key(labels::COMPONENT)
                && release.is_some_and(|release| release != self.name())
                && !has_finished(pod)
        })
    }

    /// Those of a component's pods that are ready and not terminating.
    pub fn ready_pods(&self, component: &str, release: &str) -> Vec<&'a Arc<Pod>> {
        self.pods(component, release)
            .filter(|pod| is_ready(pod))
            .collect()
    }

    /// The component of the release that served before, by name.
    pub fn previous_component(&self, status: &ReleaseStatus, component: &str) -> Option<&'a Component> {
        self.snapshot_of(status.previous.as_deref()?)?
            .component(component)
    }

    /// The component of the release before this one, by name. The Release of what serves may have been deleted: then that
    /// of the newest Deployment counts, or of an older one that still has pods and must not run twice.
    fn component_before(&self, status: &ReleaseStatus, component: &str) -> Option<&'a Component> {
        if status.previous.is_some() {
            return self.previous_component(status, component);
        }
        let revision = self.release().spec.revision;
        let of_component = self.observed.deployments.iter().filter(|deployment| {
            deployment.labels().get(labels::COMPONENT).map(String::as_str) == Some(component)
        });
        let before = of_component.filter_map(|deployment| {
            let release = deployment.labels().get(labels::RELEASE)?;
            let number = names::revision(self.app_name(), release).filter(|number| *number < revision)?;
            let before = self.snapshot_of(release)?.component(component)?;
            let runs = || replicas_of(deployment) > 0 || self.pods(component, release).next().is_some();
            let must_end = before.strategy == Strategy::Recreate && runs();
            Some(((must_end, number), before))
        });
        let (_, before) = before.max_by_key(|(order, _)| *order)?;
        Some(before)
    }

    /// Components that run side by side with their predecessors.
    pub fn overlapping(&self, status: &ReleaseStatus) -> Vec<&'a Component> {
        self.snapshot
            .components
            .iter()
            .filter(|component| !stops(self.component_before(status, &component.name), component))
            .collect()
    }

    /// Components whose previous pods must be gone before the candidate's start.
    pub fn stopping(&self, status: &ReleaseStatus) -> Vec<&'a Component> {
        self.snapshot
            .components
            .iter()
            .filter(|component| stops(self.component_before(status, &component.name), component))
            .collect()
    }
}

/// Ready pods of a component of another release, and how many it should have.
pub(super) fn standing(view: &View, component: &Component, release: &str) -> (usize, usize) {
    let ready = view
        .pods(&component.name, release)
        .filter(|pod| is_ready(pod) && !has_finished(pod))
        .count();
    let desired = view.replicas_before(component, deployment_of(view, &component.name, release));
    (ready, usize::try_from(desired).unwrap_or_default())
}

/// The Deployment of another release's component.
pub(super) fn deployment_of<'a>(view: &View<'a>, component: &str, release: &str) -> Option<&'a Deployment> {
    let revision: i64 = release.rsplit_once('-')?.1.parse().ok()?;
    view.deployment(component, revision).map(AsRef::as_ref)
}
