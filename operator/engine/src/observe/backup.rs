//! What the Backup's planner gets to see.

use super::{Observe, Scope};
use crate::caches::Group;
use crate::key::NamespacedName;
use crate::kinds::Backup;
use fairway_crds::backup::BackupOutcome;
use fairway_plan::backup::{ended_at, is_by_hand};
use fairway_plan::object::Kind;
use fairway_plan::observed::BackupObserved;
use fairway_plan::tasks;
use jiff::Timestamp;

impl Observe for Backup {
    fn observe(scope: &mut Scope<'_>, key: &NamespacedName) -> Option<BackupObserved> {
        let group = scope.group;
        let known = scope.answers.known(scope.app, scope.now);
        let backup = group.backups.get(&key.name)?;
        let release = backup.spec.release.as_deref();
        Some(BackupObserved {
            app: scope.app(),
            release: release.and_then(|release| group.releases.get(release)),
            snapshot: scope.snapshot_for(release),
            jobs: group
                .jobs
                .all()
                .filter(|job| tasks::is_for_object(&job.metadata, Kind::Backup, &key.name))
                .collect(),
            pods: group
                .pods
                .all()
                .filter(|pod| tasks::is_for_object(&pod.metadata, Kind::Backup, &key.name))
                .collect(),
            others: group
                .backups
                .all()
                .filter(|other| {
                    let ended = other
                        .status
                        .as_ref()
                        .is_some_and(|status| status.outcome.is_some());
                    let goes = other.metadata.deletion_timestamp.is_some();
                    !ended
                        && !goes
                        && may_run(group, other)
                        && other.metadata.name.as_deref() != Some(&key.name)
                })
                .collect(),
            last_by_hand: last_by_hand(group, &key.name),
            last_proven: last_proven(group, &key.name),
            refused: known.refused,
            dry_run_passed: known.dry_run_passed,
            backup,
        })
    }
}

/// The Backup that was applied by hand and ended last, other than that one.
fn last_by_hand(group: &Group, except: &str) -> Option<(String, Timestamp)> {
    let ended = group.backups.all().filter_map(|backup| {
        let release = backup.spec.release.as_deref();
        let release = release.and_then(|release| group.releases.get(release));
        let at = ended_at(&backup).filter(|_| is_by_hand(&backup, release.as_deref()))?;
        Some((backup.metadata.name.clone()?, at))
    });
    ended
        .filter(|(name, _)| name != except)
        .max_by_key(|(_, ended)| *ended)
}

/// The Backup that was proven last, other than that one, and its size.
fn last_proven(group: &Group, except: &str) -> Option<(String, i64)> {
    let proven = group.backups.all().filter_map(|backup| {
        let status = backup.status.as_ref()?;
        let bytes = status
            .bytes
            .filter(|_| status.outcome == Some(BackupOutcome::Succeeded))?;
        Some((ended_at(&backup)?, backup.metadata.name.clone()?, bytes))
    });
    proven
        .filter(|(_, name, _)| name != except)
        .max_by_key(|(ended, _, _)| *ended)
        .map(|(_, name, bytes)| (name, bytes))
}

/// Whether a Backup has begun, or could: one of a Release that does not exist yet holds up no other.
fn may_run(group: &Group, backup: &Backup) -> bool {
    let has_begun = backup
        .status
        .as_ref()
        .is_some_and(|status| status.attempts.is_some());
    let release = backup.spec.release.as_deref();
    has_begun || release.is_none_or(|release| group.revisions.get(release).is_some())
}
