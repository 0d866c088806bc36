//! A default StorageClass, as clusters have one, so that whoever asks for a volume gets one. Volumes are folders of
//! this machine that are made beforehand, because nothing here provisions them.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::PersistentVolume;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::json;

use crate::paths::Paths;

/// The class's name.
const CLASS: &str = "standard";
/// How many volumes there are; each serves one claim, once.
const VOLUMES: usize = 12;

/// Makes the class and its volumes.
pub(super) async fn create(paths: &Paths, client: &Client) -> Result<()> {
    let class: StorageClass = serde_json::from_value(json!({
        "metadata": {"name": CLASS, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "kubernetes.io/no-provisioner",
        "reclaimPolicy": "Retain",
    }))?;
    Api::<StorageClass>::all(client.clone())
        .create(&PostParams::default(), &class)
        .await
        .context("make the default StorageClass")?;
    let volumes = Api::<PersistentVolume>::all(client.clone());
    for number in 1..=VOLUMES {
        let name = format!("{CLASS}-{number}");
        let folder = paths.volumes().join(&name);
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        // Any user writes to it, as with a volume whose driver applies fsGroup.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777))
            .with_context(|| format!("let every user write to {}", folder.display()))?;
        let volume: PersistentVolume = serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {
                "capacity": {"storage": "10Gi"},
                "accessModes": ["ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Retain",
                "storageClassName": CLASS,
                "hostPath": {"path": folder, "type": "Directory"},
            },
        }))?;
        volumes
            .create(&PostParams::default(), &volume)
            .await
            .with_context(|| format!("make the volume {name}"))?;
    }
    Ok(())
}
