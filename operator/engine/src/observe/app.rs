//! What the App's planner gets to see.

use super::{Observe, Scope};
use crate::key::NamespacedName;
use crate::kinds::App;
use crate::state::State;
use fairway_plan::Step;
use fairway_plan::observed::AppObserved;

impl Observe for App {
    fn observe(scope: &mut Scope<'_>, _: &NamespacedName) -> Option<AppObserved> {
        let group = scope.group;
        let app = group.app()?;
        let has_schedule = app
            .spec
            .backup
            .as_ref()
            .is_some_and(|backup| backup.schedule.is_some());
        Some(AppObserved {
            backups: group.backups.all().filter(|_| has_schedule).collect(),
            app,
            releases: scope.releases(None),
            snapshots: scope
                .snapshots()
                .map(|(name, kept)| (name.to_owned(), kept.snapshot.clone()))
                .collect(),
            deployments: group.deployments.all().collect(),
            pods: group.pods.all().collect(),
            migrations: group.migrations.all().collect(),
            refused: scope.answers.known(scope.app, scope.now).refused,
        })
    }

    /// A migration outlives its App; what it ran in is removed when it has ended.
    fn gone(state: &mut State, key: &NamespacedName) -> Vec<Step> {
        state.answers.forget(key);
        state.caches.orphans(key).into_iter().map(Step::Delete).collect()
    }
}
