//! The prober: asks pods for as long as the engine wants to know. What a round's verdict means is the engine's.

use super::via::{self, Token};
use crate::metrics::Metrics;
use crate::shared::SharedEngine;
use fairway_engine::{Probe, Probing, verdict_of_round};
use fairway_health::request;
use fairway_plan::observed::ProbeTarget;
use fairway_plan::protocol::ProbeVerdict;
use futures::future::join_all;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::time::MissedTickBehavior;

/// Asks pods.
#[derive(Debug)]
pub(crate) struct Prober {
    token: Token,
    engine: Arc<SharedEngine>,
    metrics: Metrics,
}

impl Prober {
    /// A prober for this engine that shows this token to probe pods.
    pub(crate) fn new(token: Token, engine: Arc<SharedEngine>, metrics: Metrics) -> Self {
        Self {
            token,
            engine,
            metrics,
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
            let verdict = self.round(&probe.target).await;
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

    /// Every request of a target at once.
    async fn round(&self, target: &ProbeTarget) -> ProbeVerdict {
        let no_secrets = BTreeMap::new();
        let requests = target
            .requests
            .iter()
            .enumerate()
            .map(|(position, (port, http))| {
                let via = target
                    .via
                    .as_ref()
                    .and_then(|via| Some((via.address, (*via.indexes.get(position)?)?)));
                let no_secrets = &no_secrets;
                async move {
                    match via {
                        None => request(target.address, *port, http, no_secrets).await,
                        Some((Some(probe_pod), index)) => {
                            via::request(probe_pod, &self.token, index, target.address).await
                        }
                        Some((None, _)) => {
                            ProbeVerdict::Unreachable("the probe pod is not running yet".into())
                        }
                    }
                }
            });
        verdict_of_round(join_all(requests).await)
    }
}

#[cfg(test)]
mod tests;
