//! The container `clone` of a backup's pod: a throwaway server of the database's own image, into which the backup is
//! restored.
//!
//! Restoring a dump runs its code, so this container has nothing that is secret: no variable and no file of a Secret, no
//! token, no volume of the store. What it shares with the agent is the folder of their sockets, and the dump, read-only. It is
//! a native sidecar: it starts before the agent, and the kubelet ends it when the agent has ended, however that was.

use super::place;
use super::pod::{
    AGENT_VOLUME, Access, INSTALL_CONTAINER, INSTALL_DIRECTORY, empty_dir, literal, mount, mount_everywhere,
    restricted,
};
use crate::build::annotate;
use crate::json::json_text;
use crate::observed::Settings;
use crate::protocol::{
    AGENT_BINARY, AGENT_DIRECTORY, CLONE_DATA_DIRECTORY, CLONE_DIRECTORY, CLONE_VARIABLE, CloneTask,
    PASSWD_FILE, SCRATCH_DIRECTORY,
};
use fairway_crds::database::Database;
use k8s_openapi::api::core::v1::{Container, PodSpec, VolumeMount};
use kube::core::ObjectMeta;

/// Name of the container.
const CLONE_CONTAINER: &str = "clone";
/// The folder of the sockets, which agent and clone share.
const CLONE_VOLUME: &str = "fairway-clone";
/// The server's data.
const CLONE_DATA_VOLUME: &str = "fairway-clone-data";
/// Name of the file of users in the volume of the agent's binary.
const PASSWD: &str = "passwd";
/// Annotations by which the admission webhooks of clouds leave a container without the identity of the pod's service
/// account:
/// <https://github.com/aws/amazon-eks-pod-identity-webhook#pod-level-annotations>,
/// <https://azure.github.io/azure-workload-identity/docs/topics/service-account-labels-and-annotations.html>.
const WITHOUT_IDENTITY: [&str; 2] = [
    "eks.amazonaws.com/skip-containers",
    "azure.workload.identity/skip-containers",
];

/// Adds the container to a pod in which the agent is installed, with a volume for the restored copy.
pub(super) fn attach(
    pod: &mut PodSpec,
    settings: &Settings,
    database: &Database,
    scratch_volume: &str,
    size: &str,
) {
    let clone = database.clone.clone().unwrap_or_default();
    let task = CloneTask {
        settings: clone.settings,
    };
    let container = Container {
        name: CLONE_CONTAINER.to_owned(),
        image: Some(database.image.clone()),
        restart_policy: Some("Always".to_owned()),
        command: Some(
            [AGENT_BINARY, "clone", "--passwd", PASSWD_FILE]
                .map(str::to_owned)
                .to_vec(),
        ),
        // The kubelet expands `$(NAME)`.
        env: Some(vec![literal(CLONE_VARIABLE, json_text(&task).replace('$', "$$"))]),
        security_context: Some(restricted()),
        volume_mounts: Some(vec![
            mount(AGENT_VOLUME, AGENT_DIRECTORY, Access::ReadOnly),
            VolumeMount {
                sub_path: Some(PASSWD.to_owned()),
                ..mount(AGENT_VOLUME, PASSWD_FILE, Access::ReadWrite)
            },
            mount(CLONE_VOLUME, CLONE_DIRECTORY, Access::ReadWrite),
            mount(CLONE_DATA_VOLUME, CLONE_DATA_DIRECTORY, Access::ReadWrite),
            mount(scratch_volume, SCRATCH_DIRECTORY, Access::ReadOnly),
        ]),
        resources: Some(place::resources_or(settings, clone.resources.as_ref())),
        ..Container::default()
    };
    let init = pod.init_containers.get_or_insert_default();
    let install = init
        .iter_mut()
        .find(|container| container.name == INSTALL_CONTAINER);
    if let Some(command) = install.and_then(|install| install.command.as_mut()) {
        command.extend(["--passwd".to_owned(), format!("{INSTALL_DIRECTORY}/{PASSWD}")]);
    }
    init.push(container);
    pod.volumes.get_or_insert_default().extend([
        empty_dir(CLONE_VOLUME, None),
        empty_dir(CLONE_DATA_VOLUME, Some(size)),
    ]);
    mount_everywhere(pod, CLONE_VOLUME, CLONE_DIRECTORY, Access::ReadWrite);
}

/// Asks those who give the service account's identity to containers to leave the clone without it.
pub(super) fn keep_identity_out(meta: &mut ObjectMeta, pod: &PodSpec) {
    let mut init = pod.init_containers.iter().flatten();
    if init.any(|container| container.name == CLONE_CONTAINER) {
        for annotation in WITHOUT_IDENTITY {
            annotate(meta, annotation, CLONE_CONTAINER.to_owned());
        }
    }
}
