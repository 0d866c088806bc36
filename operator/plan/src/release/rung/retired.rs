//! Retired: nothing of an earlier version runs any more.

use crate::release::stopping::{ending, retirements};
use crate::release::verdict::{Verdict, Wait};
use crate::release::view::View;
use crate::release::{leftovers::leftovers, traffic, verbs};
use fairway_crds::Reason;
use fairway_crds::release::ReleaseStatus;

/// Met when the previous pods have drained and are gone, and the agent pods of this release are removed.
pub(in crate::release) fn climb(view: &View, status: &mut ReleaseStatus) -> Verdict {
    let retirements = retirements(view);
    let left = view.pod_of_another();
    let message = match left {
        None if retirements.is_empty() => format!("Removing the pods that prepared {}.", view.name()),
        _ => "The pods of earlier releases drain and end.".to_owned(),
    };
    let mut steps = retirements;
    steps.extend(leftovers(view));
    steps.extend(traffic::leftovers(view));
    let waits = !verbs::waits_no_longer(view, status);
    let left = left.filter(|_| waits);
    steps.retain(|step| waits || view.answers().refusal(step).is_none());
    if steps.is_empty() && left.is_none() {
        return Verdict::Met;
    }
    let wait = Wait::machine(Reason::RetiringPrevious, message).retiring_previous();
    Verdict::Act(steps, left.map_or(wait.clone(), |pod| ending(view, pod, wait)))
}
