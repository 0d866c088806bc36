//! TrafficMoved: users reach the new version only.

use crate::release::health::tripped;
use crate::release::history::happened;
use crate::release::traffic::{direct, has_users, is_astray};
use crate::release::verdict::Verdict;
use crate::release::view::View;
use crate::traffic::{Care, serving};
use fairway_crds::release::{MilestoneKind, ReleaseStatus};

/// Met when all users reach the new version and nothing else. An App that serves nothing has no traffic, but a previous
/// version that ends: from this milestone on the new one is watched, and a newer release waits for its end.
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
        // Between the switch and its record it has users already.
        return failure.verdict();
    }
    match direct(view, view.snapshot, view.name(), Care::DryRunFirst) {
        None if moved => Verdict::Met,
        None => Verdict::Commit(MilestoneKind::TrafficMoved),
        // Another hand took the traffic away and keeps it: what it selects must not be retired.
        Some(verdict) if moved && is_astray(view) => verdict,
        // The selector was changed by another hand during the bake: corrected, and the bake goes on.
        Some(Verdict::Wait(_)) if moved => Verdict::Met,
        Some(verdict) => verdict,
    }
}
