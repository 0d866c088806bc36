//! Where the traffic of a release goes, by the driver that its snapshot names.

use super::history::happened;
use super::verdict::{Failure, Verdict, Wait};
use super::view::View;
use crate::message::sentences;
use crate::snapshot::Snapshot;
use crate::traffic::{
    self, Asked, Leftover, Objects, Pending, Refused, Switch, TargetPods, TrafficState, TrafficTarget,
    Validation, service_targets, serving,
};
use crate::{Step, labels};
use fairway_crds::Reason;
use fairway_crds::component::Component;
use fairway_crds::release::{MilestoneKind, ReleaseStatus};
use jiff::Timestamp;
use std::collections::BTreeMap;

/// The failure of a release whose Services are not fit for its traffic as they are now.
pub(super) fn unfit(view: &View) -> Option<Failure> {
    let to = target(view)?;
    let driver = traffic::driver(view.snapshot.traffic.driver);
    let message = driver.unfit(&state(view), &to)?;
    Some(Failure::new(Reason::ServiceRefused, message))
}

/// The wait for what sends traffic elsewhere, whatever is switched: before anything is changed for a release.
pub(super) fn hindered(view: &View) -> Option<Wait> {
    let to = target(view)?;
    let driver = traffic::driver(view.snapshot.traffic.driver);
    let message = driver.hindered(&state(view), &to)?;
    Some(Wait::user(Reason::ServiceRefused, message))
}

/// How far traffic has moved to a release, and what comes next.
pub(super) enum Direction {
    /// All traffic reaches the release.
    Arrived,
    /// Writes that send the traffic there, and the wait for them.
    Switching(Vec<Step>, Wait),
    /// The traffic was sent there; endpoints have not followed yet.
    Converging(Wait),
    /// Nothing can be sent there until a user has seen to it.
    Blocked(Wait),
}

impl Direction {
    /// What a rung answers that waits until all traffic reaches the release; `None` when it does.
    pub(super) fn verdict(self) -> Option<Verdict> {
        match self {
            Self::Arrived => None,
            Self::Switching(steps, wait) => Some(Verdict::Act(steps, wait)),
            Self::Converging(wait) | Self::Blocked(wait) => Some(Verdict::Wait(wait)),
        }
    }

    /// The writes that send the traffic there; none when they were made, or cannot be.
    pub(super) fn steps(self) -> Vec<Step> {
        match self {
            Self::Switching(steps, _) => steps,
            Self::Arrived | Self::Converging(_) | Self::Blocked(_) => Vec::new(),
        }
    }
}

/// Asks whether the API server would accept the switch to this release; `None` when it would.
pub(super) fn asked(view: &View) -> Option<Verdict> {
    let to = target(view)?;
    let driver = traffic::driver(view.snapshot.traffic.driver);
    match driver.ask(&state(view), &to) {
        Asked::Accepted => None,
        Asked::Ask(steps) => {
            let wait = Wait::machine(
                Reason::CheckingTemplates,
                "Asking the API server whether it would accept the switch of traffic.",
            );
            Some(Verdict::Act(steps, wait.until(view.now)))
        }
        Asked::Refused(Refused { reason, message }) => Some(Verdict::Wait(Wait::user(reason, message))),
    }
}

/// Sends traffic to a release with that snapshot.
pub(super) fn direct(view: &View, snapshot: &Snapshot, release: &str, validation: Validation) -> Direction {
    let Some(app) = view.observed.app.as_deref() else {
        let message = format!(
            "App {} was deleted, so its traffic is not switched. Apply the App again.",
            view.app_name()
        );
        return Direction::Blocked(Wait::machine(Reason::WaitingForApp, message));
    };
    let to = TrafficTarget {
        app,
        snapshot,
        release,
    };
    match traffic::driver(snapshot.traffic.driver).direct(&state(view), &to, validation) {
        Switch::Converged => Direction::Arrived,
        Switch::Write(steps, pending) => Direction::Switching(steps, wait(pending, view.now)),
        Switch::Pending(pending) => Direction::Converging(wait(pending, view.now)),
        Switch::Refused(Refused { reason, message }) => Direction::Blocked(Wait::user(reason, message)),
    }
}

fn wait(pending: Pending, now: Timestamp) -> Wait {
    let wait = Wait::machine(Reason::SwitchingTraffic, pending.message);
    if let Some(until) = pending.brief_until {
        return wait.brief().until(until);
    }
    match pending.late {
        Some(late) if now >= late.from => Wait::user(wait.reason, sentences([&*wait.message, &*late.advice])),
        Some(late) => wait.until(late.from),
        None => wait,
    }
}

/// The wait until no pod of another release receives traffic of this one; `None` when none does.
pub(super) fn draining(view: &View) -> Option<Wait> {
    let to = target(view)?;
    let driver = traffic::driver(view.snapshot.traffic.driver);
    driver
        .draining(&state(view), &to)
        .map(|pending| wait(pending, view.now))
}

/// The wait until no pod of another release receives traffic of the release with that snapshot; `None` when none does.
pub(super) fn draining_for(view: &View, snapshot: &Snapshot, release: &str) -> Option<Wait> {
    let to = TrafficTarget {
        app: view.observed.app.as_deref()?,
        snapshot,
        release,
    };
    let driver = traffic::driver(snapshot.traffic.driver);
    driver
        .draining(&state(view), &to)
        .map(|pending| wait(pending, view.now))
}

/// This release as the one that should receive all traffic.
pub(super) fn target<'a>(view: &View<'a>) -> Option<TrafficTarget<'a>> {
    Some(TrafficTarget {
        app: view.observed.app.as_deref()?,
        snapshot: view.snapshot,
        release: view.name(),
    })
}

/// The state of the App's traffic, as observed.
pub(super) fn state<'a>(view: &View<'a>) -> TrafficState<'a> {
    let observed = view.observed;
    TrafficState {
        objects: Objects {
            services: &observed.services,
        },
        served_by_others: &observed.served_by_others,
        endpoint_slices: &observed.endpoint_slices,
        pods: &observed.pods,
        answers: view.answers(),
        now: view.now,
    }
}

fn targets<'a>(view: &View<'a>) -> impl Iterator<Item = TargetPods<'a>> {
    let services = service_targets(state(view).objects);
    services.into_iter().flat_map(|service| service.targets)
}

/// Whether any traffic reaches this release.
pub(super) fn has_traffic(view: &View) -> bool {
    let mut targets = targets(view);
    targets.any(|target| target.release == view.name())
}

/// What sends the traffic back to the release that should have it while another one is in progress: a Service may be
/// deleted or changed meanwhile. Nothing while the traffic is being switched, or where another release sees to it.
pub(super) fn corrections(view: &View, status: &ReleaseStatus, steps: &[Step]) -> Vec<Step> {
    let moved = happened(status, MilestoneKind::TrafficMoved).is_some();
    let returned = happened(status, MilestoneKind::TrafficReturned).is_some();
    let previous = status.previous.as_deref();
    let (holder, other) = if moved && !returned {
        (Some(view.name()), previous)
    } else {
        (previous, Some(view.name()))
    };
    let is_switching = steps.iter().any(traffic::explains_refusal_of);
    let Some(holder) = holder.filter(|_| !is_switching && status.taken_over_by.is_none()) else {
        return Vec::new();
    };
    let Some(snapshot) = view.snapshot_of(holder) else {
        return Vec::new();
    };
    let is_switched = service_targets(state(view).objects)
        .into_iter()
        .filter(|found| serving(snapshot).any(|(_, serves)| serves.service == found.service))
        .flat_map(|service| service.targets)
        .any(|target| Some(target.release) == other);
    if is_switched {
        return Vec::new();
    }
    let mut components = serving(snapshot).map(|(component, _)| component);
    if components.any(|component| view.ready_pods(&component.name, holder).is_empty()) {
        return Vec::new();
    }
    direct(view, snapshot, holder, Validation::Immediate).steps()
}

/// Whether traffic may be sent to this release: it receives some already, or each of its components that serve has a
/// ready pod.
pub(super) fn may_move(view: &View) -> bool {
    let is_ready = |component: &Component| !view.ready_pods(&component.name, view.name()).is_empty();
    has_traffic(view) || serving(view.snapshot).all(|(component, _)| is_ready(component))
}

/// Whether traffic of this release's components reaches anything else.
pub(super) fn is_astray(view: &View) -> bool {
    let services = service_targets(state(view).objects);
    serving(view.snapshot).any(|(_, serves)| {
        let found = services.iter().find(|found| found.service == serves.service);
        found.is_some_and(|found| {
            let is_elsewhere = |target: &TargetPods| target.release != view.name();
            found.targets.is_empty() || found.targets.iter().any(is_elsewhere)
        })
    })
}

/// Whether traffic reaches the pods that have these labels, by another Service than those that no component serves any
/// more.
pub(super) fn is_reached(view: &View, pod: &BTreeMap<String, String>, left: &[Leftover]) -> bool {
    let is = |key: &str, value: &str| pod.get(key).is_some_and(|found| found == value);
    let is_left = |service: &str| left.iter().any(|left| left.service == service);
    let services = service_targets(state(view).objects).into_iter();
    let mut targets = services
        .filter(|found| !is_left(found.service))
        .flat_map(|found| found.targets);
    targets.any(|target| {
        is(labels::APP, target.app)
            && is(labels::COMPONENT, target.component)
            && is(labels::RELEASE, target.release)
    })
}
