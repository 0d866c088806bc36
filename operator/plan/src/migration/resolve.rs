//! An outcome that nobody but a person can decide.

use super::settle;
use super::world::World;
use crate::conditions::{Progress, shorten};
use crate::protocol::Resolution;
use crate::retry::{self, sentence};
use crate::stand::Stand;
use fairway_crds::Migration;
use fairway_crds::Reason;
use fairway_crds::migration::{MigrationOutcome, MigrationStatus};
use kube::ResourceExt;

const APPLIED: &str = "applied";
const NOT_APPLIED: &str = "not-applied";

/// The resolve annotation's value for a verdict: `applied:<token>` or `not-applied:<token>`.
pub fn verdict_text(resolution: Resolution, token: &str) -> String {
    match resolution {
        Resolution::Applied => format!("{APPLIED}:{token}"),
        Resolution::NotApplied => format!("{NOT_APPLIED}:{token}"),
    }
}

/// The verdict and the token of an annotation's value.
pub(super) fn parse(value: &str) -> Option<(Resolution, String)> {
    let (verdict, token) = value.split_once(':')?;
    let resolution = match verdict {
        APPLIED => Resolution::Applied,
        NOT_APPLIED => Resolution::NotApplied,
        _ => return None,
    };
    (!token.is_empty()).then(|| (resolution, token.to_owned()))
}

/// The annotation's value, if it has not been answered.
pub(super) fn pending<'a>(world: &World<'a>, status: &MigrationStatus) -> Option<&'a String> {
    world
        .resolve_annotation()
        .filter(|value| Some(*value) != status.last_handled_resolve.as_ref())
}

/// There is nothing to resolve: whoever asks is answered that it was heard.
pub(super) fn answer_in_vain(world: &World, status: &mut MigrationStatus) {
    if let Some(value) = pending(world, status) {
        status.last_handled_resolve = Some(value.clone());
    }
}

/// Asks a person, and takes the answer up.
pub(super) fn ask(world: &World, status: &mut MigrationStatus) -> Stand {
    let leftovers = world.leftovers(status, &[]);
    let question = question(world, status);
    let stand = match pending(world, status) {
        None => Stand::at(Progress::waiting(Reason::MigrationUnresolved, question)),
        Some(value) if parse(value).is_some() => {
            status.attempts = Some(retry::first(world.now));
            settle::begin(
                status,
                Reason::MigrationUnresolved,
                &format!("a person says {}", shorten(value)),
            )
        }
        Some(value) => {
            let message = format!(
                "fairway.dev/resolve={:?} is not understood: write applied:<token> or not-applied:<token>. {question}",
                shorten(value)
            );
            Stand::at(Progress::waiting(Reason::MigrationUnresolved, message))
        }
    };
    stand.with(leftovers)
}

/// What was found, and the command that says what to make of it.
pub(super) fn question(world: &World, status: &MigrationStatus) -> String {
    format!("{} {}", found(status), how_to_resolve(&world.observed.migration))
}

/// What a person does about an outcome that nobody else can decide.
pub fn how_to_resolve(migration: &Migration) -> String {
    let object = match &migration.spec.release {
        Some(release) => format!("release {release}"),
        None => format!("migration {}", migration.name_any()),
    };
    let namespace = migration.namespace().unwrap_or_default();
    let command = |verdict: &str| {
        format!(
            "kubectl annotate {object} fairway.dev/resolve={verdict}:$(date +%s) -n {namespace} --overwrite"
        )
    };
    format!(
        "Look at the database; if the migration's work is there: {} ; if it is not, or was undone: {}",
        command(APPLIED),
        command(NOT_APPLIED),
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
    let line = status
        .last_error
        .as_ref()
        .map(|line| format!(": {line}"))
        .unwrap_or_default();
    match status.outcome {
        Some(MigrationOutcome::Partial) => {
            format!(
                "The migration failed{exit}{state} and the schema is not what it was before{}",
                sentence(&line)
            )
        }
        _ => format!(
            "What the migration did cannot be decided: it was cut off{exit}{state} and the schema is not what it was before, \
             or could not be read{}",
            sentence(&line)
        ),
    }
}
