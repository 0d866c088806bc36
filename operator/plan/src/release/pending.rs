//! A Release that its App has not taken up: it has no snapshot, which the App creates when it takes a Release up.

use super::position::Position;
use super::verbs;
use super::verdict::{Failure, Wait};
use super::view::View;
use fairway_crds::Reason;
use fairway_crds::release::{ReleaseOutcome, ReleaseStatus};

/// Where the Release stands: it waits for the App, which takes up only what is newer than what it has.
pub(super) fn position(view: &View, status: &mut ReleaseStatus) -> Position {
    if status.outcome.is_some() {
        return Position::Unchanged;
    }
    let app = view.app_name();
    let revision = view
        .observed
        .app
        .as_ref()
        .and_then(|app| app.status.as_ref()?.revision);
    let failure = match revision {
        _ if !status.milestones.is_empty() => None,
        Some(revision) if revision > view.release().spec.revision => Some(Failure {
            outcome: ReleaseOutcome::Superseded,
            ..Failure::new(
                Reason::Superseded,
                format!(
                    "App {app} is already at revision {revision} and accepts only newer Releases. To release this one, \
                     apply it as {} with spec.revision {}.",
                    crate::names::release(app, revision + 1),
                    revision + 1
                ),
            )
        }),
        _ => verbs::request_to_undo(view, status),
    };
    if let Some(failure) = failure {
        status.outcome = Some(failure.outcome);
        return Position::Ended(failure);
    }
    Position::Waiting(Wait::machine(
        Reason::WaitingForApp,
        format!("Waiting for App {app} to accept this Release."),
    ))
}
