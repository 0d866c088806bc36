//! The status of pods, as the kubelet would report it.

use crate::images::{Images, digest};
use crate::pod_run::{Pace, PodRun, Sidecar};
use fairway_plan::build::agent;
use fairway_plan::labels::{self, Work};
use fairway_plan::protocol::Task;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, Pod, PodCondition, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

/// The status of a pod at this point of its run.
pub(crate) fn status(
    images: &Images,
    pace: &Pace,
    pod: &Pod,
    run: &PodRun,
    task: Option<&Task>,
) -> PodStatus {
    let uid = pod.uid().unwrap_or_default();
    if does(pod, Work::Pin) {
        return pinning(images, pod);
    }
    match task {
        Some(Task::Probe(_)) => status_of("Running", &uid, true, Vec::new()),
        Some(Task::Guard(_)) => guarding(run, &uid, pod),
        Some(_) => working(run, &uid),
        None => serving(images, pace, pod, run, &uid),
    }
}

fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    pod.spec.iter().flat_map(|spec| &spec.containers)
}

/// Whether an agent's pod does that, by its label.
fn does(pod: &Pod, work: Work) -> bool {
    pod.labels().get(labels::WORK).map(String::as_str) == Some(work.as_str())
}

fn serving(images: &Images, pace: &Pace, pod: &Pod, run: &PodRun, uid: &str) -> PodStatus {
    let mut statuses = Vec::new();
    for container in containers(pod) {
        let reference = container.image.clone().unwrap_or_default();
        let state = if images.is_unpullable(&reference) {
            waiting(
                "ImagePullBackOff",
                Some(format!("Back-off pulling image \"{reference}\": not found")),
            )
        } else if images.is_crashing(&reference) {
            waiting("CrashLoopBackOff", None)
        } else if run.is_new() {
            waiting("ContainerCreating", None)
        } else {
            running(run.begin)
        };
        let ready = state.running.is_some() && run.is_ready(pace);
        let crashed = state
            .waiting
            .as_ref()
            .is_some_and(|waiting| waiting.reason.as_deref() == Some("CrashLoopBackOff"));
        let last_state = crashed.then(|| terminated(1, None));
        statuses.push(ContainerStatus {
            name: container.name.clone(),
            image: reference,
            ready,
            state: Some(state),
            last_state,
            ..ContainerStatus::default()
        });
    }
    let ready = statuses.iter().all(|status| status.ready);
    let phase = if statuses
        .iter()
        .any(|status| status.state.as_ref().is_some_and(|state| state.running.is_none()))
    {
        "Pending"
    } else {
        "Running"
    };
    status_of(phase, uid, ready, statuses)
}

fn pinning(images: &Images, pod: &Pod) -> PodStatus {
    let mut all_pulled = true;
    let statuses = containers(pod).map(|container| {
        let reference = container.image.clone().unwrap_or_default();
        let pulled = !images.is_unpullable(&reference);
        all_pulled &= pulled;
        let name = container.name.clone();
        if pulled {
            let repository = reference.split(':').next().unwrap_or_default();
            let image_id = format!("docker.io/library/{repository}@{}", digest(&reference));
            let state = Some(terminated(0, None));
            ContainerStatus {
                name,
                image: reference,
                image_id,
                state,
                ..ContainerStatus::default()
            }
        } else {
            let message = format!("Back-off pulling image \"{reference}\": not found");
            let state = Some(waiting("ImagePullBackOff", Some(message)));
            ContainerStatus {
                name,
                image: reference,
                state,
                ..ContainerStatus::default()
            }
        }
    });
    let statuses: Vec<_> = statuses.collect();
    PodStatus {
        phase: Some(if all_pulled { "Succeeded" } else { "Pending" }.to_owned()),
        container_statuses: Some(statuses),
        ..PodStatus::default()
    }
}

fn working(run: &PodRun, uid: &str) -> PodStatus {
    let (phase, state) = match &run.answer {
        Some(answer) if answer.exit_code == 0 => ("Succeeded", terminated(0, Some(&answer.message))),
        Some(answer) => ("Failed", terminated(answer.exit_code, Some(&answer.message))),
        None => ("Running", running(run.begin)),
    };
    status_of(phase, uid, false, vec![agent_container(Some(state), None)])
}

/// The guard is a native sidecar: its answer stays in its last state, because the kubelet starts it again.
fn guarding(run: &PodRun, uid: &str, pod: &Pod) -> PodStatus {
    let (phase, guard) = match &run.answer {
        Some(answer) if run.application_exited => (
            "Failed",
            agent_container(Some(terminated(answer.exit_code, Some(&answer.message))), None),
        ),
        Some(answer) => {
            let last = terminated(answer.exit_code, Some(&answer.message));
            ("Running", agent_container(Some(running(run.begin)), Some(last)))
        }
        None => ("Running", agent_container(Some(running(run.begin)), None)),
    };
    // The application begins when the guard has written the ledger's row.
    let application = pod
        .annotations()
        .get(labels::APPLICATION)
        .filter(|_| run.before.is_some());
    let application = application.map(|name| ContainerStatus {
        name: name.clone(),
        state: Some(running(run.begin)),
        ..ContainerStatus::default()
    });
    let mut status = status_of(phase, uid, false, application.into_iter().collect());
    status.init_container_statuses = Some(vec![guard]);
    status
}

/// Adds the container that was injected: one without end keeps its pod from ending.
pub(crate) fn inject(status: &mut PodStatus, sidecar: Sidecar, run: &PodRun) {
    let has_ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    let state = match sidecar {
        Sidecar::Native if has_ended => terminated(0, None),
        Sidecar::Native | Sidecar::Endless => running(run.begin),
    };
    let injected = ContainerStatus {
        name: "proxy".to_owned(),
        ready: state.running.is_some(),
        state: Some(state),
        ..ContainerStatus::default()
    };
    let containers = match sidecar {
        Sidecar::Native => &mut status.init_container_statuses,
        Sidecar::Endless => &mut status.container_statuses,
    };
    containers.get_or_insert_default().insert(0, injected);
    if has_ended && sidecar == Sidecar::Endless {
        status.phase = Some("Running".to_owned());
    }
}

fn agent_container(state: Option<ContainerState>, last_state: Option<ContainerState>) -> ContainerStatus {
    ContainerStatus {
        name: agent::CONTAINER.to_owned(),
        state,
        last_state,
        ..ContainerStatus::default()
    }
}

fn status_of(phase: &str, uid: &str, ready: bool, containers: Vec<ContainerStatus>) -> PodStatus {
    let condition = PodCondition {
        type_: "Ready".to_owned(),
        status: if ready { "True" } else { "False" }.to_owned(),
        ..PodCondition::default()
    };
    PodStatus {
        phase: Some(phase.to_owned()),
        pod_ip: (phase != "Pending").then(|| address(uid)),
        conditions: Some(vec![condition]),
        container_statuses: Some(containers),
        ..PodStatus::default()
    }
}

fn address(uid: &str) -> String {
    let number = u32::from_str_radix(&uid[..6.min(uid.len())], 16).unwrap_or_default();
    let [_, a, b, c] = number.to_be_bytes();
    format!("10.{a}.{b}.{c}")
}

fn waiting(reason: &str, message: Option<String>) -> ContainerState {
    let waiting = ContainerStateWaiting {
        reason: Some(reason.to_owned()),
        message,
    };
    ContainerState {
        waiting: Some(waiting),
        ..ContainerState::default()
    }
}

fn running(since: Timestamp) -> ContainerState {
    let running = ContainerStateRunning {
        started_at: Some(Time(since)),
    };
    ContainerState {
        running: Some(running),
        ..ContainerState::default()
    }
}

fn terminated(exit_code: i32, message: Option<&str>) -> ContainerState {
    let terminated = ContainerStateTerminated {
        exit_code,
        message: message.map(str::to_owned),
        started_at: Some(Time(Timestamp::UNIX_EPOCH)),
        ..ContainerStateTerminated::default()
    };
    ContainerState {
        terminated: Some(terminated),
        ..ContainerState::default()
    }
}
