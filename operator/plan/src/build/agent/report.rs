//! Reading what became of the agent's pods, from their status alone.

use super::pod::CONTAINER;
use crate::message::{quote, quoting, sentence};
use crate::protocol::EXIT_OTHER_OWNER;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod, PodStatus};
use kube::ResourceExt;
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// The labels by which the Job controller marks its pods.
const JOB_NAME: &str = "batch.kubernetes.io/job-name";
const JOB_UID: &str = "batch.kubernetes.io/controller-uid";

/// What became of a task of the agent.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome<T> {
    /// There is no pod that does the task.
    NotThere,
    /// The task is under way.
    Running {
        /// What keeps it from starting, as the kubelet or the scheduler says: one or two sentences.
        waiting: Option<String>,
    },
    /// The agent reported.
    Reported(T),
    /// The pod ended without a report.
    Lost {
        /// How it ended: a clause that follows a colon.
        reason: String,
    },
}

/// The pods of a Job, or the pod of that name.
pub fn pods_of<'a>(pods: &'a [Arc<Pod>], name: &str) -> impl Iterator<Item = &'a Pod> {
    pods.iter().map(AsRef::as_ref).filter(move |pod: &&Pod| {
        pod.metadata.name.as_deref() == Some(name)
            || pod.labels().get(JOB_NAME).is_some_and(|job| job == name)
    })
}

/// The report in the pods of a Job, or in the pod of that name. Of several pods (one that is being ended and its
/// successor), one that reported counts more than one that is under way, and that more than one that was lost. A pod
/// that only found another one at work counts less than the one at work.
pub fn report<T: DeserializeOwned>(pods: &[Arc<Pod>], name: &str) -> Outcome<T> {
    most_telling(pods_of(pods, name))
}

fn most_telling<'a, T: DeserializeOwned>(pods: impl Iterator<Item = &'a Pod>) -> Outcome<T> {
    let rank = |(pod, outcome): &(&Pod, Outcome<T>)| match outcome {
        Outcome::NotThere => 0,
        Outcome::Lost { .. } => 1,
        Outcome::Reported(_) if found_another(pod) => 2,
        Outcome::Running { .. } => 3,
        Outcome::Reported(_) => 4,
    };
    let outcomes = pods.map(|pod| (pod, of_pod(pod)));
    outcomes
        .max_by_key(rank)
        .map_or(Outcome::NotThere, |(_, outcome)| outcome)
}

/// Whether a pod did nothing because another one holds the migration's lock: a Job may start two.
fn found_another(pod: &Pod) -> bool {
    let agent = pod.status.iter().flat_map(containers);
    agent
        .filter(|container| container.name == CONTAINER)
        .flat_map(|container| [&container.state, &container.last_state])
        .filter_map(|state| state.as_ref()?.terminated.as_ref())
        .any(|ended| ended.exit_code == i32::from(EXIT_OTHER_OWNER))
}

/// The report of a Job that was observed, or of the pods that a Job of that name left. Pods of an earlier Job of the
/// same name are not taken for its own, and a Job that ended and has no pod left has lost its report.
pub fn job_report<T: DeserializeOwned>(job: Option<&Job>, pods: &[Arc<Pod>], name: &str) -> Outcome<T> {
    let uid = job.and_then(|job| job.metadata.uid.as_ref());
    let others =
        |pod: &&Pod| uid.is_some() && pod.labels().get(JOB_UID).is_some_and(|found| Some(found) != uid);
    let found = most_telling(pods_of(pods, name).filter(|pod| !others(pod)));
    match (found, job.and_then(ended)) {
        (Outcome::NotThere, Some(reason)) => Outcome::Lost { reason },
        (outcome, _) => outcome,
    }
}

/// Why a Job has ended, if it has.
fn ended(job: &Job) -> Option<String> {
    let conditions = job
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let mut ended = conditions.filter(|condition| {
        condition.status == "True" && ["Failed", "Complete"].contains(&condition.type_.as_str())
    });
    let condition = ended.next()?;
    let reason = condition
        .reason
        .clone()
        .unwrap_or_else(|| condition.type_.clone());
    Some(match reason.as_str() {
        "DeadlineExceeded" => "the pod did not end in time, and the Job says DeadlineExceeded".to_owned(),
        _ => format!("the pod is gone, and the Job says {reason}"),
    })
}

fn of_pod<T: DeserializeOwned>(pod: &Pod) -> Outcome<T> {
    let Some(status) = &pod.status else {
        return Outcome::Running { waiting: None };
    };
    let agent = containers(status).find(|container| container.name == CONTAINER);
    if let Some(report) = agent.and_then(parsed) {
        return Outcome::Reported(report);
    }
    let finished = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    // A guard is a native sidecar, which the kubelet restarts.
    let is_final = status.container_statuses.iter().flatten().any(|container| {
        container.name == CONTAINER
            && container
                .state
                .as_ref()
                .is_some_and(|state| state.terminated.is_some())
    });
    if finished || is_final {
        let reason = exited(pod).unwrap_or_else(|| "Kubernetes gives no reason".to_owned());
        return Outcome::Lost { reason };
    }
    Outcome::Running {
        waiting: waiting(pod).map(|(_, message)| message),
    }
}

/// Init containers, native sidecars among them, then the others.
fn containers(status: &PodStatus) -> impl Iterator<Item = &ContainerStatus> {
    status
        .init_container_statuses
        .iter()
        .flatten()
        .chain(status.container_statuses.iter().flatten())
}

fn parsed<T: DeserializeOwned>(container: &ContainerStatus) -> Option<T> {
    [&container.state, &container.last_state]
        .into_iter()
        .find_map(|state| {
            let message = state.as_ref()?.terminated.as_ref()?.message.as_ref()?;
            serde_json::from_str(message).ok()
        })
}

/// When the agent's container began to run.
pub fn started_at(pods: &[Arc<Pod>], name: &str) -> Option<Timestamp> {
    let starts = pods_of(pods, name).filter_map(|pod| {
        let agent = containers(pod.status.as_ref()?).find(|container| container.name == CONTAINER)?;
        let running = agent.state.as_ref()?.running.as_ref()?;
        running.started_at.as_ref().map(|time| time.0)
    });
    starts.min()
}

/// What ended a pod, in a few words: an eviction, or the first container that did not end well.
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
    let container = containers(status).find_map(|container| {
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
        ("ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull", Some(message)) => {
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
