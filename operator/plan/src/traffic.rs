//! How users are directed to one release or another.
//!
//! Rungs and invariants speak of [`Entry`] and [`Driver`] alone; which objects a driver reads and writes is its own
//! affair. A driver is a file in `traffic/`, a variant of [`TrafficDriver`] and an arm of [`driver`].

mod port;
mod service;

pub use port::{Destination, Driver, Entry, Network, Objects, Pending, Switch, Target, Validation, serving};

use crate::object::Step;
use fairway_crds::app::TrafficDriver;
use strum::IntoEnumIterator;

/// The implementation of a driver.
pub fn driver(driver: TrafficDriver) -> &'static dyn Driver {
    match driver {
        TrafficDriver::Service => &service::SelectorSwitch,
    }
}

fn drivers() -> impl Iterator<Item = &'static dyn Driver> {
    TrafficDriver::iter().map(driver)
}

/// Where users go now, whichever driver directs them.
pub fn entries(objects: Objects<'_>) -> Vec<Entry<'_>> {
    drivers().flat_map(|driver| driver.entries(objects)).collect()
}

/// Whether a driver says itself what a refusal of this write means.
pub fn explains_refusal_of(step: &Step) -> bool {
    match step {
        Step::Apply(object) | Step::DryRun(object) => drivers().any(|driver| driver.writes(object.kind())),
        Step::Scale(..) | Step::Create(_) | Step::Delete(_) => false,
    }
}
