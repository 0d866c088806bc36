//! Withdrawn: nothing of this release runs any more.

use crate::labels;
use crate::readings::has_finished;
use crate::release::leftovers::leftovers;
use crate::release::stopping::ending;
use crate::release::traffic::is_reached;
use crate::release::verdict::{Verdict, Wait};
use crate::release::view::View;
use crate::release::workloads::scale;
use fairway_crds::Reason;
use fairway_crds::release::ReleaseStatus;
use kube::ResourceExt;

/// Met when the pods of this release are gone, but for those that users reach.
pub(in crate::release) fn climb(view: &View, _: &mut ReleaseStatus) -> Verdict {
    // With nothing to roll back to, what users reach goes on serving.
    let mine = view
        .observed
        .deployments
        .iter()
        .filter(|deployment| {
            deployment.labels().get(labels::RELEASE).map(String::as_str) == Some(view.name())
        })
        .filter(|deployment| !is_reached(view, deployment.labels()));
    let mut steps: Vec<_> = mine.filter_map(|deployment| scale(deployment, 0)).collect();
    steps.extend(leftovers(view));
    let left = view.observed.pods.iter().find(|pod| {
        pod.labels().get(labels::RELEASE).map(String::as_str) == Some(view.name())
            && pod.labels().contains_key(labels::COMPONENT)
            && !is_reached(view, pod.labels())
            && !has_finished(pod)
    });
    if steps.is_empty() && left.is_none() {
        return Verdict::Met;
    }
    let message = format!("The pods of {} drain and end.", view.name());
    let wait = Wait::machine(Reason::WithdrawingCandidate, message);
    Verdict::Act(steps, left.map_or(wait.clone(), |pod| ending(view, pod, wait)))
}
