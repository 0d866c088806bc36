//! Whether pods are healthy: what the probes found, and from when on it is a failure.

pub(super) mod comparison;
pub(super) mod probe_pod;
pub(super) mod targets;

use super::history::happened;
use super::readiness::time_to_be_healthy;
use super::verdict::{Failure, Verdict, Wait};
use super::view::View;
use super::workloads::starting;
use crate::build::agent;
use crate::message::moment;
use crate::observed::PodHealth;
use crate::snapshot::pod_template;
use fairway_crds::Reason;
use fairway_crds::component::Component;
use fairway_crds::health::Health;
use fairway_crds::release::MilestoneKind;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use probe_pod::{Asker, asker, probe_pod};
use std::collections::BTreeSet;

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

/// The pod of a component that has not passed often enough; of several the one that has had the longest time. One that
/// has passed before, while the release waits for something else, is as healthy as it would have to be in the bake.
fn behind<'a>(view: &View<'a>, component: &Component) -> Option<&'a Pod> {
    let health = component.health.as_ref()?;
    let passes = |pod: &Pod| {
        view.health(pod).is_some_and(|found| {
            let is_ill = found.failures.max(found.unreachable) >= health.failure_threshold;
            let has_passed =
                found.proven || passed_before_the_handover(view, pod) && is_asked_enough(health, found);
            found.passes >= health.success_threshold || has_passed && !is_ill
        })
    };
    let pods = view.ready_pods(&component.name, view.name()).into_iter();
    let behind = pods.filter(|pod| !passes(pod));
    behind
        .min_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|created| created.0))
        .map(AsRef::as_ref)
}

/// Whether the milestone of the handover says that a pod had passed: a process that has started since does not know.
fn passed_before_the_handover(view: &View, pod: &Pod) -> bool {
    let status = view.release().status.as_ref();
    let handing_over = status.and_then(|status| happened(status, MilestoneKind::HandingOver));
    let created = pod.metadata.creation_timestamp.as_ref();
    handing_over
        .zip(created)
        .is_some_and(|(handing_over, created)| created.0 < handing_over.at)
}

/// What a user does about a pod that the operator cannot reach.
const LET_PROBES_IN: &str = "Allow connections from the operator's namespace to the health port of this pod \
                                        in every NetworkPolicy that selects it.";

/// Why no connection to a ready pod could be made, the likely cause first.
///
/// A connection is refused by the pod when nothing listens, and by the network when a NetworkPolicy rejects it. Where the
/// kubelet finds the pod ready by the same port, something listens.
pub(super) fn no_connection(component: &Component, pod: &str, health: &PodHealth, found: &str) -> String {
    if health.refused && !kubelet_uses_the_ports_of(component) {
        let name = &component.name;
        return format!(
            "Pod {pod} refuses connections: {found}. Nothing listens on that port, or only on 127.0.0.1: correct \
             serves.targetPort, or the port in health.http, of component {name}. If the application does listen there, a \
             NetworkPolicy rejects the connection. {LET_PROBES_IN}"
        );
    }
    format!("The operator cannot reach pod {pod}: {found}. {LET_PROBES_IN}")
}

/// Whether readiness probes ask every port of the component's health requests.
fn kubelet_uses_the_ports_of(component: &Component) -> bool {
    let Ok(spec) = pod_template(component).map(|template| template.spec.unwrap_or_default()) else {
        return false;
    };
    let probed: BTreeSet<i32> = spec.containers.iter().filter_map(port_of_readiness).collect();
    let health = component.health.iter().flat_map(|health| &health.http);
    let mut ports = health.map(|request| agent::http_request(component, request).0);
    ports.all(|port| probed.contains(&i32::from(port)))
}

fn port_of_readiness(container: &Container) -> Option<i32> {
    let probe = container.readiness_probe.as_ref()?;
    let of_http = probe.http_get.as_ref().map(|get| &get.port);
    let of_socket = probe.tcp_socket.as_ref().map(|socket| &socket.port);
    match of_http.or(of_socket)? {
        IntOrString::Int(port) => Some(*port),
        IntOrString::String(name) => {
            let mut ports = container.ports.iter().flatten();
            let named = ports.find(|port| port.name.as_ref() == Some(name));
            named
                .map(|port| port.container_port)
                .or_else(|| name.parse().ok())
        }
    }
}

/// What the probes found about a pod that has not passed often enough.
enum Finding {
    /// Nothing: nobody has asked it yet.
    NotAsked,
    /// It cannot be reached: why, as a message.
    Unreachable(String),
    /// It answers, but not as it should.
    Unhealthy(String),
}

impl Finding {
    fn of(health: &PodHealth, asker: Asker, component: &Component, pod: &Pod) -> Self {
        match (&health.last_failure, asker) {
            (Some(_), Asker::Starting(_)) if health.unreachable > 0 => Self::NotAsked,
            (Some(found), _) if health.unreachable > 0 => {
                Self::Unreachable(no_connection(component, &pod.name_any(), health, found))
            }
            (Some(found), _) => Self::Unhealthy(found.clone()),
            (None, _) => Self::NotAsked,
        }
    }

    fn wait(&self, pod: &Pod, not_asked: Wait) -> Wait {
        let pod = pod.name_any();
        match self {
            Self::NotAsked => not_asked,
            Self::Unreachable(message) => Wait::machine(Reason::ProbeUnreachable, message),
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
    let finding = Finding::of(&found, asker, component, pod);
    let wait = finding.wait(pod, not_asked);
    let judged = view
        .now
        .saturating_add(time_to_judge(health))
        .unwrap_or(Timestamp::MAX);
    if view.now < deadline && passed_before_the_handover(view, pod) {
        return Some(Verdict::Wait(wait.until(deadline.min(judged))));
    }
    if view.now < deadline {
        return Some(Verdict::Wait(wait.until(deadline)));
    }
    // While the operator was away nobody asked: time alone does not make a version unhealthy.
    if !is_asked_enough(health, &found) {
        let soon = view
            .now
            .saturating_add(time_to_judge(health))
            .unwrap_or(Timestamp::MAX);
        return Some(Verdict::Wait(wait.until(soon)));
    }
    Some(finding.failure(component, &wait, deadline).verdict())
}

/// Rounds in which either threshold can be reached.
fn rounds_to_judge(health: &Health) -> u32 {
    health.success_threshold.saturating_add(health.failure_threshold)
}

/// Whether this process has asked a pod as often as it takes to judge it.
pub(super) fn is_asked_enough(health: &Health, found: &PodHealth) -> bool {
    found.passed.saturating_add(found.failed) >= u64::from(rounds_to_judge(health))
}

/// Time between two rounds.
pub(super) fn round(health: &Health) -> SignedDuration {
    health.period.signed().max(SignedDuration::from_secs(1))
}

/// Time that it takes to judge a pod.
pub(super) fn time_to_judge(health: &Health) -> SignedDuration {
    round(health).saturating_mul(i32::try_from(rounds_to_judge(health)).unwrap_or(i32::MAX))
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

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn component(readiness: Value) -> Component {
        serde_json::from_value(json!({
            "name": "web",
            "serves": {"service": "crm", "port": 80, "targetPort": 3000},
            "health": {"http": [{"path": "/"}]},
            "template": {"spec": {"containers": [{
                "name": "app",
                "ports": [{"name": "http", "containerPort": 3000}],
                "readinessProbe": readiness,
            }]}},
        }))
        .unwrap()
    }

    /// F19: who refuses a connection is not known, but which of the two is likely.
    #[rstest]
    #[case::nobody_listens(true, Value::Null, "Pod p refuses connections")]
    #[case::another_port_is_open(true, json!({"tcpSocket": {"port": 8080}}), "Pod p refuses connections")]
    #[case::the_kubelet_gets_in(true, json!({"httpGet": {"port": "http"}}), "The operator cannot reach pod p")]
    #[case::no_answer(false, Value::Null, "The operator cannot reach pod p")]
    fn f19_the_likely_cause_of_no_connection_comes_first(
        #[case] refused: bool,
        #[case] readiness: Value,
        #[case] expected: &str,
    ) {
        let health = PodHealth {
            refused,
            unreachable: 1,
            ..PodHealth::default()
        };
        let message = no_connection(
            &component(readiness),
            "p",
            &health,
            "no connection to 10.0.0.1:3000",
        );
        assert!(message.starts_with(expected), "{message}");
        assert!(message.contains("NetworkPolicy"), "{message}");
    }
}
