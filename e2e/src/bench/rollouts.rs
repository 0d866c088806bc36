//! Argo Rollouts under measurement: its controller with its default settings, a process on the same node, and
//! blue-green Rollouts, which are what Fairway's releases are.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::wait::{Condition, conditions};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::contestant::Contestant;
use super::setup::{Bench, PATIENCE};
use crate::cluster::network::inside;
use crate::command::run;
use crate::{tools, wait};

/// Time for all idle objects.
const ALL_READY: Duration = Duration::from_secs(600);

/// The definition of the kind that is measured.
const DEFINITION: &str = "rollouts.argoproj.io";

/// The controller's process.
pub(super) struct Rollouts {
    child: std::sync::Mutex<Child>,
    pid: u32,
}

impl Rollouts {
    /// Installs its CRDs and starts it.
    pub(super) async fn start(bench: &Bench) -> Result<Self> {
        let paths = &bench.target.paths;
        let folder = tools::module_folder("rollouts-controller", "github.com/argoproj/argo-rollouts")?;
        let crds = folder.join("manifests/crds");
        run(bench
            .target
            .kubectl()
            .args(["apply", "--server-side", "--kustomize"])
            .arg(&crds))
        .context("install the CRDs of Argo Rollouts")?;
        let definitions = Api::<CustomResourceDefinition>::all(bench.client.clone());
        let established = |definition: &CustomResourceDefinition| {
            conditions::is_crd_established().matches_object(Some(definition))
        };
        wait::wait_for(
            definitions,
            DEFINITION,
            "its kind is served",
            established,
            PATIENCE,
        )
        .await?;
        let log = paths.logs().join("rollouts-controller.log");
        let log = File::create(&log).with_context(|| format!("write {}", log.display()))?;
        let child = inside(paths, paths.binary("rollouts-controller"))
            .arg("--kubeconfig")
            .arg(paths.kubeconfig())
            .args(["--leader-elect=false", "--loglevel", "warn"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("start the controller of Argo Rollouts")?;
        let pid = child.id();
        Ok(Self {
            child: child.into(),
            pid,
        })
    }

    /// Ends it.
    pub(super) fn stop(self) -> Result<()> {
        let mut child = self
            .child
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let killed = child.kill();
        child.wait().context("wait for the controller of Argo Rollouts")?;
        killed.context("end the controller of Argo Rollouts")
    }
}

fn api(bench: &Bench, namespace: &str) -> Api<DynamicObject> {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("argoproj.io", "v1alpha1", "Rollout"));
    Api::namespaced_with(bench.client.clone(), namespace, &kind)
}

impl Contestant for Rollouts {
    const NAME: &'static str = "Argo Rollouts";
    const USER_AGENT: &'static str = "rollouts-controller";

    async fn release(&self, bench: &Bench, namespace: &str, image: &str) -> Result<()> {
        let services = Api::<Service>::namespaced(bench.client.clone(), namespace);
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 3000}]},
        });
        if services.get_opt("web").await?.is_none() {
            services
                .patch("web", &PatchParams::apply("bench"), &Patch::Apply(service))
                .await?;
        }
        let strategy = json!({"blueGreen": {"activeService": "web", "scaleDownDelaySeconds": 1}});
        api(bench, namespace)
            .patch(
                "web",
                &PatchParams::apply("bench").force(),
                &Patch::Apply(rollout("web", 2, image, &strategy)),
            )
            .await
            .context("apply Rollout web")?;
        Ok(())
    }

    async fn released(&self, bench: &Bench, namespace: &str) -> Result<()> {
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("argoproj.io", "v1alpha1", "Rollout"));
        let mut seen = watcher(api(bench, namespace), watcher::Config::default())
            .applied_objects()
            .boxed();
        let watching = async {
            while let Some(rollout) = seen.next().await {
                if is_healthy(&rollout?, 2) {
                    return Ok(());
                }
            }
            bail!("the watch of {} ended", kind.plural)
        };
        tokio::time::timeout(PATIENCE, watching)
            .await
            .context("the Rollout did not become healthy in time")?
    }

    fn service(&self) -> &'static str {
        "web"
    }

    async fn idle(&self, bench: &Bench, namespace: &str, name: &str) -> Result<()> {
        let object = rollout(name, 0, &bench.images[0], &json!({"canary": {}}));
        api(bench, namespace)
            .create(&PostParams::default(), &serde_json::from_value(object)?)
            .await
            .with_context(|| format!("make Rollout {name}"))?;
        Ok(())
    }

    async fn all_ready(&self, bench: &Bench, namespace: &str, count: usize) -> Result<()> {
        count_ready(api(bench, namespace), count, |rollout| is_healthy(rollout, 0)).await
    }

    fn resident(&self) -> Result<u64> {
        resident(&PathBuf::from(format!("/proc/{}", self.pid)))
    }
}

fn rollout(name: &str, replicas: u32, image: &str, strategy: &Value) -> Value {
    json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": merged(template(image), json!({"metadata": {"labels": {"app": name}}})),
            "strategy": strategy,
        },
    })
}

fn merged(mut under: Value, over: Value) -> Value {
    if let (Value::Object(under), Value::Object(over)) = (&mut under, over) {
        under.extend(over);
    }
    under
}

/// The same pods for both: a web server that needs no database, probed by the kubelet every second.
pub(super) fn template(image: &str) -> Value {
    let probe = json!({"httpGet": {"path": "/api/health", "port": 3000}, "periodSeconds": 1});
    json!({"spec": {"terminationGracePeriodSeconds": 1, "containers": [{
        "name": "web", "image": image, "args": ["web"], "readinessProbe": probe,
        "env": [{"name": "CRM_DRAIN_MS", "value": "0"}],
    }]}})
}

/// Healthy, and of the spec that was written last. Its `observedGeneration` is a string.
fn is_healthy(rollout: &DynamicObject, replicas: i64) -> bool {
    let status = &rollout.data["status"];
    let generation = rollout.metadata.generation.unwrap_or_default().to_string();
    let old = status["replicas"].as_i64().unwrap_or_default() > replicas;
    status["phase"] == "Healthy" && status["observedGeneration"] == generation && !old
}

/// Waits until so many objects satisfy the predicate.
pub(super) async fn count_ready<K>(api: Api<K>, count: usize, ready: impl Fn(&K) -> bool) -> Result<()>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut seen = watcher(api, watcher::Config::default()).applied_objects().boxed();
    let mut done = BTreeSet::new();
    let watching = async {
        while let Some(object) = seen.next().await {
            let object = object?;
            if ready(&object) {
                done.insert(object.name_any());
            }
            if done.len() >= count {
                return Ok(());
            }
        }
        bail!("the watch ended")
    };
    tokio::time::timeout(ALL_READY, watching)
        .await
        .context("not all objects became ready in time")?
}

/// `VmRSS` of a process, in bytes.
pub(super) fn resident(process: &Path) -> Result<u64> {
    let status =
        fs::read_to_string(process.join("status")).with_context(|| format!("read {}", process.display()))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .context("the process has ended")?;
    let kilobytes: u64 = line
        .trim()
        .trim_end_matches("kB")
        .trim()
        .parse()
        .context("read VmRSS")?;
    Ok(kilobytes * 1024)
}
