//! What pods and Jobs of the agent have in common.

use super::paths::is_in;
use super::place::{self, Place};
use crate::build::{annotate, hash_of, labels_of};
use crate::json::json_text;
use crate::object::Object;
use crate::observed::Settings;
use crate::protocol::{self, Task};
use crate::{labels, tasks};
use fairway_crds::database::{Connection, SecretKeySelector, ValueSource};
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{
    Capabilities, Container, EmptyDirVolumeSource, EnvVar, EnvVarSource, ObjectFieldSelector, Pod, PodSpec,
    PodTemplateSpec, SecurityContext, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::core::ObjectMeta;
use std::collections::BTreeMap;

/// Name of the container whose termination message is the report.
pub const CONTAINER: &str = "agent";
/// Name of the init container that copies the agent.
pub(super) const INSTALL_CONTAINER: &str = "install-agent";
/// The agent in its own image.
pub(super) const OWN_BINARY: &str = "/fairway-agent";
/// Where the init container mounts the volume that other containers mount at [`protocol::AGENT_DIRECTORY`]: there it would
/// hide the agent's own image.
pub(super) const INSTALL_DIRECTORY: &str = "/install";
pub(super) const AGENT_VOLUME: &str = "fairway-agent";
pub(super) const TEMPORARY_VOLUME: &str = "fairway-tmp";

/// For whom a Job or pod does a task, and by which labels it is found.
#[derive(Clone, Debug)]
pub(super) struct TaskContext<'a> {
    pub(super) task: &'static tasks::Task,
    pub(super) name: &'a str,
    pub(super) namespace: Option<&'a String>,
    pub(super) app: &'a str,
    pub(super) release: Option<&'a str>,
    pub(super) work_for: &'a str,
    pub(super) owner: Option<OwnerReference>,
}

impl TaskContext<'_> {
    pub(super) fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = labels_of([
            (labels::APP, self.app),
            (labels::WORK, self.task.work.as_str()),
            (labels::WORK_FOR, self.work_for),
        ]);
        if let Some(release) = self.release {
            labels.insert(labels::RELEASE.to_owned(), release.to_owned());
        }
        labels
    }

    pub(super) fn metadata(&self) -> ObjectMeta {
        let owner = self.owner.clone().filter(|_| !self.task.is_unowned());
        ObjectMeta {
            name: Some(self.name.to_owned()),
            namespace: self.namespace.cloned(),
            labels: Some(self.labels()),
            owner_references: owner.map(|owner| vec![owner]),
            ..ObjectMeta::default()
        }
    }

    pub(super) fn requester(&self) -> protocol::Requester {
        protocol::Requester {
            namespace: self.namespace.cloned().unwrap_or_default(),
            app: self.app.to_owned(),
            release: self.release.unwrap_or_default().to_owned(),
        }
    }
}

/// A Job that runs one pod once. Nothing removes it but its planner, so that its report is not lost; the deadline
/// is a backstop for a pod that never makes progress.
pub(super) fn job(metadata: ObjectMeta, pod: PodTemplateSpec, deadline_seconds: i64) -> Job {
    let mut job = Job {
        metadata,
        spec: Some(JobSpec {
            completions: Some(1),
            parallelism: Some(1),
            backoff_limit: Some(0),
            // A pod that is only being ended may still work: no second one before it is gone.
            pod_replacement_policy: Some("Failed".to_owned()),
            active_deadline_seconds: Some(deadline_seconds),
            template: pod,
            ..JobSpec::default()
        }),
        status: None,
    };
    let hash = hash_of(&job);
    annotate(&mut job.metadata, labels::APPLIED_HASH, hash);
    job
}

/// The pod that the Job controller would create for this Job, under that name; `None` if the object is not a Job.
pub fn pod_of(job: &Object, name: &str) -> Option<Pod> {
    let Object::Job(job) = job else {
        return None;
    };
    let template = job.spec.as_ref()?.template.clone();
    let meta = template.metadata.unwrap_or_default();
    let mut pod = agent_pod(
        ObjectMeta {
            name: Some(name.to_owned()),
            namespace: job.metadata.namespace.clone(),
            ..meta
        },
        template.spec.unwrap_or_default(),
    );
    pod.metadata.owner_references = job.metadata.owner_references.clone();
    Some(pod)
}

/// A pod of the agent without a Job, with the hash of what it is created from.
pub(super) fn agent_pod(metadata: ObjectMeta, spec: PodSpec) -> Pod {
    let mut pod = Pod {
        metadata,
        spec: Some(spec),
        status: None,
    };
    let hash = hash_of(&pod);
    annotate(&mut pod.metadata, labels::APPLIED_HASH, hash);
    pod
}

/// A pod of ours alone: nothing of the team's runs in it.
pub(super) fn agent_pod_spec(settings: &Settings, place: Place) -> PodSpec {
    let mut pod = PodSpec {
        restart_policy: Some("Never".to_owned()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        security_context: Some(place::pod_security(settings)),
        volumes: Some(vec![empty_dir(TEMPORARY_VOLUME, None)]),
        ..PodSpec::default()
    };
    place.put(&mut pod, settings);
    pod
}

/// The agent's container of such a pod, without image and command.
pub(super) fn agent_container(settings: &Settings, environment: Vec<EnvVar>) -> Container {
    Container {
        name: CONTAINER.to_owned(),
        env: Some(environment),
        security_context: Some(restricted()),
        volume_mounts: Some(vec![mount(TEMPORARY_VOLUME, "/tmp", Access::ReadWrite)]),
        resources: Some(place::resources(settings)),
        ..Container::default()
    }
}

/// Makes a container run the agent that [`install`] has copied.
pub(super) fn run_copied_agent(container: &mut Container) {
    container.command = Some(vec![protocol::AGENT_BINARY.to_owned(), "run".to_owned()]);
    container.args = None;
    let mounts = container.volume_mounts.get_or_insert_default();
    mounts.retain(|mounted| !is_in(&mounted.mount_path, protocol::AGENT_DIRECTORY));
    mounts.push(mount(AGENT_VOLUME, protocol::AGENT_DIRECTORY, Access::ReadOnly));
}

/// Makes a container run the agent in the agent's own image.
pub(super) fn run_own_agent(container: &mut Container, settings: &Settings) {
    container.image = Some(settings.agent_image.clone());
    container.image_pull_policy = Some(settings.agent_pull_policy.clone());
    container.command = Some(vec![OWN_BINARY.to_owned(), "run".to_owned()]);
}

/// Adds the init container that copies the agent into the pod, before all others.
pub(super) fn install(pod: &mut PodSpec, settings: &Settings) {
    let container = Container {
        name: INSTALL_CONTAINER.to_owned(),
        image: Some(settings.agent_image.clone()),
        image_pull_policy: Some(settings.agent_pull_policy.clone()),
        command: Some(vec![
            OWN_BINARY.to_owned(),
            "install".to_owned(),
            format!("{INSTALL_DIRECTORY}/fairway-agent"),
        ]),
        security_context: Some(place::as_own_user(restricted(), settings)),
        volume_mounts: Some(vec![mount(AGENT_VOLUME, INSTALL_DIRECTORY, Access::ReadWrite)]),
        resources: Some(place::resources(settings)),
        ..Container::default()
    };
    pod.init_containers.get_or_insert_default().insert(0, container);
    pod.volumes
        .get_or_insert_default()
        .push(empty_dir(AGENT_VOLUME, None));
}

/// Environment variables from which the agent reads its task, its pod and its database.
pub(super) fn environment(task: &Task, connection: Option<&Connection>) -> Vec<EnvVar> {
    let mut variables = task_variables(task);
    variables.extend(pod_identity());
    variables.extend(connection.map(database).unwrap_or_default());
    variables
}

/// The task as JSON, with the version of its protocol. The kubelet expands `$(NAME)` in a variable's value, so that each
/// `$` is written twice: a command that says `$(DATABASE_URL)` must not put a secret into the task.
pub(super) fn task_variables(task: &Task) -> Vec<EnvVar> {
    let text = json_text(task);
    let parts = protocol::split_task(&text).into_iter();
    let mut variables: Vec<_> = parts
        .map(|(name, part)| literal(&name, part.replace('$', "$$")))
        .collect();
    variables.push(literal(
        protocol::PROTOCOL_VARIABLE,
        protocol::PROTOCOL_VERSION.to_string(),
    ));
    variables
}

pub(super) fn pod_identity() -> [EnvVar; 2] {
    let field = |name: &str, path: &str| EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: path.to_owned(),
                ..ObjectFieldSelector::default()
            }),
            ..EnvVarSource::default()
        }),
    };
    [
        // All of them, separated by commas: the database may be reached by the other family.
        field(protocol::POD_IP_VARIABLE, "status.podIPs"),
        field(protocol::POD_UID_VARIABLE, "metadata.uid"),
    ]
}

pub(super) fn database(connection: &Connection) -> Vec<EnvVar> {
    let Connection {
        url_from,
        host,
        port,
        name,
        user_from,
        password_from,
    } = connection;
    let secrets = [
        (protocol::DATABASE_URL_VARIABLE, url_from.as_ref()),
        (protocol::DATABASE_USER_VARIABLE, user_from.as_ref()),
        (protocol::DATABASE_PASSWORD_VARIABLE, password_from.as_ref()),
    ];
    let literals = [
        (protocol::DATABASE_HOST_VARIABLE, host.clone()),
        (
            protocol::DATABASE_PORT_VARIABLE,
            port.map(|port| port.to_string()),
        ),
        (protocol::DATABASE_NAME_VARIABLE, name.clone()),
    ];
    let literals = literals.into_iter().filter_map(|(variable, value)| {
        // The kubelet's expansion, as for the task.
        Some(literal(variable, value?.replace('$', "$$")))
    });
    literals.chain(from_secrets(secrets)).collect()
}

pub(super) fn literal(name: &str, value: String) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: Some(value),
        value_from: None,
    }
}

/// Variables with these names, of which those without a source are left out.
pub(super) fn from_secrets<const N: usize>(sources: [(&str, Option<&ValueSource>); N]) -> Vec<EnvVar> {
    let given = sources
        .into_iter()
        .filter_map(|(name, source)| Some(from_secret(name, &source?.secret_key_ref)));
    given.collect()
}

pub(super) fn from_secret(name: &str, selector: &SecretKeySelector) -> EnvVar {
    let selector = k8s_openapi::api::core::v1::SecretKeySelector {
        name: selector.name.clone(),
        key: selector.key.clone(),
        optional: None,
    };
    EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            secret_key_ref: Some(selector),
            ..EnvVarSource::default()
        }),
    }
}

pub(super) fn empty_dir(name: &str, size: Option<&str>) -> Volume {
    Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource {
            size_limit: size.map(|size| Quantity(size.to_owned())),
            ..EmptyDirVolumeSource::default()
        }),
        ..Volume::default()
    }
}

/// What a container may do with a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    ReadOnly,
    ReadWrite,
}

pub(super) fn mount(volume: &str, path: &str, access: Access) -> VolumeMount {
    VolumeMount {
        name: volume.to_owned(),
        mount_path: path.to_owned(),
        read_only: (access == Access::ReadOnly).then_some(true),
        ..VolumeMount::default()
    }
}

/// Mounts a volume into every container of a pod.
pub(super) fn mount_everywhere(pod: &mut PodSpec, volume: &str, path: &str, access: Access) {
    for container in &mut pod.containers {
        container
            .volume_mounts
            .get_or_insert_default()
            .push(mount(volume, path, access));
    }
}

/// What the restricted profile of Pod Security asks of a container, with a read-only root besides.
pub(super) fn restricted() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".to_owned()]),
            add: None,
        }),
        ..SecurityContext::default()
    }
}

/// Asks node autoscalers not to move the pod: its work would have to be settled or done again.
pub(super) fn forbid_disruption(meta: &mut ObjectMeta) {
    annotate(
        meta,
        "cluster-autoscaler.kubernetes.io/safe-to-evict",
        "false".to_owned(),
    );
    annotate(meta, "karpenter.sh/do-not-disrupt", "true".to_owned());
}
