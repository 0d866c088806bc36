//! Withdrawn: nothing of this release runs any more.

use crate::labels;
use crate::message::sentences;
use crate::readings::has_finished;
use crate::release::leftovers::leftovers;
use crate::release::stopping::ending;
use crate::release::traffic::is_reached;
use crate::release::unserved;
use crate::release::verdict::{Verdict, Wait};
use crate::release::view::View;
use crate::release::workloads::scale;
use fairway_crds::Reason;
use fairway_crds::release::ReleaseStatus;
use kube::ResourceExt;

/// Met when the pods of this release are gone, except those that traffic reaches, and so are the Services that the previous
/// version does not serve.
pub(in crate::release) fn climb(view: &View, status: &mut ReleaseStatus) -> Verdict {
    let left = unserved::by_previous(view, status);
    // With nothing to roll back to, what traffic reaches keeps serving.
    let mine = view
        .observed
        .deployments
        .iter()
        .filter(|deployment| {
            deployment.labels().get(labels::RELEASE).map(String::as_str) == Some(view.name())
        })
        .filter(|deployment| !is_reached(view, deployment.labels(), &left));
    let mut steps: Vec<_> = mine.filter_map(|deployment| scale(deployment, 0)).collect();
    steps.extend(leftovers(view));
    let pod = view.observed.pods.iter().find(|pod| {
        pod.labels().get(labels::RELEASE).map(String::as_str) == Some(view.name())
            && pod.labels().contains_key(labels::COMPONENT)
            && !is_reached(view, pod.labels(), &left)
            && !has_finished(pod)
    });
    if pod.is_none() {
        steps.extend(unserved::removals(&left));
    }
    if steps.is_empty() && pod.is_none() {
        return Verdict::Met;
    }
    let ends = format!("The pods of {} drain and end.", view.name());
    let message = sentences([ends, unserved::announced(&left)]);
    let wait = Wait::machine(Reason::WithdrawingCandidate, message);
    Verdict::Act(steps, pod.map_or(wait.clone(), |pod| ending(view, pod, wait)))
}
