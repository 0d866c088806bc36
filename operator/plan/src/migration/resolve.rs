//! An outcome that only a user can decide.

use super::settling;
use super::view::View;
use crate::attempt::Planned;
use crate::conditions::Progress;
use crate::kubectl::{self, Resource};
use crate::message::{self, one_line, quote};
use crate::protocol::Resolution;
use crate::resolution;
use fairway_crds::Migration;
use fairway_crds::Reason;
use fairway_crds::migration::{MigrationOutcome, MigrationStatus};
use kube::ResourceExt;

/// The annotation's value, if it has not been answered.
pub(super) fn pending<'a>(view: &View<'a>, status: &MigrationStatus) -> Option<&'a String> {
    view.resolve_annotation()
        .filter(|value| Some(*value) != status.last_handled_resolve.as_ref())
}

/// Acknowledges a verdict of a migration that has nothing to resolve.
pub(super) fn acknowledge(view: &View, status: &mut MigrationStatus) {
    if let Some(value) = pending(view, status) {
        status.last_handled_resolve = Some(value.clone());
    }
}

/// Asks a user how the migration ended, and acts on the answer.
pub(super) fn ask(view: &View, status: &mut MigrationStatus) -> Planned {
    let leftovers = view.leftovers(status, &[]);
    let question = question(view, status);
    let planned = match pending(view, status) {
        None => Planned::new(Progress::stalled(Reason::MigrationUnresolved, question)),
        Some(value) if resolution::parse(value).is_some() => {
            status.attempts = Some(view.start_schedule().first());
            let message = format!("The annotation fairway.dev/resolve says {}.", one_line(value));
            settling::begin(status, Reason::MigrationUnresolved, &message)
        }
        Some(value) => {
            let message = format!(
                "The value {} of the annotation fairway.dev/resolve is neither applied:<token> nor not-applied:<token>. {question}",
                quote(value)
            );
            Planned::new(Progress::stalled(Reason::MigrationUnresolved, message))
        }
    };
    planned.with(leftovers)
}

/// What was found, and the commands that say what to make of it.
pub(super) fn question(view: &View, status: &MigrationStatus) -> String {
    format!("{} {}", found(status), how_to_resolve(&view.observed.migration))
}

/// What a user does about an outcome that nobody else can decide: whole sentences.
pub fn how_to_resolve(migration: &Migration) -> String {
    let name = migration.name_any();
    let object = match &migration.spec.release {
        Some(release) => Resource::Release(release),
        None => Resource::Migration(&name),
    };
    let namespace = migration.metadata.namespace.as_deref().unwrap_or_default();
    format!(
        "Look at the database. If all of the migration is there, run: {} If none of it is there: {}",
        kubectl::resolve(namespace, object, Resolution::Applied),
        kubectl::resolve(namespace, object, Resolution::NotApplied),
    )
}

fn found(status: &MigrationStatus) -> String {
    let exit = status
        .exit_code
        .map(|code| format!(" with exit code {code}"))
        .unwrap_or_default();
    let state = status
        .sqlstate
        .as_ref()
        .map(|state| format!(" (SQLSTATE {state})"))
        .unwrap_or_default();
    let statement = match status.outcome {
        Some(MigrationOutcome::Partial) => {
            format!("The migration failed{exit}{state} and left the schema changed")
        }
        _ => format!(
            "The outcome of the migration is unknown: it was interrupted{exit}{state}, and the schema has changed or \
             could not be read"
        ),
    };
    message::quoting(&statement, status.last_error.as_deref())
}
