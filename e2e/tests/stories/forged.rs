//! Pods that a tenant makes look like Fairway's.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, ensure};
use fairway_crds::release::ReleaseOutcome;
use fairway_e2e::apps::{self, crm, small};
use fairway_e2e::manifest::restricted;
use fairway_e2e::ns::{Context, with_temp_ns};
use fairway_e2e::wait::{is_ready, pod_ready, wait_for_all, wait_gone};
use fairway_e2e::{operator, reach, seen};
use futures::{AsyncBufReadExt, TryStreamExt};
use http::Request;
use http::header::{AUTHORIZATION, HOST};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{DeleteParams, LogParams, PostParams};
use kube::runtime::watcher;
use serde_json::json;
use tokio::task::JoinSet;

use crate::SOON;

/// Port of probe pods.
const PORT: u16 = 9797;

/// S1: a tenant makes pods with labels and owner of his own probe pod: one with a name like it, one with the name of the
/// probe pod in another namespace, and one with the name of his own, which he deletes. The operator connects to none of
/// them, and both releases go on. What the manifest of a probe pod shows is not accepted in place of its token.
#[tokio::test]
async fn s1_forged_probe_pods_get_no_token_and_no_request() -> Result<()> {
    with_temp_ns(|victim| with_temp_ns(|tenant| attack(victim, tenant))).await
}

async fn attack(victim: Context, tenant: Context) -> Result<()> {
    for context in [&victim, &tenant] {
        let mut app = small::app(context, "shop", "v1")?;
        let headers = crm::secret_headers(context).await?;
        apps::set_health_deadline(&mut app, "web", 600);
        let health = apps::component(&mut app, "web").health.as_mut();
        let health = health.context("web has no health")?;
        health.http[0].headers = headers;
        health.success_threshold = 5;
        // Until the attack is over.
        apps::set_env(&mut app, "web", "CRM_FAULT_HEALTH", "503");
        apps::apply(context, &app).await?;
    }
    let others = probe_pod(&victim).await?;
    let own = probe_pod(&tenant).await?;
    let mut forged = Vec::new();
    for name in ["shop-1-probe-00000000", &others.name_any()] {
        forged.push(Forged::create(&tenant, &own, name).await?);
    }
    let name = own.name_any();
    let at_once = DeleteParams::default().grace_period(0);
    tenant.api::<Pod>().delete(&name, &at_once).await?;
    wait_gone(tenant.api::<Pod>(), &name, SOON).await?;
    forged.push(Forged::create(&tenant, &own, &name).await?);

    let hash = token_hash(&others)?;
    let request = Request::post("/probe")
        .header(HOST, "probe")
        .header(AUTHORIZATION, format!("Bearer {hash}"))
        .body(json!({"index": 0, "address": "127.0.0.1"}).to_string())?;
    let answer = reach::http(&victim, &others.name_any(), PORT, request).await?;
    ensure!(answer.status() == 401, "{}", answer.status());

    for context in [&tenant, &victim] {
        let pods = crm::pods(context, "web", "shop-1").await?;
        let pod = pods.first().context("no pod of shop-1 is ready")?;
        crm::switch_fault(context, pod, &json!({"health": "none"})).await?;
        seen::ended(context, "shop-1", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
    }
    let operator = operator::leader(&tenant)
        .await?
        .status
        .and_then(|status| status.pod_ip);
    let operator = operator.context("the operator has no address")?;
    for Forged { name, log, _follows } in &forged {
        let log = log.lock().unwrap_or_else(PoisonError::into_inner);
        let requests = log.matches(REQUEST).count();
        ensure!(
            requests == 1 && !log.contains(&operator),
            "the operator has sent something to {name}:\n{log}"
        );
    }
    Ok(())
}

/// The probe pod of `shop-1`, once it is ready.
async fn probe_pod(context: &Context) -> Result<Pod> {
    let config = watcher::Config::default().labels(&format!("{}=probe", seen::WORK));
    let ready = |pods: &[Pod]| pods.iter().any(is_ready);
    let pods = wait_for_all(
        context.api::<Pod>(),
        config,
        "a ready probe pod",
        ready,
        crm::PATIENCE,
    )
    .await?;
    pods.into_iter().find(is_ready).context("no probe pod is ready")
}

/// The hash of a token, as the manifest of its probe pod shows it.
fn token_hash(probe_pod: &Pod) -> Result<String> {
    let manifest = serde_json::to_string(&probe_pod.spec)?;
    let (_, behind) = manifest
        .split_once("tokenSha256")
        .context("the manifest shows no hash")?;
    let mut words = behind.split(|letter: char| !letter.is_ascii_hexdigit());
    let hash = words.find(|word| word.len() == 64);
    Ok(hash.context("the manifest shows no hash")?.to_owned())
}

/// How the listener of a forged pod logs a request.
const REQUEST: &str = ": url:/";

/// A pod that looks like a probe pod, and logs who connects to it.
struct Forged {
    name: String,
    log: Arc<Mutex<String>>,
    _follows: JoinSet<()>,
}

impl Forged {
    /// Has a pod listen with labels and owner of another one, and proves that it logs requests by one of the test's own.
    async fn create(context: &Context, own: &Pod, name: &str) -> Result<Self> {
        let pod = json!({
            "metadata": {
                "name": name,
                "labels": own.labels(),
                "annotations": own.annotations(),
                "ownerReferences": own.owner_references(),
            },
            "spec": restricted(json!({
                "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 0,
                "containers": [{
                    "name": "agent", "image": context.target.image_by_digest("pause", "1")?,
                    "command": ["/busybox", "httpd", "-f", "-vvv", "-p", PORT.to_string(), "-h", "/"],
                    "ports": [{"containerPort": PORT}],
                    "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
                }],
            })),
        });
        let pods = context.api::<Pod>();
        pods.create(&PostParams::default(), &serde_json::from_value(pod)?)
            .await?;
        pod_ready(&context.client, &context.namespace, name, SOON).await?;
        let follow = LogParams {
            follow: true,
            ..LogParams::default()
        };
        let mut lines = pods.log_stream(name, &follow).await?.lines();
        let request = Request::get("/control")
            .header(HOST, "probe")
            .body(String::new())?;
        reach::http(context, name, PORT, request).await?;
        let mut begun = String::new();
        while !begun.contains(REQUEST) {
            begun += &lines
                .try_next()
                .await?
                .context("the log ends before the test's own request")?;
        }
        let log = Arc::new(Mutex::new(begun));
        let mut follows = JoinSet::new();
        let into = log.clone();
        // It ends when the operator removes the pod.
        follows.spawn(async move {
            while let Ok(Some(line)) = lines.try_next().await {
                let mut log = into.lock().unwrap_or_else(PoisonError::into_inner);
                log.push_str(&line);
                log.push('\n');
            }
        });
        Ok(Self {
            name: name.to_owned(),
            log,
            _follows: follows,
        })
    }
}
