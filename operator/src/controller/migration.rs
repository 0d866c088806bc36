//! The Migration's controller.

use super::{Context, Controller};
use crate::key::{Key, Reconciled, Watched};
use crate::observe;
use crate::observe::foreign::ForeignError;
use crate::world::View;
use fairway_crds::{Migration, MigrationStatus};
use fairway_plan::Decision;
use fairway_plan::observed::{MigrationObserved, Settings};
use jiff::Timestamp;
use std::sync::Arc;

/// Runs a Migration at most once.
pub(crate) struct MigrationController;

impl Controller for MigrationController {
    type Object = Migration;
    type Observed = MigrationObserved;
    const KIND: Reconciled = Reconciled::Migration;

    fn app(context: &Context, key: &Key) -> Option<Key> {
        context.world.home(Watched::Migration, key)
    }

    async fn observe(
        context: &Context,
        app: &Key,
        key: &Key,
    ) -> Result<View<MigrationObserved>, ForeignError> {
        Ok(observe::migration::observe(&context.world, app, key))
    }

    fn object(observed: &MigrationObserved) -> &Arc<Migration> {
        &observed.migration
    }

    fn plan(observed: &MigrationObserved, settings: &Settings, now: Timestamp) -> Decision<MigrationStatus> {
        fairway_plan::migration::plan(observed, settings, now)
    }
}
