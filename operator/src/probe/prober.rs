//! The prober: asks pods for as long as their Release wants it, counts, and wakes the Release when a count becomes
//! news.

use super::via::{self, Token};
use crate::key::Key;
use crate::metrics::Metrics;
use crate::queue::Queue;
use fairway_health::request;
use fairway_plan::observed::{PodHealth, ProbeTarget};
use fairway_plan::protocol::ProbeVerdict;
use futures::future::join_all;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::task::AbortHandle;
use tokio::time::MissedTickBehavior;

/// Asks pods.
#[derive(Debug)]
pub(crate) struct Prober {
    token: Token,
    releases: Arc<Queue>,
    metrics: Metrics,
    state: Mutex<HashMap<Key, BTreeMap<String, Asked>>>,
}

/// One pod that is being asked.
#[derive(Debug)]
struct Asked {
    target: ProbeTarget,
    health: Arc<Mutex<PodHealth>>,
    task: AbortHandle,
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Prober {
    /// A prober that wakes Releases in this queue.
    pub(crate) fn new(token: Token, releases: Arc<Queue>, metrics: Metrics) -> Self {
        Self {
            token,
            releases,
            metrics,
            state: Mutex::default(),
        }
    }

    /// From now on, for this Release, exactly these pods are asked. A pod that is asked the same as before keeps
    /// its counts; one that is asked anything else starts anew.
    pub(crate) fn set(self: &Arc<Self>, release: &Key, targets: Vec<ProbeTarget>) {
        let mut state = self.lock();
        if targets.is_empty() {
            state.remove(release);
            return;
        }
        let asked = state.entry(release.clone()).or_default();
        asked.retain(|uid, asked| {
            targets
                .iter()
                .any(|target| target.pod_uid == *uid && *target == asked.target)
        });
        for target in targets {
            asked.entry(target.pod_uid.clone()).or_insert_with(|| {
                let health = Arc::default();
                let task = tokio::spawn(self.clone().ask(
                    release.clone(),
                    target.clone(),
                    Arc::clone(&health),
                ));
                Asked {
                    target,
                    health,
                    task: task.abort_handle(),
                }
            });
        }
    }

    /// What was found about the pods of this Release so far.
    pub(crate) fn health(&self, release: &Key) -> BTreeMap<String, PodHealth> {
        let state = self.lock();
        let asked = state.get(release).into_iter().flatten();
        asked
            .map(|(uid, asked)| (uid.clone(), lock(&asked.health).clone()))
            .collect()
    }

    /// Asks nobody any more.
    pub(crate) fn stop(&self) {
        self.lock().clear();
    }

    /// Asks one pod, at once and then at each interval, until it is aborted.
    async fn ask(self: Arc<Self>, release: Key, target: ProbeTarget, health: Arc<Mutex<PodHealth>>) {
        let mut ticks = tokio::time::interval(target.period);
        // A round that took long must not be made up for by a burst.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let verdict = self.round(&target).await;
            self.metrics.probed(match verdict {
                ProbeVerdict::Passed => "passed",
                ProbeVerdict::Failed(_) => "failed",
                ProbeVerdict::Refused(_) | ProbeVerdict::Unreachable(_) => "unreachable",
            });
            let news = count(&mut lock(&health), &target, verdict);
            if news {
                self.releases.add(&release);
            }
        }
    }

    /// Every request of a target at once. A wrong answer weighs more than none: it shows that the pod was reached.
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
        join_all(requests)
            .await
            .into_iter()
            .reduce(worse)
            .unwrap_or(ProbeVerdict::Passed)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, BTreeMap<String, Asked>>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lock(health: &Mutex<PodHealth>) -> MutexGuard<'_, PodHealth> {
    health.lock().unwrap_or_else(PoisonError::into_inner)
}

fn worse(a: ProbeVerdict, b: ProbeVerdict) -> ProbeVerdict {
    match (&a, &b) {
        (ProbeVerdict::Failed(_), _) | (_, ProbeVerdict::Passed) => a,
        (_, ProbeVerdict::Failed(_)) | (ProbeVerdict::Passed, _) => b,
        (ProbeVerdict::Refused(_), _) | (_, ProbeVerdict::Unreachable(_)) => a,
        (ProbeVerdict::Unreachable(_), ProbeVerdict::Refused(_)) => b,
    }
}

/// Counts a round. Whether the Release has to look: a threshold was reached, or what is wrong is new.
fn count(health: &mut PodHealth, target: &ProbeTarget, verdict: ProbeVerdict) -> bool {
    let (what, reached) = match verdict {
        ProbeVerdict::Passed => {
            health.passed += 1;
            health.passes = health.passes.saturating_add(1);
            (health.failures, health.unreachable) = (0, 0);
            health.proven |= health.passes >= target.success_threshold;
            return health.passes == target.success_threshold;
        }
        ProbeVerdict::Failed(what) => (what, true),
        // The network has let requests through before, so it is the pod that refuses.
        ProbeVerdict::Refused(what) => (what, health.passed > 0),
        ProbeVerdict::Unreachable(what) => (what, false),
    };
    health.failed += 1;
    health.passes = 0;
    let told_before = health.last_failure.as_ref() == Some(&what);
    health.last_failure = Some(what);
    if reached {
        health.failures = health.failures.saturating_add(1);
        health.unreachable = 0;
        health.failures == target.failure_threshold || !told_before
    } else {
        health.unreachable = health.unreachable.saturating_add(1);
        health.failures = 0;
        health.unreachable == 1 || health.unreachable == target.failure_threshold || !told_before
    }
}

#[cfg(test)]
#[path = "prober_tests.rs"]
mod tests;
