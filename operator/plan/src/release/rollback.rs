//! When a release rolls back, how that ends, and how long it may take.

use super::history::{happened, has_ended, milestone, newer_in_progress};
use super::verdict::{Failure, Verdict, Wait};
use super::view::View;
use crate::kubectl;
use crate::message::{LIMIT, fit, sentence, sentences};
use crate::readings::replicas_of;
use crate::retry::{self, Schedule};
use fairway_crds::Reason;
use fairway_crds::release::{Attempts, Milestone, MilestoneKind, ReleaseOutcome, ReleaseStatus};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

/// How long the previous version may take to be ready for its traffic before a newer release may take over.
const RETURN_DEADLINE: SignedDuration = SignedDuration::from_mins(10);
/// Key in `status.attempts` of a rollback that a user has requested again.
const REQUESTED: &str = "TrafficReturned";

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
        let name = view.name();
        let why = match &status.previous {
            Some(previous) => {
                format!("Release {previous}, which served before, was deleted, so {name} keeps serving.")
            }
            None => format!("No release served before {name}, so it keeps serving."),
        };
        let message = sentences([&failure.message, &why]);
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

/// Whether the previous version still has time to be restored.
pub(super) enum Deadline {
    /// It has time until then.
    Ahead(Timestamp),
    /// It has had its time: a user has to see to it, or a newer release takes over.
    Passed,
}

/// Until when the previous version has time to be restored: since the rollback began, or was requested again.
pub(super) fn deadline(now: Timestamp, status: &ReleaseStatus) -> Deadline {
    let requested = status.attempts.get(REQUESTED).map(|attempts| attempts.since);
    let began = happened(status, MilestoneKind::RollingBack).map(|milestone| milestone.at);
    let deadline = requested
        .or(began)
        .and_then(|began| began.checked_add(RETURN_DEADLINE).ok());
    match deadline {
        Some(deadline) if now < deadline => Deadline::Ahead(deadline),
        _ => Deadline::Passed,
    }
}

/// Restarts the deadline of the previous version, because a user has requested the rollback again.
pub(super) fn requested_again(view: &View, status: &mut ReleaseStatus) {
    let schedule = Schedule {
        deadline: Some(RETURN_DEADLINE),
        now: view.now,
    };
    let attempts = match status.attempts.remove(REQUESTED) {
        Some(attempts) => Attempts {
            since: view.now,
            ..retry::following(&attempts)
        },
        None => schedule.first(),
    };
    status.attempts.insert(REQUESTED.to_owned(), attempts);
}

/// The wait for the previous version to be ready, which becomes a user's when it has lasted too long.
pub(super) fn restoring(view: &View, status: &ReleaseStatus, message: String) -> Wait {
    match deadline(view.now, status) {
        Deadline::Ahead(deadline) => Wait::machine(Reason::RestoringPrevious, message).until(deadline),
        Deadline::Passed => Wait::user(
            Reason::RestoringPrevious,
            format!("{message} To go forward instead, edit the App to a version that works."),
        ),
    }
}

/// Lets a newer release take over from a rollback that is not done in time; otherwise its own verdict.
pub(super) fn or_taken_over(view: &View, status: &mut ReleaseStatus, verdict: Verdict) -> Verdict {
    if verdict.wait().is_none() || matches!(deadline(view.now, status), Deadline::Ahead(_)) {
        return verdict;
    }
    // One that is held does not go on, whoever makes way for it.
    match newer_in_progress(view).filter(|_| !view.suspended()) {
        Some(newer) => {
            status.taken_over_by = Some(newer.name_any());
            Verdict::Wait(taken_over(view, &newer.name_any()))
        }
        None => verdict,
    }
}

/// What a release does from which a newer one has taken over: nothing while that one is in progress, and nothing more
/// once it serves. `None` when the rollback continues.
pub(super) fn after_takeover(view: &View, status: &mut ReleaseStatus) -> Option<Verdict> {
    let name = status.taken_over_by.clone()?;
    let mut siblings = view.observed.siblings.iter();
    let newer = siblings.find(|sibling| sibling.name_any() == name);
    let newer_status = newer.and_then(|newer| newer.status.as_ref());
    if newer_status.and_then(|status| status.outcome) == Some(ReleaseOutcome::Succeeded) {
        return Some(unfinished(view, status, &name).verdict());
    }
    if newer.is_some_and(|newer| !has_ended(newer)) {
        return Some(Verdict::Wait(taken_over(view, &name)));
    }
    status.taken_over_by = None;
    None
}

fn taken_over(view: &View, newer: &str) -> Wait {
    Wait::clock(
        Reason::WaitingForRelease,
        format!(
            "The previous version was not ready in time, so Release {newer} takes over. If {newer} ends without serving, \
             the rollback continues. To continue it now, abort {newer}: {}",
            kubectl::abort(view.namespace(), newer)
        ),
    )
}

/// The end of a rollback that was not done when a newer release served.
fn unfinished(view: &View, status: &ReleaseStatus, newer: &str) -> Failure {
    let cause = cause(status);
    Failure {
        message: format!(
            "{} {} could not be rolled back, and {newer} has taken over.",
            sentence(&cause.message),
            view.name()
        ),
        outcome: ReleaseOutcome::Failed,
        ..cause
    }
}
