//! What the Migration's planner gets to see.

use super::{Observe, Scope};
use crate::key::NamespacedName;
use crate::kinds::Migration;
use fairway_plan::backup::is_under_way;
use fairway_plan::object::Kind;
use fairway_plan::observed::MigrationObserved;
use fairway_plan::tasks;

impl Observe for Migration {
    fn observe(scope: &mut Scope<'_>, key: &NamespacedName) -> Option<MigrationObserved> {
        let group = scope.group;
        let known = scope.answers.known(scope.app, scope.now);
        let migration = group.migrations.get(&key.name)?;
        let release = migration.spec.release.as_deref();
        Some(MigrationObserved {
            app: scope.app(),
            release: release.and_then(|release| group.releases.get(release)),
            snapshot: scope.snapshot_for(release),
            backup: group
                .backups
                .all()
                .find(|backup| is_under_way(backup))
                .and_then(|backup| backup.metadata.name.clone()),
            jobs: group
                .jobs
                .all()
                .filter(|job| tasks::is_for_object(&job.metadata, Kind::Migration, &key.name))
                .collect(),
            pods: group
                .pods
                .all()
                .filter(|pod| tasks::is_for_object(&pod.metadata, Kind::Migration, &key.name))
                .collect(),
            refused: known.refused,
            dry_run_passed: known.dry_run_passed,
            migration,
        })
    }
}
