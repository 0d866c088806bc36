//! Whether pods are healthy: what the probes found, and from when on it is a failure.

pub(super) mod probe_pod;
pub(super) mod targets;

use super::readiness::{patience, trouble};
use super::traffic::serving;
use super::verdict::{Failure, Verdict, Wait};
use super::view::View;
use super::workloads::starting;
use crate::observed::PodHealth;
use fairway_crds::Reason;
use fairway_crds::component::Component;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use probe_pod::{needs_probe_pod, probe_pod, probe_pod_is_ready, probe_pod_made};

const STARTING_PROBE_POD: Reason = Reason::StartingProbePod;

/// Waits until these components are healthy; `None` when they are.
pub(super) fn passing(view: &View, components: &[&Component]) -> Option<Verdict> {
    if let Some(step) = probe_pod(view, components) {
        return Some(Verdict::Act(vec![step], starting_probe_pod()));
    }
    components.iter().find_map(|component| {
        let starts = needs_probe_pod(component) && !probe_pod_is_ready(view);
        let starting = if starts {
            starting_probe_pod()
        } else {
            starting(components)
        };
        unhealthy(view, component, &starting)
    })
}

fn starting_probe_pod() -> Wait {
    Wait::machine(
        STARTING_PROBE_POD,
        "starting the pod that asks health with headers from Secrets",
    )
}

fn unhealthy(view: &View, component: &Component, starting: &Wait) -> Option<Verdict> {
    let health = component.health.as_ref()?;
    let pods = view.ready_pods(&component.name, view.name());
    let behind = pods.iter().filter(|pod| {
        view.health(pod)
            .is_none_or(|found| found.passes < health.success_threshold)
    });
    // The one that has had the longest time.
    let behind = behind.min_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|made| made.0))?;
    let deployment = view.deployment(&component.name, view.release().spec.revision)?;
    let created = deployment.metadata.creation_timestamp.as_ref()?.0;
    let created = behind
        .metadata
        .creation_timestamp
        .as_ref()
        .map_or(created, |made| made.0.max(created));
    let asking = if needs_probe_pod(component) {
        probe_pod_made(view)
    } else {
        None
    };
    let deadline = asking
        .map_or(created, |asking| asking.max(created))
        .checked_add(patience(component))
        .ok()?;
    let PodHealth {
        proven,
        failures,
        unreachable,
        last_failure,
        passed,
        failed,
        ..
    } = view.health(behind).cloned().unwrap_or_default();
    let (reason, message) = match last_failure {
        // Nobody has asked yet.
        Some(_) if unreachable > 0 && starting.reason == STARTING_PROBE_POD => {
            (starting.reason, starting.message.clone())
        }
        Some(found) if unreachable > 0 => (
            Reason::ProbeUnreachable,
            format!(
                "the operator cannot reach pod {}: {found}; a NetworkPolicy must let it in from the operator's namespace",
                behind.name_any()
            ),
        ),
        Some(found) => (Reason::Unhealthy, format!("pod {}: {found}", behind.name_any())),
        None => (starting.reason, starting.message.clone()),
    };
    if view.now < deadline {
        return Some(Verdict::Wait(Wait::machine(reason, message).until(deadline)));
    }
    // One that was healthy, while the release waits for something else, is ill when it would be in the bake.
    if proven && failures.max(unreachable) < health.failure_threshold {
        return Some(Verdict::Wait(Wait::machine(reason, message)));
    }
    // While the operator was away nobody asked: time alone does not make a version unhealthy.
    let rounds = health.success_threshold.saturating_add(health.failure_threshold);
    if passed.saturating_add(failed) < u64::from(rounds) {
        let round = health.period.signed().max(SignedDuration::from_secs(1));
        let soon = view
            .now
            .saturating_add(round.saturating_mul(i32::try_from(rounds).unwrap_or(i32::MAX)));
        return Some(Verdict::Wait(
            Wait::machine(reason, message).until(soon.unwrap_or(Timestamp::MAX)),
        ));
    }
    let mend = if reason == Reason::Unhealthy {
        format!(
            ": correct what it answers, or health.http of component {}",
            component.name
        )
    } else {
        String::new()
    };
    let reason = if reason == Reason::ProbeUnreachable {
        reason
    } else {
        Reason::Unhealthy
    };
    let moment = crate::conditions::moment(deadline);
    Some(Failure::new(reason, format!("{message}; not healthy by {moment}{mend}")).verdict())
}

pub(super) fn watched<'a>(view: &View<'a>) -> impl Iterator<Item = (&'a Component, &'a Pod)> {
    let view = *view;
    view.snapshot.components.iter().flat_map(move |component| {
        view.ready_pods(&component.name, view.name())
            .into_iter()
            .map(move |pod| (component, pod.as_ref()))
    })
}

/// Why the candidate must not keep the traffic: enough failures in a row on a ready pod, or no ready pod left.
pub(super) fn tripped(view: &View) -> Option<Failure> {
    let unhealthy = watched(view).find_map(|(component, pod)| {
        let limit = component.health.as_ref()?.failure_threshold;
        let found = view.health(pod).filter(|found| found.failures >= limit)?;
        let what = found
            .last_failure
            .clone()
            .unwrap_or_else(|| "its health requests failed".to_owned());
        Some(format!(
            "pod {} failed {} health checks in a row: {what}",
            pod.name_any(),
            limit
        ))
    });
    let empty = serving(view.snapshot)
        .find(|(component, _)| view.ready_pods(&component.name, view.name()).is_empty())
        .map(|(component, _)| {
            let trouble = trouble(None, view.pods(&component.name, view.name()).map(AsRef::as_ref));
            match trouble {
                Some(trouble) => format!("no pod of {} is ready any more: {trouble}", component.name),
                None => format!("no pod of {} is ready any more", component.name),
            }
        });
    unhealthy
        .or(empty)
        .map(|message| Failure::new(Reason::HealthLost, message))
}
