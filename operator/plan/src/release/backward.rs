//! The rungs of going back: TrafficReturned, HandedBack, Withdrawn.

use super::rollout::{ending, predecessor, scale, standing, stopped};
use super::traffic::{direct, serving};
use super::verdict::{Verdict, Wait};
use super::world::{World, happened};
use crate::build::service;
use crate::labels;
use fairway_crds::Reason;
use fairway_crds::component::{Component, Strategy};
use fairway_crds::release::{MilestoneKind, ReleaseStatus};
use kube::ResourceExt;

/// Met when the old version has the traffic again. It must be ready now, at today's replica count, before
/// any goes back.
pub(super) fn traffic_returned(world: &World, status: &mut ReleaseStatus) -> Verdict {
    let moved = happened(status, MilestoneKind::TrafficMoved).is_some();
    if happened(status, MilestoneKind::TrafficReturned).is_some() || !moved && !selected(world) {
        return Verdict::Met;
    }
    let Some(previous) = status.previous.clone() else {
        return Verdict::Met;
    };
    let Some(snapshot) = world.snapshot_of(&previous) else {
        return Verdict::Wait(Wait::person(
            Reason::PreviousMissing,
            format!(
                "{previous} is gone, so traffic stays where it is; edit the App to release a version that works"
            ),
        ));
    };
    let mut steps = Vec::new();
    let mut unready = None;
    for (component, _) in serving(snapshot) {
        let (ready, desired) = standing(world, component, &previous);
        if ready >= desired.max(1) {
            continue;
        }
        unready = unready.or(Some(format!(
            "{ready} of {desired} pods of {} in {previous} are ready",
            component.name
        )));
        // A component that never runs twice is handed back before its traffic can be.
        let blocked = happened(status, MilestoneKind::HandingOver).is_some()
            && world
                .stopping(status)
                .iter()
                .any(|stopping| stopping.name == component.name);
        if blocked && let Some(verdict) = stopped(world, &[component.name.as_str()], &previous) {
            return verdict;
        }
        steps.extend(predecessor(world, status, component));
    }
    if let Some(unready) = unready {
        let message = format!("{unready}; traffic goes back when they are");
        return Verdict::Act(steps, Wait::machine(Reason::RestoringPrevious, message));
    }
    match direct(world, snapshot, &previous) {
        None if moved => Verdict::Commit(MilestoneKind::TrafficReturned),
        None => Verdict::Met,
        Some(verdict) => verdict,
    }
}

/// Whether any Service selects this release.
pub(super) fn selected(world: &World) -> bool {
    world
        .observed
        .services
        .values()
        .any(|found| service::selected_release(found) == Some(world.name()))
}

/// Met when the old version works again beside its traffic: the components that never run twice have passed back to it,
/// and those without traffic that its retirement may have ended already are up.
pub(super) fn handed_back(world: &World, status: &mut ReleaseStatus) -> Verdict {
    let handed = happened(status, MilestoneKind::HandingOver).is_some();
    let retires = happened(status, MilestoneKind::TrafficMoved).is_some();
    let Some(previous) = status.previous.clone() else {
        return Verdict::Met;
    };
    let Some(snapshot) = world.snapshot_of(&previous) else {
        return Verdict::Met;
    };
    let stopping = world.stopping(status);
    let stops = |component: &Component| {
        let new = stopping.iter().any(|new| new.name == component.name);
        new || component.strategy == Strategy::Recreate
    };
    let components = |desired: &dyn Fn(&Component) -> bool| -> Vec<&Component> {
        let all = snapshot.components.iter();
        all.filter(|component| desired(component)).collect()
    };
    let alone = components(&|component| handed && stops(component));
    let names: Vec<_> = alone.iter().map(|component| component.name.as_str()).collect();
    if let Some(verdict) = stopped(world, &names, &previous) {
        return verdict;
    }
    let started = components(&|component| {
        if stops(component) {
            handed
        } else {
            retires && component.serves.is_none()
        }
    });
    let steps: Vec<_> = started
        .iter()
        .filter_map(|component| predecessor(world, status, component))
        .collect();
    let behind = started
        .iter()
        .map(|component| (&component.name, standing(world, component, &previous)))
        .find(|(_, (ready, desired))| ready < desired);
    let wait = |message: String| Wait::machine(Reason::RestoringPrevious, message);
    match behind {
        None if steps.is_empty() => Verdict::Met,
        None => Verdict::Act(steps, wait(format!("starting {previous} again"))),
        Some((name, (ready, desired))) => Verdict::Act(
            steps,
            wait(format!(
                "{ready} of {desired} pods of {name} in {previous} are ready"
            )),
        ),
    }
}

/// Met when the new version's pods are gone.
pub(super) fn withdrawn(world: &World, _: &mut ReleaseStatus) -> Verdict {
    // With nothing to go back to, what serves goes on serving.
    let mine = world
        .observed
        .deployments
        .iter()
        .filter(|deployment| {
            deployment.labels().get(labels::RELEASE).map(String::as_str) == Some(world.name())
        })
        .filter(|deployment| {
            !keeps_traffic(
                world,
                deployment.labels().get(labels::COMPONENT).map(String::as_str),
            )
        });
    let mut steps: Vec<_> = mine.filter_map(|deployment| scale(deployment, 0)).collect();
    steps.extend(super::traffic::leftovers(world));
    let left = world.observed.pods.iter().find(|pod| {
        pod.labels().get(labels::RELEASE).map(String::as_str) == Some(world.name())
            && pod
                .labels()
                .get(labels::COMPONENT)
                .is_some_and(|component| !keeps_traffic(world, Some(component)))
            && !super::world::has_finished(pod)
    });
    if steps.is_empty() && left.is_none() {
        return Verdict::Met;
    }
    let wait = Wait::machine(Reason::WithdrawingCandidate, "the new pods drain and end");
    Verdict::Act(steps, left.map_or(wait.clone(), |pod| ending(world, pod, wait)))
}

/// Whether a Service still selects this release's component.
fn keeps_traffic(world: &World, component: Option<&str>) -> bool {
    let Some(component) = component else { return false };
    let serves = world
        .snapshot
        .component(component)
        .and_then(|component| component.serves.as_ref());
    serves
        .and_then(|serves| world.observed.services.get(&serves.service))
        .is_some_and(|found| service::selected_release(found) == Some(world.name()))
}
