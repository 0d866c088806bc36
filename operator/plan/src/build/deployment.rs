//! The Deployment of one component of one release.

use super::nodes::Nodes;
use super::{InvalidTemplate, annotate, applied_hash, hash_of, labels_of, template};
use crate::{ObjectRef, labels};
use fairway_crds::Release;
use fairway_crds::component::{Component, Strategy};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy};
use k8s_openapi::api::core::v1::{Container, Lifecycle, LifecycleHandler, Pod, PodSpec, SleepAction};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, OwnerReference};
use kube::core::ObjectMeta;
use kube::{Resource, ResourceExt};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What Kubernetes gives a pod to end when its template says nothing.
const DEFAULT_GRACE_SECONDS: i64 = 30;

/// What a Deployment is made from.
#[derive(Clone, Copy, Debug)]
pub struct DeploymentInput<'a> {
    /// Name of the Deployment: that of [`crate::names::deployment`], unless there is one already.
    pub name: &'a str,
    /// Name of the App.
    pub app: &'a str,
    /// Namespace of the App.
    pub namespace: &'a str,
    /// The Release, which owns the Deployment.
    pub release: &'a Release,
    /// The ControllerRevision of the Release, which owns the Deployment too: a user who deletes one of the two must not
    /// end what serves.
    pub revision: Option<&'a ObjectRef>,
    /// The component, from the snapshot.
    pub component: &'a Component,
    /// Pinned references by `component/container`.
    pub images: &'a BTreeMap<String, String>,
    /// On which nodes its pods run.
    pub nodes: Nodes,
    /// Pods that run.
    pub replicas: i32,
    /// How long an ending pod goes on serving.
    pub drain: Duration,
}

/// The desired Deployment, as it is applied.
///
/// The annotation `fairway.dev/applied-hash` of a Deployment speaks of everything but the owner's ControllerRevision and the
/// replicas, which are scaled on their own: [`needs_apply`] does not look at them.
///
/// # Errors
/// When the component's template is no pod template.
pub fn deployment(input: &DeploymentInput) -> Result<Deployment, InvalidTemplate> {
    let DeploymentInput {
        name,
        app,
        namespace,
        release,
        revision,
        component,
        images,
        nodes,
        replicas,
        drain,
    } = *input;
    let release_name = release.name_any();
    let labels = labels_of([
        (labels::APP, app),
        (labels::COMPONENT, component.name.as_str()),
        (labels::RELEASE, release_name.as_str()),
    ]);
    let selector: BTreeMap<_, _> = labels
        .iter()
        .filter(|(key, _)| *key != labels::MANAGED_BY)
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();

    let (mut template, mut spec) = template::read(component)?;
    template
        .metadata
        .get_or_insert_default()
        .labels
        .get_or_insert_default()
        .extend(labels.clone());
    template::pin(&mut spec, &component.name, images);
    goes_on_serving(&mut spec, drain);
    nodes.bind(&mut spec, app, &component.name);
    template.spec = Some(spec);

    let mut deployment = Deployment {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            labels: Some(labels),
            owner_references: release.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(DeploymentSpec {
            selector: LabelSelector {
                match_labels: Some(selector),
                ..LabelSelector::default()
            },
            strategy: Some(strategy(component.strategy)),
            // The releases are the history; a second one of ReplicaSets would only be confusing.
            revision_history_limit: Some(0),
            template,
            ..DeploymentSpec::default()
        }),
        status: None,
    };
    let hash = hash_of(&deployment);
    annotate(&mut deployment.metadata, labels::APPLIED_HASH, hash);
    let owners = deployment.metadata.owner_references.get_or_insert_default();
    owners.extend(revision.map(owner_of));
    if let Some(spec) = &mut deployment.spec {
        spec.replicas = Some(replicas);
    }
    Ok(deployment)
}

/// The garbage collector removes what has owners when all of them are gone. One that blocks the deletion of its owner
/// would ask for a permission on ControllerRevisions.
fn owner_of(revision: &ObjectRef) -> OwnerReference {
    OwnerReference {
        api_version: "apps/v1".to_owned(),
        kind: "ControllerRevision".to_owned(),
        name: revision.name.clone(),
        uid: revision.uid.clone(),
        ..OwnerReference::default()
    }
}

/// Whether the Deployment is missing or was applied from another content. Replicas are not looked at.
pub fn needs_apply(desired: &Deployment, observed: Option<&Deployment>) -> bool {
    observed.is_none_or(|observed| applied_hash(&observed.metadata) != applied_hash(&desired.metadata))
}

/// A pod as the Deployment's controllers would create it, by which a dry run asks whether the API server accepts it. Its name
/// follows from its content and from what it is asked before, so that the answers to two of them are distinguished.
pub fn pod(deployment: &Deployment, before: Option<&str>) -> Pod {
    let template = deployment.spec.as_ref().map(|spec| &spec.template);
    let meta = template.and_then(|template| template.metadata.clone());
    let mut pod = Pod {
        metadata: ObjectMeta {
            namespace: deployment.metadata.namespace.clone(),
            ..meta.unwrap_or_default()
        },
        spec: template.and_then(|template| template.spec.clone()),
        status: None,
    };
    if let Some(before) = before {
        annotate(&mut pod.metadata, labels::ASKED_BEFORE, before.to_owned());
    }
    let hash = hash_of(&pod);
    pod.metadata.name = Some(format!("{}-{}", deployment.name_any(), &hash[..5]));
    annotate(&mut pod.metadata, labels::APPLIED_HASH, hash);
    pod
}

/// Names of the other field managers that own a part of a Deployment's spec that is Fairway's, because they changed or added
/// something there: the caches keep of `metadata.managedFields` what says so.
pub fn changed_by(observed: &Deployment) -> Vec<String> {
    let managers = observed.metadata.managed_fields.iter().flatten();
    let names: BTreeSet<_> = managers.filter_map(|entry| entry.manager.clone()).collect();
    names.into_iter().collect()
}

/// One Deployment holds one version, so its strategy only matters when its pods are restarted; then a component
/// that never runs twice must not either.
fn strategy(strategy: Strategy) -> DeploymentStrategy {
    let type_ = match strategy {
        Strategy::BlueGreen => "RollingUpdate",
        Strategy::Recreate => "Recreate",
    };
    DeploymentStrategy {
        type_: Some(type_.to_owned()),
        rolling_update: None,
    }
}

/// An ending pod serves on for the drain, and has that much longer to end.
fn goes_on_serving(spec: &mut PodSpec, drain: Duration) {
    let seconds = whole_seconds(drain);
    if seconds == 0 {
        return;
    }
    for container in &mut spec.containers {
        sleep_before_end(container, seconds);
    }
    let grace = spec
        .termination_grace_period_seconds
        .unwrap_or(DEFAULT_GRACE_SECONDS);
    spec.termination_grace_period_seconds = Some(grace.saturating_add(seconds));
}

fn sleep_before_end(container: &mut Container, seconds: i64) {
    let lifecycle = container.lifecycle.get_or_insert_with(Lifecycle::default);
    lifecycle.pre_stop.get_or_insert_with(|| LifecycleHandler {
        sleep: Some(SleepAction { seconds }),
        ..LifecycleHandler::default()
    });
}

/// Rounded up: a preStop sleep knows whole seconds only.
fn whole_seconds(span: Duration) -> i64 {
    let seconds = span.as_secs() + u64::from(span.subsec_nanos() > 0);
    i64::try_from(seconds).unwrap_or(i64::MAX)
}
