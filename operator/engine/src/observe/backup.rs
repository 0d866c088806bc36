//! What the Backup's planner gets to see.

use super::{Observe, Scope};
use crate::caches::Group;
use crate::key::NamespacedName;
use crate::kinds::Backup;
use fairway_plan::backup::{is_about_to_migrate, is_by_hand, may_migrate};
use fairway_plan::object::Kind;
use fairway_plan::observed::BackupObserved;
use fairway_plan::proof::ended_at;
use fairway_plan::retention::Candidate;
use fairway_plan::tasks;
use jiff::Timestamp;
use std::sync::Arc;

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
                    let goes = other.metadata.deletion_timestamp.is_some();
                    !has_ended(other)
                        && !goes
                        && may_run(group, other)
                        && other.metadata.name.as_deref() != Some(&key.name)
                })
                .collect(),
            last_by_hand: last_by_hand(group, &key.name),
            migration: migration(scope),
            candidates: candidates(scope, &backup),
            removals: removals(group, &backup),
            refused: known.refused,
            dry_run_passed: known.dry_run_passed,
            backup,
        })
    }
}

/// The Backup that was applied by hand and ended last, other than that one.
fn last_by_hand(group: &Group, except: &str) -> Option<(String, Timestamp)> {
    let app = group.app();
    let ended = group.backups.all().filter_map(|backup| {
        let release = backup.spec.release.as_deref();
        let release = release.and_then(|release| group.releases.get(release));
        let at = ended_at(&backup).filter(|_| is_by_hand(&backup, release.as_deref(), app.as_deref()))?;
        Some((backup.metadata.name.clone()?, at))
    });
    ended
        .filter(|(name, _)| name != except)
        .max_by_key(|(_, ended)| *ended)
}

fn has_ended(backup: &Backup) -> bool {
    let status = backup.status.as_ref();
    status.is_some_and(|status| status.outcome.is_some())
}

/// The other Backups that retention removes, if this one has ended.
fn removals(group: &Group, backup: &Backup) -> Vec<Arc<Backup>> {
    if !has_ended(backup) {
        return Vec::new();
    }
    let is_removed = |other: &Arc<Backup>| {
        let status = other.status.as_ref();
        other.metadata.name != backup.metadata.name && status.is_some_and(|status| status.removal.is_some())
    };
    group.backups.all().filter(is_removed).collect()
}

/// All Backups of the App as retention sees them, if its spec says which are kept and this one has ended.
fn candidates(scope: &Scope<'_>, backup: &Backup) -> Vec<Candidate> {
    let group = scope.group;
    let app = scope.app().filter(|app| {
        let settings = app.spec.backup.as_ref();
        has_ended(backup) && settings.is_some_and(|settings| settings.keep.is_some())
    });
    let Some(app) = app else {
        return Vec::new();
    };
    let releases = scope.releases(None);
    let restores: Vec<_> = group.restores.all().collect();
    let live = app.status.as_ref().and_then(|status| status.live.as_ref());
    let live = live.map(|live| live.release.as_str());
    let all = group.backups.all();
    all.filter(|backup| backup.metadata.deletion_timestamp.is_none())
        .map(|backup| Candidate::of(&backup, &releases, live).or_restores(&restores))
        .collect()
}

/// The Migration of the App that is about to run, or runs. That of a Release has its name.
fn migration(scope: &Scope<'_>) -> Option<String> {
    let group = scope.group;
    let suspended = scope.app().is_some_and(|app| app.spec.suspend);
    let mut open = group.migrations.all().filter(|migration| may_migrate(migration));
    let open = open.find_map(|migration| migration.metadata.name.clone());
    open.or_else(|| {
        let mut releases = group.releases.all().filter(|release| {
            let name = release.metadata.name.as_deref().unwrap_or_default();
            let has_migrated = group.migrations.version(name).is_some();
            let kept = group.revisions.get(name);
            !has_migrated && kept.is_some_and(|kept| is_about_to_migrate(release, &kept.snapshot, suspended))
        });
        releases.find_map(|release| release.metadata.name.clone())
    })
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
