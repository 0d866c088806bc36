//! RolledOut: the candidates of components that overlap with their predecessors are ready.

use crate::release::history::happened;
use crate::release::verdict::Verdict;
use crate::release::view::View;
use crate::release::workloads::start;
use fairway_crds::release::{MilestoneKind, ReleaseStatus};

/// Met when the candidates of overlapping components have as many ready pods as the App wants.
pub(in crate::release) fn climb(view: &View, status: &mut ReleaseStatus) -> Verdict {
    if happened(status, MilestoneKind::TrafficMoved).is_some() {
        return Verdict::Met;
    }
    let components = view.overlapping(status);
    start(view, status, &components).unwrap_or(Verdict::Met)
}
