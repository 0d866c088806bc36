//! Writes that the API server refuses.

use super::position::Position;
use super::verdict::{Wait, WaitOn};
use super::view::View;
use crate::Step;
use crate::message::quoting;
use crate::traffic::explains_refusal_of;
use fairway_crds::Reason;

/// Leaves out what the API server refuses until that answer is forgotten; a release that waits says so. One that has
/// just succeeded leaves to the next what it would have removed.
pub(super) fn without_refused(view: &View, steps: Vec<Step>, position: Position) -> (Vec<Step>, Position) {
    if !matches!(position, Position::Waiting(_) | Position::Succeeded) {
        return (steps, position);
    }
    let (refused, steps): (Vec<_>, Vec<_>) = steps
        .into_iter()
        .partition(|step| !explains_refusal_of(step) && view.answers().refusal(step).is_some());
    let message = refused.first().and_then(|step| message(view, step));
    let position = match (position, message) {
        // What a user has to see to already comes first.
        (Position::Waiting(wait), Some(message)) if wait.on != WaitOn::User => {
            // A moment that has come is answered already: by the write that is refused.
            let until = wait.until.filter(|until| *until > view.now);
            Position::Waiting(Wait::user(Reason::WriteRefused, message).until(until))
        }
        (position, _) => position,
    };
    (steps, position)
}

fn message(view: &View, step: &Step) -> Option<String> {
    let be = match step {
        Step::Delete(_) => "deleted",
        Step::Scale(..) | Step::TakeOver(..) => "scaled",
        Step::Create(_) => "created",
        Step::Apply(_) | Step::Replace(..) | Step::DryRun(_) => "applied",
    };
    let refusal = view.answers().refusal(step)?;
    let object = step.object_name();
    let what = quoting(&format!("{object} cannot be {be}"), Some(&refusal.message));
    Some(format!("{what} Fairway retries automatically."))
}
