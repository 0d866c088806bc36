//! Deployments, pods and replicas of a release and of others, as observed.

use super::view::View;
use crate::readings::{has_finished, is_ready, replicas_of};
use crate::snapshot::stops;
use crate::{labels, names};
use fairway_crds::component::Component;
use fairway_crds::release::ReleaseStatus;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use std::sync::Arc;

impl<'a> View<'a> {
    /// Pods that a component of this release should have: as many as the App says today. Of one that the App has
    /// dropped since, as many as its Deployment has; without a Deployment none, unless it serves.
    pub fn replicas(&self, component: &Component) -> i32 {
        let deployment = self.deployment(&component.name, self.release().spec.revision);
        self.replicas_today(component)
            .or_else(|| deployment.map(|deployment| replicas_of(deployment)))
            .unwrap_or(component.serves.is_some().into())
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

    /// Components that run side by side with their predecessors.
    pub fn overlapping(&self, status: &ReleaseStatus) -> Vec<&'a Component> {
        self.snapshot
            .components
            .iter()
            .filter(|component| !stops(self.previous_component(status, &component.name), component))
            .collect()
    }

    /// Components whose previous pods must be gone before the new ones start.
    pub fn stopping(&self, status: &ReleaseStatus) -> Vec<&'a Component> {
        self.snapshot
            .components
            .iter()
            .filter(|component| stops(self.previous_component(status, &component.name), component))
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

/// Name of the Deployment of another release's component.
pub(super) fn deployment_of<'a>(view: &View<'a>, component: &str, release: &str) -> Option<&'a Deployment> {
    let revision: i64 = release.rsplit_once('-')?.1.parse().ok()?;
    let name = names::deployment(view.app_name(), component, revision);
    view.observed
        .deployments
        .iter()
        .find(|deployment| deployment.name_any() == name)
        .map(AsRef::as_ref)
}
