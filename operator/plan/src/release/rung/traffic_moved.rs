//! TrafficMoved: all traffic reaches the candidate.

use crate::release::health::tripped;
use crate::release::history::happened;
use crate::release::traffic::{direct, has_users, is_astray};
use crate::release::verdict::Verdict;
use crate::release::view::View;
use crate::traffic::{Validation, serving};
use fairway_crds::release::{MilestoneKind, ReleaseStatus};

/// Met when every Service sends traffic to the candidate only. An App without Services has no traffic to move; the
/// milestone is then recorded as soon as there is a previous version to retire, because it starts the bake and makes
/// newer releases wait.
pub(in crate::release) fn climb(view: &View, status: &mut ReleaseStatus) -> Verdict {
    let moved = happened(status, MilestoneKind::TrafficMoved).is_some();
    if serving(view.snapshot).next().is_none() {
        return match status.previous {
            Some(_) if !moved && view.suspended() => Verdict::Wait(view.held("the previous version ends")),
            Some(_) if !moved => Verdict::Commit(MilestoneKind::TrafficMoved),
            _ => Verdict::Met,
        };
    }
    if !moved && view.suspended() {
        return Verdict::Wait(view.held("it moves traffic"));
    }
    if !moved
        && has_users(view)
        && let Some(failure) = tripped(view)
    {
        // The Service may have been switched by a pass that was killed before it recorded the milestone.
        return failure.verdict();
    }
    match direct(view, view.snapshot, view.name(), Validation::DryRunFirst) {
        None if moved => Verdict::Met,
        None => Verdict::Commit(MilestoneKind::TrafficMoved),
        // Another client changed the selector and keeps changing it: do not retire the pods that it selects.
        Some(verdict) if moved && is_astray(view) => verdict,
        // Traffic already points here; a selector that was just corrected only has to converge, which the bake need
        // not wait for.
        Some(Verdict::Wait(_)) if moved => Verdict::Met,
        Some(verdict) => verdict,
    }
}
