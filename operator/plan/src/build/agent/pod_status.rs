//! How a pod and its containers are, from their status alone: what ended them, and what keeps them from starting.

use super::pod::{CONTAINER, INSTALL_CONTAINER};
use crate::labels;
use crate::message::{quote, quoting, sentence};
use crate::readings::has_finished;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, Pod, PodStatus};
use kube::ResourceExt;

/// State of a container that is no init container.
pub(super) fn state_of<'a>(status: &'a PodStatus, name: &str) -> Option<&'a ContainerState> {
    let mut statuses = status.container_statuses.iter().flatten();
    statuses.find(|container| container.name == name)?.state.as_ref()
}

/// Whether a pod of the agent has ended: all of it, or the agent's container, which nothing starts again. A container that
/// was injected beside it may go on for ever. A guard is a native sidecar, which the kubelet restarts, and ends with its pod.
pub fn has_ended(pod: &Pod) -> bool {
    let agent = pod
        .status
        .as_ref()
        .and_then(|status| state_of(status, CONTAINER)?.terminated.as_ref());
    has_finished(pod) || agent.is_some()
}

/// When the agent's container of a pod that has ended did so, else the last one that has.
pub fn ended_at(pod: &Pod) -> Option<Timestamp> {
    let status = pod.status.as_ref().filter(|_| has_ended(pod))?;
    let containers = status.container_statuses.iter().flatten();
    let ends = containers.filter_map(|container| {
        let ended = container.state.as_ref()?.terminated.as_ref()?;
        Some((container.name == CONTAINER, ended.finished_at.as_ref()?.0))
    });
    ends.max().map(|(_, end)| end)
}

/// Init containers, native sidecars among them, then the others.
pub(super) fn containers(status: &PodStatus) -> impl Iterator<Item = &ContainerStatus> {
    status
        .init_container_statuses
        .iter()
        .flatten()
        .chain(status.container_statuses.iter().flatten())
}

/// What ended a pod, in a few words: an eviction, the agent, or the first other container that did not end well.
pub fn exited(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    if let Some(reason) = &status.reason {
        return Some(match status.message.as_deref().map(quote) {
            Some(quoted) if !quoted.is_empty() => format!("{reason}: {quoted}"),
            _ => reason.clone(),
        });
    }
    let disrupted = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "DisruptionTarget" && condition.status == "True");
    // The agent's container counts before one that was injected beside it.
    let agent = containers(status).filter(|container| container.name == CONTAINER);
    let container = agent.chain(containers(status)).find_map(|container| {
        let ended = container.state.as_ref()?.terminated.as_ref()?;
        (ended.exit_code != 0).then(|| format!("container {} {}", container.name, how_it_ended(ended)))
    });
    match (container, disrupted) {
        (Some(container), Some(disruption)) => {
            let reason = disruption.reason.as_deref().unwrap_or("disrupted");
            Some(format!(
                "{container} while Kubernetes was removing its pod ({reason})"
            ))
        }
        (Some(container), None) => Some(container),
        (None, disruption) => disruption.and_then(|disruption| disruption.reason.clone()),
    }
}

fn how_it_ended(ended: &ContainerStateTerminated) -> String {
    match ended.reason.as_deref() {
        Some("OOMKilled") => "ran out of memory (OOMKilled)".to_owned(),
        // The container runtime's own words; those of the container itself could be a log.
        Some(reason @ ("StartError" | "ContainerCannotRun")) => match ended.message.as_deref().map(quote) {
            Some(quoted) if !quoted.is_empty() => format!("could not be started ({reason}: {quoted})"),
            _ => format!("could not be started ({reason})"),
        },
        _ if (129..=192).contains(&ended.exit_code) => {
            format!(
                "was killed by signal {} (exit code {})",
                ended.exit_code - 128,
                ended.exit_code
            )
        }
        _ => format!("exited with code {}", ended.exit_code),
    }
}

/// An init container of the team's that still runs: what comes after it waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Initializing {
    /// Name of the pod.
    pub pod: String,
    /// Name of the init container.
    pub container: String,
    /// When it began to run.
    pub since: Timestamp,
}

/// The init container of the team's that a pod waits for. Native sidecars go on beside the others.
pub fn initializing(pod: &Pod) -> Option<Initializing> {
    let init = pod.spec.as_ref()?.init_containers.as_ref()?;
    let statuses = pod.status.as_ref()?.init_container_statuses.as_ref()?;
    statuses.iter().find_map(|status| {
        let is_one = init.iter().any(|container| {
            container.name == status.name
                && container.restart_policy.as_deref() != Some("Always")
                && ![CONTAINER, INSTALL_CONTAINER].contains(&container.name.as_str())
        });
        let running = status.state.as_ref()?.running.as_ref().filter(|_| is_one)?;
        Some(Initializing {
            pod: pod.name_any(),
            container: status.name.clone(),
            since: running.started_at.as_ref()?.0,
        })
    })
}

/// The container of a migration on start that migrates, which its pod names; any that has begun of a pod that an earlier
/// version of Fairway created.
fn application(pod: &Pod) -> Option<&ContainerStatus> {
    let name = pod.annotations().get(labels::APPLICATION);
    let mut statuses = pod.status.as_ref()?.container_statuses.iter().flatten();
    statuses.find(|container| match name {
        Some(name) => container.name == *name,
        None => has_begun(container),
    })
}

fn has_begun(container: &ContainerStatus) -> bool {
    let state = container.state.as_ref();
    state.is_some_and(|state| state.running.is_some() || state.terminated.is_some())
}

/// Whether the container that migrates has begun to run.
pub fn has_application_begun(pod: &Pod) -> bool {
    application(pod).is_some_and(has_begun)
}

/// How the container that migrates ended, if it has: its exit code, and a sentence.
pub fn application_end(pod: &Pod) -> Option<(i32, String)> {
    let container = application(pod)?;
    let ended = container.state.as_ref()?.terminated.as_ref()?;
    let how = how_it_ended(ended);
    Some((ended.exit_code, format!("Container {} {how}.", container.name)))
}

/// What keeps a pod from starting: the scheduler's word, or the first container that waits for anything but its
/// turn. Kubernetes' reason, and one or two sentences.
pub fn waiting(pod: &Pod) -> Option<(String, String)> {
    let status = pod.status.as_ref()?;
    let unscheduled = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    if let Some(condition) = unscheduled {
        let reason = condition
            .reason
            .clone()
            .unwrap_or_else(|| "Unschedulable".to_owned());
        let statement = format!("Pod {} cannot be scheduled", pod.name_any());
        return Some((reason, quoting(&statement, condition.message.as_deref())));
    }
    containers(status).find_map(|container| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        let reason = waiting.reason.clone().filter(|reason| !is_its_turn(reason))?;
        Some((
            reason.clone(),
            stuck(pod, container, &reason, waiting.message.as_deref()),
        ))
    })
}

/// Whether a pod waits for an image that the kubelet cannot pull; the kubelet retries by itself, with growing pauses.
pub fn waits_for_image(pod: &Pod) -> bool {
    let waits = waiting(pod).map(|(reason, _)| reason);
    waits.is_some_and(|reason| OF_IMAGES.contains(&reason.as_str()))
}

/// The kubelet's reasons for an image that it does not have.
const OF_IMAGES: [&str; 7] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "ImageInspectError",
    "RegistryUnavailable",
    "SignatureValidationFailed",
];

fn is_its_turn(reason: &str) -> bool {
    ["PodInitializing", "ContainerCreating"].contains(&reason)
}

fn stuck(pod: &Pod, container: &ContainerStatus, reason: &str, message: Option<&str>) -> String {
    let name = format!("Container {} of pod {}", container.name, pod.name_any());
    let image = &container.image;
    match (reason, message) {
        ("CrashLoopBackOff", _) => {
            let ended = container
                .last_state
                .as_ref()
                .and_then(|state| state.terminated.as_ref());
            let how = ended.map_or_else(|| "ended".to_owned(), how_it_ended);
            format!("{name} {how} and is being restarted ({reason}).")
        }
        (of_image, Some(message)) if OF_IMAGES.contains(&of_image) => {
            let statement = quoting(&format!("{name} cannot pull {image}"), Some(message));
            format!("{statement} Push that image, or correct its name or pull secret.")
        }
        (_, Some(message)) => quoting(&format!("{name} cannot start ({reason})"), Some(message)),
        (_, None) => format!("{name} cannot start ({reason})."),
    }
}

/// The first thing that keeps an application's pod from being ready, as Kubernetes says it: one or two sentences.
pub fn trouble(pod: &Pod) -> Option<String> {
    if pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    if let Some((_, message)) = waiting(pod) {
        return Some(message);
    }
    let status = pod.status.as_ref()?;
    if status.phase.as_deref() == Some("Failed") {
        return exited(pod).map(|how| sentence(&format!("Pod {} failed: {how}", pod.name_any())));
    }
    containers(status)
        .filter(|container| !container.ready)
        .find_map(|container| {
            let ended = match &container.state {
                Some(state) if state.terminated.is_some() => state.terminated.as_ref(),
                _ => container
                    .last_state
                    .as_ref()
                    .and_then(|state| state.terminated.as_ref()),
            };
            let ended = ended.filter(|ended| ended.exit_code != 0)?;
            Some(format!(
                "Container {} of pod {} {}.",
                container.name,
                pod.name_any(),
                how_it_ended(ended)
            ))
        })
}
