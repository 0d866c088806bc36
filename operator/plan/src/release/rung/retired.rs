//! Retired: nothing of an earlier version runs any more.

use crate::message::sentences;
use crate::release::stopping::{ending, retirements};
use crate::release::verdict::{Verdict, Wait};
use crate::release::view::View;
use crate::release::{leftovers::leftovers, traffic, unserved, verbs};
use fairway_crds::Reason;
use fairway_crds::release::ReleaseStatus;

/// Met when the previous pods have drained and are gone, and the agent pods of this release and the Services that no
/// component serves any more are removed.
///
/// A selector that was corrected in the bake may not have been followed by its endpoints yet: until then the previous pods
/// still receive traffic.
pub(in crate::release) fn climb(view: &View, status: &mut ReleaseStatus) -> Verdict {
    let waits = !verbs::waits_no_longer(view, status);
    if let Some(wait) = traffic::draining(view).filter(|_| waits) {
        return Verdict::Wait(wait);
    }
    let left = unserved::by_this_release(view);
    let retirements = retirements(view, &left);
    let pod = view.pod_of_another();
    let removals = unserved::removals(&left);
    let message = match (pod, removals.as_slice()) {
        (None, []) if retirements.is_empty() => format!("Removing the pods that prepared {}.", view.name()),
        _ => sentences([
            "The pods of earlier releases drain and end.",
            &*unserved::announced(&left),
        ]),
    };
    let mut steps = retirements;
    steps.extend(leftovers(view));
    let pod = pod.filter(|_| waits);
    if pod.is_none() {
        steps.extend(removals);
    }
    steps.retain(|step| waits || view.answers().refusal(step).is_none());
    if steps.is_empty() && pod.is_none() {
        return Verdict::Met;
    }
    let wait = Wait::machine(Reason::RetiringPrevious, message).retiring_previous();
    Verdict::Act(steps, pod.map_or(wait.clone(), |pod| ending(view, pod, wait)))
}
