//! Writes that the apiserver refuses.

use super::position::Position;
use super::verdict::{Wait, WaitOn};
use super::view::View;
use crate::{Step, object::Kind};
use fairway_crds::Reason;

/// Leaves out what the apiserver refuses until that answer is forgotten; a release that waits says so. One that has
/// just succeeded leaves to the next what it would have removed.
pub(super) fn without_refused(view: &View, steps: Vec<Step>, position: Position) -> (Vec<Step>, Position) {
    if !matches!(position, Position::Waiting(_) | Position::Succeeded) {
        return (steps, position);
    }
    // Its rung tells of a Service, and insists where it must.
    let is_service = |step: &Step| matches!(step, Step::Apply(object) | Step::DryRun(object) if object.kind() == Kind::Service);
    let (refused, steps): (Vec<_>, Vec<_>) = steps
        .into_iter()
        .partition(|step| !is_service(step) && view.refused(step).is_some());
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
        Step::Scale(..) => "scaled",
        _ => "made",
    };
    let why = view.refused(step)?.message.trim_end_matches('.');
    let object = step.id().replace('/', " ");
    Some(format!(
        "{object} cannot be {be}: {why}; it is tried again by itself"
    ))
}
