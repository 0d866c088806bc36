//! What a release that has ended still does.

use super::history::{has_ended, previous_is_known, serves};
use super::verdict::Verdict;
use super::view::View;
use super::{leftovers, stopping, traffic, workloads};
use crate::Step;
use crate::traffic::Validation;
use fairway_crds::release::ReleaseStatus;

/// Removes what the release has left behind, and keeps what serves as the App says today.
pub(super) fn keep(view: &View, status: &ReleaseStatus) -> Vec<Step> {
    let mut steps = leftovers::leftovers(view);
    steps.extend(serving(view, status));
    steps
}

/// Deployments, replicas and selectors of the release that serves, while no other one looks after them.
fn serving(view: &View, status: &ReleaseStatus) -> Vec<Step> {
    let siblings = &view.observed.siblings;
    let busy = siblings
        .iter()
        .any(|sibling| !has_ended(sibling) && previous_is_known(sibling));
    let serves = serves(view.observed) && view.is_of_this_app(view.release());
    if !serves || busy || view.today().is_none() {
        return Vec::new();
    }
    let components = view.snapshot.components.iter();
    let mut steps: Vec<_> = components
        .filter_map(|component| workloads::kept(view, status, component))
        .collect();
    if let Some(Verdict::Act(switched, _)) =
        traffic::direct(view, view.snapshot, view.name(), Validation::DryRunFirst)
    {
        steps.extend(switched);
    }
    // What another release has begun is its own, also before it says whom it follows.
    if siblings.iter().all(|sibling| has_ended(sibling)) {
        steps.extend(stopping::retirements(view));
    }
    steps
}
