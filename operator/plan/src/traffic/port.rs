//! The port of the traffic drivers: what a driver does, and what rungs and invariants ask of it.

use crate::answers::Answers;
use crate::object::{Kind, Step};
use crate::snapshot::Snapshot;
use fairway_crds::component::{Component, Serves};
use fairway_crds::{App, Reason};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A way to send traffic to a release.
pub trait Driver: Sync {
    /// Where each existing Service sends its traffic now.
    fn service_targets<'a>(&self, objects: Objects<'a>) -> Vec<ServiceTargets<'a>>;

    /// Why traffic cannot be sent to a target as its Services are now, and what to change; asked before anything is changed
    /// for the target, and again before the switch.
    fn unfit(&self, _state: &TrafficState, _to: &TrafficTarget) -> Option<String> {
        None
    }

    /// What sends traffic elsewhere, whatever this driver switches, and what to do; asked before anything is changed for a
    /// target.
    fn hindered(&self, _state: &TrafficState, _to: &TrafficTarget) -> Option<String> {
        None
    }

    /// Whether the API server would accept the writes that send all traffic to a target as its Services are now, by dry runs of
    /// them; asked before anything is changed for the target.
    fn ask(&self, _state: &TrafficState, _to: &TrafficTarget) -> Asked {
        Asked::Accepted
    }

    /// The next step to send all traffic to a target, or how far the steps made so far have come. A driver that moves
    /// traffic gradually answers with one step each time, and waits between them. The caller has made sure that the
    /// target has ready pods.
    fn direct(&self, state: &TrafficState, to: &TrafficTarget, validation: Validation) -> Switch;

    /// What is waited for until no pod of another release receives traffic; `None` when none does.
    fn draining(&self, state: &TrafficState, to: &TrafficTarget) -> Option<Pending>;

    /// Whether the driver writes objects of this kind, and so says itself what a refusal of one means.
    fn writes(&self, kind: Kind) -> bool;

    /// Services that send traffic to other releases of the App and that no component of the target serves.
    fn leftovers<'a>(&self, state: &TrafficState<'a>, to: &TrafficTarget) -> Vec<Leftover<'a>>;
}

/// Objects that direct traffic, as observed.
#[derive(Clone, Copy, Debug)]
pub struct Objects<'a> {
    /// Services by name.
    pub services: &'a BTreeMap<String, Arc<Service>>,
}

/// State of the traffic of an App, as observed.
#[derive(Clone, Copy, Debug)]
pub struct TrafficState<'a> {
    /// Objects that direct traffic.
    pub objects: Objects<'a>,
    /// By Service: the other Apps that exist and serve it.
    pub served_by_others: &'a BTreeMap<String, BTreeSet<String>>,
    /// EndpointSlices of the Services.
    pub endpoint_slices: &'a [Arc<EndpointSlice>],
    /// Every pod of the App.
    pub pods: &'a [Arc<Pod>],
    /// The API server's answers to earlier writes.
    pub answers: Answers<'a>,
    /// The time of this pass.
    pub now: Timestamp,
}

/// The release that should receive all traffic of an App.
#[derive(Clone, Copy, Debug)]
pub struct TrafficTarget<'a> {
    /// The App whose traffic it is.
    pub app: &'a App,
    /// The snapshot of the release.
    pub snapshot: &'a Snapshot,
    /// Name of the release.
    pub release: &'a str,
}

/// A Service, and the pods to which it sends traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceTargets<'a> {
    /// `serves.service` of a component.
    pub service: &'a str,
    /// Pods that receive its traffic: several targets while traffic moves gradually, none when they are not Fairway's.
    pub targets: Vec<TargetPods<'a>>,
}

/// Pods that receive traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetPods<'a> {
    /// Label `fairway.dev/app` of the pods.
    pub app: &'a str,
    /// Label `fairway.dev/component` of the pods.
    pub component: &'a str,
    /// Label `fairway.dev/release` of the pods.
    pub release: &'a str,
}

/// A Service that sends traffic to another release of the App than the one that should have all of it, and that this one
/// does not serve.
#[derive(Clone, Debug, PartialEq)]
pub struct Leftover<'a> {
    /// Name of the Service.
    pub service: &'a str,
    /// The release whose pods it selects.
    pub release: &'a str,
    /// What becomes of it.
    pub removal: Removal,
}

/// What becomes of a Service that no component serves any more.
#[derive(Clone, Debug, PartialEq)]
pub enum Removal {
    /// Fairway created it, and deletes it.
    Due(Step),
    /// It is being deleted, or another App serves it by now.
    NotDue,
    /// A team brought it: only the team deletes it.
    NotOurs,
}

/// Whether writes are validated by a server-side dry run before the first one is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validation {
    /// Dry-run every write first, so that a refusal does not leave traffic on both versions.
    DryRunFirst,
    /// Write immediately, because traffic must leave an unhealthy version.
    Immediate,
}

/// What the API server says of writes that are not due yet.
#[derive(Clone, Debug, PartialEq)]
pub enum Asked {
    /// It would accept each of them.
    Accepted,
    /// These dry runs ask it.
    Ask(Vec<Step>),
    /// One is refused: a user has to see to it.
    Refused(Refused),
}

/// How far traffic has moved.
#[derive(Clone, Debug, PartialEq)]
pub enum Switch {
    /// All traffic reaches the target.
    Converged,
    /// These writes come next.
    Write(Vec<Step>, Pending),
    /// The writes made so far have not taken effect everywhere.
    Pending(Pending),
    /// A write is refused, or something else sends traffic too: a user has to see to it.
    Refused(Refused),
}

/// Why traffic cannot be moved, or not all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why, for machines.
    pub reason: Reason,
    /// Why, and what to do: whole sentences.
    pub message: String,
}

/// What is waited for until all traffic has moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// What is waited for, as a sentence.
    pub message: String,
    /// When to look again; until then the wait is too short to be worth a write of the status. Without it nothing but a
    /// change ends the wait.
    pub brief_until: Option<Timestamp>,
    /// From when on it has taken too long.
    pub late: Option<Late>,
}

/// That a wait has taken so long that a user has to see what is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Late {
    /// From when on.
    pub from: Timestamp,
    /// What to look at, as a sentence.
    pub advice: String,
}

/// Components of a snapshot that serve, with what they serve.
pub fn serving(snapshot: &Snapshot) -> impl Iterator<Item = (&Component, &Serves)> {
    snapshot
        .components
        .iter()
        .filter_map(|component| Some((component, component.serves.as_ref()?)))
}
