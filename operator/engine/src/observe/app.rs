//! What the App's planner gets to see.

use super::{Observe, Sight};
use crate::key::Key;
use crate::kinds::App;
use crate::state::State;
use fairway_plan::Step;
use fairway_plan::observed::AppObserved;

impl Observe for App {
    fn observe(sight: &Sight<'_>, _: &Key) -> Option<AppObserved> {
        let group = sight.group;
        Some(AppObserved {
            app: group.app()?,
            releases: sight.releases(None),
            snapshots: sight
                .snapshots()
                .map(|(name, kept)| (name.to_owned(), kept.snapshot.clone()))
                .collect(),
            deployments: group.deployments.all().collect(),
            pods: group.pods.all().collect(),
            migrations: group.migrations.all().collect(),
        })
    }

    /// A migration outlives its App; what it ran in is removed when it has ended.
    fn gone(state: &mut State, key: &Key) -> Vec<Step> {
        state.refusals.forget(key);
        state.caches.orphans(key).into_iter().map(Step::Delete).collect()
    }
}
