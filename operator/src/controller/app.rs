//! The App's controller.

use super::{Context, Controller};
use crate::key::{Key, Reconciled};
use crate::observe;
use crate::observe::foreign::ForeignError;
use crate::world::View;
use fairway_crds::{App, AppStatus};
use fairway_plan::observed::{AppObserved, Settings};
use fairway_plan::{Decision, Step};
use jiff::Timestamp;
use std::sync::Arc;

/// Mints Releases and sums up what is live.
pub(crate) struct AppController;

impl Controller for AppController {
    type Object = App;
    type Observed = AppObserved;
    const KIND: Reconciled = Reconciled::App;

    fn app(_: &Context, key: &Key) -> Option<Key> {
        Some(key.clone())
    }

    async fn observe(context: &Context, _: &Key, key: &Key) -> Result<View<AppObserved>, ForeignError> {
        Ok(observe::app::observe(&context.world, key))
    }

    fn object(observed: &AppObserved) -> &Arc<App> {
        &observed.app
    }

    /// A migration outlives its App; what it ran in is removed when it has ended.
    fn gone(context: &Context, key: &Key) -> Vec<Step> {
        context.memory.forget(key);
        context.world.orphans(key).into_iter().map(Step::Delete).collect()
    }

    fn plan(observed: &AppObserved, settings: &Settings, now: Timestamp) -> Decision<AppStatus> {
        fairway_plan::app::plan(observed, settings, now)
    }
}
