//! What is the same for both controllers: the cluster, the images, how much is measured, and for how long.

use std::time::Duration;

use kube::Client;

use crate::target::Target;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Releases whose switch is timed, after [`Plan::warm_up`].
    pub switches: usize,
    /// Releases before the timed ones.
    pub warm_up: usize,
    /// Idle objects.
    pub objects: usize,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            switches: 30,
            warm_up: 3,
            objects: 1000,
        }
    }
}

/// How long one release may take before the benchmark fails.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

/// The cluster, the images and the amount of work, the same for both controllers.
pub(super) struct Bench {
    pub(super) target: Target,
    pub(super) client: Client,
    pub(super) plan: Plan,
    /// Two images by digest, between which releases go to and fro.
    pub(super) images: [String; 2],
}
