//! What a Migration that has been created means for its Release.

use super::verdict::{Failure, Verdict, Wait};
use crate::conditions::succeeded_message;
use fairway_crds::migration::MigrationOutcome;
use fairway_crds::release::{MigrationEvidence, MilestoneKind, ReleaseStatus};
use fairway_crds::{Migration, Reason};

/// Follows a migration that has been created to its end. What it came to is recorded.
pub(super) fn outcome(migration: &Migration, status: &mut ReleaseStatus) -> Verdict {
    let found = migration.status.clone().unwrap_or_default();
    let message = succeeded_message(&found.conditions).map(str::to_owned);
    match found.outcome {
        None => {
            let message = message.unwrap_or_else(|| "The migration is about to start.".to_owned());
            Verdict::Wait(Wait::machine(Reason::Migrating, message))
        }
        Some(outcome @ (MigrationOutcome::Applied | MigrationOutcome::AlreadyApplied)) => {
            let fingerprints = found.fingerprints.unwrap_or_default();
            status.evidence.migration = Some(MigrationEvidence {
                run_id: found.run_id.unwrap_or_default(),
                outcome,
                seconds: found.seconds,
                unchanged: outcome == MigrationOutcome::Applied
                    && fingerprints.before.is_some()
                    && fingerprints.before == fingerprints.after,
                schema_ahead: found.schema_ahead.unwrap_or_default(),
            });
            Verdict::Commit(MilestoneKind::Migrated)
        }
        Some(MigrationOutcome::Partial | MigrationOutcome::Unknown) if found.settling => {
            // A user has said how it ended, and the ledger is updated.
            let message = message
                .unwrap_or_else(|| "A Job records in the ledger how the migration was resolved.".to_owned());
            Verdict::Wait(Wait::machine(Reason::Migrating, message))
        }
        Some(MigrationOutcome::Partial | MigrationOutcome::Unknown) => Verdict::Wait(Wait::user(
            Reason::MigrationUnresolved,
            message.unwrap_or_else(|| "The outcome of the migration is not resolved.".to_owned()),
        )),
        Some(MigrationOutcome::Failed | MigrationOutcome::NotStarted) => {
            let message = message.unwrap_or_else(|| "The migration failed.".to_owned());
            Failure::new(Reason::MigrationFailed, message).verdict()
        }
    }
}
