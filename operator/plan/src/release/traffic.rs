//! Where the users of a release go, by the driver that its snapshot names.

use super::verdict::{Verdict, Wait};
use super::view::View;
use crate::snapshot::Snapshot;
use crate::traffic::{self, Destination, Entry, Network, Pending, Switch, Validation, serving};
use crate::{Step, labels};
use fairway_crds::Reason;
use std::collections::BTreeMap;

/// Directs users to a release with that snapshot and waits until all of them reach it; `None` when they do.
pub(super) fn direct(
    view: &View,
    snapshot: &Snapshot,
    release: &str,
    validation: Validation,
) -> Option<Verdict> {
    let Some(app) = view.observed.app.as_deref() else {
        let message = format!(
            "App {} was deleted, so its traffic is not switched. Apply the App again.",
            view.app_name()
        );
        return Some(Verdict::Wait(Wait::machine(Reason::WaitingForApp, message)));
    };
    let to = Destination {
        app,
        snapshot,
        release,
    };
    let network = Network::of(view.observed, view.now);
    match traffic::driver(snapshot.traffic.driver).direct(&network, &to, validation) {
        Switch::Converged => None,
        Switch::Write(steps, pending) => Some(Verdict::Act(steps, wait(pending))),
        Switch::Pending(pending) => Some(Verdict::Wait(wait(pending))),
        Switch::Refused(reason, message) => Some(Verdict::Wait(Wait::user(reason, message))),
    }
}

fn wait(pending: Pending) -> Wait {
    let wait = Wait::machine(Reason::SwitchingTraffic, pending.message);
    match pending.brief_until {
        Some(until) => wait.brief().until(until),
        None => wait,
    }
}

/// What removes objects that directed users to earlier releases.
pub(super) fn leftovers(view: &View) -> Vec<Step> {
    let Some(app) = view.observed.app.as_deref() else {
        return Vec::new();
    };
    let to = Destination {
        app,
        snapshot: view.snapshot,
        release: view.name(),
    };
    let network = Network::of(view.observed, view.now);
    traffic::driver(view.snapshot.traffic.driver).leftovers(&network, &to)
}

fn entries<'a>(view: &View<'a>) -> Vec<Entry<'a>> {
    traffic::entries(Network::of(view.observed, view.now).objects)
}

/// Whether any user reaches this release.
pub(super) fn has_users(view: &View) -> bool {
    let mut targets = entries(view).into_iter().flat_map(|entry| entry.targets);
    targets.any(|target| target.release == view.name())
}

/// Whether users of this release's components reach anything else.
pub(super) fn is_astray(view: &View) -> bool {
    let entries = entries(view);
    serving(view.snapshot).any(|(_, serves)| {
        let entry = entries.iter().find(|entry| entry.service == serves.service);
        entry.is_some_and(|entry| {
            let elsewhere = |release: &str| release != view.name();
            entry.targets.is_empty() || entry.targets.iter().any(|target| elsewhere(target.release))
        })
    })
}

/// Whether users reach the pods that have these labels.
pub(super) fn is_reached(view: &View, pod: &BTreeMap<String, String>) -> bool {
    let is = |key: &str, value: &str| pod.get(key).is_some_and(|found| found == value);
    let mut targets = entries(view).into_iter().flat_map(|entry| entry.targets);
    targets.any(|target| {
        is(labels::APP, target.app)
            && is(labels::COMPONENT, target.component)
            && is(labels::RELEASE, target.release)
    })
}
