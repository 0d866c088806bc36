//! What the App's planner gets to see.

use super::{Observe, Scope};
use crate::key::NamespacedName;
use crate::kinds::App;
use crate::state::State;
use fairway_crds::app::annotation::FINAL_BACKUP;
use fairway_plan::Step;
use fairway_plan::observed::AppObserved;
use kube::ResourceExt;

impl Observe for App {
    fn observe(scope: &mut Scope<'_>, _: &NamespacedName) -> Option<AppObserved> {
        let group = scope.group;
        let app = group.app()?;
        let settings = app.spec.backup.as_ref();
        let has_schedule = settings.is_some_and(|settings| settings.schedule.is_some());
        let takes_backups = has_schedule || app.annotations().contains_key(FINAL_BACKUP);
        Some(AppObserved {
            backups: group.backups.all().filter(|_| takes_backups).collect(),
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
