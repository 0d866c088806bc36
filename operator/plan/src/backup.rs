//! The planner of a Backup.

use crate::observed::{BackupObserved, Settings};
use crate::{Decision, Wake};
use fairway_crds::backup::BackupStatus;
use jiff::Timestamp;

/// Decides the next pass of a Backup.
pub fn plan(observed: &BackupObserved, _: &Settings, _: Timestamp) -> Decision<BackupStatus> {
    Decision { steps: Vec::new(), status: observed.backup.status.clone().unwrap_or_default(), wake: Wake::OnChange }
}
