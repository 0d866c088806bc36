//! What a user asks of a release, by annotation, and when that counts as handled.

use super::advice::{self, Advice};
use super::history::{happened, has_ended, live};
use super::request::Request;
use super::rollback;
use super::verdict::Failure;
use super::view::View;
use crate::conditions::reason_of;
use crate::labels;
use crate::object::Kind;
use crate::requester;
use crate::tasks;
use fairway_crds::Reason;
use fairway_crds::condition::SUCCEEDED;
use fairway_crds::migration::MigrationOutcome;
use fairway_crds::release::{MilestoneKind, ReleaseOutcome, ReleaseStatus, annotation};
use kube::ResourceExt;
use kube::core::ObjectMeta;

/// The failure that an abort or a rollback asks for, if the release is at a point where it can be obeyed. A migration that
/// may have begun is not interrupted: the request waits for its end.
pub(super) fn request_to_undo(view: &View, status: &mut ReleaseStatus) -> Option<Failure> {
    let migrating = happened(status, MilestoneKind::Migrating).is_some()
        && happened(status, MilestoneKind::Migrated).is_none();
    if migrating && may_have_begun(view) && !has_obeyed(view) {
        return None;
    }
    if let Some(token) = Request::Abort.take(view.release(), status) {
        return (!stays(view, status)).then(|| aborted(view, token));
    }
    let token = Request::Rollback.take(view.release(), status)?;
    Some(rolled_back(view, token))
}

/// Whether the migration has ended because of the abort, before it began.
fn has_obeyed(view: &View) -> bool {
    let migration = view.migration().and_then(|migration| migration.status.as_ref());
    migration.is_some_and(|status| {
        let mut conditions = status.conditions.iter();
        status.outcome.is_some()
            && conditions.any(|found| found.type_ == SUCCEEDED && reason_of(found) == Some(Reason::Aborted))
    })
}

/// Whether the migration of this release may have begun. The Migration says when it has not and will not; before there is
/// one, nothing runs.
fn may_have_begun(view: &View) -> bool {
    let is_own = |meta: &ObjectMeta| {
        let labels = meta.labels.as_ref();
        tasks::is_for(meta, Kind::Migration)
            && labels.is_some_and(|labels| {
                labels
                    .get(labels::RELEASE)
                    .is_some_and(|found| found == view.name())
            })
    };
    let runs = || {
        let mut pods = view.observed.pods.iter();
        let mut jobs = view.observed.jobs.iter();
        pods.any(|pod| is_own(&pod.metadata)) || jobs.any(|job| is_own(&job.metadata))
    };
    match view.migration() {
        Some(migration) => {
            let outcome = migration.status.as_ref().and_then(|status| status.outcome);
            outcome != Some(MigrationOutcome::NotStarted)
        }
        None => runs(),
    }
}

fn aborted(view: &View, token: &str) -> Failure {
    let message = format!(
        "{} aborted {} (annotation {}).",
        requester::subject(token),
        view.name(),
        annotation::ABORT
    );
    Failure {
        outcome: ReleaseOutcome::Aborted,
        ..Failure::new(Reason::Aborted, message)
    }
}

fn rolled_back(view: &View, token: &str) -> Failure {
    let message = format!(
        "{} asked to roll {} back (annotation {}).",
        requester::subject(token),
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
pub(super) fn stays(view: &View, status: &ReleaseStatus) -> bool {
    let moved = happened(status, MilestoneKind::TrafficMoved).is_some();
    let bakes = view.today().is_none_or(|today| !today.bake.is_zero());
    happened(status, MilestoneKind::Baked).is_some() || moved && !bakes
}

/// Whether a user does not want to wait for the pods of the previous version.
pub(super) fn waits_no_longer(view: &View, status: &ReleaseStatus) -> bool {
    Request::Abort.has_been_handled(view.release(), status) && stays(view, status)
}

/// Handles requests to abort or roll back a release that rolls back already: the deadline of
/// a rollback that is requested again is restarted.
pub(super) fn already_rolling_back(view: &View, status: &mut ReleaseStatus) {
    Request::Abort.take(view.release(), status);
    if Request::Rollback.take(view.release(), status).is_some() {
        rollback::requested_again(view, status);
    }
}

/// Answers what is asked of a release that has ended. Returns the failure by which one that serves rolls back.
pub(super) fn request_after_the_end(view: &View, status: &mut ReleaseStatus) -> Option<Failure> {
    // There is nothing left to abort.
    Request::Abort.take(view.release(), status);
    answer_retry(view, status);
    answer_resolve(view, status);
    Request::Rollback.pending(view.release(), status)?;
    let under_way = view.observed.siblings.iter().any(|sibling| !has_ended(sibling));
    let serves = live(view.observed.siblings.iter().chain([&view.observed.release]))
        .is_some_and(|live| live.name_any() == view.name());
    if under_way && serves {
        // Another release is under way and goes first; the request waits.
        return None;
    }
    let token = Request::Rollback.take(view.release(), status)?;
    let possible = serves && view.previous(status).is_some();
    possible.then(|| rolled_back(view, token))
}

/// Answers a request to retry once the App has retried the release, or never will.
fn answer_retry(view: &View, status: &mut ReleaseStatus) {
    if Request::Retry.pending(view.release(), status).is_none() {
        return;
    }
    let (retried, is_newest) = (retried(view), is_newest(view));
    if !retried && is_newest && status.outcome != Some(ReleaseOutcome::Succeeded) {
        return;
    }
    Request::Retry.take(view.release(), status);
    if !retried && !is_newest {
        let offer = Advice::EditOrRetry {
            namespace: view.namespace(),
            release: view.name(),
        };
        advice::replace(&mut status.conditions, offer, Advice::Edit);
    }
}

/// Answers a request to resolve the migration when the Migration has: it is the one that executes it.
pub(super) fn answer_resolve(view: &View, status: &mut ReleaseStatus) {
    let Some(token) = Request::Resolve.pending(view.release(), status) else {
        return;
    };
    let by_migration = view
        .migration()
        .map(|migration| migration.status.as_ref()?.last_handled_resolve.as_deref());
    if by_migration.is_none_or(|handled| handled == Some(token)) {
        Request::Resolve.take(view.release(), status);
    }
}

fn retried(view: &View) -> bool {
    view.observed
        .siblings
        .iter()
        .any(|sibling| sibling.annotations().get(labels::RETRY_OF).map(String::as_str) == Some(view.name()))
}

fn is_newest(view: &View) -> bool {
    view.observed.siblings.iter().all(|sibling| {
        sibling.spec.revision < view.release().spec.revision || !view.has_been_accepted(sibling)
    })
}
