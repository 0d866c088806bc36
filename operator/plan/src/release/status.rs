//! What a release's status says of where it stands.

use super::history::happened;
use super::position::Position;
use super::refusals::without_refused;
use super::verdict::{Failure, Shown, Wait, WaitOn};
use super::view::View;
use crate::conditions::{self, Desired, Progress, State};
use crate::kubectl;
use crate::message::{sentence, sentences};
use crate::{Decision, Step, Wake};
use fairway_crds::Reason;
use fairway_crds::condition::{BAKING, SCHEMA_AHEAD};
use fairway_crds::release::{MilestoneKind, ReleaseOutcome, ReleaseStatus};
use kube::ResourceExt;

/// The pass that comes of these steps at this position: with the conditions that say so, and without what the API server
/// refuses.
pub(super) fn decision(
    view: &View,
    mut status: ReleaseStatus,
    steps: Vec<Step>,
    position: Position,
) -> Decision<ReleaseStatus> {
    let (steps, position) = without_refused(view, steps, position);
    let mut wake = Wake::OnChange;
    if let Position::Waiting(wait) = &position {
        wake = wait.until.map_or(Wake::OnChange, Wake::At);
        if wait.shown == Shown::Nowhere {
            // Whatever the rungs found is found again by the next pass, and worth a write only then.
            let status = view.release().status.clone().unwrap_or_default();
            return Decision { steps, status, wake };
        }
    }
    write(view, &mut status, &position);
    Decision { steps, status, wake }
}

/// Writes the conditions.
fn write(view: &View, status: &mut ReleaseStatus, position: &Position) {
    let generation = view.release().metadata.generation;
    status.observed_generation = generation;
    let schema_ahead = schema_ahead(status);
    let Some(progress) = progress(view, status, position) else {
        return;
    };
    let mut desired = conditions::summary(&format!("Release {}", view.name()), &progress);
    if is_baking(position) {
        let Progress { reason, message, .. } = progress;
        desired.push(Desired::new(BAKING, conditions::Status::True, reason, message));
    }
    if schema_ahead {
        desired.push(Desired::new(
            SCHEMA_AHEAD,
            conditions::Status::True,
            Reason::MigrationKept,
            "The database keeps the schema of a newer version than the one that runs on it.",
        ));
    }
    status.conditions = conditions::set(&status.conditions, desired, generation, view.now);
}

/// Whether the schema is newer than what serves: this release migrated and rolled back, or it is older than the schema
/// that it found.
fn schema_ahead(status: &ReleaseStatus) -> bool {
    let migrated = happened(status, MilestoneKind::Migrated).is_some();
    let rolled_back = happened(status, MilestoneKind::RollingBack).is_some()
        || matches!(
            status.outcome,
            Some(ReleaseOutcome::Failed | ReleaseOutcome::Aborted | ReleaseOutcome::RolledBack)
        );
    let found_ahead = status
        .evidence
        .migration
        .as_ref()
        .is_some_and(|migration| migration.schema_ahead);
    let changed = status.evidence.migration.as_ref().is_some_and(|migration| {
        !migration.unchanged && migration.outcome == fairway_crds::migration::MigrationOutcome::Applied
    });
    found_ahead || (migrated && rolled_back && changed)
}

fn is_baking(position: &Position) -> bool {
    matches!(position, Position::Waiting(wait) | Position::Recorded(Some(wait)) if wait.on == WaitOn::Bake)
}

fn progress(view: &View, status: &ReleaseStatus, position: &Position) -> Option<Progress> {
    Some(match position {
        Position::Waiting(wait) | Position::Recorded(Some(wait)) => waiting(status, wait),
        Position::Recorded(None) => waiting(status, &Wait::machine(Reason::Finishing, "Finishing.")),
        Position::Succeeded => {
            let message = sentences([
                format!("{} serves", view.name()),
                what_became_of_previous(view, status),
                warning(status).to_owned(),
            ]);
            Progress::succeeded(Reason::Succeeded, message)
        }
        Position::Ended(failure) => Progress::failed(failure.reason, ending(view, status, failure)),
        Position::Unchanged => return None,
    })
}

fn waiting(status: &ReleaseStatus, wait: &Wait) -> Progress {
    let state = match wait.on {
        WaitOn::Machine => State::Running,
        WaitOn::Clock | WaitOn::Bake => State::Waiting,
        WaitOn::User => State::Stalled,
    };
    let Some(rolling_back) = happened(status, MilestoneKind::RollingBack) else {
        return Progress::new(state, wait.reason, &wait.message);
    };
    let cause = sentence(rolling_back.message.as_deref().unwrap_or_default());
    let reason = match wait.on {
        WaitOn::Machine => Reason::RollingBack,
        WaitOn::Clock | WaitOn::Bake | WaitOn::User => wait.reason,
    };
    Progress::new(state, reason, format!("Rolling back: {cause} {}", wait.message))
}

/// What became of the previous version when the release has succeeded; a user may have ended the wait for its pods.
fn what_became_of_previous(view: &View, status: &ReleaseStatus) -> String {
    match (&status.previous, view.pod_of_another()) {
        (_, Some(pod)) => format!("Pod {} of an earlier release has not ended yet", pod.name_any()),
        (Some(previous), None) => format!("{previous} is retired"),
        (None, None) => String::new(),
    }
}

/// What a user should know of a migration that exited well and changed nothing.
fn warning(status: &ReleaseStatus) -> &'static str {
    let migration = status.evidence.migration.as_ref();
    if migration.is_some_and(|migration| migration.unchanged) {
        "The migration left the schema unchanged: make sure that it had nothing to do"
    } else {
        ""
    }
}

fn ending(view: &View, status: &ReleaseStatus, failure: &Failure) -> String {
    let what = sentences([&*failure.message, warning(status), &*who_serves(status)]);
    match status.outcome {
        Some(ReleaseOutcome::Superseded) => what,
        _ => format!(
            "{what} Fairway does not retry {} by itself. Edit the App, or run: {}",
            view.name(),
            kubectl::retry(view.namespace(), view.name())
        ),
    }
}

/// Who serves after a release that did not succeed, where its failure does not say so.
fn who_serves(status: &ReleaseStatus) -> String {
    let moved = happened(status, MilestoneKind::TrafficMoved).is_some();
    if moved && happened(status, MilestoneKind::TrafficReturned).is_none() {
        return String::new();
    }
    match (&status.previous, status.outcome) {
        (Some(previous), Some(ReleaseOutcome::RolledBack)) => format!("{previous} serves again"),
        (Some(previous), Some(ReleaseOutcome::Failed | ReleaseOutcome::Aborted)) => {
            format!("{previous} keeps serving")
        }
        (None, Some(ReleaseOutcome::Failed | ReleaseOutcome::Aborted)) => "No release serves".to_owned(),
        _ => String::new(),
    }
}
