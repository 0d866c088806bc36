//! HandedOver: components that never run twice run in the candidate only.

use crate::release::acceptance::{self, Ask};
use crate::release::health::passing;
use crate::release::history::happened;
use crate::release::stopping::{Successor, stopped};
use crate::release::traffic::hindered;
use crate::release::verdict::Verdict;
use crate::release::view::View;
use crate::release::workloads::{dropped, start};
use fairway_crds::release::{MilestoneKind, ReleaseStatus};

/// Met when the components with strategy `Recreate` are handed over to the candidate: the previous pods are gone, then
/// the candidate's are ready and healthy.
pub(in crate::release) fn climb(view: &View, status: &mut ReleaseStatus) -> Verdict {
    if happened(status, MilestoneKind::TrafficMoved).is_some() {
        return Verdict::Met;
    }
    let components = view.stopping(status);
    let dropped = dropped(view, status);
    if components.is_empty() && dropped.is_empty() {
        return Verdict::Met;
    }
    if happened(status, MilestoneKind::HandingOver).is_none() {
        if view.suspended() {
            return Verdict::Wait(view.held("it replaces its Recreate components"));
        }
        if let Some(wait) = hindered(view) {
            return Verdict::Wait(wait);
        }
        // Days may have passed since the release was accepted, and now the digests are known.
        let digests = status.digests.clone();
        return acceptance::asked(view, status, Ask::Pods, &components, &digests)
            .unwrap_or(Verdict::Commit(MilestoneKind::HandingOver));
    }
    let names: Vec<&str> = components
        .iter()
        .map(|component| component.name.as_str())
        .chain(dropped)
        .collect();
    if let Some(verdict) = stopped(view, &names, Successor::Release(view.name())) {
        return verdict;
    }
    start(view, status, &components)
        .or_else(|| passing(view, &components))
        .unwrap_or(Verdict::Met)
}
