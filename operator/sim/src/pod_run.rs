//! A pod on its way through its life, and the answer of the agent in it.

use fairway_plan::protocol::{EXIT_OTHER_OWNER, MigrationOutcome, MigrationReport, Reason, Task, join_task};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde::Serialize;

/// How long things take, in seconds.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// From a pod's creation to ready.
    pub ready: u32,
    /// From a pod's deletion until it is gone.
    pub linger: u32,
    /// By which endpoints lag behind selectors and pods.
    pub endpoints: u32,
    /// That a migration runs.
    pub migration: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            ready: 3,
            linger: 3,
            endpoints: 0,
            migration: 3,
        }
    }
}

/// A container that somebody injects into pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sidecar {
    /// An init container that is restarted always: the kubelet ends it when the others have ended.
    Native,
    /// One beside the others that never ends by itself.
    Endless,
}

/// One run of a pod.
#[derive(Clone, Debug, Default)]
pub struct PodRun {
    /// When its containers began.
    pub(crate) begin: Timestamp,
    /// Seconds since it was created.
    pub(crate) age: u32,
    /// Seconds since it is being deleted.
    pub(crate) ended_for: u32,
    /// Whether it is being deleted.
    pub(crate) is_ending: bool,
    /// Seconds for which its agent has worked.
    pub(crate) worked: u32,
    /// Fingerprint of the schema when its agent took the lock and wrote the ledger's row; none before that.
    pub(crate) before: Option<String>,
    /// Seconds for which its migration has run.
    pub(crate) migrated: u32,
    /// Whether the application beside a guard has exited.
    pub(crate) application_exited: bool,
    /// The agent's answer.
    pub(crate) answer: Option<Answer>,
}

impl PodRun {
    /// Whether its containers are still being made.
    pub(crate) fn is_new(&self) -> bool {
        self.age < 2
    }

    /// Whether it has run long enough to be ready.
    pub(crate) fn is_ready(&self, pace: &Pace) -> bool {
        self.age >= pace.ready
    }
}

/// An agent's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The termination message.
    pub message: String,
    /// The container's exit code.
    pub exit_code: i32,
}

impl Answer {
    pub(crate) fn of(report: &impl Serialize, exit_code: i32) -> Self {
        Self {
            message: serde_json::to_string(report).unwrap_or_default(),
            exit_code,
        }
    }

    pub(crate) fn of_migration(report: &MigrationReport) -> Self {
        use MigrationOutcome::{AlreadyApplied, Applied};
        let other_owner = report
            .failure
            .as_ref()
            .is_some_and(|found| found.reason == Reason::MigrationRunning);
        let exit_code = match report.outcome {
            Applied | AlreadyApplied => 0,
            _ if other_owner => i32::from(EXIT_OTHER_OWNER),
            _ => 1,
        };
        Self::of(report, exit_code)
    }
}

/// The task of an agent's pod, and whether a sidecar has it.
pub(crate) fn task_of(pod: &Pod) -> Option<Task> {
    let spec = pod.spec.as_ref()?;
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let variables: Vec<_> = containers
        .flat_map(|container| container.env.iter().flatten())
        .collect();
    let task = join_task(|name| {
        let variable = variables.iter().find(|variable| variable.name == name)?;
        variable.value.clone()
    });
    serde_json::from_str(&task.replace("$$", "$")).ok()
}
