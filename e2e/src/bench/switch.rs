//! How long traffic waits for a version that is ready, and what a release costs the API server.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};

use super::audit::{Mark, Requests};
use super::contestant::Contestant;
use super::setup::{Bench, PATIENCE};
use crate::{ns, wait};

/// Releases of one object, to and fro between two images. Returns each wait between the last new pod's
/// becoming ready and the Service's selector changing, both as a watch of this process saw them, and the
/// requests of one release.
pub(super) async fn measure<C: Contestant>(
    bench: &Bench,
    contestant: &C,
) -> Result<(Vec<Duration>, Requests)> {
    let context = ns::fresh(&bench.target, "bench-switch", ns::PodSecurity::Warned).await?;
    let namespace = context.namespace.as_str();
    contestant.release(bench, namespace, &bench.images[0]).await?;
    contestant.released(bench, namespace).await?;
    let log = bench.target.paths.audit_log();
    let mut waits = Vec::new();
    let mut cost = Requests::default();
    for round in 0..bench.plan.warm_up + bench.plan.switches {
        let image = &bench.images[(round + 1) % 2];
        let before = selector(bench, namespace, contestant.service()).await?;
        let mark = Mark::now(&log)?;
        let (wait, ()) = tokio::try_join!(
            switched(bench, namespace, contestant.service(), before, image),
            async {
                contestant.release(bench, namespace, image).await?;
                contestant.released(bench, namespace).await?;
                // Pods that still go could be taken for those of the next release.
                only(bench, namespace, image).await
            }
        )?;
        if round >= bench.plan.warm_up {
            waits.push(wait);
        }
        // An early one: when the history is full, each release also removes an old one.
        if round == bench.plan.warm_up {
            cost = mark.since(&log, C::USER_AGENT)?;
        }
        println!("  {} release {}: {} ms", C::NAME, round + 1, wait.as_millis());
    }
    ns::remove(&context).await?;
    Ok((waits, cost))
}

/// What a Service selects.
type Selector = Option<BTreeMap<String, String>>;

async fn selector(bench: &Bench, namespace: &str, name: &str) -> Result<Selector> {
    let service = Api::<Service>::namespaced(bench.client.clone(), namespace)
        .get(name)
        .await
        .with_context(|| format!("read Service {name}"))?;
    Ok(service.spec.and_then(|spec| spec.selector))
}

fn is_of(pod: &Pod, image: &str) -> bool {
    let mut containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    containers.any(|container| container.image.as_deref() == Some(image))
}

/// Waits until all pods are of this image.
async fn only(bench: &Bench, namespace: &str, image: &str) -> Result<()> {
    let pods = Api::<Pod>::namespaced(bench.client.clone(), namespace);
    let all = |pods: &[Pod]| pods.iter().all(|pod| is_of(pod, image));
    wait::wait_for_all(
        pods,
        watcher::Config::default(),
        "the old pods are gone",
        all,
        PATIENCE,
    )
    .await?;
    Ok(())
}

/// Watches the pods of an image and the Service until it selects them, and no longer what it did before.
async fn switched(
    bench: &Bench,
    namespace: &str,
    name: &str,
    before: Selector,
    image: &str,
) -> Result<Duration> {
    let pods = Api::<Pod>::namespaced(bench.client.clone(), namespace);
    let services = Api::<Service>::namespaced(bench.client.clone(), namespace);
    let mut pods = watcher(pods, watcher::Config::default())
        .applied_objects()
        .boxed();
    let mut services = watcher(services, watcher::Config::default())
        .applied_objects()
        .boxed();
    let both_ready = async {
        let mut ready = BTreeSet::new();
        while let Some(pod) = pods.next().await {
            let pod = pod?;
            let leaving = pod.metadata.deletion_timestamp.is_some();
            if is_of(&pod, image) && !leaving && wait::is_ready(&pod) {
                ready.insert(pod.name_any());
            }
            if ready.len() == 2 {
                return Ok(Instant::now());
            }
        }
        bail!("the watch of pods ended")
    };
    let selected = async {
        while let Some(service) = services.next().await {
            let service = service?;
            let selector = service.spec.as_ref().and_then(|spec| spec.selector.clone());
            if service.name_any() == name && selector != before {
                return Ok(Instant::now());
            }
        }
        bail!("the watch of Services ended")
    };
    let watching = async { tokio::try_join!(both_ready, selected) };
    let (ready, selected) = tokio::time::timeout(PATIENCE, watching)
        .await
        .context("traffic did not move in time")??;
    // Two watches: the later event may be delivered first, which then means a wait of nothing.
    Ok(selected.saturating_duration_since(ready))
}
