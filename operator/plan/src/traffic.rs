//! How traffic is sent to one release or another.
//!
//! Rungs and invariants speak of [`ServiceTargets`] and [`Driver`] alone; which objects a driver reads and writes is its own
//! affair. A driver is a file in `traffic/`, a variant of [`TrafficDriver`] and an arm of [`driver`].

mod fitness;
mod port;
mod service;
mod slices;

pub use port::{
    Asked, Driver, Late, Leftover, Objects, Pending, Refused, Removal, ServiceTargets, Switch, TargetPods,
    TrafficState, TrafficTarget, Validation, serving,
};

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

/// Where each Service sends its traffic now, whichever driver does it.
pub fn service_targets(objects: Objects<'_>) -> Vec<ServiceTargets<'_>> {
    drivers()
        .flat_map(|driver| driver.service_targets(objects))
        .collect()
}

/// Services that send traffic to other releases of the App and that no component of the target serves, whichever driver
/// set them.
pub fn leftovers<'a>(state: &TrafficState<'a>, to: &TrafficTarget) -> Vec<Leftover<'a>> {
    drivers().flat_map(|driver| driver.leftovers(state, to)).collect()
}

/// Whether a driver says itself what a refusal of this write means.
pub fn explains_refusal_of(step: &Step) -> bool {
    match step {
        Step::Apply(object) | Step::DryRun(object) => drivers().any(|driver| driver.writes(object.kind())),
        Step::Replace(..) | Step::Scale(..) | Step::TakeOver(..) | Step::Create(_) | Step::Delete(_) => false,
    }
}
