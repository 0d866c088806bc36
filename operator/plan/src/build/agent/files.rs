//! Files that a connection string may name, such as `sslrootcert=/etc/crm/ca.pem`: they are mounted into the
//! application's container, and the agent needs them at the same paths.

use super::paths::{is_in, normal};
use super::place::worker;
use super::pod::{Access, CONTAINER, OWN_BINARY, mount};
use crate::build::template;
use crate::protocol;
use crate::snapshot::Snapshot;
use k8s_openapi::api::core::v1::{
    ClusterTrustBundleProjection, ConfigMapProjection, ConfigMapVolumeSource, PodSpec, ProjectedVolumeSource,
    SecretProjection, SecretVolumeSource, Volume, VolumeMount, VolumeProjection,
};

/// Paths of the agent's own that nothing may hide, themselves and what is in them.
const TAKEN: [&str; 7] = [
    protocol::AGENT_DIRECTORY,
    protocol::STORE_DIRECTORY,
    protocol::STORE_CA_DIRECTORY,
    protocol::SCRATCH_DIRECTORY,
    protocol::CLONE_DIRECTORY,
    OWN_BINARY,
    "/var/run/secrets/kubernetes.io/serviceaccount",
];
/// Folders in which the agent's own paths are.
const ABOVE: [&str; 2] = ["/tmp", "/"];

/// Whether a mount at this path would take the place of something of the agent's own, the agent itself included.
pub(super) fn hides_the_agent(path: &str) -> bool {
    ABOVE.iter().any(|above| normal(path) == normal(above)) || TAKEN.iter().any(|taken| is_in(path, taken))
}

/// Mounts the Secrets and ConfigMaps that the migrating component (or the first) mounts into the container that migrates
/// (or the first), read-only and optional: what is missing is the rollout's concern.
pub(super) fn mount_files(pod: &mut PodSpec, snapshot: &Snapshot) {
    let Some((_, team)) = worker(snapshot).and_then(|component| template::read(component).ok()) else {
        return;
    };
    let migrating = snapshot
        .migration
        .as_ref()
        .and_then(|migration| migration.container.as_ref());
    let mounts = team
        .containers
        .iter()
        .find(|container| Some(&container.name) == migrating)
        .or(team.containers.first())
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
    // An expanded sub-path needs the variables of the application's container.
    if hides_the_agent(&mounted.mount_path) || mounted.sub_path_expr.is_some() {
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
        projected: source.projected.clone().and_then(files_of),
        ..Volume::default()
    };
    if volume.secret.is_none() && volume.config_map.is_none() && volume.projected.is_none() {
        return None;
    }
    let mounted = VolumeMount {
        sub_path: mounted.sub_path.clone(),
        ..mount(&volume.name, &mounted.mount_path, Access::ReadOnly)
    };
    Some((volume, mounted))
}

/// The files of a projected volume: those that are anybody's, as against a token of the pod.
fn files_of(projected: ProjectedVolumeSource) -> Option<ProjectedVolumeSource> {
    let sources: Vec<_> = projected
        .sources
        .into_iter()
        .flatten()
        .filter_map(file_source)
        .collect();
    (!sources.is_empty()).then_some(ProjectedVolumeSource {
        default_mode: projected.default_mode,
        sources: Some(sources),
    })
}

fn file_source(source: VolumeProjection) -> Option<VolumeProjection> {
    let files = VolumeProjection {
        secret: source.secret.map(|secret| SecretProjection {
            optional: Some(true),
            ..secret
        }),
        config_map: source.config_map.map(|map| ConfigMapProjection {
            optional: Some(true),
            ..map
        }),
        cluster_trust_bundle: source
            .cluster_trust_bundle
            .map(|bundle| ClusterTrustBundleProjection {
                optional: Some(true),
                ..bundle
            }),
        ..VolumeProjection::default()
    };
    (files != VolumeProjection::default()).then_some(files)
}
