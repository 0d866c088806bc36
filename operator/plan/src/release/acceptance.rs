//! Whether the API server accepts a candidate's Deployments and pods, asked by dry runs before anything is changed for them.
//!
//! A Deployment is accepted whatever keeps its pods from being created: a ServiceAccount or PriorityClass that does not
//! exist, PodSecurity, a LimitRange, a quota. So one pod of each component is asked for as well.

use super::legacy;
use super::verdict::{Failure, Verdict, Wait};
use super::view::View;
use super::workloads;
use crate::build::applied_hash;
use crate::build::deployment::{self, DeploymentInput};
use crate::build::nodes::Nodes;
use crate::message::sentence;
use crate::object::{self, Kind, Object, Step};
use crate::observed::Refusal;
use fairway_crds::Reason;
use fairway_crds::component::Component;
use fairway_crds::release::{ApiServerWarning, ReleaseStatus};
use k8s_openapi::api::apps::v1::Deployment;
use std::collections::BTreeMap;

/// Warnings that a Release keeps.
const WARNINGS: usize = 8;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// The Deployments, and a pod of each.
    DeploymentsAndPods,
    /// A pod of each Deployment, once more before the previous ones are stopped.
    Pods,
}

/// Asks whether the API server accepts these components with these images; `None` when it does. What it warns of is kept as
/// evidence.
pub(super) fn asked(
    view: &View,
    status: &mut ReleaseStatus,
    ask: Ask,
    components: &[&Component],
    images: &BTreeMap<String, String>,
) -> Option<Verdict> {
    let mut steps = Vec::new();
    for component in components {
        let desired = match deployment_of(view, status, component, images) {
            Ok(desired) => desired,
            Err(failure) => return Some(failure.verdict()),
        };
        // Days may lie between the two, and an answer is remembered for as long as it is to the same content.
        let before = (ask == Ask::Pods).then_some("handover");
        let pod = deployment::pod(&desired, before);
        if ask == Ask::DeploymentsAndPods {
            if let Some(verdict) = workloads::refused(view, component, &desired) {
                return Some(verdict);
            }
            steps.extend(ask_for(view, status, component, Object::Deployment(desired)));
        }
        if view.replicas(component) == 0 {
            continue;
        }
        match view.answers().refusal_of(Kind::Pod, &pod.metadata) {
            Some(refusal) if is_for_room(view, status, component, refusal) => {}
            Some(refusal) => return Some(workloads::refusal(component, refusal)),
            None => steps.extend(ask_for(view, status, component, Object::Pod(pod))),
        }
    }
    let wait = Wait::machine(
        Reason::CheckingTemplates,
        "Asking the API server whether it accepts the new pods.",
    );
    (!steps.is_empty()).then(|| Verdict::Act(steps, wait.until(view.now)))
}

/// The dry run of an object of a component, unless it has passed; then what the API server warned of is kept.
fn ask_for(view: &View, status: &mut ReleaseStatus, component: &Component, object: Object) -> Option<Step> {
    let key = object::key(
        &object::id(object.kind(), object.meta()),
        applied_hash(object.meta()).unwrap_or_default(),
    );
    for message in view.observed.warnings.get(&key).into_iter().flatten() {
        let warning = ApiServerWarning {
            component: component.name.clone(),
            message: message.clone(),
        };
        let warnings = &mut status.evidence.warnings;
        if warnings.len() < WARNINGS && !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }
    view.answers().dry_run(object)
}

/// Whether a quota has no room beside the previous pods of a component that are gone before the candidate's start.
fn is_for_room(view: &View, status: &ReleaseStatus, component: &Component, refusal: &Refusal) -> bool {
    let stops = view
        .stopping(status)
        .iter()
        .any(|stopping| stopping.name == component.name);
    let is_there = !view.pods_of_others(&component.name, view.name()).is_empty()
        || legacy::of(view, &[&component.name]).next().is_some();
    stops && is_there && refusal.exceeds_quota()
}

fn deployment_of(
    view: &View,
    status: &ReleaseStatus,
    component: &Component,
    images: &BTreeMap<String, String>,
) -> Result<Deployment, Failure> {
    let desired = deployment::deployment(&DeploymentInput {
        name: &view.deployment_name(&component.name, view.release().spec.revision),
        app: view.app_name(),
        namespace: view.namespace(),
        release: view.release(),
        revision: view.revision_of(view.name()),
        component,
        images,
        nodes: Nodes::of(component, status),
        replicas: 0,
        drain: view.snapshot.traffic.drain.get(),
    });
    desired.map_err(|error| Failure::new(Reason::TemplateRefused, sentence(&error.to_string())))
}
