//! The prober: asks pods for as long as the engine wants to know. What a round's verdict means is the engine's.

use super::budget::Budget;
use super::via;
use crate::metrics::Metrics;
use crate::shared::SharedEngine;
use fairway_engine::{NamespacedName, Probe, Probing, verdict_of_round};
use fairway_health::{TIMEOUT, request_within};
use fairway_plan::observed::ProbeTarget;
use fairway_plan::protocol::ProbeVerdict;
use futures::future::join_all;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::MissedTickBehavior;

/// Asks pods.
#[derive(Debug)]
pub(crate) struct Prober {
    engine: Arc<SharedEngine>,
    metrics: Metrics,
    budget: Budget,
    /// Longest time for one request.
    limit: Duration,
}

impl Prober {
    /// A prober for this engine.
    pub(crate) fn new(engine: Arc<SharedEngine>, metrics: Metrics) -> Self {
        Self {
            engine,
            metrics,
            budget: Budget::new(),
            limit: TIMEOUT,
        }
    }

    /// Asks one pod, at once and then at each period, until the engine does not want to know any more.
    pub(crate) async fn ask(self: Arc<Self>, probe: Probe) {
        let mut ticks = tokio::time::interval(probe.target.period);
        // A round that took long must not be made up for by a burst.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if self.engine.with(|engine, _| engine.wants(&probe)) == Probing::Ends {
                return;
            }
            let verdict = self.round(&probe).await;
            self.metrics.probed(match verdict {
                ProbeVerdict::Passed => "passed",
                ProbeVerdict::Failed(_) => "failed",
                ProbeVerdict::Refused(_) | ProbeVerdict::Unreachable(_) => "unreachable",
            });
            let probing = self
                .engine
                .with(|engine, now| engine.probed(&probe, verdict, now));
            if probing == Probing::Ends {
                return;
            }
        }
    }

    /// Every request of a target, each as soon as there is a place for it.
    async fn round(&self, probe: &Probe) -> ProbeVerdict {
        let app = app_of(&probe.release);
        let requests = (0..probe.target.requests.len()).map(|position| {
            let app = &app;
            async move {
                let _place = self.budget.place(app).await;
                self.request(&probe.target, position).await
            }
        });
        verdict_of_round(join_all(requests).await)
    }

    async fn request(&self, target: &ProbeTarget, position: usize) -> ProbeVerdict {
        let (port, http) = &target.requests[position];
        let via = target
            .via
            .as_ref()
            .and_then(|via| Some((via, (*via.indexes.get(position)?)?)));
        match via.map(|(via, index)| (via.address, &via.token, index)) {
            None => {
                let pod = SocketAddr::new(target.address, *port);
                request_within(self.limit, pod, http, &BTreeMap::new()).await
            }
            Some((Some(probe_pod), token, index)) => {
                via::request(probe_pod, token, index, target.address).await
            }
            Some((None, ..)) => ProbeVerdict::Unreachable("the probe pod is not running yet".into()),
        }
    }
}

/// The App of a Release, whose name ends with its revision.
fn app_of(release: &NamespacedName) -> NamespacedName {
    let app = release
        .name
        .rsplit_once('-')
        .map_or(&*release.name, |(app, _)| app);
    release.sibling(app)
}

#[cfg(test)]
mod tests;
