//! The Jobs of a Backup: of those that take it, and of those that remove it.

use crate::observed::BackupObserved;
use crate::tasks::Identity;
use crate::{Step, attempt};

/// What tells the Jobs and pods of this Backup from those of an earlier one with its name.
pub(super) fn identity(observed: &BackupObserved) -> Identity<'_> {
    Identity::OwnerUid(observed.backup.metadata.uid.as_deref().unwrap_or_default())
}

/// Removal of the Jobs of attempts that are over.
pub(super) fn leftovers(observed: &BackupObserved, keep: Option<&str>) -> Vec<Step> {
    attempt::leftovers(identity(observed), &observed.jobs, keep)
}
