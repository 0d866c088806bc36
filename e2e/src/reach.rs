//! Talking to pods through the API server, which reaches them where the machine of the test does not.

use anyhow::{Context as _, Result, bail, ensure};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use std::time::Duration;

use crate::context::Context;
use crate::install::OPERATOR_NAMESPACE;
use crate::manifest::{apply_object, restricted};
use crate::wait::{is_ready, wait_for};

/// The names of the ready pods that have these labels.
///
/// # Errors
/// When the API server does not answer.
pub async fn ready_pods(context: &Context, labels: &str) -> Result<Vec<String>> {
    let pods = context
        .api::<Pod>()
        .list(&ListParams::default().labels(labels))
        .await
        .with_context(|| format!("list the pods {labels}"))?;
    let ready = pods.items.iter().filter(|pod| is_ready(pod));
    Ok(ready.map(ResourceExt::name_any).collect())
}

/// Whether a first connection of a new pod, which is created under this name, to the Service of the operator's metrics
/// is refused.
///
/// # Errors
/// When the pod cannot be created, or has not ended within that time.
pub async fn metrics_refuse(context: &Context, name: &str, within: Duration) -> Result<bool> {
    let pod = ended_connector(context, name, "/busybox nc -w 5 $0 8080", within).await?;
    Ok(phase(&pod) == Some("Failed"))
}

/// Waits until a pod, which is created under this name, connects to the Service of the operator's metrics. It tries
/// until it does: what enforces NetworkPolicies learns the address of a new pod after its containers have started.
///
/// # Errors
/// When the pod cannot be created, or has not connected within that time.
pub async fn metrics_answer(context: &Context, name: &str, within: Duration) -> Result<()> {
    let script = "until /busybox nc -w 5 $0 8080; do /busybox sleep 0.2; done";
    let pod = ended_connector(context, name, script, within).await?;
    ensure!(
        phase(&pod) == Some("Succeeded"),
        "the pod {name} has ended without a connection"
    );
    Ok(())
}

fn phase(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.phase.as_deref()
}

/// A pod that ran this script with the address of the metrics as `$0`, once it has ended.
async fn ended_connector(context: &Context, name: &str, script: &str, within: Duration) -> Result<Pod> {
    let services = Api::<Service>::namespaced(context.client.clone(), OPERATOR_NAMESPACE);
    let address = services
        .get("fairway")
        .await?
        .spec
        .and_then(|spec| spec.cluster_ip);
    let address = address.context("the Service of the metrics has no address")?;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": restricted(json!({
            "restartPolicy": "Never", "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 0,
            "securityContext": {"runAsUser": 1000},
            "containers": [{
                "name": "connect", "image": context.target.image("pause", "1"),
                "command": ["/busybox", "sh", "-c", script, address],
            }],
        })),
    });
    apply_object(context, pod).await?;
    let ended = |pod: &Pod| matches!(phase(pod), Some("Succeeded" | "Failed"));
    wait_for(context.api::<Pod>(), name, "ended", ended, within).await
}

/// Sends one request to a port of a pod and reads the whole answer.
///
/// # Errors
/// When the pod cannot be reached or does not answer.
pub async fn http(
    context: &Context,
    pod: &str,
    port: u16,
    request: Request<String>,
) -> Result<Response<Bytes>> {
    let asked = format!("{} {} of pod {pod}", request.method(), request.uri());
    let answer = async {
        let mut forwarder = context.api::<Pod>().portforward(pod, &[port]).await?;
        let stream = forwarder
            .take_stream(port)
            .context("the port was not forwarded")?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // It ends with the answer, and its errors come with the answer too.
        let driver = tokio::spawn(connection);
        let answer = sender
            .send_request(request.map(|body| Full::new(Bytes::from(body))))
            .await?;
        let (head, body) = answer.into_parts();
        let body = body.collect().await?.to_bytes();
        driver.abort();
        anyhow::Ok(Response::from_parts(head, body))
    };
    answer.await.with_context(|| format!("ask {asked}"))
}

/// Asks a pod for a JSON document.
///
/// # Errors
/// As [`http`], and when the answer is not a success or not JSON.
pub async fn json(context: &Context, pod: &str, port: u16, request: Request<String>) -> Result<Value> {
    let asked = format!("{} {} of pod {pod}", request.method(), request.uri());
    let answer = http(context, pod, port, request).await?;
    if !answer.status().is_success() {
        bail!(
            "{asked}: {} {}",
            answer.status(),
            String::from_utf8_lossy(answer.body())
        );
    }
    serde_json::from_slice(answer.body()).with_context(|| format!("read the answer to {asked}"))
}

/// A session with the database whose URL is under `url` in the Secret of the same name as its
/// StatefulSet, as the manifests have it. It ends when the client is dropped.
///
/// # Errors
/// When the database cannot be reached or does not let us in.
pub async fn database(context: &Context, name: &str) -> Result<tokio_postgres::Client> {
    let secret = context.api::<Secret>().get(name).await?;
    let url = secret
        .data
        .and_then(|data| data.get("url").cloned())
        .with_context(|| format!("the Secret {name} has no key url"))?;
    let config: tokio_postgres::Config = std::str::from_utf8(&url.0)?.parse()?;
    let pod = format!("{name}-0");
    let mut forwarder = context.api::<Pod>().portforward(&pod, &[5432]).await?;
    let stream = forwarder
        .take_stream(5432)
        .context("the port was not forwarded")?;
    let (client, connection) = config
        .connect_raw(stream, tokio_postgres::NoTls)
        .await
        .with_context(|| format!("log in at {pod}"))?;
    tokio::spawn(async move {
        let ended = connection.await;
        drop(forwarder);
        ended
    });
    Ok(client)
}

/// The one number that a statement returns.
///
/// # Errors
/// When the statement fails or returns something else.
pub async fn count(context: &Context, name: &str, statement: &str) -> Result<i64> {
    let client = database(context, name).await?;
    let row = client
        .query_one(statement, &[])
        .await
        .with_context(|| format!("run {statement}"))?;
    Ok(row.try_get(0)?)
}

/// Asks until the one number that a statement returns is as desired. A database has no watch, so it is asked
/// twenty times a second.
///
/// # Errors
/// When it is not within the deadline; the error holds the last answer.
pub async fn until(
    context: &Context,
    name: &str,
    statement: &str,
    desired: i64,
    deadline: std::time::Duration,
) -> Result<()> {
    let client = database(context, name).await?;
    let mut last = None;
    let asking = async {
        let mut ticks = tokio::time::interval(std::time::Duration::from_millis(50));
        loop {
            ticks.tick().await;
            // The table may not be there yet.
            last = client
                .query_one(statement, &[])
                .await
                .ok()
                .and_then(|row| row.try_get::<_, i64>(0).ok());
            if last == Some(desired) {
                return;
            }
        }
    };
    if tokio::time::timeout(deadline, asking).await.is_err() {
        bail!(
            "waited {} s for {desired} from `{statement}`; last answer: {last:?}",
            deadline.as_secs()
        );
    }
    Ok(())
}
