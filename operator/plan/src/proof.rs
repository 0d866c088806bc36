//! What a Backup has proven, and when.

use crate::conditions::succeeded_since;
use fairway_crds::Backup;
use fairway_crds::backup::BackupOutcome;
use jiff::Timestamp;

/// Whether a Backup is proven to the level that counts, and not being removed.
pub fn is_verified(backup: &Backup) -> bool {
    let status = backup.status.as_ref();
    status.is_some_and(|status| status.outcome == Some(BackupOutcome::Succeeded) && status.removal.is_none())
}

/// When a Backup failed that is not being removed.
pub fn failed_at(backup: &Backup) -> Option<Timestamp> {
    let status = backup.status.as_ref()?;
    let has_failed = status.outcome == Some(BackupOutcome::Failed) && status.removal.is_none();
    has_failed.then(|| succeeded_since(&status.conditions)).flatten()
}

/// When the dump of a verified Backup began: by the clock of the database server, but not after its end by the operator's, and
/// not before the Backup was created by that of the API server. One that is behind would make the newest backup the oldest.
pub fn taken_at(backup: &Backup) -> Option<Timestamp> {
    let status = backup.status.as_ref()?;
    let ended = ended_at(backup)?;
    let taken: Option<Timestamp> = status.taken_at.as_ref().and_then(|at| at.parse().ok());
    let created = backup.metadata.creation_timestamp.as_ref();
    let earliest = created.map_or(Timestamp::MIN, |created| created.0).min(ended);
    Some(taken.map_or(ended, |taken| taken.clamp(earliest, ended)))
}

/// When a Backup that has run ended.
pub fn ended_at(backup: &Backup) -> Option<Timestamp> {
    let status = backup.status.as_ref()?;
    let has_run = status.outcome.is_some() && status.attempts.is_some();
    has_run.then(|| succeeded_since(&status.conditions)).flatten()
}
