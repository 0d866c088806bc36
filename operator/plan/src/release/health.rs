//! Whether pods are healthy: what the probes found, and from when on it is a failure.

pub(super) mod probe_pod;
pub(super) mod targets;

use super::readiness::{time_to_be_healthy, trouble};
use super::verdict::{Failure, Verdict, Wait};
use super::view::View;
use super::workloads::starting;
use crate::message::moment;
use crate::observed::PodHealth;
use crate::traffic::serving;
use fairway_crds::Reason;
use fairway_crds::component::Component;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use probe_pod::{Asker, asker, probe_pod};

/// Waits until these components are healthy; `None` when they are.
pub(super) fn passing(view: &View, components: &[&Component]) -> Option<Verdict> {
    if let Some(step) = probe_pod(view, components) {
        return Some(Verdict::Act(vec![step], starting_probe_pod()));
    }
    let mut slow = components
        .iter()
        .filter_map(|component| Some((component, behind(view, component)?)));
    slow.find_map(|(component, pod)| {
        let asker = asker(view, component);
        let not_asked = match asker {
            Asker::Starting(_) => starting_probe_pod(),
            Asker::Operator | Asker::ProbePod(_) => starting(components),
        };
        unhealthy(view, component, pod, asker, not_asked)
    })
}

fn starting_probe_pod() -> Wait {
    Wait::machine(
        Reason::StartingProbePod,
        "Starting the pod that makes the health requests with headers from Secrets.",
    )
}

/// The pod of a component that has not passed often enough; of several the one that has had the longest time.
fn behind<'a>(view: &View<'a>, component: &Component) -> Option<&'a Pod> {
    let threshold = component.health.as_ref()?.success_threshold;
    let pods = view.ready_pods(&component.name, view.name()).into_iter();
    let behind = pods.filter(|pod| view.health(pod).is_none_or(|found| found.passes < threshold));
    behind
        .min_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|created| created.0))
        .map(AsRef::as_ref)
}

/// What a user does about a pod that the operator cannot reach.
pub(super) const LET_PROBES_IN: &str = "Allow connections from the operator's namespace to the health port of this pod \
                                        in every NetworkPolicy that selects it.";

/// What the probes found about a pod that has not passed often enough.
enum Finding {
    /// Nothing: nobody has asked it yet.
    NotAsked,
    /// It cannot be reached.
    Unreachable(String),
    /// It answers, but not as it should.
    Unhealthy(String),
}

impl Finding {
    fn of(health: &PodHealth, asker: Asker) -> Self {
        match (&health.last_failure, asker) {
            (Some(_), Asker::Starting(_)) if health.unreachable > 0 => Self::NotAsked,
            (Some(found), _) if health.unreachable > 0 => Self::Unreachable(found.clone()),
            (Some(found), _) => Self::Unhealthy(found.clone()),
            (None, _) => Self::NotAsked,
        }
    }

    fn wait(&self, pod: &Pod, not_asked: Wait) -> Wait {
        let pod = pod.name_any();
        match self {
            Self::NotAsked => not_asked,
            Self::Unreachable(found) => Wait::machine(
                Reason::ProbeUnreachable,
                format!("The operator cannot reach pod {pod}: {found}. {LET_PROBES_IN}"),
            ),
            Self::Unhealthy(found) => {
                Wait::machine(Reason::Unhealthy, format!("Pod {pod} is not healthy: {found}."))
            }
        }
    }

    fn failure(&self, component: &Component, wait: &Wait, deadline: Timestamp) -> Failure {
        let message = format!(
            "{} The pod was not healthy by the deadline, {}.",
            wait.message,
            moment(deadline)
        );
        match self {
            Self::NotAsked => Failure::new(Reason::Unhealthy, message),
            Self::Unreachable(_) => Failure::new(Reason::ProbeUnreachable, message),
            Self::Unhealthy(_) => Failure::new(
                Reason::Unhealthy,
                format!(
                    "{message} Correct the response of the application, or health.http of component {}.",
                    component.name
                ),
            ),
        }
    }
}

/// What is waited for, or why the release fails, while a pod has not passed often enough.
fn unhealthy(
    view: &View,
    component: &Component,
    pod: &Pod,
    asker: Asker,
    not_asked: Wait,
) -> Option<Verdict> {
    let health = component.health.as_ref()?;
    let deadline = deadline(view, component, pod, asker)?;
    let found = view.health(pod).cloned().unwrap_or_default();
    let finding = Finding::of(&found, asker);
    let wait = finding.wait(pod, not_asked);
    if view.now < deadline {
        return Some(Verdict::Wait(wait.until(deadline)));
    }
    // One that was healthy, while the release waits for something else, is ill when it would be in the bake.
    if found.proven && found.failures.max(found.unreachable) < health.failure_threshold {
        return Some(Verdict::Wait(wait.until(None)));
    }
    // While the operator was away nobody asked: time alone does not make a version unhealthy.
    let rounds = health.success_threshold.saturating_add(health.failure_threshold);
    if found.passed.saturating_add(found.failed) < u64::from(rounds) {
        let round = health.period.signed().max(SignedDuration::from_secs(1));
        let soon = round.saturating_mul(i32::try_from(rounds).unwrap_or(i32::MAX));
        let soon = view.now.saturating_add(soon).unwrap_or(Timestamp::MAX);
        return Some(Verdict::Wait(wait.until(soon)));
    }
    Some(finding.failure(component, &wait, deadline).verdict())
}

/// By when a pod has to be healthy: its time begins when there are a Deployment, the pod, and somebody who asks it.
fn deadline(view: &View, component: &Component, pod: &Pod, asker: Asker) -> Option<Timestamp> {
    let deployment = view.deployment(&component.name, view.release().spec.revision)?;
    let created = deployment.metadata.creation_timestamp.as_ref()?.0;
    let pod = pod.metadata.creation_timestamp.as_ref().map(|created| created.0);
    let asked = match asker {
        Asker::Operator => None,
        Asker::Starting(created) | Asker::ProbePod(created) => created,
    };
    let begin = [pod, asked].into_iter().flatten().fold(created, Timestamp::max);
    begin.checked_add(time_to_be_healthy(component)).ok()
}

/// The ready pods of this release, with their components.
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
            .unwrap_or_else(|| "the health requests failed".to_owned());
        Some(format!(
            "Pod {} failed its health requests {limit} times in a row: {what}.",
            pod.name_any()
        ))
    });
    let empty = serving(view.snapshot)
        .find(|(component, _)| view.ready_pods(&component.name, view.name()).is_empty())
        .map(|(component, _)| {
            let trouble = trouble(None, view.pods(&component.name, view.name()).map(AsRef::as_ref));
            match trouble {
                Some(trouble) => format!("No pod of {} is ready any more. {trouble}", component.name),
                None => format!("No pod of {} is ready any more.", component.name),
            }
        });
    unhealthy
        .or(empty)
        .map(|message| Failure::new(Reason::HealthLost, message))
}
