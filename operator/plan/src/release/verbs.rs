//! What a user asks of a release, by annotation, and when that counts as handled.

use super::history::{happened, has_ended, live};
use super::verdict::Failure;
use super::view::View;
use crate::labels;
use fairway_crds::Reason;
use fairway_crds::release::{MilestoneKind, ReleaseOutcome, ReleaseStatus, annotation};
use kube::ResourceExt;

/// A token that has not been answered yet.
fn pending<'a>(view: &View<'a>, verb: &str, handled: Option<&String>) -> Option<&'a String> {
    view.release()
        .annotations()
        .get(verb)
        .filter(|token| Some(*token) != handled)
}

/// The failure that an abort or a rollback asks for, if the release is at a point where it can be heeded. A
/// migration that runs is not interrupted: the request waits for its end.
pub(super) fn request_to_undo(view: &View, status: &mut ReleaseStatus) -> Option<Failure> {
    let migrating = happened(status, MilestoneKind::Migrating).is_some()
        && happened(status, MilestoneKind::Migrated).is_none();
    if migrating {
        return None;
    }
    if let Some(token) = pending(view, annotation::ABORT, status.last_handled_abort.as_ref()) {
        status.last_handled_abort = Some(token.clone());
        return (!stays(view, status)).then(|| aborted(view));
    }
    let token = pending(view, annotation::ROLLBACK, status.last_handled_rollback.as_ref())?;
    status.last_handled_rollback = Some(token.clone());
    Some(rolled_back(view))
}

fn aborted(view: &View) -> Failure {
    let message = format!(
        "A user aborted {} (annotation {}).",
        view.name(),
        annotation::ABORT
    );
    Failure {
        outcome: ReleaseOutcome::Aborted,
        ..Failure::new(Reason::Aborted, message)
    }
}

fn rolled_back(view: &View) -> Failure {
    let message = format!(
        "A user asked to roll {} back (annotation {}).",
        view.name(),
        annotation::ROLLBACK
    );
    Failure {
        outcome: ReleaseOutcome::Aborted,
        ..Failure::new(Reason::RollbackRequested, message)
    }
}

/// Whether a release has come through its bake: aborting it then ends the wait for the pods of the previous version,
/// and takes nothing back.
fn stays(view: &View, status: &ReleaseStatus) -> bool {
    let moved = happened(status, MilestoneKind::TrafficMoved).is_some();
    let bakes = view.today().is_none_or(|today| !today.bake.is_zero());
    happened(status, MilestoneKind::Baked).is_some() || moved && !bakes
}

/// Whether a user does not want to wait for the pods of the previous version.
pub(super) fn waits_no_longer(view: &View, status: &ReleaseStatus) -> bool {
    let token = view.release().annotations().get(annotation::ABORT);
    token.is_some() && token == status.last_handled_abort.as_ref() && stays(view, status)
}

/// Handles requests to abort or roll back a release that rolls back already.
pub(super) fn already_rolling_back(view: &View, status: &mut ReleaseStatus) {
    if let Some(token) = pending(view, annotation::ABORT, status.last_handled_abort.as_ref()) {
        status.last_handled_abort = Some(token.clone());
    }
    if let Some(token) = pending(view, annotation::ROLLBACK, status.last_handled_rollback.as_ref()) {
        status.last_handled_rollback = Some(token.clone());
    }
}

/// Answers what is asked of a release that has ended. Returns the failure by which one that serves rolls back.
pub(super) fn request_after_the_end(view: &View, status: &mut ReleaseStatus) -> Option<Failure> {
    if let Some(token) = pending(view, annotation::ABORT, status.last_handled_abort.as_ref()) {
        // There is nothing left to abort.
        status.last_handled_abort = Some(token.clone());
    }
    if let Some(token) = pending(view, annotation::RETRY, status.last_handled_retry.as_ref())
        && (retried(view) || !is_newest(view) || status.outcome == Some(ReleaseOutcome::Succeeded))
    {
        status.last_handled_retry = Some(token.clone());
    }
    answer_resolve(view, status);
    let token = pending(view, annotation::ROLLBACK, status.last_handled_rollback.as_ref())?;
    let under_way = view.observed.siblings.iter().any(|sibling| !has_ended(sibling));
    let serves = live(view.observed.siblings.iter().chain([&view.observed.release]))
        .is_some_and(|live| live.name_any() == view.name());
    if under_way && serves {
        // Another release is under way and goes first; the request waits.
        return None;
    }
    status.last_handled_rollback = Some(token.clone());
    let possible = serves && view.previous(status).is_some();
    possible.then(|| rolled_back(view))
}

/// Answers a request to resolve the migration when the Migration has: it is the one that executes it.
pub(super) fn answer_resolve(view: &View, status: &mut ReleaseStatus) {
    let Some(token) = pending(view, annotation::RESOLVE, status.last_handled_resolve.as_ref()) else {
        return;
    };
    let handled = view
        .migration()
        .and_then(|migration| migration.status.as_ref()?.last_handled_resolve.clone());
    if handled.as_ref() == Some(token) || view.migration().is_none() {
        status.last_handled_resolve = Some(token.clone());
    }
}

fn retried(view: &View) -> bool {
    view.observed
        .siblings
        .iter()
        .any(|sibling| sibling.annotations().get(labels::RETRY_OF).map(String::as_str) == Some(view.name()))
}

fn is_newest(view: &View) -> bool {
    view.observed
        .siblings
        .iter()
        .all(|sibling| sibling.spec.revision < view.release().spec.revision)
}
