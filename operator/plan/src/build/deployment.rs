//! The Deployment of one component of one release.

use super::{InvalidTemplate, annotate, applied_hash, hash_of, labels_of, template};
use crate::{labels, names};
use fairway_crds::Release;
use fairway_crds::component::{Component, Strategy};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy};
use k8s_openapi::api::core::v1::{Container, Lifecycle, LifecycleHandler, PodSpec, SleepAction};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::ObjectMeta;
use kube::{Resource, ResourceExt};
use std::collections::BTreeMap;
use std::time::Duration;

/// What Kubernetes gives a pod to end when its template says nothing.
const DEFAULT_GRACE_SECONDS: i64 = 30;

/// What a Deployment is made from.
#[derive(Clone, Copy, Debug)]
pub struct DeploymentInput<'a> {
    /// Name of the App.
    pub app: &'a str,
    /// Namespace of the App.
    pub namespace: &'a str,
    /// The Release, which owns the Deployment.
    pub release: &'a Release,
    /// The component, from the snapshot.
    pub component: &'a Component,
    /// Pinned references by `component/container`.
    pub images: &'a BTreeMap<String, String>,
    /// Pods that run.
    pub replicas: i32,
    /// How long an ending pod goes on serving.
    pub drain: Duration,
}

/// The desired Deployment, as it is applied.
///
/// The annotation `fairway.dev/applied-hash` of a Deployment speaks of everything but the replicas, which are scaled on their
/// own: [`needs_apply`] does not look at them.
///
/// # Errors
/// When the component's template is no pod template.
pub fn deployment(input: &DeploymentInput) -> Result<Deployment, InvalidTemplate> {
    let DeploymentInput {
        app,
        namespace,
        release,
        component,
        images,
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
    template.spec = Some(spec);

    let mut deployment = Deployment {
        metadata: ObjectMeta {
            name: Some(names::deployment(app, &component.name, release.spec.revision)),
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
    if let Some(spec) = &mut deployment.spec {
        spec.replicas = Some(replicas);
    }
    Ok(deployment)
}

/// Whether the Deployment is missing or was applied from another content. Replicas are not looked at.
pub fn needs_apply(desired: &Deployment, observed: Option<&Deployment>) -> bool {
    observed.is_none_or(|observed| applied_hash(&observed.metadata) != applied_hash(&desired.metadata))
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
