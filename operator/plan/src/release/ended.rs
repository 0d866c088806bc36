//! What a release that has ended still does.

use super::history::{happened, has_ended, previous_is_known, serves};
use super::stopping::Successor;
use super::verdict::Verdict;
use super::view::View;
use super::{leftovers, legacy, stopping, traffic, unserved, workloads};
use crate::readings::replicas_of;
use crate::traffic::Validation;
use crate::{Step, labels};
use fairway_crds::component::{Component, Strategy};
use fairway_crds::release::{MilestoneKind, ReleaseOutcome, ReleaseStatus};
use kube::ResourceExt;

/// Removes what the release has left behind, and keeps what serves as the App says today.
pub(super) fn keep(view: &View, status: &ReleaseStatus) -> Vec<Step> {
    let mut steps = leftovers::leftovers(view);
    steps.extend(beside_legacy(view, status));
    steps.extend(serving(view, status));
    steps
}

/// Ends what a release that did not come as far as its traffic runs beside the team's own Deployments, which were given back
/// what is never to run twice: a write of an operator that was stopped before it may come late.
fn beside_legacy(view: &View, status: &ReleaseStatus) -> Vec<Step> {
    let moved = happened(status, MilestoneKind::TrafficMoved).is_some();
    if moved || status.outcome == Some(ReleaseOutcome::Succeeded) {
        return Vec::new();
    }
    let stopping = view.stopping(status).into_iter();
    let runs = |component: &&Component| {
        let name = [component.name.as_str()];
        legacy::of(view, &name).any(|deployment| replicas_of(deployment) > 0)
    };
    let revision = view.release().spec.revision;
    let own = stopping
        .filter(runs)
        .filter_map(|component| view.deployment(&component.name, revision));
    own.filter_map(|deployment| workloads::scale(deployment, 0))
        .collect()
}

/// Deployments, replicas and selectors of the release that serves, while no other one looks after them.
fn serving(view: &View, status: &ReleaseStatus) -> Vec<Step> {
    let siblings = &view.observed.siblings;
    let busy = siblings
        .iter()
        .any(|sibling| !has_ended(sibling) && previous_is_known(sibling));
    let serves = serves(view.observed) && view.is_of_this_app(view.release());
    if !serves || busy || deleted_release_serves(view) {
        return Vec::new();
    }
    let components = view.snapshot.components.iter();
    let mut steps: Vec<_> = components
        .flat_map(|component| started(view, status, component))
        .collect();
    if traffic::may_move(view) {
        let direction = traffic::direct(view, view.snapshot, view.name(), Validation::Immediate);
        steps.extend(direction.steps());
    }
    // What another release has begun is its own, also before it says whom it follows.
    if traffic::draining(view).is_none() && siblings.iter().all(|sibling| has_ended(sibling)) {
        let left = unserved::by_this_release(view);
        steps.extend(stopping::retirements(view, &left));
        if view.pod_of_another().is_none() {
            steps.extend(unserved::removals(&left));
        }
    }
    steps
}

/// Whether a Release serves that was deleted: what it started runs on until another release serves.
fn deleted_release_serves(view: &View) -> bool {
    let app = view.observed.app.as_deref();
    let live = app.and_then(|app| app.status.as_ref()?.live.as_ref());
    live.is_some_and(|live| {
        live.revision > view.release().spec.revision
            && view
                .observed
                .siblings
                .iter()
                .all(|sibling| sibling.name_any() != live.release)
            && view.observed.deployments.iter().any(|deployment| {
                deployment.labels().get(labels::RELEASE) == Some(&live.release) && replicas_of(deployment) > 0
            })
    })
}

/// What keeps a component at its replicas. One that never runs twice starts when the pods of other releases are gone.
fn started(view: &View, status: &ReleaseStatus, component: &Component) -> Vec<Step> {
    if component.strategy == Strategy::Recreate
        && let Some(Verdict::Act(stops, _)) =
            stopping::stopped(view, &[&component.name], Successor::Release(view.name()))
    {
        return stops;
    }
    workloads::kept(view, status, component).into_iter().collect()
}
