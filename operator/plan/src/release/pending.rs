//! A Release that its App has not accepted: it has no snapshot, which the App creates when it accepts a Release. And one
//! whose App is gone.

use super::history;
use super::position::Position;
use super::verbs;
use super::verdict::{Failure, Wait};
use super::view::View;
use crate::kubectl::{self, Resource};
use crate::{missing, names};
use fairway_crds::App;
use fairway_crds::Reason;
use fairway_crds::release::{ReleaseOutcome, ReleaseStatus};
use jiff::SignedDuration;

/// Time in which an App creates the snapshot of a Release; only a wait that lasts longer is shown.
const ACCEPTED_WITHIN: SignedDuration = SignedDuration::from_secs(5);

/// Where the Release stands: it waits for the App, which accepts only newer Releases than those that it has.
pub(super) fn position(view: &View, status: &mut ReleaseStatus) -> Position {
    let failure = match &view.observed.app {
        Some(app) => refused_by(view, app).or_else(|| verbs::request_to_undo(view, status)),
        None => verbs::request_to_undo(view, status),
    };
    if let Some(failure) = failure {
        status.outcome = Some(failure.outcome);
        return Position::Ended(failure);
    }
    if view.observed.app.is_none() {
        return Position::Waiting(for_the_app(view));
    }
    let wait = Wait::machine(
        Reason::WaitingForApp,
        format!("Waiting for App {} to accept this Release.", view.app_name()),
    );
    let created = view.release().metadata.creation_timestamp.as_ref();
    let shown_from = created.and_then(|created| created.0.checked_add(ACCEPTED_WITHIN).ok());
    Position::Waiting(match shown_from {
        Some(shown_from) if view.now < shown_from => wait.brief().until(shown_from),
        _ => wait,
    })
}

/// Where a Release stands whose App is gone or being deleted: nothing is done for it until the App is there again.
pub(super) fn without_app(view: &View, status: &ReleaseStatus) -> Position {
    if status.outcome.is_some() {
        return Position::Unchanged;
    }
    Position::Waiting(for_the_app(view))
}

/// The wait for the App, which may have been applied together with the Release. A user applies it otherwise.
fn for_the_app(view: &View) -> Wait {
    let app = view.app_name();
    let message =
        format!("App {app} does not exist or is being deleted, so nothing is done for this Release.");
    match missing::awaited_until(&view.release().metadata, view.now) {
        Some(until) => Wait::machine(Reason::WaitingForApp, format!("{message} Apply the App.")).until(until),
        None => Wait::user(
            Reason::WaitingForApp,
            format!(
                "{message} Apply the App, or delete this Release: {}",
                kubectl::delete(view.namespace(), Resource::Release(view.name()))
            ),
        ),
    }
}

/// Why the App never accepts this Release: its revision has passed, or leaves a gap.
fn refused_by(view: &View, app: &App) -> Option<Failure> {
    let revision = view.release().spec.revision;
    let status = app.status.as_ref()?;
    let recorded = status.revision.unwrap_or_default();
    let mut all: Vec<_> = view.observed.siblings.clone();
    all.push(view.observed.release.clone());
    all.sort_by_key(|release| release.spec.revision);
    let free = history::free_revision(recorded, &all);
    let name = view.app_name();
    let use_instead = format!(
        "apply it as {} with spec.revision {free}.",
        names::release(name, free)
    );
    if recorded > revision {
        return Some(Failure {
            outcome: ReleaseOutcome::Superseded,
            ..Failure::new(
                Reason::Superseded,
                format!(
                    "App {name} is already at revision {recorded} and accepts only newer Releases. To release this one, {use_instead}"
                ),
            )
        });
    }
    let follows = recorded == revision
        || history::following(recorded, &all).any(|release| release.spec.revision == revision);
    (!follows).then(|| {
        Failure::new(
            Reason::RevisionNotNext,
            format!("App {name} is at revision {recorded} and accepts only the next one. To release this one, {use_instead}"),
        )
    })
}
