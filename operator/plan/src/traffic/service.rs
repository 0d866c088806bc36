//! The Service of a component selects the pods of one release; changing its selector moves all users at once.

use super::port::{
    Destination, Driver, Entry, Network, Objects, Pending, Switch, Target, Validation, serving,
};
use crate::build::service;
use crate::labels;
use crate::message::quoting;
use crate::object::{Kind, Object, Step};
use crate::readings::has_finished;
use crate::time::to_milliseconds;
use fairway_crds::Reason;
use fairway_crds::component::{Component, Serves};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;

/// Time in which endpoints usually follow a selector; only a wait that lasts longer is shown in status.
const CONVERGENCE: SignedDuration = SignedDuration::from_secs(1);

/// Switches the selectors of Services.
pub(super) struct SelectorSwitch;

impl Driver for SelectorSwitch {
    fn entries<'a>(&self, objects: Objects<'a>) -> Vec<Entry<'a>> {
        let services = objects.services.iter();
        services
            .map(|(name, service)| Entry {
                service: name,
                targets: selected(service).into_iter().collect(),
            })
            .collect()
    }

    fn direct(&self, network: &Network, to: &Destination, validation: Validation) -> Switch {
        let mut switches = Vec::new();
        for (component, serves) in serving(to.snapshot) {
            match switch(network, to, component, serves) {
                Ok(switch) => switches.extend(switch),
                Err(message) => return Switch::Refused(Reason::ServiceRefused, message),
            }
        }
        if let Some(steps) = dry_runs(network, &switches, validation) {
            let message =
                "Asking the API server whether it would accept every switch, before the first is made.";
            return Switch::Write(
                steps,
                Pending {
                    message: message.to_owned(),
                    brief_until: Some(network.now),
                },
            );
        }
        if !switches.is_empty() {
            let applies = switches
                .into_iter()
                .map(|service| Step::Apply(Box::new(Object::Service(service))));
            return Switch::Write(
                applies.collect(),
                Pending {
                    message: format!("Switching traffic to {}.", to.release),
                    brief_until: Some(after_convergence(network.now)),
                },
            );
        }
        match serving(to.snapshot)
            .find(|(component, serves)| !shows_only(network, component, serves, to.release))
        {
            Some((_, lagging)) => Switch::Pending(following(network, lagging, to.release)),
            None => Switch::Converged,
        }
    }

    fn writes(&self, kind: Kind) -> bool {
        kind == Kind::Service
    }
}

/// The pods that a Service selects, if it is Fairway that set its selector.
fn selected(service: &Service) -> Option<Target<'_>> {
    let selector = service.spec.as_ref()?.selector.as_ref()?;
    let value = |key: &str| selector.get(key).map(String::as_str);
    Some(Target {
        app: value(labels::APP)?,
        component: value(labels::COMPONENT)?,
        release: value(labels::RELEASE)?,
    })
}

/// What directs one Service, if it has to be written.
///
/// # Errors
/// Why it cannot be written, and what a user can do.
fn switch(
    network: &Network,
    to: &Destination,
    component: &Component,
    serves: &Serves,
) -> Result<Option<Service>, String> {
    let existing = network.objects.services.get(&serves.service).map(AsRef::as_ref);
    if let Some(other) = existing.and_then(|existing| service::other_owner(to.app, existing)) {
        return Err(format!(
            "Service {} already serves App {other}. Name another Service in serves.service of component {}.",
            serves.service, component.name
        ));
    }
    let mut desired = service::service(to.app, component, serves, to.release, existing);
    if !service::needs_apply(&desired, existing) {
        return Ok(None);
    }
    if let Some(refusal) = refusal(network, &desired, existing) {
        return Err(refusal);
    }
    // A switch that was decided on an older state of the Service must not undo a newer one.
    desired.metadata.resource_version =
        existing.and_then(|existing| existing.metadata.resource_version.clone());
    desired.annotations_mut().insert(
        labels::SWITCHED_AT.to_owned(),
        to_milliseconds(network.now).to_string(),
    );
    Ok(Some(desired))
}

/// What the API server's refusal of this very Service means.
fn refusal(network: &Network, desired: &Service, existing: Option<&Service>) -> Option<String> {
    let name = desired.name_any();
    let refusal = network.answers.refusal_of(Kind::Service, &desired.metadata)?;
    if !refusal.conflict {
        let what = format!("Service {name} cannot be switched, because the API server refuses it");
        let what = quoting(&what, Some(&refusal.message));
        return Some(format!(
            "{what} Fix what that answer names; Fairway retries automatically."
        ));
    }
    let selector = existing.and_then(|existing| existing.spec.as_ref()?.selector.as_ref());
    if selector.is_none_or(|selector| selector.is_empty()) {
        // Whoever set it has removed it: nobody is selected, so this is not left for later.
        return None;
    }
    let what = format!("Service {name} cannot be switched, because another manager sets its selector");
    let what = quoting(&what, Some(&refusal.message));
    Some(format!(
        "{what} Remove spec.selector from the manifest of the Service, so that Fairway can switch it."
    ))
}

/// Dry runs of the switches that have not passed one, where there are several.
fn dry_runs(network: &Network, switches: &[Service], validation: Validation) -> Option<Vec<Step>> {
    if validation == Validation::Immediate || switches.len() < 2 {
        return None;
    }
    let steps: Vec<_> = switches
        .iter()
        .filter_map(|service| network.answers.dry_run(Object::Service(service.clone())))
        .collect();
    (!steps.is_empty()).then_some(steps)
}

/// Whether the endpoints of a Service are pods of that release, at least one of them ready.
fn shows_only(network: &Network, component: &Component, serves: &Serves, release: &str) -> bool {
    let pods = network.pods.iter().filter(|pod| {
        let is = |key: &str, value: &str| pod.labels().get(key).is_some_and(|found| found == value);
        is(labels::COMPONENT, &component.name) && is(labels::RELEASE, release) && !has_finished(pod)
    });
    let ours: Vec<String> = pods.map(|pod| pod.name_any()).collect();
    let mut ready = false;
    let slices = network.endpoint_slices.iter();
    for slice in
        slices.filter(|slice| slice.labels().get("kubernetes.io/service-name") == Some(&serves.service))
    {
        for endpoint in &slice.endpoints {
            let target = endpoint.target_ref.as_ref();
            let name = target.and_then(|target| target.name.as_ref());
            if !name.is_some_and(|name| ours.contains(name)) {
                return false;
            }
            let conditions = endpoint.conditions.as_ref();
            ready |= conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
        }
    }
    ready
}

/// The wait until the endpoints of a Service follow its selector.
fn following(network: &Network, serves: &Serves, release: &str) -> Pending {
    let shown_from = after_convergence(switched_at(network, serves));
    Pending {
        message: format!(
            "Waiting until the endpoints of Service {} contain only pods of Release {release}.",
            serves.service
        ),
        brief_until: (network.now < shown_from).then_some(shown_from),
    }
}

/// When Fairway last switched a Service; long ago when the Service does not say.
fn switched_at(network: &Network, serves: &Serves) -> Timestamp {
    let found = network.objects.services.get(&serves.service);
    found
        .and_then(|found| found.annotations().get(labels::SWITCHED_AT)?.parse().ok())
        .unwrap_or(Timestamp::UNIX_EPOCH)
}

fn after_convergence(switched: Timestamp) -> Timestamp {
    switched.saturating_add(CONVERGENCE).unwrap_or(Timestamp::MAX)
}
