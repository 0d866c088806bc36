//! Tenants that attack the one operator of the cluster: its memory and its ports. It has the memory limit of the chart,
//! by which the kernel would end it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use fairway_crds::release::ReleaseOutcome;
use fairway_crds::{App, Release};
use fairway_e2e::apps::{self, crm, small};
use fairway_e2e::install::OPERATOR_NAMESPACE;
use fairway_e2e::manifest::{apply_object, restricted};
use fairway_e2e::ns::{Context, alone};
use fairway_e2e::wait::{is_ready, wait_for_all};
use fairway_e2e::{operator, seen};
use futures::future::try_join_all;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::Portforwarder;
use kube::runtime::watcher;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

/// Large Apps of each sort.
const APPS: usize = 6;
/// Large Deployments.
const DEPLOYMENTS: usize = 12;

/// Longest time for the answer to a probe. That of the kubelet may take one second, three times in a row.
const PROBE: Duration = Duration::from_secs(3);

/// S5: a tenant creates Apps of 1.3 MB and Deployments of 0.9 MB with the label of Fairway. The operator reads all of
/// them within its 256 MiB, also when it starts, and releases another App meanwhile.
#[tokio::test]
async fn s5_large_objects_of_a_tenant_fit_into_the_operators_memory() -> Result<()> {
    alone(|context| async move {
        operator::works(&context).await?;
        let before = operator::leader(&context).await?;
        // The schema refuses such a tree wherever it knows the fields.
        let mut tree = serde_json::to_value(small::app(&context, "tree", "v1")?)?;
        tree["spec"]["components"][0]["health"]["http"][0]["json"] =
            json!({"/ok": vec![json!({"": 0}); 150_000]});
        let refusal = match apply_object(&context, tree).await {
            Ok(_) => bail!("an expected value of 1.3 MB is admitted"),
            Err(refusal) => format!("{refusal:#}"),
        };
        ensure!(refusal.contains("json./ok"), "{refusal}");

        // A template may have any field of a pod, so it is admitted up to the limit of a request.
        stream::iter((0..APPS).flat_map(|number| [unreadable(&context, number), readable(&context, number)]))
            .map(async |app| apply_object(&context, app?).await)
            .buffer_unordered(4)
            .try_for_each(async |_| Ok(()))
            .await?;
        stream::iter((0..DEPLOYMENTS).map(deployment))
            .map(|deployment| apply_object(&context, deployment))
            .buffer_unordered(4)
            .try_for_each(async |_| Ok(()))
            .await?;
        let all_reported = |events: &[Event]| {
            let unreadable = events
                .iter()
                .filter(|event| event.reason.as_deref() == Some("Unreadable"));
            unreadable.count() == APPS
        };
        let events = context.api::<Event>();
        let what = "that the Apps cannot be read";
        wait_for_all(
            events,
            watcher::Config::default(),
            what,
            all_reported,
            crm::PATIENCE,
        )
        .await?;
        let mut other = small::app(&context, "shop", "v1")?;
        apps::apply(&context, &other).await?;
        seen::ended(&context, "shop-1", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
        operator::unharmed(&context, &before).await?;

        operator::stop_one(&context, &before).await?;
        operator::works(&context).await?;
        let after = operator::leader(&context).await?;
        small::set_version(&context, &mut other, "v2")?;
        apps::apply(&context, &other).await?;
        seen::ended(&context, "shop-2", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
        operator::unharmed(&context, &after).await?;
        let unreadable = operator::metric(&context, &after, "fairway_unreadable_objects").await?;
        ensure!(unreadable >= APPS as f64, "{unreadable} objects are unreadable");
        Ok(())
    })
    .await
}

/// An App of 1.3 MB that would take 100 MB in memory.
fn unreadable(context: &Context, number: usize) -> Result<Value> {
    let mut app = serde_json::to_value(small::app(context, &format!("tree-{number}"), "v1")?)?;
    app["spec"]["components"][0]["template"]["spec"]["tree"] = json!(vec![json!({"": 0}); 150_000]);
    Ok(app)
}

/// An App of 1.3 MB that the operator reads and releases, without a pod.
fn readable(context: &Context, number: usize) -> Result<Value> {
    let mut app = serde_json::to_value(small::app(context, &format!("text-{number}"), "v1")?)?;
    let component = &mut app["spec"]["components"][0];
    component["replicas"] = json!(0);
    for of_pods in ["serves", "health"] {
        component.as_object_mut().context("no component")?.remove(of_pods);
    }
    component["template"]["spec"]["containers"][0]["args"] = json!(["x".repeat(1_300_000)]);
    Ok(app)
}

/// A Deployment of 0.9 MB with Fairway's label.
fn deployment(number: usize) -> Value {
    let labels = json!({seen::APP: format!("tenant-{number}")});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": format!("tenant-{number}"), "labels": labels},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": restricted(json!({"containers": [
                {"name": "large", "image": "registry.example.com/large:1", "args": vec!["x"; 220_000]},
            ]}))},
        },
    })
}

/// S6: ten ready pods answer each health request with 1 MiB of empty objects. The operator stays within its memory and answers
/// the kubelet meanwhile, and another App is released as usual.
#[tokio::test]
async fn s6_hostile_health_pages_do_not_silence_the_operator() -> Result<()> {
    alone(|context| async move {
        operator::works(&context).await?;
        let before = operator::leader(&context).await?;
        let mut other = small::app(&context, "shop", "v1")?;
        apps::apply(&context, &other).await?;
        apps::apply(&context, &hostile(&context)?).await?;
        seen::ended(&context, "shop-1", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
        let all_ready = |pods: &[Pod]| pods.iter().filter(|pod| is_ready(pod)).count() == 10;
        let pods = watcher::Config::default().labels(&format!("{}=hostile", seen::APP));
        wait_for_all(
            context.api::<Pod>(),
            pods,
            "ten ready pods",
            all_ready,
            crm::PATIENCE,
        )
        .await?;
        let asked = |release: &Release| seen::message(release).contains("/page");
        seen::release(
            &context,
            "hostile-1",
            "the pages to be named",
            asked,
            crm::PATIENCE,
        )
        .await?;

        small::set_version(&context, &mut other, "v2")?;
        apps::apply(&context, &other).await?;
        let released = seen::ended(&context, "shop-2", ReleaseOutcome::Succeeded, crm::PATIENCE);
        let slowest = slowest_probe_until(&context, &before, released).await?;
        println!("the slowest probe took {} ms", slowest.as_millis());
        ensure!(slowest < PROBE, "a probe took {} ms", slowest.as_millis());
        operator::unharmed(&context, &before).await
    })
    .await
}

/// Ten pods with such a page, asked ten times a second each, as often as an App can say.
fn hostile(context: &Context) -> Result<App> {
    let mut app = serde_json::to_value(small::app(context, "hostile", "v1")?)?;
    let component = &mut app["spec"]["components"][0];
    component["replicas"] = json!(10);
    component["health"] = json!({
        "http": [{"path": "/page", "json": {"/ok": "true"}}], "period": "100ms", "deadline": "10m",
    });
    let spec = &mut component["template"]["spec"];
    let page = "{ /busybox printf '['; /busybox yes '{\"\":0},' | /busybox head -n 149000 | /busybox tr -d '\\n'; \
                /busybox printf '0]'; } > /www/page; exec /busybox httpd -f -p 3000 -h /www";
    spec["volumes"] = json!([{"name": "www", "emptyDir": {}}]);
    let container = &mut spec["containers"][0];
    container["image"] = json!(context.target.image_by_digest("pause", "1")?);
    container["command"] = json!(["/busybox", "sh", "-c", page]);
    container["args"] = json!([]);
    container["volumeMounts"] = json!([{"name": "www", "mountPath": "/www"}]);
    container["readinessProbe"] = json!({"tcpSocket": {"port": 3000}, "periodSeconds": 1});
    serde_json::from_value(app).context("make the App of hostile pages")
}

/// Has the operator answer probes one after another, until something has happened.
async fn slowest_probe_until<T>(
    context: &Context,
    pod: &Pod,
    happened: impl Future<Output = Result<T>>,
) -> Result<Duration> {
    let mut slowest = Duration::ZERO;
    let asking = async {
        loop {
            for path in ["healthz", "readyz"] {
                let asked = Instant::now();
                operator::probe(context, pod, path).await?;
                slowest = slowest.max(asked.elapsed());
            }
        }
    };
    tokio::select! {
        failed = asking => failed,
        happened = happened => happened.map(|_| ()),
    }?;
    Ok(slowest)
}

/// S13: more half-open connections to /metrics than the operator serves at once. It closes all of them, and answers the
/// kubelet meanwhile.
#[tokio::test]
async fn s13_half_open_connections_do_not_silence_the_operator() -> Result<()> {
    alone(|context| async move {
        operator::works(&context).await?;
        let before = operator::leader(&context).await?;
        let half_open = try_join_all((0..100).map(|_| half_open(&context, &before))).await?;
        let closed = try_join_all(half_open.into_iter().map(async |(_forwarder, mut stream)| {
            let mut answer = Vec::new();
            // A reset is an end too.
            let _ = stream.read_to_end(&mut answer).await;
            ensure!(!answer.starts_with(b"HTTP/1.1 200"), "it was served");
            Ok(())
        }));
        let closed = async {
            tokio::time::timeout(Duration::from_secs(60), closed)
                .await
                .context("the operator does not close half-open connections")?
        };
        let slowest = slowest_probe_until(&context, &before, closed).await?;
        println!("the slowest probe took {} ms", slowest.as_millis());
        ensure!(slowest < PROBE, "a probe took {} ms", slowest.as_millis());
        operator::unharmed(&context, &before).await
    })
    .await
}

/// A connection to /metrics whose request never ends.
async fn half_open(context: &Context, pod: &Pod) -> Result<(Portforwarder, impl AsyncRead + Unpin + use<>)> {
    let pods = Api::<Pod>::namespaced(context.client.clone(), OPERATOR_NAMESPACE);
    let mut forwarder = pods.portforward(&pod.name_any(), &[8080]).await?;
    let mut stream = forwarder
        .take_stream(8080)
        .context("the port was not forwarded")?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\n").await?;
    Ok((forwarder, stream))
}
