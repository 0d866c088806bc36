//! The Backup's controller.

use super::{Context, Controller};
use crate::key::{Key, Reconciled, Watched};
use crate::observe;
use crate::observe::foreign::ForeignError;
use crate::world::View;
use fairway_crds::{Backup, BackupStatus};
use fairway_plan::Decision;
use fairway_plan::observed::{BackupObserved, Settings};
use jiff::Timestamp;
use std::sync::Arc;

/// Makes a Backup and proves it.
pub(crate) struct BackupController;

impl Controller for BackupController {
    type Object = Backup;
    type Observed = BackupObserved;
    const KIND: Reconciled = Reconciled::Backup;

    fn app(context: &Context, key: &Key) -> Option<Key> {
        context.world.home(Watched::Backup, key)
    }

    async fn observe(context: &Context, app: &Key, key: &Key) -> Result<View<BackupObserved>, ForeignError> {
        Ok(observe::backup::observe(&context.world, app, key))
    }

    fn object(observed: &BackupObserved) -> &Arc<Backup> {
        &observed.backup
    }

    fn plan(observed: &BackupObserved, settings: &Settings, now: Timestamp) -> Decision<BackupStatus> {
        fairway_plan::backup::plan(observed, settings, now)
    }
}
