//! What the benchmark needs of a controller.

use anyhow::Result;

use super::setup::Bench;

/// A controller under measurement: how its objects are written and when one of them is done.
pub(super) trait Contestant {
    /// Name of the controller in the table.
    const NAME: &'static str;
    /// How the user agent of the controller's requests begins.
    const USER_AGENT: &'static str;

    /// Makes or edits one object: a web component of two pods behind Service `web`, released by switching
    /// that Service.
    async fn release(&self, bench: &Bench, namespace: &str, image: &str) -> Result<()>;
    /// Waits until the release of [`Contestant::release`] is wholly done.
    async fn released(&self, bench: &Bench, namespace: &str) -> Result<()>;
    /// Name of the Service that each release switches.
    fn service(&self) -> &'static str;
    /// Makes one object that runs nothing and moves no traffic.
    async fn idle(&self, bench: &Bench, namespace: &str, name: &str) -> Result<()>;
    /// Waits until so many objects of [`Contestant::idle`] are ready.
    async fn all_ready(&self, bench: &Bench, namespace: &str, count: usize) -> Result<()>;
    /// Resident memory of the controller's process, in bytes.
    fn resident(&self) -> Result<u64>;
}
