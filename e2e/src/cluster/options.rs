//! What a start of the cluster may choose.

use super::network::Families;

/// Options of a start of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How many pods the node takes. Kubernetes' own default of 110 is too few for a test of 50 Apps
    /// that release at once.
    pub max_pods: u32,
    /// Whether a cluster that already runs is replaced by a new one.
    pub fresh: bool,
    /// The families of its addresses.
    pub families: Families,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_pods: 250,
            fresh: false,
            families: Families::V4,
        }
    }
}
