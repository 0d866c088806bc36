//! What a person asks of a release, by annotation, and when it counts as answered.

use super::verdict::Failure;
use super::world::{World, happened, has_ended, live};
use crate::labels;
use fairway_crds::Reason;
use fairway_crds::release::{MilestoneKind, ReleaseOutcome, ReleaseStatus, annotation};
use kube::ResourceExt;

/// A token that has not been answered yet.
fn pending<'a>(world: &World<'a>, verb: &str, handled: Option<&String>) -> Option<&'a String> {
    world
        .release()
        .annotations()
        .get(verb)
        .filter(|token| Some(*token) != handled)
}

/// The failure that an abort or a rollback asks for, if the release is at a point where it can be heeded. A
/// migration that runs is not interrupted: the request waits for its end.
pub(super) fn give_up(world: &World, status: &mut ReleaseStatus) -> Option<Failure> {
    let migrating = happened(status, MilestoneKind::Migrating).is_some()
        && happened(status, MilestoneKind::Migrated).is_none();
    if migrating {
        return None;
    }
    if let Some(token) = pending(world, annotation::ABORT, status.last_handled_abort.as_ref()) {
        status.last_handled_abort = Some(token.clone());
        if stays(world, status) {
            return None;
        }
        let failure = Failure::new(Reason::Aborted, "given up by a person (fairway.dev/abort)");
        return Some(Failure {
            outcome: ReleaseOutcome::Aborted,
            ..failure
        });
    }
    let token = pending(world, annotation::ROLLBACK, status.last_handled_rollback.as_ref())?;
    status.last_handled_rollback = Some(token.clone());
    let failure = Failure::new(
        Reason::RollbackRequested,
        "taken back by a person (fairway.dev/rollback)",
    );
    Some(Failure {
        outcome: ReleaseOutcome::Aborted,
        ..failure
    })
}

/// Whether a release has come through its bake: giving it up then ends the wait for what is left of the old version,
/// and takes nothing back.
fn stays(world: &World, status: &ReleaseStatus) -> bool {
    let moved = happened(status, MilestoneKind::TrafficMoved).is_some();
    let bakes = world.today().is_none_or(|today| !today.bake.is_zero());
    happened(status, MilestoneKind::Baked).is_some() || moved && !bakes
}

/// Whether a person does not want to wait for what is left of the old version.
pub(super) fn waits_no_longer(world: &World, status: &ReleaseStatus) -> bool {
    let token = world.release().annotations().get(annotation::ABORT);
    token.is_some() && token == status.last_handled_abort.as_ref() && stays(world, status)
}

/// A release that goes back already has nothing to add to a request to do so.
pub(super) fn already_going_back(world: &World, status: &mut ReleaseStatus) {
    if let Some(token) = pending(world, annotation::ABORT, status.last_handled_abort.as_ref()) {
        status.last_handled_abort = Some(token.clone());
    }
    if let Some(token) = pending(world, annotation::ROLLBACK, status.last_handled_rollback.as_ref()) {
        status.last_handled_rollback = Some(token.clone());
    }
}

/// Answers what is asked of a release that has ended. Returns the failure by which one that serves goes back.
pub(super) fn after_the_end(world: &World, status: &mut ReleaseStatus) -> Option<Failure> {
    if let Some(token) = pending(world, annotation::ABORT, status.last_handled_abort.as_ref()) {
        // There is nothing left to give up.
        status.last_handled_abort = Some(token.clone());
    }
    if let Some(token) = pending(world, annotation::RETRY, status.last_handled_retry.as_ref())
        && (retried(world) || !is_newest(world) || status.outcome == Some(ReleaseOutcome::Succeeded))
    {
        status.last_handled_retry = Some(token.clone());
    }
    if let Some(token) = pending(world, annotation::RESOLVE, status.last_handled_resolve.as_ref()) {
        answer_resolve(world, status, token);
    }
    let token = pending(world, annotation::ROLLBACK, status.last_handled_rollback.as_ref())?;
    let under_way = world.observed.siblings.iter().any(|sibling| !has_ended(sibling));
    let serves = live(world.observed.siblings.iter().chain([&world.observed.release]))
        .is_some_and(|live| live.name_any() == world.name());
    if under_way && serves {
        // Another release is under way and goes first; the request waits.
        return None;
    }
    status.last_handled_rollback = Some(token.clone());
    let possible = serves && world.previous(status).is_some();
    possible.then(|| {
        Failure::new(
            Reason::RollbackRequested,
            "taken back by a person (fairway.dev/rollback)",
        )
    })
}

/// The resolve verb is carried out by the Migration; the Release answers when that has.
pub(super) fn answer_resolve(world: &World, status: &mut ReleaseStatus, token: &str) {
    let handled = world
        .migration()
        .and_then(|migration| migration.status.as_ref()?.last_handled_resolve.clone());
    if handled.as_deref() == Some(token) || world.migration().is_none() {
        status.last_handled_resolve = Some(token.to_owned());
    }
}

/// The resolve token that has not been answered yet.
pub(super) fn pending_resolve(world: &World, status: &ReleaseStatus) -> Option<String> {
    pending(world, annotation::RESOLVE, status.last_handled_resolve.as_ref()).cloned()
}

fn retried(world: &World) -> bool {
    world
        .observed
        .siblings
        .iter()
        .any(|sibling| sibling.annotations().get(labels::RETRY_OF).map(String::as_str) == Some(world.name()))
}

fn is_newest(world: &World) -> bool {
    world
        .observed
        .siblings
        .iter()
        .all(|sibling| sibling.spec.revision < world.release().spec.revision)
}
