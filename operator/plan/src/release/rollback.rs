//! When a release rolls back, how that ends, and how long it may take.

use super::history::{happened, milestone, newer};
use super::verdict::{Failure, Wait};
use super::view::View;
use crate::message::{LIMIT, fit, sentence};
use crate::readings::replicas_of;
use fairway_crds::Reason;
use fairway_crds::release::{Milestone, MilestoneKind, ReleaseOutcome, ReleaseStatus};
use jiff::{SignedDuration, Timestamp};

/// How long the previous version may take to be ready for its traffic before a newer release may take over.
const RETURN_DEADLINE: SignedDuration = SignedDuration::from_mins(10);

/// What a failure on the way forward leads to.
pub(super) enum Consequence {
    /// The release ends: there is nothing to undo, or nothing to roll back to.
    Ends(Failure),
    /// What it has done is undone first.
    RollsBack(Failure),
}

/// What this failure leads to: a release ends where nothing has to be undone, goes on serving where nothing served
/// before it, and rolls back otherwise.
pub(super) fn consequence(view: &View, status: &ReleaseStatus, failure: Failure) -> Consequence {
    let moved = happened(status, MilestoneKind::TrafficMoved).is_some();
    if moved && view.previous(status).is_none() {
        let message = format!(
            "{} No release served before {}, so it keeps serving.",
            failure.message,
            view.name()
        );
        let outcome = ReleaseOutcome::Failed;
        return Consequence::Ends(Failure {
            message,
            outcome,
            ..failure
        });
    }
    let handed = happened(status, MilestoneKind::HandingOver).is_some();
    if !moved && !handed && !may_run(view) {
        return Consequence::Ends(failure);
    }
    Consequence::RollsBack(failure)
}

/// Whether anything of this release may run.
fn may_run(view: &View) -> bool {
    view.snapshot.components.iter().any(|component| {
        view.deployment(&component.name, view.release().spec.revision)
            .is_some_and(|deployment| replicas_of(deployment) > 0)
    })
}

/// Records that the release rolls back, why, and how it will end.
pub(super) fn begin(view: &View, status: &mut ReleaseStatus, failure: &Failure) {
    let moved = happened(status, MilestoneKind::TrafficMoved).is_some();
    let outcome = if moved {
        ReleaseOutcome::RolledBack
    } else {
        failure.outcome
    };
    status.milestones.push(Milestone {
        reason: Some(failure.reason.into()),
        message: Some(fit(&failure.message, LIMIT)),
        outcome: Some(outcome),
        ..milestone(MilestoneKind::RollingBack, view.now)
    });
}

/// Why this release rolls back and how it will end, as its milestone says.
pub(super) fn cause(status: &ReleaseStatus) -> Failure {
    let milestone = happened(status, MilestoneKind::RollingBack);
    let reason = milestone
        .and_then(|milestone| milestone.reason.as_deref()?.parse().ok())
        .unwrap_or(Reason::RolledBack);
    let message = milestone
        .and_then(|milestone| milestone.message.clone())
        .unwrap_or_default();
    let outcome = milestone.and_then(|milestone| milestone.outcome);
    Failure {
        reason,
        message,
        outcome: outcome.unwrap_or_else(|| outcome_by_reason(status, reason)),
    }
}

/// How a release ends whose milestone was recorded by a version of Fairway that did not record the outcome.
fn outcome_by_reason(status: &ReleaseStatus, reason: Reason) -> ReleaseOutcome {
    match reason {
        _ if happened(status, MilestoneKind::TrafficMoved).is_some() => ReleaseOutcome::RolledBack,
        Reason::Aborted | Reason::RollbackRequested => ReleaseOutcome::Aborted,
        Reason::Superseded => ReleaseOutcome::Superseded,
        _ => ReleaseOutcome::Failed,
    }
}

/// By when the previous version has to be restored.
pub(super) enum Deadline {
    /// It has time until then.
    Ahead(Timestamp),
    /// It has had its time, and no newer release is there: a user has to see to it.
    Passed,
    /// It has had its time, and this newer release takes over.
    TakenOver(String),
}

/// Whether the previous version still has time, and what follows when it has not.
pub(super) fn deadline(view: &View, status: &ReleaseStatus) -> Deadline {
    let began = happened(status, MilestoneKind::RollingBack).map(|milestone| milestone.at);
    let deadline = began.and_then(|began| began.checked_add(RETURN_DEADLINE).ok());
    match (deadline, newer(view)) {
        (Some(deadline), _) if view.now < deadline => Deadline::Ahead(deadline),
        (_, Some(newer)) => Deadline::TakenOver(newer),
        (_, None) => Deadline::Passed,
    }
}

/// The wait for the previous version to be ready, which becomes a user's when it has lasted too long.
pub(super) fn restoring(view: &View, status: &ReleaseStatus, message: String) -> Wait {
    match deadline(view, status) {
        Deadline::Ahead(deadline) => Wait::machine(Reason::RestoringPrevious, message).until(deadline),
        Deadline::TakenOver(_) => Wait::machine(Reason::RestoringPrevious, message),
        Deadline::Passed => Wait::user(
            Reason::RestoringPrevious,
            format!("{message} To go forward instead, edit the App to a version that works."),
        ),
    }
}

/// The end of a rollback that a newer release takes over before it is done.
pub(super) fn unfinished(status: &ReleaseStatus, why: &str) -> Failure {
    let cause = cause(status);
    Failure {
        message: format!("{} {why}", sentence(&cause.message)),
        outcome: ReleaseOutcome::Failed,
        ..cause
    }
}
