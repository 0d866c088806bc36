//! TrafficMoved: users reach the new version only.

use crate::release::health::tripped;
use crate::release::held;
use crate::release::history::happened;
use crate::release::traffic::{direct, is_astray, selected, serving};
use crate::release::verdict::Verdict;
use crate::release::view::View;
use fairway_crds::release::{MilestoneKind, ReleaseStatus};

/// Met when every Service selects the candidate and its endpoints show only it. An App that serves nothing has no
/// traffic, but an old version that goes: from this record on it is watched, and a newer release waits for its end.
pub(in crate::release) fn climb(view: &View, status: &mut ReleaseStatus) -> Verdict {
    let moved = happened(status, MilestoneKind::TrafficMoved).is_some();
    if serving(view.snapshot).next().is_none() {
        return match status.previous {
            Some(_) if !moved && view.suspended() => Verdict::Wait(held("before its predecessor goes")),
            Some(_) if !moved => Verdict::Commit(MilestoneKind::TrafficMoved),
            _ => Verdict::Met,
        };
    }
    if !moved && view.suspended() {
        return Verdict::Wait(held("before it moves traffic"));
    }
    if !moved
        && selected(view)
        && let Some(failure) = tripped(view)
    {
        // Between the switch and its record it has users already.
        return failure.verdict();
    }
    match direct(view, view.snapshot, view.name()) {
        None if moved => Verdict::Met,
        None => Verdict::Commit(MilestoneKind::TrafficMoved),
        // Another hand took the traffic away and keeps it: what it selects must not be retired.
        Some(verdict) if moved && is_astray(view) => verdict,
        // The selector was changed by another hand during the bake: put it right, the watch goes on.
        Some(Verdict::Wait(_)) if moved => Verdict::Met,
        Some(verdict) => verdict,
    }
}
