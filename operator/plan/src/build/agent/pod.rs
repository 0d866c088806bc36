//! What pods and Jobs of the agent have in common.

use crate::build::{annotate, labels_of, template};
use crate::observed::Settings;
use crate::protocol::{self, Task};
use crate::snapshot::Snapshot;
use crate::{labels, tasks};
use fairway_crds::database::{Connection, SecretKeySelector};
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{
    Capabilities, Container, EmptyDirVolumeSource, EnvVar, EnvVarSource, LocalObjectReference,
    ObjectFieldSelector, PodSecurityContext, PodSpec, PodTemplateSpec, ResourceRequirements, SeccompProfile,
    SecurityContext, Volume, VolumeMount,
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
/// Where the init container sees the folder that [`protocol::AGENT_DIRECTORY`] is elsewhere: there it would hide
/// the agent's own image.
pub(super) const INSTALL_DIRECTORY: &str = "/install";
pub(super) const AGENT_VOLUME: &str = "fairway-agent";
pub(super) const TEMPORARY_VOLUME: &str = "fairway-tmp";
/// The user of the agent's work in images that are not the application's: PostgreSQL's tools run under any.
pub(super) const USER: i64 = 65_532;

/// For whom a Job or pod does a task, and by which labels it is found.
#[derive(Clone, Debug)]
pub(super) struct Errand<'a> {
    pub(super) task: &'static tasks::Task,
    pub(super) name: &'a str,
    pub(super) namespace: Option<&'a String>,
    pub(super) app: &'a str,
    pub(super) release: Option<&'a str>,
    pub(super) work_for: &'a str,
    pub(super) owner: Option<OwnerReference>,
}

impl Errand<'_> {
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
/// is a backstop for a pod that never gets on.
pub(super) fn job(metadata: ObjectMeta, pod: PodTemplateSpec, deadline_seconds: i64) -> Job {
    Job {
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
    }
}

/// A pod of ours alone: nothing of the team's runs in it.
pub(super) fn own_pod(settings: &Settings, pull_secrets: &[LocalObjectReference]) -> PodSpec {
    PodSpec {
        restart_policy: Some("Never".to_owned()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        image_pull_secrets: with_pull_secrets(settings, pull_secrets),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            // A large store is not walked file by file each time it is mounted.
            fs_group_change_policy: Some("OnRootMismatch".to_owned()),
            seccomp_profile: Some(runtime_default()),
            ..PodSecurityContext::default()
        }),
        volumes: Some(vec![empty_dir(TEMPORARY_VOLUME, None)]),
        ..PodSpec::default()
    }
}

/// The agent's container of such a pod, without image and command.
pub(super) fn own_container(environment: Vec<EnvVar>) -> Container {
    Container {
        name: CONTAINER.to_owned(),
        env: Some(environment),
        security_context: Some(restricted()),
        volume_mounts: Some(vec![mount(TEMPORARY_VOLUME, "/tmp", false)]),
        resources: Some(small()),
        ..Container::default()
    }
}

/// Makes a container run the agent that [`install`] has copied.
pub(super) fn run_copied_agent(container: &mut Container) {
    container.command = Some(vec![protocol::AGENT_BINARY.to_owned(), "run".to_owned()]);
    container.args = None;
    container.volume_mounts.get_or_insert_default().push(mount(
        AGENT_VOLUME,
        protocol::AGENT_DIRECTORY,
        true,
    ));
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
        security_context: Some(restricted_as_own_user()),
        volume_mounts: Some(vec![mount(AGENT_VOLUME, INSTALL_DIRECTORY, false)]),
        resources: Some(small()),
        ..Container::default()
    };
    pod.init_containers.get_or_insert_default().insert(0, container);
    pod.volumes
        .get_or_insert_default()
        .push(empty_dir(AGENT_VOLUME, None));
}

/// Pull secrets of a pod that uses the agent's image besides others.
pub(super) fn with_pull_secrets(
    settings: &Settings,
    others: &[LocalObjectReference],
) -> Option<Vec<LocalObjectReference>> {
    let mut secrets = others.to_vec();
    for name in &settings.agent_pull_secrets {
        if !secrets.iter().any(|secret| secret.name == *name) {
            secrets.push(LocalObjectReference { name: name.clone() });
        }
    }
    (!secrets.is_empty()).then_some(secrets)
}

/// The pull secrets that the components' templates name: the database's image has none of its own.
pub(super) fn pull_secrets(snapshot: &Snapshot) -> Vec<LocalObjectReference> {
    let mut secrets: Vec<LocalObjectReference> = Vec::new();
    for component in &snapshot.components {
        let Ok((_, spec)) = template::read(component) else {
            continue;
        };
        for secret in spec.image_pull_secrets.unwrap_or_default() {
            if !secrets.contains(&secret) {
                secrets.push(secret);
            }
        }
    }
    secrets
}

/// Task, pod and database, as the agent reads them.
pub(super) fn environment(task: &Task, connection: Option<&Connection>) -> Vec<EnvVar> {
    let mut variables = vec![literal(protocol::TASK_VARIABLE, task_text(task))];
    variables.extend(pod_identity());
    variables.extend(connection.map(database).unwrap_or_default());
    variables
}

/// The task as JSON. The kubelet expands `$(NAME)` in a variable's value, so that each `$` is written twice: a
/// command that says `$(DATABASE_URL)` must not put a secret into the task.
pub(super) fn task_text(task: &Task) -> String {
    serde_json::to_string(task).unwrap_or_default().replace('$', "$$")
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
        (protocol::DATABASE_URL_VARIABLE, url_from),
        (protocol::DATABASE_USER_VARIABLE, user_from),
        (protocol::DATABASE_PASSWORD_VARIABLE, password_from),
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
    let secrets = secrets
        .into_iter()
        .filter_map(|(variable, source)| Some(from_secret(variable, &source.as_ref()?.secret_key_ref)));
    literals.chain(secrets).collect()
}

pub(super) fn literal(name: &str, value: String) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: Some(value),
        value_from: None,
    }
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

pub(super) fn mount(volume: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: volume.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
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

/// What [`restricted`] asks, for a container of Fairway's in a pod of the team's, whose pod-wide settings are theirs.
pub(super) fn restricted_as_own_user() -> SecurityContext {
    SecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        seccomp_profile: Some(runtime_default()),
        ..restricted()
    }
}

pub(super) fn runtime_default() -> SeccompProfile {
    SeccompProfile {
        type_: "RuntimeDefault".to_owned(),
        localhost_profile: None,
    }
}

/// Little enough that it fits anywhere, and not nothing, which would be evicted first.
pub(super) fn small() -> ResourceRequirements {
    let quantity = |name: &str, value: &str| (name.to_owned(), Quantity(value.to_owned()));
    ResourceRequirements {
        requests: Some([quantity("cpu", "5m"), quantity("memory", "16Mi")].into()),
        ..ResourceRequirements::default()
    }
}

/// Asks node autoscalers not to move the pod: its work would have to be settled or done again.
pub(super) fn stay_put(meta: &mut ObjectMeta) {
    annotate(
        meta,
        "cluster-autoscaler.kubernetes.io/safe-to-evict",
        "false".to_owned(),
    );
    annotate(meta, "karpenter.sh/do-not-disrupt", "true".to_owned());
}
