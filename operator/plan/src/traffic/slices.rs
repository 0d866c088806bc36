//! EndpointSlices of a Service: those that Kubernetes makes for its selector, and those that somebody else made beside them, to
//! which users are sent as well.

use super::port::{TrafficState, TrafficTarget, serving};
use crate::kubectl;
use crate::readings::{SERVICE_NAME, is_foreign};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::ResourceExt;

/// The slices of a Service.
fn of<'a>(state: &TrafficState<'a>, service: &'a str) -> impl Iterator<Item = &'a EndpointSlice> {
    let slices = state.endpoint_slices.iter().map(AsRef::as_ref);
    slices.filter(move |slice: &&EndpointSlice| {
        let found = slice.labels().get(SERVICE_NAME);
        found.is_some_and(|found| found == service)
    })
}

/// Those that Kubernetes makes for the pods that the Service selects.
pub(super) fn of_selected_pods<'a>(
    state: &TrafficState<'a>,
    service: &'a str,
) -> impl Iterator<Item = &'a EndpointSlice> {
    of(state, service).filter(|slice| !is_foreign(&slice.metadata))
}

/// That somebody else's slices send users elsewhere, whatever a Service selects. Where a Service selects nothing yet they
/// are all that serves, and stay until it is switched.
pub(super) fn made_by_hand(
    state: &TrafficState,
    to: &TrafficTarget,
    is_switched: impl Fn(&str) -> bool,
) -> Option<String> {
    serving(to.snapshot).find_map(|(_, serves)| {
        let name = &serves.service;
        if is_switched(name) && selects_nothing(state, name) {
            return None;
        }
        let slice = of(state, name).find(|slice| is_foreign(&slice.metadata) && slice.endpoints.iter().any(is_reached))?;
        let addresses = slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
        let addresses: Vec<_> = addresses.take(3).map(String::as_str).collect();
        let namespace = to.app.metadata.namespace.as_deref().unwrap_or_default();
        Some(format!(
            "EndpointSlice {slice} was not made by Kubernetes, and Service {name} sends requests to it ({addresses}) \
             whatever it selects. Delete it: {command}",
            slice = slice.name_any(),
            addresses = addresses.join(", "),
            command = kubectl::delete_endpoint_slice(namespace, &slice.name_any()),
        ))
    })
}

/// Whether requests are sent to an endpoint: to those that are ready, or do not say.
fn is_reached(endpoint: &Endpoint) -> bool {
    let conditions = endpoint.conditions.as_ref();
    conditions.and_then(|conditions| conditions.ready).unwrap_or(true)
}

fn selects_nothing(state: &TrafficState, service: &str) -> bool {
    let found = state.objects.services.get(service);
    let selector = found.and_then(|found| found.spec.as_ref()?.selector.as_ref());
    selector.is_none_or(|selector| selector.is_empty())
}
