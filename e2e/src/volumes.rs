//! Volumes for backups: good ones, ones that run full, and ones that take no writes.
//!
//! On the embedded cluster each is a folder of the node. On another cluster a good one comes from its
//! default StorageClass, and the bad ones cannot be had.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::Client;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use rustix::mount::{UnmountFlags, unmount};
use serde_json::json;

use crate::command::run;
use crate::context::Context as TestContext;
use crate::target::Target;

/// The label by which a test's volumes are found; unlike claims they are in no namespace.
const LABEL: &str = "fairway.dev/e2e-namespace";

/// What a volume does to whoever writes to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// It takes what it gets.
    Good,
    /// It has exactly so many bytes and no more, of memory.
    Limited {
        /// Its size; the kernel rounds it up to whole pages.
        bytes: u64,
    },
    /// Every write fails with "Read-only file system".
    ReadOnly,
}

/// Makes a claim of this name, bound to a volume that behaves so. `size` is what is asked for, such
/// as `1Gi`.
///
/// # Errors
/// When it cannot be made, or the cluster cannot provide such a volume.
pub async fn claim(context: &TestContext, name: &str, size: &str, behaviour: Behaviour) -> Result<()> {
    let TestContext {
        client,
        target,
        namespace,
    } = context;
    let mut specification = json!({
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": size}},
    });
    if target.is_embedded() {
        let volume = format!("{namespace}-{name}");
        let folder = folder(target, namespace, name);
        prepare(&folder, behaviour)?;
        let object: PersistentVolume = serde_json::from_value(json!({
            "metadata": {"name": volume, "labels": {LABEL: namespace}},
            "spec": {
                "capacity": {"storage": size},
                "accessModes": ["ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Retain",
                "storageClassName": "",
                "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": namespace, "name": name},
                "hostPath": {"path": folder, "type": "Directory"},
            },
        }))?;
        let volumes = Api::<PersistentVolume>::all(client.clone());
        volumes
            .create(&PostParams::default(), &object)
            .await
            .with_context(|| format!("make the volume {volume}"))?;
        specification["storageClassName"] = json!("");
        specification["volumeName"] = json!(volume);
    } else if behaviour != Behaviour::Good {
        bail!("a volume that is {behaviour:?} exists on the embedded cluster only");
    }
    let object: PersistentVolumeClaim =
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": specification}))?;
    let claims = Api::<PersistentVolumeClaim>::namespaced(client.clone(), namespace);
    claims
        .create(&PostParams::default(), &object)
        .await
        .with_context(|| format!("make the claim {name}"))?;
    Ok(())
}

/// The folder of a volume on this machine.
///
/// # Errors
/// When the target is not the embedded cluster.
pub fn path(context: &TestContext, name: &str) -> Result<PathBuf> {
    if !context.target.is_embedded() {
        bail!("the folders of an existing cluster's volumes are out of reach");
    }
    Ok(folder(&context.target, &context.namespace, name))
}

fn folder(target: &Target, namespace: &str, name: &str) -> PathBuf {
    target.paths.volumes().join(namespace).join(name)
}

fn prepare(folder: &PathBuf, behaviour: Behaviour) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    let mount = |options: &str| {
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "fairway-e2e"])
            .arg(folder))
        .map(|_| ())
    };
    match behaviour {
        // Any user writes to it, as with a volume whose driver applies fsGroup.
        Behaviour::Good => fs::set_permissions(folder, fs::Permissions::from_mode(0o777))
            .with_context(|| format!("let every user write to {}", folder.display())),
        Behaviour::Limited { bytes } => mount(&format!("size={bytes},mode=0777")),
        Behaviour::ReadOnly => mount("ro,size=64k,mode=0777"),
    }
}

/// Removes what [`claim`] made outside the namespace, after the namespace is gone.
pub(crate) async fn remove_all(client: &Client, target: &Target, namespace: &str) -> Result<()> {
    if !target.is_embedded() {
        return Ok(());
    }
    let volumes = Api::<PersistentVolume>::all(client.clone());
    let selected = ListParams::default().labels(&format!("{LABEL}={namespace}"));
    volumes
        .delete_collection(&DeleteParams::default(), &selected)
        .await
        .context("delete the volumes of the test")?;
    let folder = target.paths.volumes().join(namespace);
    let Ok(entries) = fs::read_dir(&folder) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        // Most are not mount points, and a pod that is still being torn down keeps its own mount.
        let _ = unmount(entry.path(), UnmountFlags::DETACH);
    }
    fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))
}
