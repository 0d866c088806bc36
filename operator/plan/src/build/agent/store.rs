//! The store of backups in a pod: what the agent needs of the pod to reach it. The agent has the store's options in its
//! task.

use super::pod::mount;
use crate::protocol::STORE_DIRECTORY;
use fairway_crds::app::Store;
use k8s_openapi::api::core::v1::{PersistentVolumeClaimVolumeSource, PodSpec, Volume};

const STORE_VOLUME: &str = "store";

/// Gives the containers of a pod what they need to reach a store.
pub(super) fn attach(pod: &mut PodSpec, store: &Store) {
    let Store { volume } = store;
    pod.volumes.get_or_insert_default().push(Volume {
        name: STORE_VOLUME.to_owned(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: volume.claim_name.clone(),
            read_only: None,
        }),
        ..Volume::default()
    });
    mount_into_agent(pod, STORE_VOLUME, STORE_DIRECTORY);
}

/// Mounts a volume into every container of a pod.
pub(super) fn mount_into_agent(pod: &mut PodSpec, volume: &str, path: &str) {
    for container in &mut pod.containers {
        container
            .volume_mounts
            .get_or_insert_default()
            .push(mount(volume, path, false));
    }
}
