//! Which release users reach, and how that is changed.

use super::position::to_milliseconds;
use super::verdict::{Verdict, Wait};
use super::view::View;
use crate::build::service;
use crate::snapshot::Snapshot;
use crate::{Object, Step, labels, object::Kind};
use fairway_crds::Reason;
use fairway_crds::component::{Component, Serves};
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;

/// Time in which endpoints usually follow a selector; a wait that lasts longer is told in status.
const CONVERGENCE: jiff::SignedDuration = jiff::SignedDuration::from_secs(1);

/// Components of a spec that serve, with what they serve.
pub fn serving(snapshot: &Snapshot) -> impl Iterator<Item = (&Component, &Serves)> {
    snapshot
        .components
        .iter()
        .filter_map(|component| Some((component, component.serves.as_ref()?)))
}

/// Whether a Service that this release serves selects another one.
pub(super) fn is_astray(view: &View) -> bool {
    serving(view.snapshot).any(|(_, serves)| {
        let found = view.observed.services.get(&serves.service);
        found.is_some_and(|found| service::selected_release(found) != Some(view.name()))
    })
}

/// Points the Services of a spec at a release and waits until their endpoints show only it; `None` when they
/// do. Never an empty selector, and the caller has made sure that the release has ready pods.
pub(super) fn direct(view: &View, snapshot: &Snapshot, release: &str) -> Option<Verdict> {
    let Some(app) = view.observed.app.as_deref() else {
        let message = format!(
            "App {} is gone, so nobody says where its traffic goes",
            view.app_name()
        );
        return Some(Verdict::Wait(Wait::machine(Reason::WaitingForApp, message)));
    };
    let mut switches = Vec::new();
    for (component, serves) in serving(snapshot) {
        let existing = view.observed.services.get(&serves.service).map(AsRef::as_ref);
        let desired = service::service(app, component, serves, release, existing);
        if let Some(other) = existing.and_then(|existing| service::other_owner(app, existing)) {
            let message = format!(
                "Service {} gets the traffic of App {other}: name another one in serves.service of component {}",
                serves.service, component.name
            );
            return Some(Verdict::Wait(Wait::person(Reason::ServiceRefused, message)));
        }
        if !service::needs_apply(&desired, existing) {
            continue;
        }
        if let Some(conflict) = conflict(view, &desired, existing) {
            return Some(conflict);
        }
        let mut desired = desired;
        // A switch that was decided on an older state of the Service must not undo a newer one.
        desired.metadata.resource_version =
            existing.and_then(|existing| existing.metadata.resource_version.clone());
        desired.annotations_mut().insert(
            labels::SWITCHED_AT.to_owned(),
            to_milliseconds(view.now).to_string(),
        );
        switches.push(desired);
    }
    let wait = |message: String| Wait::machine(Reason::SwitchingTraffic, message);
    if release == view.name()
        && let Some(steps) = rehearsals(view, &switches)
    {
        let message = "asking the apiserver whether it would take every switch, before the first";
        return Some(Verdict::Act(
            steps,
            wait(message.to_owned()).brief().until(view.now),
        ));
    }
    let steps: Vec<_> = switches
        .into_iter()
        .map(|service| Step::Apply(Box::new(Object::Service(service))))
        .collect();
    if !steps.is_empty() {
        let soon = view
            .now
            .saturating_add(CONVERGENCE)
            .unwrap_or(jiff::Timestamp::MAX);
        return Some(Verdict::Act(
            steps,
            wait(format!("switching traffic to {release}"))
                .brief()
                .until(soon),
        ));
    }
    let (_, lagging) =
        serving(snapshot).find(|(component, serves)| !shows_only(view, component, serves, release))?;
    let wait = wait(format!(
        "waiting until the endpoints of Service {} show only {release}",
        lagging.service
    ));
    let told_from = switched_at(view, &lagging.service)?
        .saturating_add(CONVERGENCE)
        .unwrap_or(jiff::Timestamp::MAX);
    Some(Verdict::Wait(if view.now < told_from {
        wait.brief().until(told_from)
    } else {
        wait
    }))
}

/// Dry runs of the switches that have not passed one, where there are several: with the second refused, half of the
/// users would be left on each side. On the way back nobody asks first, since one side is ill.
fn rehearsals(view: &View, switches: &[Service]) -> Option<Vec<Step>> {
    if switches.len() < 2 {
        return None;
    }
    let steps: Vec<_> = switches
        .iter()
        .filter_map(|service| view.rehearsal(Object::Service(service.clone())))
        .collect();
    (!steps.is_empty()).then_some(steps)
}

/// When Fairway last pointed a Service somewhere else; long ago when it does not say.
fn switched_at(view: &View, service: &str) -> Option<jiff::Timestamp> {
    let found = view.observed.services.get(service)?;
    let at = found
        .annotations()
        .get(labels::SWITCHED_AT)
        .and_then(|at| at.parse().ok());
    Some(at.unwrap_or(jiff::Timestamp::UNIX_EPOCH))
}

fn conflict(view: &View, desired: &Service, existing: Option<&Service>) -> Option<Verdict> {
    let name = desired.name_any();
    let refusal = view.refusal(Kind::Service, &desired.metadata)?;
    let selector = existing.and_then(|existing| existing.spec.as_ref()?.selector.as_ref());
    if refusal.conflict && selector.is_none_or(|selector| selector.is_empty()) {
        // Whoever set it has removed it: nobody is selected, so this is not left for later.
        return None;
    }
    let mend = if refusal.conflict {
        format!(
            "its selector is set by another manager: {}; remove spec.selector from the Service's manifest, so that Fairway can switch it",
            refusal.message
        )
    } else {
        refusal.message.clone()
    };
    Some(Verdict::Wait(Wait::person(
        Reason::ServiceRefused,
        format!("Service {name} cannot be switched: {mend}"),
    )))
}

/// Whether the Service's endpoints are pods of that release, at least one of them ready.
fn shows_only(view: &View, component: &Component, serves: &Serves, release: &str) -> bool {
    let ours: Vec<String> = view
        .pods(&component.name, release)
        .map(|pod| pod.name_any())
        .collect();
    let mut ready = false;
    let slices = view.observed.endpoint_slices.iter();
    for slice in
        slices.filter(|slice| slice.labels().get("kubernetes.io/service-name") == Some(&serves.service))
    {
        for endpoint in &slice.endpoints {
            let name = endpoint
                .target_ref
                .as_ref()
                .and_then(|target| target.name.as_ref());
            if !name.is_some_and(|name| ours.contains(name)) {
                return false;
            }
            ready |= endpoint
                .conditions
                .as_ref()
                .and_then(|conditions| conditions.ready)
                .unwrap_or(true);
        }
    }
    ready
}

/// Whether any Service selects this release.
pub(super) fn selected(view: &View) -> bool {
    view.observed
        .services
        .values()
        .any(|found| service::selected_release(found) == Some(view.name()))
}

/// Whether a Service still selects this release's component.
pub(super) fn keeps_traffic(view: &View, component: Option<&str>) -> bool {
    let Some(component) = component else { return false };
    let serves = view
        .snapshot
        .component(component)
        .and_then(|component| component.serves.as_ref());
    serves
        .and_then(|serves| view.observed.services.get(&serves.service))
        .is_some_and(|found| service::selected_release(found) == Some(view.name()))
}
