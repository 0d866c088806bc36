//! Fairway under measurement: the operator as installed by its chart.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use fairway_crds::App;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::contestant::Contestant;
use super::setup::{Bench, PATIENCE};
use crate::wait;

/// The operator's process on this machine.
pub(super) struct Fairway {
    process: PathBuf,
}

impl Fairway {
    /// Finds it: the node is this machine, so its processes are this machine's.
    pub(super) fn find() -> Result<Self> {
        let processes = fs::read_dir("/proc")
            .context("read /proc")?
            .flatten()
            .map(|entry| entry.path());
        let process = processes
            .filter(|path| {
                fs::read(path.join("cmdline")).is_ok_and(|line| line.starts_with(b"/fairway\0operator"))
            })
            .last()
            .context(
                "no process of the operator on this machine; the benchmark needs the embedded cluster",
            )?;
        Ok(Self { process })
    }
}

impl Contestant for Fairway {
    const NAME: &'static str = "Fairway";
    const USER_AGENT: &'static str = "fairway";

    async fn release(&self, bench: &Bench, namespace: &str, image: &str) -> Result<()> {
        let web = json!({
            "name": "web",
            "replicas": 2,
            "serves": {"service": "web", "port": 80, "targetPort": 3000},
            // One pass is needed, so the last gate is the pod's being ready, as for the other.
            "health": {"http": [{"path": "/api/health"}], "successThreshold": 1},
            "template": super::rollouts::template(image),
        });
        let policy = json!({"bake": {"for": "0s"}});
        let web = app(
            "web",
            json!({"components": [web], "traffic": {"drain": "0s"}, "policy": policy}),
        );
        Api::<App>::namespaced(bench.client.clone(), namespace)
            .patch("web", &PatchParams::apply("bench").force(), &Patch::Apply(web))
            .await
            .context("apply App web")?;
        Ok(())
    }

    async fn released(&self, bench: &Bench, namespace: &str) -> Result<()> {
        let api = Api::<App>::namespaced(bench.client.clone(), namespace);
        let done = |app: &App| {
            let status = app.status.clone().unwrap_or_default();
            let live = status.live.map(|live| live.release);
            live.is_some() && live == status.desired && status.observed_generation == app.metadata.generation
        };
        let app = wait::wait_for(api, "web", "its newest release is live", done, PATIENCE).await?;
        let desired = app.status.and_then(|status| status.desired).unwrap_or_default();
        let releases = Api::<fairway_crds::Release>::namespaced(bench.client.clone(), namespace);
        let ended = |release: &fairway_crds::Release| {
            release
                .status
                .as_ref()
                .is_some_and(|status| status.outcome.is_some())
        };
        wait::wait_for(releases, &desired, "it has ended", ended, PATIENCE).await?;
        Ok(())
    }

    fn service(&self) -> &'static str {
        "web"
    }

    async fn idle(&self, bench: &Bench, namespace: &str, name: &str) -> Result<()> {
        let template = super::rollouts::template(&bench.images[0]);
        let components = json!([{"name": "web", "replicas": 0, "template": template}]);
        let object = serde_json::from_value(app(name, json!({"components": components})))?;
        Api::<App>::namespaced(bench.client.clone(), namespace)
            .create(&PostParams::default(), &object)
            .await
            .with_context(|| format!("make App {name}"))?;
        Ok(())
    }

    async fn all_ready(&self, bench: &Bench, namespace: &str, count: usize) -> Result<()> {
        let api = Api::<App>::namespaced(bench.client.clone(), namespace);
        let ready = |app: &App| {
            let conditions = app.status.iter().flat_map(|status| &status.conditions);
            conditions
                .into_iter()
                .any(|condition| condition.type_ == "Ready" && condition.status == "True")
        };
        super::rollouts::count_ready(api, count, ready).await
    }

    fn resident(&self) -> Result<u64> {
        super::rollouts::resident(&self.process)
    }
}

fn app(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "fairway.dev/v1alpha1", "kind": "App", "metadata": {"name": name}, "spec": spec})
}
