//! What the engine knows.

use crate::backoff::Backoff;
use crate::caches::Caches;
use crate::lookups::Lookups;
use crate::probes::Probes;
use crate::queue::Queue;
use crate::refusals::Refusals;
use fairway_plan::observed::Settings;
use std::sync::Arc;

/// What is known between passes and shared by them.
#[derive(Clone, Debug)]
pub(crate) struct State {
    /// What is fixed for the process.
    pub(crate) settings: Arc<Settings>,
    /// The objects.
    pub(crate) caches: Caches,
    /// Objects that no watch shows.
    pub(crate) lookups: Lookups,
    /// What the API server has refused.
    pub(crate) refusals: Refusals,
    /// The pods that are asked.
    pub(crate) probes: Probes,
    /// What is due.
    pub(crate) queue: Queue,
    /// How often passes have failed in a row.
    pub(crate) backoff: Backoff,
}

impl State {
    /// Nothing is known yet.
    pub(crate) fn new(settings: Settings, concurrency: u16) -> Self {
        Self {
            settings: Arc::new(settings),
            caches: Caches::default(),
            lookups: Lookups::default(),
            refusals: Refusals::default(),
            probes: Probes::default(),
            queue: Queue::new(concurrency.into()),
            backoff: Backoff::default(),
        }
    }
}
