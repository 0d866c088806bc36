//! TrafficReturned: traffic reaches the previous version again.

use crate::release::history::happened;
use crate::release::pods::standing;
use crate::release::rollback;
use crate::release::stopping::{Successor, stopped};
use crate::release::traffic::{direct, draining_for, has_traffic};
use crate::release::verdict::{Verdict, Wait};
use crate::release::view::View;
use crate::release::workloads::predecessor;
use crate::traffic::{Validation, serving};
use fairway_crds::Reason;
use fairway_crds::release::{MilestoneKind, ReleaseStatus};

/// Met when traffic reaches the previous version again. It must be ready now, at today's replica count, before any
/// traffic is sent to it.
///
/// A newer release takes over when the previous version has had its time.
pub(in crate::release) fn climb(view: &View, status: &mut ReleaseStatus) -> Verdict {
    if let Some(verdict) = rollback::after_takeover(view, status) {
        return verdict;
    }
    let verdict = returned(view, status);
    rollback::or_taken_over(view, status, verdict)
}

fn returned(view: &View, status: &ReleaseStatus) -> Verdict {
    let moved = happened(status, MilestoneKind::TrafficMoved).is_some();
    if happened(status, MilestoneKind::TrafficReturned).is_some() {
        return Verdict::Met;
    }
    if !moved && !has_traffic(view) {
        // The selectors may have been switched a moment ago, and the endpoints may not have followed yet.
        let previous = status.previous.as_deref();
        let wait = previous.and_then(|previous| draining_for(view, view.snapshot_of(previous)?, previous));
        return wait.map_or(Verdict::Met, Verdict::Wait);
    }
    let Some(previous) = status.previous.clone() else {
        return Verdict::Met;
    };
    let Some(snapshot) = view.snapshot_of(&previous) else {
        return Verdict::Wait(Wait::user(
            Reason::PreviousMissing,
            format!(
                "The snapshot of {previous} is gone, so traffic stays where it is. Edit the App to a version that works."
            ),
        ));
    };
    let mut steps = Vec::new();
    let mut unready = None;
    for (component, _) in serving(snapshot) {
        let (ready, desired) = standing(view, component, &previous);
        if ready >= desired.max(1) {
            continue;
        }
        unready = unready.or(Some(format!(
            "{ready} of {desired} pods of {} in {previous} are ready for their traffic.",
            component.name
        )));
        // A component that never runs twice is handed back before its traffic can be.
        let blocked = happened(status, MilestoneKind::HandingOver).is_some()
            && view
                .stopping(status)
                .iter()
                .any(|stopping| stopping.name == component.name);
        if blocked
            && let Some(verdict) = stopped(view, &[component.name.as_str()], Successor::Release(&previous))
        {
            return verdict;
        }
        steps.extend(predecessor(view, status, component));
    }
    if let Some(message) = unready {
        return Verdict::Act(steps, rollback::restoring(view, status, message));
    }
    match direct(view, snapshot, &previous, Validation::Immediate).verdict() {
        None if moved => Verdict::Commit(MilestoneKind::TrafficReturned),
        None => Verdict::Met,
        Some(verdict) => verdict,
    }
}
