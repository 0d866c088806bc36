//! Whether the pods of a component are ready, and until when they may take.

mod since;

use super::view::View;
use crate::build::agent;
use crate::message::{moment, quoting};
use fairway_crds::component::Component;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use since::unready_since;

/// Time to become available for a component that does not say.
const ROLLOUT_DEADLINE: SignedDuration = SignedDuration::from_mins(10);

/// A component that has fewer ready pods than it should have.
pub(super) struct Unready<'a> {
    component: &'a str,
    ready: usize,
    desired: usize,
    /// What keeps its pods from running, as whole sentences, where Kubernetes names something.
    pub(super) trouble: Option<String>,
    /// When its pods have had their time.
    pub(super) deadline: Option<Timestamp>,
}

impl Unready<'_> {
    /// What is missing now.
    pub(super) fn message(&self) -> String {
        let Self {
            component,
            ready,
            desired,
            ..
        } = self;
        self.with_trouble(format!("{ready} of {desired} pods of {component} are ready."))
    }

    /// What was missing at the deadline.
    pub(super) fn message_after(&self, deadline: Timestamp) -> String {
        let Self {
            component,
            ready,
            desired,
            ..
        } = self;
        let by = moment(deadline);
        self.with_trouble(format!(
            "{ready} of {desired} pods of {component} were ready by {by}."
        ))
    }

    fn with_trouble(&self, count: String) -> String {
        match &self.trouble {
            Some(trouble) => format!("{count} {trouble}"),
            None => count,
        }
    }
}

/// What is missing of this component of the release, if anything is.
pub(super) fn unready<'a>(view: &View, component: &'a Component) -> Option<Unready<'a>> {
    let desired = usize::try_from(view.replicas(component)).unwrap_or_default();
    let ready = view.ready_pods(&component.name, view.name()).len();
    let existing = view.deployment(&component.name, view.release().spec.revision);
    if ready >= desired && (existing.is_some() || desired == 0) {
        return None;
    }
    let pods = || view.pods(&component.name, view.name()).map(AsRef::as_ref);
    let deadline = existing
        .and_then(|deployment| unready_since(deployment, desired, pods()))
        .and_then(|since| since.checked_add(time_to_be_healthy(component)).ok());
    Some(Unready {
        component: &component.name,
        ready,
        desired,
        trouble: trouble(existing.map(AsRef::as_ref), pods()),
        deadline,
    })
}

/// What is still missing of the pods that the App wants today, and the time that their component is given.
pub(super) fn behind(view: &View) -> Option<(String, SignedDuration)> {
    let mut components = view.snapshot.components.iter();
    components
        .find_map(|component| Some((unready(view, component)?.message(), time_to_be_healthy(component))))
}

/// Time that a component has from its creation to being healthy.
pub(super) fn time_to_be_healthy(component: &Component) -> SignedDuration {
    component
        .health
        .as_ref()
        .map_or(ROLLOUT_DEADLINE, |health| health.deadline.signed())
}

/// The first thing that keeps pods from running, as whole sentences.
pub(super) fn trouble<'a>(
    deployment: Option<&Deployment>,
    pods: impl Iterator<Item = &'a Pod>,
) -> Option<String> {
    let refused = deployment
        .and_then(|deployment| deployment.status.as_ref())
        .into_iter()
        .flat_map(|status| status.conditions.iter().flatten())
        .find(|condition| condition.type_ == "ReplicaFailure" && condition.status == "True")
        .and_then(|condition| condition.message.clone());
    refused
        .map(|message| quoting("The pods cannot be created", Some(&message)))
        .or_else(|| pods.filter_map(agent::trouble).next())
}
