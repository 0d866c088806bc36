//! The Release's controller.

use super::{Context, Controller};
use crate::key::{Key, Reconciled, Watched};
use crate::observe;
use crate::observe::foreign::ForeignError;
use crate::world::View;
use fairway_crds::{Release, ReleaseStatus};
use fairway_plan::observed::{ReleaseObserved, Settings};
use fairway_plan::{Decision, Step};
use jiff::Timestamp;
use std::sync::Arc;

/// Carries a Release up its ladder, and down again.
pub(crate) struct ReleaseController;

impl Controller for ReleaseController {
    type Object = Release;
    type Observed = ReleaseObserved;
    const KIND: Reconciled = Reconciled::Release;

    fn app(context: &Context, key: &Key) -> Option<Key> {
        context.world.home(Watched::Release, key)
    }

    async fn observe(context: &Context, app: &Key, key: &Key) -> Result<View<ReleaseObserved>, ForeignError> {
        let Context {
            world,
            foreign,
            memory,
            prober,
            ..
        } = context;
        observe::release::observe(world, foreign, memory, prober, app, key).await
    }

    fn object(observed: &ReleaseObserved) -> &Arc<Release> {
        &observed.release
    }

    fn plan(observed: &ReleaseObserved, settings: &Settings, now: Timestamp) -> Decision<ReleaseStatus> {
        fairway_plan::release::plan(observed, settings, now)
    }

    fn noticed(context: &Context, key: &Key, observed: &ReleaseObserved) {
        context.prober.set(
            key,
            fairway_plan::release::probe_targets(observed, &context.settings),
        );
    }

    fn gone(context: &Context, key: &Key) -> Vec<Step> {
        context.prober.set(key, Vec::new());
        Vec::new()
    }
}
