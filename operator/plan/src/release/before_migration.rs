//! The handover that comes before the migration: a component with strategy `Recreate` never runs twice, and the pod of
//! its migration counts where it runs the application itself, or mounts a claim that two pods cannot.

use super::claims;
use super::history::happened;
use super::stopping::{Successor, stopped};
use super::verdict::Verdict;
use super::view::View;
use super::workloads::dropped;
use fairway_crds::component::Component;
use fairway_crds::release::{MilestoneKind, ReleaseStatus};
use std::collections::BTreeSet;

/// Ends the previous pods beside which the migration's pod must not run; `None` when there are none. The milestone of the
/// handover is recorded first, and from then on nothing holds the release.
pub(super) fn handed_over(view: &View, status: &ReleaseStatus) -> Option<Verdict> {
    let names = in_the_way(view, status);
    let stopped = stopped(
        view,
        &names.into_iter().collect::<Vec<_>>(),
        Successor::Release(view.name()),
    )?;
    Some(if happened(status, MilestoneKind::HandingOver).is_some() {
        stopped
    } else if view.suspended() {
        Verdict::Wait(view.held("its migration"))
    } else {
        Verdict::Commit(MilestoneKind::HandingOver)
    })
}

/// Components that never run twice and beside whose pods the migration's pod must not run.
fn in_the_way<'a>(view: &View<'a>, status: &ReleaseStatus) -> BTreeSet<&'a str> {
    let Some(migration) = &view.snapshot.migration else {
        return BTreeSet::new();
    };
    let previous = status.previous.as_deref().and_then(|name| view.snapshot_of(name));
    let held = held_alone(view, status);
    let mounts = |component: Option<&Component>| {
        component.is_some_and(|component| claims::of(component).any(|(_, claim)| held.contains(claim)))
    };
    let stopping = view.stopping(status).into_iter();
    let all = stopping
        .map(|component| component.name.as_str())
        .chain(dropped(view, status));
    all.filter(|name| {
        let runs_itself = migration.on_start.is_some() && migration.component == *name;
        let before = previous.and_then(|snapshot| snapshot.component(name));
        runs_itself || mounts(before) || mounts(view.snapshot.component(name))
    })
    .collect()
}

/// Claims that the migration's pod mounts and no other pod can meanwhile. Which ones can be shared is not asked any more
/// once the handover has begun: it began because of one that cannot.
fn held_alone<'a>(view: &View<'a>, status: &ReleaseStatus) -> BTreeSet<&'a str> {
    let handing = happened(status, MilestoneKind::HandingOver).is_some();
    let alone = |claim: &&str| match view.observed.claims.get(*claim) {
        Some(claim) => !claims::is_shared(claim),
        None => handing,
    };
    claims::of_migration(view.snapshot).filter(alone).collect()
}
