//! Health requests: which pods are asked, what was found, and which finding is news to a Release.

use crate::key::NamespacedName;
use fairway_plan::observed::{PodHealth, ProbeTarget};
use fairway_plan::protocol::ProbeVerdict;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A pod to be asked, at once and then at each period, for as long as the engine says so.
#[derive(Clone, Debug)]
pub struct Probe {
    /// The Release whose planner wants to know.
    pub release: NamespacedName,
    /// What is asked of which pod.
    pub target: Arc<ProbeTarget>,
    /// Distinguishes this probe from an earlier one of the same pod.
    number: u64,
}

/// Whether a probe goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probing {
    /// The pod is asked again.
    Continues,
    /// Nobody wants to know any more, or another probe has taken its place.
    Ends,
}

/// The pods that are asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Probes {
    releases: BTreeMap<NamespacedName, BTreeMap<String, Asked>>,
    last: u64,
}

#[derive(Clone, Debug)]
struct Asked {
    probe: Probe,
    health: PodHealth,
}

impl Probes {
    /// From now on, for this Release, exactly these pods are asked. A pod that is asked the same as before keeps
    /// its counts; one that is asked anything else starts over. Returns the probes that begin.
    pub(crate) fn set(&mut self, release: &NamespacedName, targets: Vec<ProbeTarget>) -> Vec<Probe> {
        if targets.is_empty() {
            self.releases.remove(release);
            return Vec::new();
        }
        let asked = self.releases.entry(release.clone()).or_default();
        asked.retain(|_, asked| targets.contains(&asked.probe.target));
        let mut begin = Vec::new();
        for target in targets {
            if asked.contains_key(&target.pod_uid) {
                continue;
            }
            self.last += 1;
            let uid = target.pod_uid.clone();
            let probe = Probe {
                release: release.clone(),
                target: Arc::new(target),
                number: self.last,
            };
            begin.push(probe.clone());
            let health = PodHealth::default();
            asked.insert(uid, Asked { probe, health });
        }
        begin
    }

    /// What was found about the pods of this Release so far.
    pub(crate) fn health(&self, release: &NamespacedName) -> BTreeMap<String, PodHealth> {
        let asked = self.releases.get(release).into_iter().flatten();
        asked
            .map(|(uid, asked)| (uid.clone(), asked.health.clone()))
            .collect()
    }

    /// Asks no pod any more.
    pub(crate) fn clear(&mut self) {
        self.releases.clear();
    }

    /// Whether a probe is wanted.
    pub(crate) fn is_wanted(&mut self, probe: &Probe) -> bool {
        self.find(probe).is_some()
    }

    /// Counts a round of a probe. Returns whether it is news to the Release; `None` when the probe has ended.
    pub(crate) fn count(&mut self, probe: &Probe, verdict: ProbeVerdict) -> Option<bool> {
        let asked = self.find(probe)?;
        Some(count(&mut asked.health, &probe.target, verdict))
    }

    /// Every probe and what it has found.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&Probe, &PodHealth)> {
        let asked = self.releases.values().flat_map(BTreeMap::values);
        asked.map(|asked| (&asked.probe, &asked.health))
    }

    fn find(&mut self, probe: &Probe) -> Option<&mut Asked> {
        let asked = self
            .releases
            .get_mut(&probe.release)?
            .get_mut(&probe.target.pod_uid)?;
        (asked.probe.number == probe.number).then_some(asked)
    }
}

/// The verdict of a round from those of its requests: a wrong answer weighs more than none, because it shows that the
/// pod was reached. A round without requests passes.
pub fn verdict_of_round(verdicts: impl IntoIterator<Item = ProbeVerdict>) -> ProbeVerdict {
    verdicts.into_iter().reduce(worse).unwrap_or(ProbeVerdict::Passed)
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
    health.refused = matches!(verdict, ProbeVerdict::Refused(_));
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
    let is_known = health.last_failure.as_ref() == Some(&what);
    health.last_failure = Some(what);
    if reached {
        health.failures = health.failures.saturating_add(1);
        health.unreachable = 0;
        health.failures == target.failure_threshold || !is_known
    } else {
        health.unreachable = health.unreachable.saturating_add(1);
        health.failures = 0;
        health.unreachable == 1 || health.unreachable == target.failure_threshold || !is_known
    }
}

#[cfg(test)]
mod tests;
