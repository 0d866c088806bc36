//! Deployments of the team from which components take over: those that ran the application before Fairway, which a user has
//! given the labels `fairway.dev/app` and `fairway.dev/component`.
//!
//! That of a component with strategy `Recreate` is scaled to 0 in the handover, and scaled up again when a first release is
//! rolled back; any other when the release retires what was there before. What they had is noted on them.

use super::view::View;
use super::workloads::scale;
use crate::labels;
use crate::object::{Kind, ObjectRef, Step};
use crate::readings::{has_finished, is_legacy, replicas_of};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use std::sync::Arc;

/// The team's Deployments from which these components take over.
pub(super) fn of<'a>(view: &View<'a>, components: &[&str]) -> impl Iterator<Item = &'a Arc<Deployment>> {
    let deployments = view.observed.deployments.iter();
    deployments.filter(|deployment| is_legacy(&deployment.metadata) && is_of(deployment, components))
}

fn is_of(deployment: &Deployment, components: &[&str]) -> bool {
    let component = deployment.labels().get(labels::COMPONENT);
    component.is_some_and(|component| components.contains(&component.as_str()))
}

/// What ends the pods of a Deployment for its successor.
pub(super) fn end(deployment: &Deployment) -> Option<Step> {
    if !is_legacy(&deployment.metadata) {
        return scale(deployment, 0);
    }
    let replicas = replicas_of(deployment);
    let target = ObjectRef::of(Kind::Deployment, &deployment.metadata)?;
    (replicas != 0).then_some(Step::TakeOver(target, replicas))
}

/// A pod of these Deployments of the team that has not ended.
pub(super) fn pod<'a>(view: &View<'a>, components: &[&str]) -> Option<&'a Pod> {
    let mut pods = of(view, components).flat_map(|deployment| {
        let found = view.observed.legacy_pods.get(&deployment.name_any());
        let found = found.into_iter().flatten();
        found.filter(|pod| is_pod_of(pod, &deployment.name_any()))
    });
    pods.find(|pod| !has_finished(pod)).map(AsRef::as_ref)
}

/// Whether a pod that a Deployment's selector finds is its own: others may have the same labels, above all the candidate's, whose
/// template was copied.
fn is_pod_of(pod: &Pod, deployment: &str) -> bool {
    if pod.labels().contains_key(labels::RELEASE) {
        return false;
    }
    let mut owners = pod.owner_references().iter();
    let Some(owner) = owners.find(|owner| owner.controller == Some(true)) else {
        return true;
    };
    let hash = pod.labels().get("pod-template-hash").map(String::as_str);
    match owner.kind.as_str() {
        "ReplicaSet" => {
            owner
                .name
                .strip_prefix(deployment)
                .and_then(|rest| rest.strip_prefix('-'))
                == hash
        }
        "Deployment" => owner.name == deployment,
        _ => false,
    }
}

/// Pods that a Deployment had before a component took over from it.
pub(super) fn replicas_before(deployment: &Deployment) -> Option<i32> {
    deployment.annotations().get(labels::REPLICAS)?.parse().ok()
}
