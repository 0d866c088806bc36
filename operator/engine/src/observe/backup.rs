//! What the Backup's planner gets to see.

use super::{Observe, Sight, works_for};
use crate::key::Key;
use crate::kinds::Backup;
use fairway_plan::labels;
use fairway_plan::observed::BackupObserved;

/// What is done for a Backup.
const KINDS: [labels::Work; 1] = [labels::Work::Backup];

impl Observe for Backup {
    fn observe(sight: &Sight<'_>, key: &Key) -> Option<BackupObserved> {
        let group = sight.group;
        let backup = group.backups.get(&key.name)?;
        let release = backup.spec.release.as_deref();
        Some(BackupObserved {
            app: group.app(),
            release: release.and_then(|release| group.releases.get(release)),
            snapshot: sight.snapshot_for(release),
            jobs: group
                .jobs
                .all()
                .filter(|job| works_for(&**job, &key.name, &KINDS))
                .collect(),
            pods: group
                .pods
                .all()
                .filter(|pod| works_for(&**pod, &key.name, &KINDS))
                .collect(),
            refused: sight.refusals.known(sight.app, sight.now).refused,
            backup,
        })
    }
}
