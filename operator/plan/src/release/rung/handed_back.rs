//! HandedBack: what of the previous version has no traffic works again.

use crate::release::history::happened;
use crate::release::pods::standing;
use crate::release::rollback::{self, Deadline};
use crate::release::stopping::stopped;
use crate::release::verdict::Verdict;
use crate::release::view::View;
use crate::release::workloads::predecessor;
use fairway_crds::component::{Component, Strategy};
use fairway_crds::release::{MilestoneKind, ReleaseStatus};

/// Met when what users do not reach of the previous version works again: components with strategy `Recreate` are handed
/// back to it, and those without traffic that its retirement may have ended already are ready.
pub(in crate::release) fn climb(view: &View, status: &mut ReleaseStatus) -> Verdict {
    let handed = happened(status, MilestoneKind::HandingOver).is_some();
    let retires = happened(status, MilestoneKind::TrafficMoved).is_some();
    let Some(previous) = status.previous.clone() else {
        return Verdict::Met;
    };
    let Some(snapshot) = view.snapshot_of(&previous) else {
        return Verdict::Met;
    };
    let stopping = view.stopping(status);
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
    if let Some(verdict) = stopped(view, &names, &previous) {
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
        .filter_map(|component| predecessor(view, status, component))
        .collect();
    let behind = started
        .iter()
        .map(|component| (&component.name, standing(view, component, &previous)))
        .find(|(_, (ready, desired))| ready < desired);
    let message = match behind {
        None if steps.is_empty() => return Verdict::Met,
        None => format!("Starting {previous} again."),
        Some((name, (ready, desired))) => {
            format!("{ready} of {desired} pods of {name} in {previous} are ready.")
        }
    };
    match rollback::deadline(view, status) {
        Deadline::TakenOver(newer) => {
            let why =
                format!("Not all of {previous} could be started again, so {newer} takes over. {message}");
            rollback::unfinished(status, &why).verdict()
        }
        Deadline::Ahead(_) | Deadline::Passed => {
            Verdict::Act(steps, rollback::restoring(view, status, message))
        }
    }
}
