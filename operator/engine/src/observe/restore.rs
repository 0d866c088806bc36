//! What the Restore's planner gets to see.

use super::{Observe, Scope, stays};
use crate::key::NamespacedName;
use crate::kinds::Restore;
use fairway_plan::object::Kind;
use fairway_plan::observed::RestoreObserved;
use fairway_plan::tasks;
use kube::core::ObjectMeta;

impl Observe for Restore {
    fn observe(scope: &mut Scope<'_>, key: &NamespacedName) -> Option<RestoreObserved> {
        let group = scope.group;
        let known = scope.answers.known(scope.app, scope.now);
        let restore = group.restores.get(&key.name)?;
        let is_own = |meta: &ObjectMeta| tasks::is_for_object(meta, Kind::Restore, &key.name);
        Some(RestoreObserved {
            app: scope.app(),
            snapshot: scope.snapshot_for(None),
            backup: group.backups.get(&restore.spec.from.backup),
            jobs: group.jobs.all().filter(|job| is_own(&job.metadata)).collect(),
            pods: group.pods.all().filter(|pod| is_own(&pod.metadata)).collect(),
            others: group
                .restores
                .all()
                .filter(|other| {
                    let status = other.status.as_ref();
                    let has_ended = status.is_some_and(|status| status.outcome.is_some());
                    !has_ended && stays(&other.metadata) && other.metadata.name.as_deref() != Some(&key.name)
                })
                .collect(),
            refused: known.refused,
            dry_run_passed: known.dry_run_passed,
            restore,
        })
    }
}
