//! The table that `make bench` prints.

use std::fmt;
use std::time::Duration;

use super::audit::Requests;
use super::idle::Idle;

/// What was measured of one controller.
#[derive(Clone, Debug)]
pub struct Figures {
    /// Its name.
    pub name: &'static str,
    pub(super) switches: Vec<Duration>,
    pub(super) cost: Requests,
    pub(super) idle: Idle,
}

impl Figures {
    /// The wait below which this share of the switches stayed, in milliseconds.
    fn percentile(&self, share: f64) -> f64 {
        let mut sorted = self.switches.clone();
        sorted.sort_unstable();
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index into a short list"
        )]
        let index = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
        sorted
            .get(index)
            .map_or(f64::NAN, |wait| wait.as_secs_f64() * 1000.0)
    }
}

/// Both, side by side, with what Fairway aims at.
pub struct Table<'a>(pub &'a [Figures; 2]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [ours, theirs] = self.0;
        writeln!(formatter, "| | {} | {} | aim |", theirs.name, ours.name)?;
        writeln!(formatter, "|---|---|---|---|")?;
        let mut row = |what: &str, figure: &dyn Fn(&Figures) -> String, aim: &str| {
            writeln!(
                formatter,
                "| {what} | {} | {} | {aim} |",
                figure(theirs),
                figure(ours)
            )
        };
        let switches = ours.switches.len();
        row(
            &format!("last pod ready → Service switched ({switches} releases of 2 pods): p50"),
            &|figures| format!("{:.0} ms", figures.percentile(0.5)),
            "at most 25 ms",
        )?;
        row(
            "the same: p99",
            &|figures| format!("{:.0} ms", figures.percentile(0.99)),
            "at most 100 ms",
        )?;
        row(
            "writes to the API for one release by digest without database, Events apart",
            &|figures| figures.cost.writes().to_string(),
            "at most 10",
        )?;
        row(
            "LISTs for the same",
            &|figures| figures.cost.lists().to_string(),
            "0",
        )?;
        row(
            &format!("resident memory with {} idle objects", ours.idle.objects),
            &|figures| format!("{:.0} MB", mega(figures.idle.resident)),
            "at most 40 MB",
        )?;
        row(
            "objects a second from nothing to Ready (replicas 0, after a round as large)",
            &|figures| format!("{:.0}", rate(figures.idle)),
            "at least 50",
        )
    }
}

#[allow(clippy::cast_precision_loss, reason = "shown with three digits")]
fn mega(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

#[allow(clippy::cast_precision_loss, reason = "shown with three digits")]
fn rate(idle: Idle) -> f64 {
    idle.objects as f64 / idle.took.as_secs_f64()
}
