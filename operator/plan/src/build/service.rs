//! The Service of a component: its selector is the traffic switch.

use super::{annotate, applied_hash, hash_of, labels_of};
use crate::labels;
use fairway_crds::App;
use fairway_crds::component::{Component, Serves};
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::core::ObjectMeta;
use kube::{Resource, ResourceExt};
use std::collections::BTreeMap;

/// The fields of the Service that are applied so that the pods of `release` get its traffic.
///
/// Fairway owns a Service that does not exist yet or that it made itself, and says its ports. Of one that the
/// team brought, whose manifest has no selector, it applies the selector, and labels and an annotation of its
/// own, and nothing else.
pub fn service(
    app: &App,
    component: &Component,
    serves: &Serves,
    release: &str,
    existing: Option<&Service>,
) -> Service {
    let name = app.name_any();
    let mut service = Service {
        metadata: ObjectMeta {
            name: Some(serves.service.clone()),
            namespace: app.metadata.namespace.clone(),
            labels: Some([(labels::APP.to_owned(), name.clone())].into()),
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec {
            selector: Some(selector(&name, component, release)),
            ..ServiceSpec::default()
        }),
        status: None,
    };
    if existing.is_none_or(|existing| is_ours(app, existing)) {
        service.metadata.labels = Some(labels_of([
            (labels::APP, &*name),
            (labels::COMPONENT, &*component.name),
        ]));
        service.metadata.owner_references = app.controller_owner_ref(&()).map(|owner| vec![owner]);
        service.spec.get_or_insert_default().ports = Some(vec![port(serves)]);
    }
    let hash = hash_of(&service);
    annotate(&mut service.metadata, labels::APPLIED_HASH, hash);
    service
}

/// A Service as a dry run asks for it before a step of the release, so that the answer is not taken for one to the switch itself,
/// which may come days later.
pub fn asked(mut service: Service, before: &str) -> Service {
    annotate(&mut service.metadata, labels::ASKED_BEFORE, before.to_owned());
    let hash = hash_of(&service);
    annotate(&mut service.metadata, labels::APPLIED_HASH, hash);
    service
}

fn selector(app: &str, component: &Component, release: &str) -> BTreeMap<String, String> {
    [
        (labels::APP, app),
        (labels::COMPONENT, &component.name),
        (labels::RELEASE, release),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect()
}

fn port(serves: &Serves) -> ServicePort {
    ServicePort {
        name: Some("http".to_owned()),
        port: i32::from(serves.port),
        // Part of the key by which the API server merges ports.
        protocol: Some("TCP".to_owned()),
        target_port: Some(IntOrString::Int(i32::from(serves.target_port))),
        ..ServicePort::default()
    }
}

/// Whether this very App owns the Service; an App of the same name that is gone does not count.
pub(crate) fn is_ours(app: &App, service: &Service) -> bool {
    let uid = app.metadata.uid.as_deref().unwrap_or_default();
    service
        .owner_references()
        .iter()
        .any(|owner| !uid.is_empty() && owner.uid == uid)
}

/// The App whose pods a Service selects, if it is another one that Fairway switches it for.
pub fn other_owner(app: &App, service: &Service) -> Option<String> {
    let selector = service.spec.as_ref()?.selector.as_ref()?;
    let selected = selector.get(labels::APP)?;
    (selector.contains_key(labels::RELEASE) && *selected != app.name_any()).then(|| selected.clone())
}

/// The Release whose pods the Service selects.
pub fn selected_release(service: &Service) -> Option<&str> {
    service
        .spec
        .as_ref()?
        .selector
        .as_ref()?
        .get(labels::RELEASE)
        .map(String::as_str)
}

/// Whether the Service's selector is Fairway's for the component and the release that these labels name.
pub fn selects(service: &Service, pod: &BTreeMap<String, String>) -> bool {
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|selector| {
        [labels::APP, labels::RELEASE, labels::COMPONENT]
            .iter()
            .all(|key| {
                selector
                    .get(*key)
                    .is_some_and(|value| pod.get(*key) == Some(value))
            })
    })
}

/// Whether the Service is missing, was applied from another content, or has had its selector, or a port that Fairway set,
/// changed since.
pub fn needs_apply(desired: &Service, observed: Option<&Service>) -> bool {
    let selector = |service: &Service| service.spec.as_ref().and_then(|spec| spec.selector.clone());
    observed.is_none_or(|observed| {
        applied_hash(&observed.metadata) != applied_hash(&desired.metadata)
            || selector(observed) != selector(desired)
            || ports(desired).any(|port| !ports(observed).any(|found| is_same(found, port)))
    })
}

fn ports(service: &Service) -> impl Iterator<Item = &ServicePort> {
    let spec = service.spec.iter();
    spec.flat_map(|spec| spec.ports.iter().flatten())
}

/// Whether a port is as desired; the API server adds to it.
fn is_same(found: &ServicePort, desired: &ServicePort) -> bool {
    found.port == desired.port
        && found.protocol == desired.protocol
        && found.target_port == desired.target_port
}
