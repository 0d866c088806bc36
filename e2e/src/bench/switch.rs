//! How long traffic waits for a version that is ready, and what a release costs the API server.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};

use super::audit::{Mark, Requests};
use super::{Bench, Contestant, PATIENCE};
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
        let mark = Mark::now(&log)?;
        let (wait, ()) = tokio::try_join!(switched::<C>(bench, contestant, namespace, image), async {
            contestant.release(bench, namespace, image).await?;
            contestant.released(bench, namespace).await
        })?;
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

/// Watches the pods of an image and the Service until it selects them.
async fn switched<C: Contestant>(
    bench: &Bench,
    contestant: &C,
    namespace: &str,
    image: &str,
) -> Result<Duration> {
    let pods = Api::<Pod>::namespaced(bench.client.clone(), namespace);
    let services = Api::<Service>::namespaced(bench.client.clone(), namespace);
    let name = contestant.service();
    let before = services
        .get(name)
        .await
        .with_context(|| format!("read Service {name}"))?;
    let before = before.spec.and_then(|spec| spec.selector);
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
            let mut containers = pod.spec.iter().flat_map(|spec| &spec.containers);
            let of_image = containers.any(|container| container.image.as_deref() == Some(image));
            let leaving = pod.metadata.deletion_timestamp.is_some();
            if of_image && !leaving && wait::is_ready(&pod) {
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
