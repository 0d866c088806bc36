//! What the Migration's planner gets to see. No client.

use super::works_for;
use crate::key::{Key, Reconciled, Work};
use crate::world::{View, World};
use fairway_plan::labels;
use fairway_plan::observed::MigrationObserved;
use std::collections::BTreeMap;

/// What is done for a Migration.
const KINDS: [labels::Work; 2] = [labels::Work::Migrate, labels::Work::Settle];

/// Observes a Migration of that App.
pub(crate) fn observe(world: &World, app: &Key, key: &Key) -> View<MigrationObserved> {
    world.view(app, &Work::new(Reconciled::Migration, key.clone()), |group| {
        let migration = group.migrations.get(&key.name)?;
        let release = migration.spec.release.as_deref();
        Some(MigrationObserved {
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
            migration,
        })
    })
}
