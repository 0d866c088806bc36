//! What the engine knows.

use crate::answers::Answers;
use crate::backoff::Backoff;
use crate::caches::Caches;
use crate::creations::Creations;
use crate::lookups::Lookups;
use crate::probe_pods::ProbePods;
use crate::probes::Probes;
use crate::queue::Queue;
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
    pub(crate) answers: Answers,
    /// What was created lately.
    pub(crate) creations: Creations,
    /// The pods that are asked.
    pub(crate) probes: Probes,
    /// The pods through which they are asked.
    pub(crate) probe_pods: ProbePods,
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
            answers: Answers::default(),
            creations: Creations::default(),
            probes: Probes::default(),
            probe_pods: ProbePods::default(),
            queue: Queue::new(concurrency.into()),
            backoff: Backoff::default(),
        }
    }
}
