//! What the Backup's planner gets to see. No client.

use super::works_for;
use crate::key::{Key, Reconciled, Work};
use crate::world::{View, World};
use fairway_plan::labels;
use fairway_plan::observed::BackupObserved;
use std::collections::BTreeMap;

/// What is done for a Backup.
const KINDS: [labels::Work; 1] = [labels::Work::Backup];

/// Observes a Backup of that App.
pub(crate) fn observe(world: &World, app: &Key, key: &Key) -> View<BackupObserved> {
    world.view(app, &Work::new(Reconciled::Backup, key.clone()), |group| {
        let backup = group.backups.get(&key.name)?;
        let release = backup.spec.release.as_deref();
        Some(BackupObserved {
            app: group.app(),
            release: release.and_then(|release| group.releases.get(release)),
            snapshot: super::snapshot_for(group, release),
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
            refused: BTreeMap::new(),
            backup,
        })
    })
}
