//! An outcome that only a user can decide.

use super::settling;
use super::view::{View, resolved_by};
use crate::Wake;
use crate::attempt::Planned;
use crate::conditions::Progress;
use crate::kubectl::{self, Resource};
use crate::message::{self, one_line, quote, quoting};
use crate::protocol::Resolution;
use crate::requester;
use crate::resolution;
use fairway_crds::Migration;
use fairway_crds::Reason;
use fairway_crds::migration::{LedgerRow, MigrationOutcome, MigrationStatus};
use kube::ResourceExt;

/// The annotation's value, if it has not been answered.
pub(super) fn pending<'a>(view: &View<'a>, status: &MigrationStatus) -> Option<&'a str> {
    requester::pending(view.resolve_annotation(), status.last_handled_resolve.as_ref())
}

/// Acknowledges a verdict of a migration that has nothing to resolve.
pub(super) fn acknowledge(view: &View, status: &mut MigrationStatus) {
    requester::take(view.resolve_annotation(), &mut status.last_handled_resolve);
}

/// Asks a user how the migration ended, and acts on the answer.
pub(super) fn ask(view: &View, status: &mut MigrationStatus) -> Planned {
    let (leftovers, wake) = view.leftovers_of_failure(status);
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
    let planned = planned.with(leftovers);
    match wake {
        Wake::At(at) => planned.until(at),
        Wake::OnChange => planned,
    }
}

/// What was found, and the commands that say what to make of it.
pub(super) fn question(view: &View, status: &MigrationStatus) -> String {
    format!("{} {}", found(status), how_to_resolve(&view.observed.migration))
}

/// What a user does about an outcome that nobody else can decide: whole sentences.
pub fn how_to_resolve(migration: &Migration) -> String {
    let name = migration.name_any();
    let object = resolved_by(migration).map_or(Resource::Migration(&name), Resource::Release);
    let namespace = migration.metadata.namespace.as_deref().unwrap_or_default();
    format!(
        "Look at the database. If all of the migration is there, run: {} If none of it is there: {}",
        kubectl::resolve(namespace, object, Resolution::Applied),
        kubectl::resolve(namespace, object, Resolution::NotApplied),
    )
}

fn found(status: &MigrationStatus) -> String {
    if status.ledger_row == Some(LedgerRow::Missing) {
        return "The migration began, and its row is missing from the ledger (fairway.migration_run), for example because \
                the database failed over or was restored. So its outcome is unknown, and it is not run again."
            .to_owned();
    }
    if let Some(finding) = &status.finding {
        return match &status.last_error {
            Some(line) => message::sentences([finding.as_str(), &quoting("Its last error", Some(line))]),
            None => finding.clone(),
        };
    }
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
