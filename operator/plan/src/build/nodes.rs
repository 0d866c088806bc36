//! The one node of a component whose pods share a claim that is attached to one node at a time.
//!
//! Its pods, of whichever release, are bound to each other by a required pod affinity. The scheduler places the first of
//! them on any node, since it matches its own term, and the others beside it:
//! <https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#inter-pod-affinity-and-anti-affinity>.

use super::labels_of;
use crate::labels;
use fairway_crds::component::Component;
use fairway_crds::release::ReleaseStatus;
use k8s_openapi::api::core::v1::{PodAffinityTerm, PodSpec, WeightedPodAffinityTerm};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// The label by which nodes differ.
const HOSTNAME: &str = "kubernetes.io/hostname";

/// On which nodes the pods of a component run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nodes {
    /// On those that its template allows.
    Any,
    /// On one of them, all together.
    One,
}

impl Nodes {
    /// Where the pods of a release's component run, as its status has recorded it.
    pub fn of(component: &Component, status: &ReleaseStatus) -> Self {
        match status.on_one_node.contains(&component.name) {
            true => Self::One,
            false => Self::Any,
        }
    }

    /// Binds a pod of the component to the component's other pods.
    pub(super) fn bind(self, pod: &mut PodSpec, app: &str, component: &str) {
        if self == Self::One {
            let affinity = pod.affinity.get_or_insert_default();
            let affinity = affinity.pod_affinity.get_or_insert_default();
            let required = &mut affinity.required_during_scheduling_ignored_during_execution;
            required.get_or_insert_default().push(beside(app, component));
        }
    }

    /// Draws a pod that is none of the component's, and may be scheduled while there are none, to their node.
    pub(super) fn draw(self, pod: &mut PodSpec, app: &str, component: &str) {
        if self == Self::One {
            let affinity = pod.affinity.get_or_insert_default();
            let affinity = affinity.pod_affinity.get_or_insert_default();
            let preferred = &mut affinity.preferred_during_scheduling_ignored_during_execution;
            preferred.get_or_insert_default().push(WeightedPodAffinityTerm {
                weight: 100,
                pod_affinity_term: beside(app, component),
            });
        }
    }
}

fn beside(app: &str, component: &str) -> PodAffinityTerm {
    let labels = labels_of([(labels::APP, app), (labels::COMPONENT, component)]);
    PodAffinityTerm {
        topology_key: HOSTNAME.to_owned(),
        label_selector: Some(LabelSelector {
            match_labels: Some(labels),
            ..LabelSelector::default()
        }),
        ..PodAffinityTerm::default()
    }
}
