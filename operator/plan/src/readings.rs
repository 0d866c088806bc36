//! Readings of Kubernetes objects.

use crate::labels;
use fairway_crds::GROUP;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::core::ObjectMeta;

/// The label by which an EndpointSlice names its Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The label that says which controller made an EndpointSlice:
/// <https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/#management>.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Controllers of Kubernetes: of the pods that a Service selects, and of Endpoints of a Service that selects nothing. The
/// latter removes its slices when the Service gets a selector.
const CONTROLLERS: [&str; 2] = [
    "endpointslice-controller.k8s.io",
    "endpointslicemirroring-controller.k8s.io",
];
/// Selects the EndpointSlices of Services that no controller of Kubernetes made ([`is_foreign`]).
pub const FOREIGN_SLICES: &str = "kubernetes.io/service-name,endpointslice.kubernetes.io/managed-by notin \
    (endpointslice-controller.k8s.io,endpointslicemirroring-controller.k8s.io)";

/// Whether no controller of Kubernetes made an EndpointSlice.
pub fn is_foreign(slice: &ObjectMeta) -> bool {
    let manager = slice.labels.as_ref().and_then(|labels| labels.get(MANAGED_BY));
    !manager.is_some_and(|manager| CONTROLLERS.contains(&manager.as_str()))
}

/// Whether the object with that UID is among these owners.
pub fn owned_by(owners: &[OwnerReference], uid: &str) -> bool {
    owners.iter().any(|owner| owner.uid == uid)
}

/// The API group of an owner; empty for that of Pods and Services.
pub fn api_group(owner: &OwnerReference) -> &str {
    owner.api_version.split_once('/').map_or("", |(group, _)| group)
}

/// Pods that a Deployment asks for.
pub fn replicas_of(deployment: &Deployment) -> i32 {
    let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas);
    replicas.unwrap_or(1)
}

/// Whether a Deployment is the team's own, which a component of an App takes over from: a user has given it the labels of App and
/// component, it has that of no release, and no object of Fairway's owns it.
pub fn is_legacy(deployment: &ObjectMeta) -> bool {
    let has = |key: &str| {
        deployment
            .labels
            .as_ref()
            .is_some_and(|labels| labels.contains_key(key))
    };
    let mut owners = deployment.owner_references.iter().flatten();
    has(labels::APP)
        && has(labels::COMPONENT)
        && !has(labels::RELEASE)
        && owners.all(|owner| api_group(owner) != GROUP)
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

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    #[test]
    fn slices_are_watched_as_foreign_unless_a_controller_of_kubernetes_made_them() {
        let controllers = CONTROLLERS.join(",");
        let expected = format!("{SERVICE_NAME},{MANAGED_BY} notin ({controllers})");
        assert_eq!(FOREIGN_SLICES, expected);
    }

    #[rstest]
    #[case::ready(json!({}), json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}), (true, false))]
    #[case::not_yet(json!({}), json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}]}), (false, false))]
    #[case::of_another_condition(json!({}), json!({"phase": "Running", "conditions": [{"type": "PodScheduled", "status": "True"}]}), (false, false))]
    #[case::going(
        json!({"deletionTimestamp": "2026-01-01T12:00:00Z"}),
        json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}),
        (false, false)
    )]
    #[case::succeeded(json!({}), json!({"phase": "Succeeded"}), (false, true))]
    #[case::failed(json!({}), json!({"phase": "Failed"}), (false, true))]
    #[case::new(json!({}), json!(null), (false, false))]
    fn a_pod_is_ready_until_it_is_deleted_or_has_finished(
        #[case] metadata: Value,
        #[case] status: Value,
        #[case] expected: (bool, bool),
    ) {
        let pod: Pod = serde_json::from_value(json!({"metadata": metadata, "status": status})).unwrap();
        assert_eq!((is_ready(&pod), has_finished(&pod)), expected);
    }

    #[rstest]
    #[case::labelled_by_the_team(json!({"labels": {"fairway.dev/app": "crm", "fairway.dev/component": "web"}}), true)]
    #[case::of_a_release(
        json!({"labels": {"fairway.dev/app": "crm", "fairway.dev/component": "web", "fairway.dev/release": "crm-1"}}),
        false
    )]
    #[case::of_no_component(json!({"labels": {"fairway.dev/app": "crm"}}), false)]
    #[case::without_labels(json!({}), false)]
    #[case::of_another_owner(
        json!({
            "labels": {"fairway.dev/app": "crm", "fairway.dev/component": "web"},
            "ownerReferences": [{"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": "web", "uid": "r"}],
        }),
        true
    )]
    #[case::of_an_app(
        json!({
            "labels": {"fairway.dev/app": "crm", "fairway.dev/component": "web"},
            "ownerReferences": [{"apiVersion": "fairway.dev/v1alpha1", "kind": "App", "name": "crm", "uid": "a"}],
        }),
        false
    )]
    fn a_deployment_is_the_teams_by_its_labels_and_owners(#[case] metadata: Value, #[case] expected: bool) {
        let metadata: ObjectMeta = serde_json::from_value(metadata).unwrap();
        assert_eq!(is_legacy(&metadata), expected);
    }

    #[rstest]
    #[case::said(json!({"replicas": 0, "selector": {}, "template": {}}), 0)]
    #[case::left_to_kubernetes(json!({"selector": {}, "template": {}}), 1)]
    fn a_deployment_asks_for_one_pod_unless_it_says_otherwise(#[case] spec: Value, #[case] expected: i32) {
        let deployment: Deployment = serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap();
        assert_eq!(replicas_of(&deployment), expected);
    }
}
