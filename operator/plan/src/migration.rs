//! The planner of a Migration.

use crate::names;
use crate::observed::{MigrationObserved, Settings};
use crate::{Decision, Wake};
use fairway_crds::migration::MigrationStatus;
use fairway_crds::{Migration, Release};
use jiff::Timestamp;

/// Key of the ledger's row.
pub fn run_id(migration: &Migration, release: Option<&Release>) -> String {
    let _ = release;
    names::short_hash(&migration.spec.image)
}

/// Decides the next pass of a Migration.
pub fn plan(observed: &MigrationObserved, _: &Settings, _: Timestamp) -> Decision<MigrationStatus> {
    Decision { steps: Vec::new(), status: observed.migration.status.clone().unwrap_or_default(), wake: Wake::OnChange }
}
