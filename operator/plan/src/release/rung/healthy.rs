//! Healthy: every request passed often enough in a row on every ready candidate that overlaps with its predecessor.

use crate::release::health::passing;
use crate::release::history::happened;
use crate::release::verdict::Verdict;
use crate::release::view::View;
use fairway_crds::release::{MilestoneKind, ReleaseStatus};

/// Met when every request of every overlapping component passed the desired number of times in a row on every
/// ready pod.
pub(in crate::release) fn climb(view: &View, status: &mut ReleaseStatus) -> Verdict {
    if happened(status, MilestoneKind::TrafficMoved).is_some() {
        return Verdict::Met;
    }
    let components = view.overlapping(status);
    passing(view, &components).unwrap_or(Verdict::Met)
}
