//! The story of the demo, which the tests prove: a real application upgraded, a bad version
//! stopped, and one that turns bad after the switch rolled back, without one failed request.

pub mod crm;
pub mod unleash;

use anyhow::Result;

use crate::context::Context;
use crate::load::{Running, assert_none_failed};
use crate::timeline::Timeline;

/// Where a story takes place, and what prints it.
pub struct Story {
    /// The cluster and the namespace.
    pub context: Context,
    /// Its lines.
    pub timeline: Timeline,
}

impl Story {
    /// A story that begins now.
    #[must_use]
    pub fn new(context: &Context) -> Self {
        Self {
            context: context.clone(),
            timeline: Timeline::new(),
        }
    }

    /// Ends the load and fails unless every request was answered well.
    ///
    /// # Errors
    /// The error says how many failed and why.
    pub async fn no_request_failed(&self, of: &str, load: &Running) -> Result<u64> {
        let report = load.stop().await?;
        assert_none_failed(&report)?;
        let Some(sent) = std::num::NonZeroU64::new(report.sent) else {
            anyhow::bail!("no request of {of} was sent")
        };
        self.timeline
            .proven(&format!("clients of {of}: {sent} requests in all, 0 failed"));
        Ok(sent.get())
    }
}
