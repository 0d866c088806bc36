//! Withdrawn: nothing of this release runs any more.

use crate::labels;
use crate::readings::has_finished;
use crate::release::leftovers::leftovers;
use crate::release::stopping::ending;
use crate::release::traffic::keeps_traffic;
use crate::release::verdict::{Verdict, Wait};
use crate::release::view::View;
use crate::release::workloads::scale;
use fairway_crds::Reason;
use fairway_crds::release::ReleaseStatus;
use kube::ResourceExt;

/// Met when the new version's pods are gone.
pub(in crate::release) fn climb(view: &View, _: &mut ReleaseStatus) -> Verdict {
    // With nothing to go back to, what serves goes on serving.
    let mine = view
        .observed
        .deployments
        .iter()
        .filter(|deployment| {
            deployment.labels().get(labels::RELEASE).map(String::as_str) == Some(view.name())
        })
        .filter(|deployment| {
            !keeps_traffic(
                view,
                deployment.labels().get(labels::COMPONENT).map(String::as_str),
            )
        });
    let mut steps: Vec<_> = mine.filter_map(|deployment| scale(deployment, 0)).collect();
    steps.extend(leftovers(view));
    let left = view.observed.pods.iter().find(|pod| {
        pod.labels().get(labels::RELEASE).map(String::as_str) == Some(view.name())
            && pod
                .labels()
                .get(labels::COMPONENT)
                .is_some_and(|component| !keeps_traffic(view, Some(component)))
            && !has_finished(pod)
    });
    if steps.is_empty() && left.is_none() {
        return Verdict::Met;
    }
    let wait = Wait::machine(Reason::WithdrawingCandidate, "the new pods drain and end");
    Verdict::Act(steps, left.map_or(wait.clone(), |pod| ending(view, pod, wait)))
}
