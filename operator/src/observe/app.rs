//! What the App's planner gets to see. No client.

use crate::key::{Key, Reconciled, Work};
use crate::world::{View, World};
use fairway_plan::observed::AppObserved;

/// Observes an App.
pub(crate) fn observe(world: &World, key: &Key) -> View<AppObserved> {
    world.view(key, &Work::new(Reconciled::App, key.clone()), |group| {
        Some(AppObserved {
            app: group.app()?,
            releases: super::releases(group, None),
            snapshots: super::frozen(group)
                .map(|(name, frozen)| (name.to_owned(), frozen.spec.clone()))
                .collect(),
            deployments: group.deployments.all().collect(),
            pods: group.pods.all().collect(),
            migrations: group.migrations.all().collect(),
        })
    })
}
