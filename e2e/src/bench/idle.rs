//! What a thousand objects cost that do nothing: how fast they become ready, and the memory they take.

use std::time::{Duration, Instant};

use anyhow::Result;
use futures::{StreamExt, TryStreamExt, stream};

use super::contestant::Contestant;
use super::setup::Bench;
use crate::ns;

/// Requests in flight while the objects are made.
const CREATORS: usize = 32;

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Idle {
    /// How many objects.
    pub(super) objects: usize,
    /// From the first request to the last object's being ready.
    pub(super) took: Duration,
    /// Resident memory of the controller when its size has settled, in bytes.
    pub(super) resident: u64,
}

/// The second of two rounds: in the first, the API server grows to a size that it keeps.
pub(super) async fn measure<C: Contestant>(bench: &Bench, contestant: &C) -> Result<Idle> {
    round(bench, contestant, "warm-up").await?;
    round(bench, contestant, "measured").await
}

/// Makes the objects at once and waits until all are ready.
async fn round<C: Contestant>(bench: &Bench, contestant: &C, name: &str) -> Result<Idle> {
    let context = ns::fresh(&bench.target, "bench-idle", ns::PodSecurity::Warned).await?;
    let namespace = context.namespace.as_str();
    let objects = bench.plan.objects;
    let start = Instant::now();
    let making = stream::iter(0..objects)
        .map(|number| async move { contestant.idle(bench, namespace, &format!("idle-{number}")).await })
        .buffer_unordered(CREATORS)
        .try_collect::<Vec<()>>();
    let (_, ()) = tokio::try_join!(making, contestant.all_ready(bench, namespace, objects))?;
    let took = start.elapsed();
    let resident = settled(contestant).await?;
    println!(
        "  {}, {name}: {objects} ready in {:.1} s, {} MB",
        C::NAME,
        took.as_secs_f64(),
        resident / 1_000_000
    );
    ns::remove(&context).await?;
    Ok(Idle {
        objects,
        took,
        resident,
    })
}

/// The memory when it has not grown for ten seconds.
async fn settled<C: Contestant>(contestant: &C) -> Result<u64> {
    let mut highest = 0;
    let mut quiet = 0;
    let mut second = tokio::time::interval(Duration::from_secs(1));
    while quiet < 10 {
        second.tick().await;
        let now = contestant.resident()?;
        quiet = if now > highest { 0 } else { quiet + 1 };
        highest = highest.max(now);
    }
    contestant.resident()
}
