//! Retired: nothing of an earlier version runs any more.

use crate::labels;
use crate::readings::has_finished;
use crate::release::stopping::{ending, retirements};
use crate::release::verdict::{Verdict, Wait};
use crate::release::view::View;
use crate::release::{leftovers::leftovers, verbs};
use fairway_crds::Reason;
use fairway_crds::release::ReleaseStatus;
use kube::ResourceExt;

/// Met when the old pods have drained and are gone, and what only this release needed is removed.
pub(in crate::release) fn climb(view: &View, status: &mut ReleaseStatus) -> Verdict {
    let mut steps = retirements(view);
    steps.extend(leftovers(view));
    let left = view.observed.pods.iter().find(|pod| {
        pod.labels().contains_key(labels::COMPONENT)
            && pod
                .labels()
                .get(labels::RELEASE)
                .is_some_and(|release| release != view.name())
            && !has_finished(pod)
    });
    let waits = !verbs::waits_no_longer(view, status);
    let left = left.filter(|_| waits);
    steps.retain(|step| waits || view.refused(step).is_none());
    if steps.is_empty() && left.is_none() {
        return Verdict::Met;
    }
    let wait = Wait::machine(Reason::RetiringPrevious, "the old pods drain and end");
    Verdict::Act(steps, left.map_or(wait.clone(), |pod| ending(view, pod, wait)))
}
