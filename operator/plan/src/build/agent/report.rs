//! What the agent's pods report.

use super::pod::CONTAINER;
use super::pod_status::{containers, exited, has_ended, state_of, waiting};
use crate::protocol::{Begun, EXIT_OTHER_OWNER, NewerReport, read_report};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
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

/// The pods of a Job that was observed, or of the one that had that name. Pods of an earlier Job of the same name are not
/// taken for its own.
fn own_pods<'a>(job: Option<&'a Job>, pods: &'a [Arc<Pod>], name: &str) -> impl Iterator<Item = &'a Pod> {
    let uid = job.and_then(|job| job.metadata.uid.as_ref());
    pods_of(pods, name).filter(move |pod| {
        let made_by = pod.labels().get(JOB_UID);
        uid.is_none() || made_by.is_none() || made_by == uid
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

/// The report of a Job that was observed, or of the pods that a Job of that name left. A Job that ended and has no pod left
/// has lost its report.
pub fn job_report<T: DeserializeOwned>(job: Option<&Job>, pods: &[Arc<Pod>], name: &str) -> Outcome<T> {
    let found = most_telling(own_pods(job, pods, name));
    match (found, job.and_then(ended)) {
        (Outcome::NotThere, Some(reason)) => Outcome::Lost { reason },
        (outcome, _) => outcome,
    }
}

/// Whether a Job has ended: Kubernetes says so, or its agent has in every pod that it has made. It makes one alone.
pub fn has_job_ended(job: &Job, pods: &[Arc<Pod>]) -> bool {
    let name = job.name_any();
    let mut own = own_pods(Some(job), pods, &name).peekable();
    ended(job).is_some() || (own.peek().is_some() && own.all(has_ended))
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
    let newer = match agent.map(parsed) {
        Some(Ok(Some(report))) => return Outcome::Reported(report),
        Some(Err(newer)) => Some(newer.to_string()),
        Some(Ok(None)) | None => None,
    };
    if has_ended(pod) {
        let reason = newer
            .or_else(|| exited(pod))
            .unwrap_or_else(|| "Kubernetes gives no reason".to_owned());
        return Outcome::Lost { reason };
    }
    // An injected container that cannot start does not concern an agent that runs beside it.
    let is_at_work = state_of(status, CONTAINER).is_some_and(|state| state.running.is_some());
    Outcome::Running {
        waiting: waiting(pod).filter(|_| !is_at_work).map(|(_, message)| message),
    }
}

/// The report of the container's latest run that left one.
fn parsed<T: DeserializeOwned>(container: &ContainerStatus) -> Result<Option<T>, NewerReport> {
    [&container.state, &container.last_state]
        .into_iter()
        .filter_map(|state| state.as_ref()?.terminated.as_ref()?.message.as_ref())
        .find_map(|message| read_report(message).transpose())
        .transpose()
}

/// Fingerprint of the schema before the migration, as an agent left it that ended without a report.
pub fn begun(pods: &[Arc<Pod>], name: &str) -> Option<String> {
    let mut agents = pods_of(pods, name)
        .flat_map(|pod| pod.status.iter().flat_map(containers))
        .filter(|container| container.name == CONTAINER);
    agents
        .find_map(|container| parsed::<Begun>(container).ok().flatten())
        .map(|Begun { begun }| begun)
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
