//! What a release's status says of where it stands.

use super::advice::Advice;
use super::history::{happened, live};
use super::position::Position;
use super::refusals::without_refused;
use super::unserved;
use super::verdict::{Failure, Shown, Wait, WaitOn};
use super::view::View;
use crate::conditions::{self, Desired, Progress, State};
use crate::message::{quoting, sentence, sentences};
use crate::{Decision, Step, Wake};
use fairway_crds::Reason;
use fairway_crds::condition::{BAKING, SCHEMA_AHEAD, WARNED};
use fairway_crds::migration::MigrationOutcome;
use fairway_crds::release::{MilestoneKind, ReleaseOutcome, ReleaseStatus};
use kube::ResourceExt;

/// What a Release that has succeeded says of the previous one, behind its name.
pub const IS_RETIRED: &str = " is retired";

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
            return Decision {
                steps,
                status,
                wake,
                rung: None,
            };
        }
    }
    write(view, &mut status, &position);
    let rung = match &position {
        Position::Waiting(wait) | Position::Recorded(Some(wait)) => wait.rung,
        Position::Recorded(None) | Position::Succeeded | Position::Ended(_) | Position::Unchanged => None,
    };
    Decision {
        steps,
        status,
        wake,
        rung,
    }
}

/// Writes the conditions.
fn write(view: &View, status: &mut ReleaseStatus, position: &Position) {
    let generation = view.release().metadata.generation;
    let schema_ahead = schema_ahead(view, status);
    let Some(progress) = progress(view, status, position) else {
        // One that is deleted before anything was said of it has no conditions, which a generation would vouch for.
        if !status.conditions.is_empty() {
            status.observed_generation = generation;
        }
        return;
    };
    status.observed_generation = generation;
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
    if !status.evidence.warnings.is_empty() {
        desired.push(Desired::new(
            WARNED,
            conditions::Status::True,
            Reason::ApiServerWarned,
            warned(status),
        ));
    }
    status.conditions = conditions::set(&status.conditions, desired, generation, view.now);
}

/// What the API server warned of.
fn warned(status: &ReleaseStatus) -> String {
    let what = "The API server would accept the pods of this release, but warned of them in a dry run";
    let warnings = status.evidence.warnings.iter().map(|warning| {
        let component = format!("Component {}", warning.component);
        quoting(&component, Some(&warning.message))
    });
    sentences(std::iter::once(what.to_owned()).chain(warnings))
}

/// Whether the schema is newer than what runs on it: this release migrated and another version takes its place again, or
/// it is older than the schema that it found.
fn schema_ahead(view: &View, status: &ReleaseStatus) -> bool {
    let has_failed = matches!(
        status.outcome,
        Some(ReleaseOutcome::Failed | ReleaseOutcome::Aborted | ReleaseOutcome::RolledBack)
    );
    let stays = has_failed && keeps_traffic(status);
    let migrated = happened(status, MilestoneKind::Migrated).is_some();
    let rolled_back = happened(status, MilestoneKind::RollingBack).is_some() || has_failed;
    let is_followed = status.previous.is_some() || live(&view.observed.siblings).is_some();
    let found_ahead = status
        .evidence
        .migration
        .as_ref()
        .is_some_and(|migration| migration.schema_ahead);
    let changed = status.evidence.migration.as_ref().is_some_and(|migration| {
        !migration.unchanged && migration.outcome == fairway_crds::migration::MigrationOutcome::Applied
    });
    let runs = stays || !has_failed;
    found_ahead && runs || migrated && rolled_back && changed && is_followed && !stays
}

/// Whether the traffic of a release has moved to it and not returned.
fn keeps_traffic(status: &ReleaseStatus) -> bool {
    happened(status, MilestoneKind::TrafficMoved).is_some()
        && happened(status, MilestoneKind::TrafficReturned).is_none()
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
                unserved::kept(&unserved::by_this_release(view)),
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
        (Some(previous), None) => format!("{previous}{IS_RETIRED}"),
        (None, None) => String::new(),
    }
}

/// What a user should know of a migration that exited well and changed nothing, or that was not run.
fn warning(status: &ReleaseStatus) -> &'static str {
    match &status.evidence.migration {
        Some(migration) if migration.unchanged => {
            "The migration left the schema unchanged: if it should have changed it, check its log"
        }
        Some(migration) if migration.outcome == MigrationOutcome::AlreadyApplied => {
            "The migration was not run: the ledger has its image, command and inputs from before"
        }
        _ => "",
    }
}

fn ending(view: &View, status: &ReleaseStatus, failure: &Failure) -> String {
    let left = match happened(status, MilestoneKind::RollingBack) {
        Some(_) => unserved::kept(&unserved::by_previous(view, status)),
        None => String::new(),
    };
    let what = sentences([
        &*failure.message,
        warning(status),
        &*who_serves(view, status),
        &left,
    ]);
    match advice(view, status, failure) {
        Some(advice) => format!("{what} {advice}"),
        None => what,
    }
}

/// What a user can do; nothing about a release that another one took the place of, or whose failure says it.
fn advice<'a>(view: &View<'a>, status: &ReleaseStatus, failure: &Failure) -> Option<Advice<'a>> {
    match (status.outcome, failure.reason) {
        (Some(ReleaseOutcome::Superseded), _) | (_, Reason::RevisionNotNext) => None,
        _ if view.observed.app.is_none() => Some(Advice::ApplyApp { app: view.app_name() }),
        _ => Some(Advice::EditOrRetry {
            namespace: view.namespace(),
            release: view.name(),
        }),
    }
}

/// Who serves after a release that did not succeed, where its failure does not say so.
fn who_serves(view: &View, status: &ReleaseStatus) -> String {
    if keeps_traffic(status) || status.taken_over_by.is_some() {
        return String::new();
    }
    // One that was never accepted did not record it.
    let serving = || live(&view.observed.siblings).map(|live| live.name_any());
    let was_interrupted = happened(status, MilestoneKind::HandingOver).is_some();
    match (status.previous.clone().or_else(serving), status.outcome) {
        (Some(previous), Some(ReleaseOutcome::RolledBack)) => format!("{previous} serves again"),
        (Some(previous), Some(ReleaseOutcome::Failed | ReleaseOutcome::Aborted)) if was_interrupted => {
            format!("{previous} runs again")
        }
        (Some(previous), Some(ReleaseOutcome::Failed | ReleaseOutcome::Aborted)) => {
            format!("{previous} keeps serving")
        }
        (None, Some(ReleaseOutcome::Failed | ReleaseOutcome::Aborted)) => "No release serves".to_owned(),
        _ => String::new(),
    }
}
