//! Files that a connection string may name, such as `sslrootcert=/etc/crm/ca.pem`: they are mounted into the
//! application's container, and the agent needs them at the same paths.

use super::pod::{CONTAINER, mount};
use crate::build::template;
use crate::protocol;
use crate::snapshot::Snapshot;
use k8s_openapi::api::core::v1::{ConfigMapVolumeSource, PodSpec, SecretVolumeSource, Volume, VolumeMount};

/// Folders of the agent's own that nothing may hide.
const TAKEN: [&str; 6] = [
    protocol::AGENT_DIRECTORY,
    protocol::STORE_DIRECTORY,
    protocol::SCRATCH_DIRECTORY,
    "/tmp",
    "/",
    "/var/run/secrets/kubernetes.io/serviceaccount",
];

/// Mounts the Secrets and ConfigMaps that the migrating component (or the first) mounts into its first
/// container, read-only and optional: what is missing is the rollout's concern.
pub(super) fn mount_files(pod: &mut PodSpec, snapshot: &Snapshot) {
    let name = snapshot
        .migration
        .as_ref()
        .map(|migration| migration.component.as_str());
    let component = name
        .and_then(|name| snapshot.component(name))
        .or_else(|| snapshot.components.first());
    let Some((_, team)) = component.and_then(|component| template::read(component).ok()) else {
        return;
    };
    let mounts = team
        .containers
        .first()
        .and_then(|container| container.volume_mounts.clone())
        .unwrap_or_default();
    let files: Vec<(Volume, VolumeMount)> = mounts
        .iter()
        .enumerate()
        .filter_map(|(index, mounted)| file(&team, mounted, index))
        .collect();
    for (volume, mounted) in files {
        pod.volumes.get_or_insert_default().push(volume);
        for container in pod
            .containers
            .iter_mut()
            .filter(|container| container.name == CONTAINER)
        {
            container
                .volume_mounts
                .get_or_insert_default()
                .push(mounted.clone());
        }
    }
}

/// The mounts of such files for a container beside the one that has them, in the team's own pod.
pub(super) fn files_beside(pod: &PodSpec, target: usize) -> Vec<VolumeMount> {
    let mounts = pod
        .containers
        .get(target)
        .and_then(|container| container.volume_mounts.as_ref());
    let files = mounts
        .into_iter()
        .flatten()
        .enumerate()
        .filter_map(|(index, mounted)| {
            let (_, file) = file(pod, mounted, index)?;
            Some(VolumeMount {
                name: mounted.name.clone(),
                ..file
            })
        });
    files.collect()
}

fn file(team: &PodSpec, mounted: &VolumeMount, index: usize) -> Option<(Volume, VolumeMount)> {
    let path = mounted.mount_path.trim_end_matches('/');
    // An expanded sub-path needs the variables of the application's container.
    if TAKEN.iter().any(|taken| taken.trim_end_matches('/') == path) || mounted.sub_path_expr.is_some() {
        return None;
    }
    let source = team
        .volumes
        .iter()
        .flatten()
        .find(|volume| volume.name == mounted.name)?;
    let volume = Volume {
        name: format!("file-{index}"),
        secret: source.secret.clone().map(|secret| SecretVolumeSource {
            optional: Some(true),
            ..secret
        }),
        config_map: source.config_map.clone().map(|map| ConfigMapVolumeSource {
            optional: Some(true),
            ..map
        }),
        ..Volume::default()
    };
    if volume.secret.is_none() && volume.config_map.is_none() {
        return None;
    }
    let mounted = VolumeMount {
        sub_path: mounted.sub_path.clone(),
        ..mount(&volume.name, &mounted.mount_path, true)
    };
    Some((volume, mounted))
}
