//! HandedBack: what of the previous version has no traffic works again.

use crate::labels;
use crate::readings::replicas_of;
use crate::release::history::happened;
use crate::release::legacy;
use crate::release::pods::standing;
use crate::release::rollback;
use crate::release::stopping::{Successor, stopped};
use crate::release::verdict::{Verdict, Wait};
use crate::release::view::View;
use crate::release::workloads::{predecessor, scale};
use fairway_crds::Reason;
use fairway_crds::component::{Component, Strategy};
use fairway_crds::release::{MilestoneKind, ReleaseStatus};
use kube::ResourceExt;

/// Met when what no traffic reaches of the previous version works again: components with strategy `Recreate` are handed
/// back to it, and those without traffic that its retirement may have ended already are ready.
///
/// A newer release takes over when the previous version has had its time.
pub(in crate::release) fn climb(view: &View, status: &mut ReleaseStatus) -> Verdict {
    let verdict = handed_back(view, status);
    rollback::or_taken_over(view, status, verdict)
}

fn handed_back(view: &View, status: &ReleaseStatus) -> Verdict {
    let handed = happened(status, MilestoneKind::HandingOver).is_some();
    let retires = happened(status, MilestoneKind::TrafficMoved).is_some();
    let Some(previous) = status.previous.clone() else {
        return handed_back_to_team(view, status);
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
    if let Some(verdict) = stopped(view, &names, Successor::Release(&previous)) {
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
    Verdict::Act(steps, rollback::restoring(view, status, message))
}

/// Met when the team's Deployments run again from which a first release took over that is rolled back: the candidate's pods
/// are gone before.
fn handed_back_to_team(view: &View, status: &ReleaseStatus) -> Verdict {
    if happened(status, MilestoneKind::HandingOver).is_none() {
        return Verdict::Met;
    }
    let components = view.stopping(status);
    let names: Vec<_> = components
        .iter()
        .map(|component| component.name.as_str())
        .collect();
    let ended: Vec<_> = legacy::of(view, &names)
        .filter_map(|deployment| Some((deployment, legacy::replicas_before(deployment)?)))
        .filter(|(deployment, replicas)| replicas_of(deployment) == 0 && *replicas > 0)
        .collect();
    let Some((first, _)) = ended.first() else {
        return Verdict::Met;
    };
    let names: Vec<_> = ended
        .iter()
        .filter_map(|(deployment, _)| deployment.labels().get(labels::COMPONENT))
        .map(String::as_str)
        .collect();
    if let Some(verdict) = stopped(view, &names, Successor::Legacy) {
        return verdict;
    }
    let message = format!("Starting Deployment {} again.", first.name_any());
    let steps = ended
        .iter()
        .filter_map(|(deployment, replicas)| scale(deployment, *replicas));
    Verdict::Act(steps.collect(), Wait::machine(Reason::RestoringPrevious, message))
}
