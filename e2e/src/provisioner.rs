//! A dynamic provisioner of volumes, the one that k3s ships: a claim is bound when the first pod that mounts it is placed, and
//! its volume is a folder of that pod's node.

use std::fs;
use std::process::{Child, Stdio};

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, PersistentVolume, ServiceAccount};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::cluster::network;
use crate::context::Context;
use crate::tools::PROVISIONER;
use crate::{tools, wait};

/// The provisioner as a process of the cluster, which ends when this is dropped.
pub struct Provisioner {
    process: Child,
    context: Context,
    /// Name of the StorageClass, and of the namespace in which its helper pods run.
    pub class: String,
}

/// Builds the provisioner, starts it and makes its StorageClass.
///
/// # Errors
/// When it cannot be built, or the API server refuses what it needs.
pub async fn start(context: &Context) -> Result<Provisioner> {
    let paths = context.target.paths.clone();
    tools::build_each(&paths, &[PROVISIONER])?;
    let class = format!("local-path-{}", context.namespace);
    let folder = paths.volumes().join(&class);
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let config = json!({"nodePathMap": [{"node": "DEFAULT_PATH_FOR_NON_LISTED_NODES", "paths": [folder]}]})
        .to_string();
    // Any user writes to a volume, as k3s has it.
    let script = |work: &str| format!("#!/bin/sh\nset -eu\n{work}\n");
    let helper = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "helper-pod"},
        "spec": {
            "securityContext": {"runAsUser": 0},
            "containers": [{"name": "helper-pod", "image": context.target.image("postgres", "15")}],
        },
    })
    .to_string();
    // Helper pods mount a folder of the node, which the namespaces of tests do not allow.
    let namespace = serde_json::from_value(json!({"metadata": {"name": class}}))?;
    let parameters = PostParams::default();
    Api::<Namespace>::all(context.client.clone())
        .create(&parameters, &namespace)
        .await?;
    wait::namespace_usable(&context.client, &class).await?;
    let account: ServiceAccount = serde_json::from_value(json!({"metadata": {"name": "helper"}}))?;
    Api::namespaced(context.client.clone(), &class)
        .create(&parameters, &account)
        .await?;
    let map: ConfigMap = serde_json::from_value(json!({
        "metadata": {"name": "local-path"},
        "data": {
            "config.json": config, "helperPod.yaml": helper,
            "setup": script("mkdir -m 0777 -p \"$VOL_DIR\""), "teardown": script("rm -rf \"$VOL_DIR\""),
        },
    }))?;
    Api::namespaced(context.client.clone(), &class)
        .create(&parameters, &map)
        .await?;
    let storage: StorageClass = serde_json::from_value(json!({
        "metadata": {"name": class}, "provisioner": PROVISIONER_NAME,
        "volumeBindingMode": "WaitForFirstConsumer", "reclaimPolicy": "Retain",
    }))?;
    Api::all(context.client.clone())
        .create(&parameters, &storage)
        .await?;

    let own = paths.cluster().join(&class);
    fs::create_dir_all(&own)?;
    let (config_file, helper_file) = (own.join("config.json"), own.join("helperPod.yaml"));
    fs::write(&config_file, config)?;
    fs::write(&helper_file, helper)?;
    let log = fs::File::create(paths.logs().join(format!("{class}.log")))?;
    let mut command = network::inside(&paths, paths.binary(PROVISIONER));
    command
        .arg("start")
        .arg(format!("--config={}", config_file.display()))
        .arg(format!("--helper-pod-file={}", helper_file.display()))
        .arg(format!(
            "--kubeconfig={}",
            paths.cluster().join("pki/admin.kubeconfig").display()
        ))
        .args([
            &format!("--namespace={class}"),
            &format!("--provisioner-name={PROVISIONER_NAME}"),
        ])
        .args(["--configmap-name=local-path", "--service-account-name=helper"])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    let process = command.spawn().context("start the provisioner")?;
    Ok(Provisioner {
        process,
        context: context.clone(),
        class,
    })
}

const PROVISIONER_NAME: &str = "rancher.io/local-path";

impl Provisioner {
    /// Removes what it made outside the test's namespace. A volume goes with the claim that is bound to it.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn remove(self) -> Result<()> {
        let client = self.context.client.clone();
        let volumes = Api::<PersistentVolume>::all(client.clone());
        for volume in volumes.list(&ListParams::default()).await? {
            let class = volume
                .spec
                .as_ref()
                .and_then(|spec| spec.storage_class_name.as_ref());
            if class == Some(&self.class) {
                volumes
                    .delete(&volume.name_any(), &DeleteParams::default())
                    .await?;
            }
        }
        Api::<StorageClass>::all(client.clone())
            .delete(&self.class, &DeleteParams::default())
            .await?;
        wait::remove(Api::<Namespace>::all(client), &self.class, wait::GONE).await
    }
}

impl Drop for Provisioner {
    fn drop(&mut self) {
        // One that has ended needs no signal.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
