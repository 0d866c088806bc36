//! Comparison with the previous version while it stands: what both suffer alike, say a database that restarts, is no reason
//! to go back.

use super::{round, watched};
use crate::build::agent;
use crate::message::{duration, sentences};
use crate::observed::PodHealth;
use crate::release::history::happened;
use crate::release::readiness::{time_to_be_healthy, trouble};
use crate::release::verdict::Failure;
use crate::release::view::View;
use crate::traffic::serving;
use fairway_crds::Reason;
use fairway_crds::component::Component;
use fairway_crds::release::{MilestoneKind, ReleaseStatus};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

/// Key in `status.attempts` of the wait for a candidate that has tripped.
pub(in crate::release) const TRIPPED: &str = "Baked";

/// A component of the candidate that has tripped: enough failures in a row on a ready pod, or no ready pod left.
struct Trip<'a> {
    /// The component.
    component: &'a Component,
    /// The pod that fails; `None` when no pod is ready.
    pod: Option<&'a Pod>,
    /// What happened: whole sentences.
    message: String,
}

fn trips<'a>(view: &View<'a>) -> Vec<Trip<'a>> {
    let unhealthy = watched(view).filter_map(|(component, pod)| {
        let limit = component.health.as_ref()?.failure_threshold;
        let found = view.health(pod).filter(|found| found.failures >= limit)?;
        let what = found
            .last_failure
            .clone()
            .unwrap_or_else(|| "the health requests failed".to_owned());
        let message = format!(
            "Pod {} failed its health requests {limit} times in a row: {what}.",
            pod.name_any()
        );
        Some(Trip {
            component,
            pod: Some(pod),
            message,
        })
    });
    let empty = serving(view.snapshot)
        .filter(|(component, _)| view.ready_pods(&component.name, view.name()).is_empty())
        .map(|(component, _)| {
            let trouble = trouble(None, view.pods(&component.name, view.name()).map(AsRef::as_ref));
            let message = match trouble {
                Some(trouble) => format!("No pod of {} is ready any more. {trouble}", component.name),
                None => format!("No pod of {} is ready any more.", component.name),
            };
            Trip {
                component,
                pod: None,
                message,
            }
        });
    unhealthy.chain(empty).collect()
}

/// How unhealthy the candidate is.
pub(in crate::release) enum Tripped {
    /// It must not keep the traffic.
    Failed(Failure),
    /// It is waited for, until it is asked again or its time is over.
    Waits(Timestamp, Option<String>),
}

/// Whether the candidate must not keep the traffic; `None` when nothing has tripped. What the previous version suffers
/// alike is waited for.
pub(in crate::release) fn tripped(view: &View, status: &ReleaseStatus) -> Option<Tripped> {
    let mut waits = None;
    for trip in trips(view) {
        match compare(view, status, &trip) {
            Comparison::Better => {
                return Some(Tripped::Failed(Failure::new(Reason::HealthLost, trip.message)));
            }
            Comparison::NotAsked(next) => waits = waits.or(Some(Tripped::Waits(next, None))),
            Comparison::Alike(until, how) => {
                let message = sentences([&trip.message, &how]);
                waits = waits.or(Some(Tripped::Waits(until, Some(message))));
            }
        }
    }
    waits
}

/// Why the candidate must not keep the traffic, if that is so.
pub(in crate::release) fn failure(view: &View, status: &ReleaseStatus) -> Option<Failure> {
    match tripped(view, status)? {
        Tripped::Failed(failure) => Some(failure),
        Tripped::Waits(..) => None,
    }
}

/// How the previous version fares where the candidate has tripped.
enum Comparison {
    /// Better, or nobody can say: the candidate must not keep the traffic.
    Better,
    /// Nobody has asked it yet: look again then.
    NotAsked(Timestamp),
    /// As badly. It is waited for at most until then.
    Alike(Timestamp, String),
}

/// Pods of the previous version that are asked beside those of the candidate: as long as a pod of the candidate fails
/// after traffic has moved. Those with a header from a Secret that the candidate does not use are left out, because the
/// probe pod does not have it.
pub(super) fn compared<'a>(view: &View<'a>, status: &ReleaseStatus) -> Vec<(&'a Component, &'a Pod)> {
    let moved = happened(status, MilestoneKind::TrafficMoved).is_some();
    let fails = |pod: &Pod| view.health(pod).is_some_and(|found| found.failures > 0);
    let previous = status.previous.as_deref();
    let snapshot = previous.and_then(|name| view.snapshot_of(name));
    let (Some(previous), Some(snapshot), true) = (previous, snapshot, moved) else {
        return Vec::new();
    };
    let failing = |name: &str| watched(view).any(|(component, pod)| component.name == name && fails(pod));
    let components = snapshot.components.iter();
    components
        .filter(|component| component.health.is_some() && agent::can_ask(view.snapshot, component))
        .filter(|component| failing(&component.name))
        .flat_map(|component| {
            let pods = view.ready_pods(&component.name, previous).into_iter();
            pods.map(move |pod| (component, pod.as_ref()))
        })
        .collect()
}

/// Compares a component that has tripped with the previous version.
fn compare(view: &View, status: &ReleaseStatus, trip: &Trip) -> Comparison {
    let name = status.previous.as_deref().unwrap_or_default();
    let before = view.previous_component(status, &trip.component.name);
    let Some(before) = before else {
        return Comparison::Better;
    };
    let ready = view.ready_pods(&before.name, name);
    let how = if ready.is_empty() {
        let pods = || view.pods(&before.name, name).map(AsRef::as_ref);
        // It stands only while it has pods. Where the candidate's run and the previous version's do not, that has a cause
        // of its own.
        if pods().next().is_none() || trip.pod.is_some() && trouble(None, pods()).is_some() {
            return Comparison::Better;
        }
        format!("No pod of {} in {name} is ready either", before.name)
    } else {
        let asked: Vec<_> = ready.iter().map(|pod| view.health(pod)).collect();
        if trip.pod.is_none() || before.health.is_none() || !agent::can_ask(view.snapshot, before) {
            return Comparison::Better;
        }
        if asked.iter().flatten().any(|found| !is_ill(found)) {
            return Comparison::Better;
        }
        if asked.iter().any(Option::is_none) || asked.iter().flatten().any(|found| found.failed == 0) {
            return not_asked(view, status, trip);
        }
        format!(
            "The pods of {} in {name} fail their health requests too",
            before.name
        )
    };
    let limit = time_to_be_healthy(trip.component);
    let until = since(view, status)
        .saturating_add(limit)
        .unwrap_or(Timestamp::MAX);
    if view.now >= until {
        return Comparison::Better;
    }
    let message = format!(
        "{how}, so a rollback would not help. The release waits for at most {}.",
        duration(limit)
    );
    Comparison::Alike(until, message)
}

/// Whether the last rounds of a pod that was asked have failed; true also of one that has not been asked.
fn is_ill(found: &PodHealth) -> bool {
    found.passes == 0 && found.unreachable == 0
}

/// The wait until the previous version has been asked, which takes a round or two.
fn not_asked(view: &View, status: &ReleaseStatus, trip: &Trip) -> Comparison {
    let Some(health) = trip.component.health.as_ref() else {
        return Comparison::Better;
    };
    let round = round(health);
    let rounds = health.failure_threshold.saturating_add(3);
    let patience = round.saturating_mul(i32::try_from(rounds).unwrap_or(i32::MAX));
    let end = since(view, status)
        .saturating_add(patience)
        .unwrap_or(Timestamp::MAX);
    let next = view.now.saturating_add(round).unwrap_or(Timestamp::MAX);
    if view.now < end {
        Comparison::NotAsked(next)
    } else {
        Comparison::Better
    }
}

/// Since when the candidate is waited for although it has tripped.
fn since(view: &View, status: &ReleaseStatus) -> Timestamp {
    let recorded = status.attempts.get(TRIPPED);
    recorded.map_or(view.now, |recorded| recorded.since)
}
