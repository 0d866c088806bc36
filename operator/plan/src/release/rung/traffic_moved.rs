//! TrafficMoved: all traffic reaches the candidate.

use crate::release::health::comparison;
use crate::release::history::happened;
use crate::release::traffic::{Direction, direct, has_traffic, is_astray, unfit};
use crate::release::verdict::{Failure, Verdict, Wait};
use crate::release::view::View;
use crate::traffic::{Validation, serving};
use fairway_crds::Reason;
use fairway_crds::release::{MilestoneKind, ReleaseStatus};

/// Met when every Service sends traffic to the candidate only. An App without Services has no traffic to move; the
/// milestone is then recorded as soon as there is a previous version to retire, because it starts the bake and makes
/// newer releases wait.
pub(in crate::release) fn climb(view: &View, status: &mut ReleaseStatus) -> Verdict {
    if happened(status, MilestoneKind::TrafficMoved).is_some() {
        keep(view, status)
    } else if serving(view.snapshot).next().is_some() {
        switch(view, status)
    } else {
        begin_bake(view, status)
    }
}

/// Keeps the traffic on the candidate after it has moved.
fn keep(view: &View, status: &ReleaseStatus) -> Verdict {
    if serving(view.snapshot).next().is_none() {
        return Verdict::Met;
    }
    let direction = direct(view, view.snapshot, view.name(), Validation::DryRunFirst);
    // Traffic already points here; a selector that was just corrected only has to converge, which the bake need
    // not wait for. While another client keeps changing the selector, the pods that it selects are not retired.
    if matches!(direction, Direction::Converging(_)) && !is_astray(view) {
        return Verdict::Met;
    }
    match direction.verdict() {
        None => Verdict::Met,
        // The candidate is watched all the same.
        Some(verdict) => health_lost(view, status).unwrap_or(verdict),
    }
}

/// The failure of a candidate that became unhealthy before its bake was over.
fn health_lost(view: &View, status: &ReleaseStatus) -> Option<Verdict> {
    let bakes = view.today().is_some_and(|today| !today.bake.is_zero());
    let watched = bakes && happened(status, MilestoneKind::Baked).is_none();
    if !watched {
        return None;
    }
    comparison::failure(view, status).map(Failure::verdict)
}

/// Moves the traffic to the candidate.
fn switch(view: &View, status: &ReleaseStatus) -> Verdict {
    let has_traffic = has_traffic(view);
    // A switch that has been made is finished: a candidate that has the traffic is watched.
    if view.suspended() && !has_traffic && !is_interrupted(view, status) {
        return Verdict::Wait(view.held("it moves traffic"));
    }
    if !is_previous_recorded(view, status) {
        // Until then the release that serves does not know its successor, and would correct the Service back to itself.
        return Verdict::Wait(Wait::machine(
            Reason::SwitchingTraffic,
            format!(
                "Recording the previous release of {0} before traffic moves to {0}.",
                view.name()
            ),
        ));
    }
    let failure = if has_traffic {
        // A pass that was killed before it recorded the milestone may have switched the Service.
        comparison::failure(view, status)
    } else {
        unfit(view)
    };
    if let Some(failure) = failure {
        return failure.verdict();
    }
    direct(view, view.snapshot, view.name(), Validation::DryRunFirst)
        .verdict()
        .unwrap_or(Verdict::Commit(MilestoneKind::TrafficMoved))
}

/// Whether the status that was written names the previous release.
fn is_previous_recorded(view: &View, status: &ReleaseStatus) -> bool {
    let recorded = view.release().status.as_ref();
    recorded.is_some_and(|recorded| recorded.previous == status.previous)
}

/// Whether the handover has ended the pods behind a Service: suspending now would prolong the outage.
fn is_interrupted(view: &View, status: &ReleaseStatus) -> bool {
    let stopping = view.stopping(status);
    happened(status, MilestoneKind::HandingOver).is_some()
        && serving(view.snapshot).any(|(component, _)| stopping.contains(&component))
}

/// Records the milestone of an App without Services, when there is a previous version to retire.
fn begin_bake(view: &View, status: &ReleaseStatus) -> Verdict {
    match status.previous {
        None => Verdict::Met,
        Some(_) if view.suspended() => Verdict::Wait(view.held("the previous version ends")),
        Some(_) => Verdict::Commit(MilestoneKind::TrafficMoved),
    }
}
