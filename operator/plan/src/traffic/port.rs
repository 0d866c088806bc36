//! What a driver has to do, and what rungs and invariants ask of it.

use crate::answers::Answers;
use crate::object::{Kind, Step};
use crate::observed::ReleaseObserved;
use crate::snapshot::Snapshot;
use fairway_crds::component::{Component, Serves};
use fairway_crds::{App, Reason};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A way to direct users.
pub trait Driver: Sync {
    /// Where users go now, one entry for each name under which they come and which exists.
    fn entries<'a>(&self, objects: Objects<'a>) -> Vec<Entry<'a>>;

    /// The next step to direct every user to a destination, or how far the steps made so far have come. A driver that
    /// directs users step by step answers with one step each time, and waits between them. It never directs anybody to
    /// nothing; the caller has made sure that the destination has ready pods.
    fn direct(&self, network: &Network, to: &Destination, validation: Validation) -> Switch;

    /// Whether the driver writes objects of this kind, and so says itself what a refusal of one means.
    fn writes(&self, kind: Kind) -> bool;

    /// What removes objects that directed users to earlier releases and that this one does not need.
    fn leftovers(&self, _network: &Network, _to: &Destination) -> Vec<Step> {
        Vec::new()
    }
}

/// Objects that direct traffic, as observed.
#[derive(Clone, Copy, Debug)]
pub struct Objects<'a> {
    /// Services by name.
    pub services: &'a BTreeMap<String, Arc<Service>>,
}

/// What a driver looks at.
#[derive(Clone, Copy, Debug)]
pub struct Network<'a> {
    /// Objects that direct traffic.
    pub objects: Objects<'a>,
    /// EndpointSlices of the Services.
    pub endpoint_slices: &'a [Arc<EndpointSlice>],
    /// Every pod of the App.
    pub pods: &'a [Arc<Pod>],
    /// The API server's answers to earlier writes.
    pub answers: Answers<'a>,
    /// The time of this pass.
    pub now: Timestamp,
}

impl<'a> Network<'a> {
    /// The network as it was observed for a Release.
    pub fn of(observed: &'a ReleaseObserved, now: Timestamp) -> Self {
        Self {
            objects: Objects {
                services: &observed.services,
            },
            endpoint_slices: &observed.endpoint_slices,
            pods: &observed.pods,
            answers: Answers::of(observed),
            now,
        }
    }
}

/// Where users should go.
#[derive(Clone, Copy, Debug)]
pub struct Destination<'a> {
    /// Their App.
    pub app: &'a App,
    /// What the release that they should reach releases.
    pub snapshot: &'a Snapshot,
    /// Name of that release.
    pub release: &'a str,
}

/// A name under which users come, and what they reach there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// `serves.service` of a component.
    pub service: &'a str,
    /// What they reach: several targets while they are directed step by step, none when it is nothing of Fairway's.
    pub targets: Vec<Target<'a>>,
}

/// Pods that some users reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// Label `fairway.dev/app` of the pods.
    pub app: &'a str,
    /// Label `fairway.dev/component` of the pods.
    pub component: &'a str,
    /// Label `fairway.dev/release` of the pods.
    pub release: &'a str,
}

/// Whether writes are validated by a server-side dry run before the first one is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validation {
    /// Dry-run every write first, so that a refusal does not leave traffic on both versions.
    DryRunFirst,
    /// Write immediately, because traffic must leave an unhealthy version.
    Immediate,
}

/// How far users have been directed.
#[derive(Clone, Debug, PartialEq)]
pub enum Switch {
    /// All of them reach the destination and nothing else.
    Converged,
    /// These writes come next.
    Write(Vec<Step>, Pending),
    /// The writes made so far have not taken effect everywhere.
    Pending(Pending),
    /// A write is refused, and a user has to see to it.
    Refused(Reason, String),
}

/// What is waited for until users are directed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// What is waited for, as a sentence.
    pub message: String,
    /// When to look again; until then the wait is too short to be worth a write of the status. Without it nothing but a
    /// change ends the wait.
    pub brief_until: Option<Timestamp>,
}

/// Components of a snapshot that serve, with what they serve.
pub fn serving(snapshot: &Snapshot) -> impl Iterator<Item = (&Component, &Serves)> {
    snapshot
        .components
        .iter()
        .filter_map(|component| Some((component, component.serves.as_ref()?)))
}
