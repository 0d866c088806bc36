//! Services that no component serves any more, because a release renamed or dropped them, or because its rollback did.
//! They are part of the switch: Fairway deletes its own when the pods behind them have ended, names those of a team, and
//! waits for neither.

use super::traffic::{state, target};
use super::view::View;
use crate::Step;
use crate::message::sentences;
use crate::traffic::{self, Leftover, Removal, TrafficTarget};
use fairway_crds::release::ReleaseStatus;

/// Services that send traffic to other releases and that this release does not serve. None while nobody knows what this
/// release serves.
pub(super) fn by_this_release<'a>(view: &View<'a>) -> Vec<Leftover<'a>> {
    let known = view.snapshot_of(view.name());
    let to = known.and(target(view));
    to.map_or_else(Vec::new, |to| traffic::leftovers(&state(view), &to))
}

/// Services that send traffic to this release and that the previous version, which takes its place again, does not serve.
pub(super) fn by_previous<'a>(view: &View<'a>, status: &ReleaseStatus) -> Vec<Leftover<'a>> {
    let previous = status.previous.as_deref();
    let to = previous.and_then(|release| {
        Some(TrafficTarget {
            app: view.observed.app.as_deref()?,
            snapshot: view.snapshot_of(release)?,
            release,
        })
    });
    let mut left = to.map_or_else(Vec::new, |to| traffic::leftovers(&state(view), &to));
    left.retain(|service| service.release == view.name());
    left
}

/// Removal of the Services that Fairway created.
pub(super) fn removals(left: &[Leftover]) -> Vec<Step> {
    let steps = left.iter().filter_map(|service| match &service.removal {
        Removal::Due(step) => Some(step.clone()),
        Removal::NotDue | Removal::NotOurs => None,
    });
    steps.collect()
}

/// What becomes of these Services when the pods behind them end: whole sentences, empty when there are none.
pub(super) fn announced(left: &[Leftover]) -> String {
    sentences(left.iter().map(|Leftover { service, release, removal }| match removal {
        Removal::Due(_) => {
            format!("No component serves Service {service} any more: it is deleted when the pods of {release} have ended.")
        }
        Removal::NotDue => String::new(),
        Removal::NotOurs => format!(
            "No component serves Service {service} any more. It selects {release}, and is left alone because Fairway did \
             not create it."
        ),
    }))
}

/// What a user does about the Services that Fairway leaves alone: whole sentences, empty when there are none.
pub(super) fn kept(left: &[Leftover]) -> String {
    let kept = left.iter().filter(|service| service.removal == Removal::NotOurs);
    sentences(kept.map(|Leftover { service, release, .. }| {
        format!(
            "Service {service}, which Fairway did not create, still selects {release}, and no component serves it any \
             more: delete it, or name it in serves.service of a component."
        )
    }))
}
