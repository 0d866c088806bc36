//! The Service of a component selects the pods of one release; changing its selector moves all traffic at once.

use super::fitness;
use super::port::{
    Asked, Driver, Late, Leftover, Objects, Pending, Refused, Removal, ServiceTargets, Switch, TargetPods,
    TrafficState, TrafficTarget, Validation, serving,
};
use super::slices;
use crate::build::service;
use crate::kubectl;
use crate::labels;
use crate::message::quoting;
use crate::object::{Kind, Object, ObjectRef, Step};
use crate::observed::Refusal;
use crate::readings::has_finished;
use crate::time::to_milliseconds;
use fairway_crds::component::{Component, Serves};
use fairway_crds::{App, Reason};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::Endpoint;
use kube::ResourceExt;

/// Time in which endpoints usually follow a selector; only a wait that lasts longer is shown in status.
const CONVERGENCE: SignedDuration = SignedDuration::from_secs(1);
/// Time after which endpoints that lag behind a selector need a user's attention.
const LATE: SignedDuration = SignedDuration::from_mins(2);

/// Switches the selectors of Services.
pub(super) struct SelectorSwitch;

impl Driver for SelectorSwitch {
    fn service_targets<'a>(&self, objects: Objects<'a>) -> Vec<ServiceTargets<'a>> {
        let services = objects.services.iter();
        services
            .map(|(name, service)| ServiceTargets {
                service: name,
                targets: selected(service).into_iter().collect(),
            })
            .collect()
    }

    fn unfit(&self, state: &TrafficState, to: &TrafficTarget) -> Option<String> {
        fitness::unfit(state, to)
    }

    fn hindered(&self, state: &TrafficState, to: &TrafficTarget) -> Option<String> {
        slices::made_by_hand(state, to, |_| true)
    }

    fn ask(&self, state: &TrafficState, to: &TrafficTarget) -> Asked {
        let mut steps = Vec::new();
        for (component, serves) in serving(to.snapshot) {
            let existing = existing(state, serves);
            let desired = match desired(state, to, component, serves) {
                Ok(Some(desired)) => service::asked(desired, "migration"),
                Ok(None) => continue,
                Err(message) => return Asked::Refused(refused(message)),
            };
            match state.answers.refusal_of(Kind::Service, &desired.metadata) {
                Some(answer) => {
                    if let Some(message) = refusal(answer, to.app, &desired, existing) {
                        return Asked::Refused(refused(message));
                    }
                }
                None => steps.extend(state.answers.dry_run(Object::Service(desired))),
            }
        }
        if steps.is_empty() {
            Asked::Accepted
        } else {
            Asked::Ask(steps)
        }
    }

    fn direct(&self, state: &TrafficState, to: &TrafficTarget, validation: Validation) -> Switch {
        let mut switches = Vec::new();
        for (component, serves) in serving(to.snapshot) {
            match switch(state, to, component, serves) {
                Ok(switch) => switches.extend(switch),
                Err(message) => return Switch::Refused(refused(message)),
            }
        }
        let is_switched = |name: &str| {
            switches
                .iter()
                .any(|service: &Service| service.name_any() == name)
        };
        if validation == Validation::DryRunFirst
            && let Some(message) = slices::made_by_hand(state, to, is_switched)
        {
            return Switch::Refused(refused(message));
        }
        if let Some(steps) = dry_runs(state, &switches, validation) {
            let message =
                "Asking the API server whether it would accept every switch, before the first is made.";
            return Switch::Write(
                steps,
                Pending {
                    message: message.to_owned(),
                    brief_until: Some(state.now),
                    late: None,
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
                    brief_until: Some(after_convergence(state.now)),
                    late: None,
                },
            );
        }
        match serving(to.snapshot)
            .find(|(component, serves)| !shows_only(state, component, serves, to.release))
        {
            Some((_, lagging)) => Switch::Pending(following(state, to, lagging)),
            None => Switch::Converged,
        }
    }

    fn draining(&self, state: &TrafficState, to: &TrafficTarget) -> Option<Pending> {
        let (_, serves) =
            serving(to.snapshot).find(|(_, serves)| shows_another(state, serves, to.release))?;
        // What is late is counted from the switch, which may be long ago here.
        Some(Pending {
            late: None,
            ..following(state, to, serves)
        })
    }

    fn writes(&self, kind: Kind) -> bool {
        kind == Kind::Service
    }

    fn leftovers<'a>(&self, state: &TrafficState<'a>, to: &TrafficTarget) -> Vec<Leftover<'a>> {
        let app = to.app.name_any();
        let is_served = |name: &str| serving(to.snapshot).any(|(_, serves)| serves.service == name);
        let services = state.objects.services.iter();
        services
            .filter(|(name, _)| !is_served(name))
            .filter_map(|(name, service)| {
                let selected = selected(service)?;
                let is_left = selected.app == app && selected.release != to.release;
                is_left.then(|| Leftover {
                    service: name,
                    release: selected.release,
                    removal: removal(state, to.app, name, service),
                })
            })
            .collect()
    }
}

/// What becomes of a Service that this App does not serve any more.
fn removal(state: &TrafficState, app: &App, name: &str, service: &Service) -> Removal {
    let is_being_deleted = service.metadata.deletion_timestamp.is_some();
    if is_being_deleted || state.served_by_others.contains_key(name) {
        return Removal::NotDue;
    }
    match ObjectRef::of(Kind::Service, &service.metadata) {
        Some(service_ref) if service::is_ours(app, service) => Removal::Due(Step::Delete(service_ref)),
        _ => Removal::NotOurs,
    }
}

fn refused(message: String) -> Refused {
    Refused {
        reason: Reason::ServiceRefused,
        message,
    }
}

/// The pods that a Service selects, if it is Fairway that set its selector.
fn selected(service: &Service) -> Option<TargetPods<'_>> {
    let selector = service.spec.as_ref()?.selector.as_ref()?;
    let value = |key: &str| selector.get(key).map(String::as_str);
    Some(TargetPods {
        app: value(labels::APP)?,
        component: value(labels::COMPONENT)?,
        release: value(labels::RELEASE)?,
    })
}

fn existing<'a>(state: &TrafficState<'a>, serves: &Serves) -> Option<&'a Service> {
    state.objects.services.get(&serves.service).map(AsRef::as_ref)
}

/// What switches one Service, if it has to be written.
///
/// # Errors
/// Why it cannot be written, and what a user can do.
fn switch(
    state: &TrafficState,
    to: &TrafficTarget,
    component: &Component,
    serves: &Serves,
) -> Result<Option<Service>, String> {
    let existing = existing(state, serves);
    let Some(mut desired) = desired(state, to, component, serves)? else {
        return Ok(None);
    };
    let answer = state.answers.refusal_of(Kind::Service, &desired.metadata);
    if let Some(refusal) = answer.and_then(|answer| refusal(answer, to.app, &desired, existing)) {
        return Err(refusal);
    }
    // A switch that was decided on an older state of the Service must not undo a newer one.
    desired.metadata.resource_version =
        existing.and_then(|existing| existing.metadata.resource_version.clone());
    desired.annotations_mut().insert(
        labels::SWITCHED_AT.to_owned(),
        to_milliseconds(state.now).to_string(),
    );
    Ok(Some(desired))
}

/// What one Service should say, if it has to be written.
///
/// # Errors
/// Why it is not Fairway's to write, and what a user can do.
fn desired(
    state: &TrafficState,
    to: &TrafficTarget,
    component: &Component,
    serves: &Serves,
) -> Result<Option<Service>, String> {
    let existing = existing(state, serves);
    if let Some(message) = existing.and_then(|existing| fitness::leads_out(existing, component)) {
        return Err(message);
    }
    // The selector of an App that is gone, or serves something else by now, belongs to nobody.
    let other = existing.and_then(|existing| service::other_owner(to.app, existing));
    let serving = state.served_by_others.get(&serves.service);
    if let Some(other) = other.filter(|other| serving.is_some_and(|serving| serving.contains(other))) {
        return Err(format!(
            "Service {} already serves App {other}. Name another Service in serves.service of component {}, or remove it \
             from App {other}.",
            serves.service, component.name
        ));
    }
    let desired = service::service(to.app, component, serves, to.release, existing);
    Ok(service::needs_apply(&desired, existing).then_some(desired))
}

/// What the API server's refusal of a Service means; `None` when another attempt is due at once.
fn refusal(refusal: &Refusal, app: &App, desired: &Service, existing: Option<&Service>) -> Option<String> {
    let name = desired.name_any();
    if refusal.conflicts.is_empty() {
        let what = format!("Service {name} cannot be switched, because the API server refuses it");
        let what = quoting(&what, Some(&refusal.message));
        return Some(format!(
            "{what} Fix what that answer names; Fairway retries automatically."
        ));
    }
    if !refusal.conflicts.iter().all(|field| is_of_selector(field)) {
        let is_ours = existing.is_some_and(|existing| service::is_ours(app, existing));
        let (what, fix) = if is_ours {
            let what = format!(
                "Service {name}, which Fairway created, cannot be written, because another manager has changed it"
            );
            (what, "Undo that change.")
        } else {
            let what = format!(
                "Service {name} cannot be switched, because another manager sets a field that Fairway writes"
            );
            (what, "Remove that field from the manifest of the Service.")
        };
        let what = quoting(&what, Some(&refusal.message));
        return Some(format!("{what} {fix}"));
    }
    let selector = existing.and_then(|existing| existing.spec.as_ref()?.selector.as_ref());
    if selector.is_none_or(|selector| selector.is_empty()) {
        // The manager that set the selector has removed it. The Service selects no pods, so the switch is not delayed.
        return None;
    }
    let what = format!("Service {name} cannot be switched, because another manager sets its selector");
    let what = quoting(&what, Some(&refusal.message));
    Some(format!(
        "{what} Remove spec.selector from the manifest of the Service, so that Fairway can switch it."
    ))
}

/// Whether a path names the selector of a Service, or a label in it.
fn is_of_selector(field: &str) -> bool {
    let below = field.strip_prefix(".spec.selector");
    below.is_some_and(|below| below.is_empty() || below.starts_with(['.', '[']))
}

/// Dry runs of the switches that have not passed one, where there are several.
fn dry_runs(state: &TrafficState, switches: &[Service], validation: Validation) -> Option<Vec<Step>> {
    if validation == Validation::Immediate || switches.len() < 2 {
        return None;
    }
    let steps: Vec<_> = switches
        .iter()
        .filter_map(|service| state.answers.dry_run(Object::Service(service.clone())))
        .collect();
    (!steps.is_empty()).then_some(steps)
}

/// Whether the endpoints of a Service are pods of that release, at least one of them ready.
fn shows_only(state: &TrafficState, component: &Component, serves: &Serves, release: &str) -> bool {
    let pods = state.pods.iter().filter(|pod| {
        let is = |key: &str, value: &str| pod.labels().get(key).is_some_and(|found| found == value);
        is(labels::COMPONENT, &component.name) && is(labels::RELEASE, release) && !has_finished(pod)
    });
    let ours: Vec<String> = pods.map(|pod| pod.name_any()).collect();
    let mut ready = false;
    for endpoint in endpoints(state, serves) {
        if !target_of(endpoint).is_some_and(|name| ours.contains(name)) {
            return false;
        }
        let conditions = endpoint.conditions.as_ref();
        ready |= conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
    }
    ready
}

/// Whether an endpoint of a Service is a pod of another release that is not ending.
fn shows_another(state: &TrafficState, serves: &Serves, release: &str) -> bool {
    let is_another = |pod: &Pod| {
        let found = pod.labels().get(labels::RELEASE);
        found.is_some_and(|found| found != release) && pod.metadata.deletion_timestamp.is_none()
    };
    endpoints(state, serves).filter_map(target_of).any(|name| {
        let mut pods = state.pods.iter();
        pods.any(|pod| pod.metadata.name.as_ref() == Some(name) && is_another(pod))
    })
}

/// Endpoints of a Service that follow its selector.
fn endpoints<'a>(state: &TrafficState<'a>, serves: &'a Serves) -> impl Iterator<Item = &'a Endpoint> {
    slices::of_selected_pods(state, &serves.service).flat_map(|slice| &slice.endpoints)
}

/// Name of the pod behind an endpoint.
fn target_of(endpoint: &Endpoint) -> Option<&String> {
    endpoint.target_ref.as_ref()?.name.as_ref()
}

/// The wait until the endpoints of a Service follow its selector.
fn following(state: &TrafficState, to: &TrafficTarget, serves: &Serves) -> Pending {
    let switched = switched_at(state, serves);
    let namespace = to.app.metadata.namespace.as_deref().unwrap_or_default();
    let shown_from = switched.map(after_convergence).filter(|from| state.now < *from);
    Pending {
        message: format!(
            "Waiting until the endpoints of Service {} contain only pods of Release {}.",
            serves.service, to.release
        ),
        brief_until: shown_from,
        late: Some(Late {
            from: switched
                .unwrap_or(state.now)
                .saturating_add(LATE)
                .unwrap_or(Timestamp::MAX),
            advice: format!(
                "This has taken more than two minutes; it usually takes seconds. Check the endpoints, and whether \
                 kube-controller-manager runs: {}",
                kubectl::endpoint_slices(namespace, &serves.service)
            ),
        }),
    }
}

/// When Fairway last switched a Service, if the Service says so.
fn switched_at(state: &TrafficState, serves: &Serves) -> Option<Timestamp> {
    let found = state.objects.services.get(&serves.service)?;
    found.annotations().get(labels::SWITCHED_AT)?.parse().ok()
}

fn after_convergence(switched: Timestamp) -> Timestamp {
    switched.saturating_add(CONVERGENCE).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn service(name: &str, selector: serde_json::Value) -> Service {
        let manifest = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop"},
            "spec": {"selector": selector}
        });
        serde_json::from_value(manifest).unwrap()
    }

    #[rstest]
    #[case::selector(&[".spec.selector"], json!({"app": "crm"}), Some("another manager sets its selector"))]
    #[case::label_in_it(&[".spec.selector.app"], json!({"app": "crm"}), Some("another manager sets its selector"))]
    #[case::selector_that_was_removed(&[".spec.selector"], json!({}), None)]
    #[case::other_field(&[".metadata.labels.app"], json!({"app": "crm"}), Some("Remove that field from the manifest"))]
    #[case::other_field_without_selector(&[".metadata.labels.app"], json!({}), Some("Remove that field from the manifest"))]
    #[case::field_that_begins_alike(&[".spec.selectors"], json!({}), Some("Remove that field from the manifest"))]
    #[case::one_of_two(&[".spec.selector", ".metadata.labels.app"], json!({}), Some("Remove that field from the manifest"))]
    #[case::no_conflict(&[], json!({}), Some("because the API server refuses it"))]
    fn a_conflict_is_told_by_the_field_that_it_is_about(
        #[case] conflicts: &[&str],
        #[case] selector: serde_json::Value,
        #[case] expected: Option<&str>,
    ) {
        let answer = Refusal {
            message: "conflict with \"kubectl\"".to_owned(),
            conflicts: conflicts.iter().map(ToString::to_string).collect(),
            may_pass: true,
        };
        let existing = service("crm", selector);
        let said = refusal(
            &answer,
            &crate::bench::app(),
            &service("crm", json!({})),
            Some(&existing),
        );
        assert_eq!(said.is_some(), expected.is_some(), "{said:?}");
        if let (Some(said), Some(expected)) = (said, expected) {
            assert!(said.contains(expected), "{said}");
        }
    }
}
