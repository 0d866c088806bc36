//! What the Migration's planner gets to see.

use super::{Observe, Sight, works_for};
use crate::key::Key;
use crate::kinds::Migration;
use fairway_plan::labels;
use fairway_plan::observed::MigrationObserved;

/// What is done for a Migration.
const KINDS: [labels::Work; 2] = [labels::Work::Migrate, labels::Work::Settle];

impl Observe for Migration {
    fn observe(sight: &Sight<'_>, key: &Key) -> Option<MigrationObserved> {
        let group = sight.group;
        let migration = group.migrations.get(&key.name)?;
        let release = migration.spec.release.as_deref();
        Some(MigrationObserved {
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
            migration,
        })
    }
}
