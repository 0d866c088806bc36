//! Whom the operator asks for health: the ready pods of a release between its rollout and the end of its bake.

use super::comparison::compared;
use super::probe_pod::{own_probe_pod, previous};
use crate::build::agent;
use crate::observed::{ProbePod, ProbeTarget, ReleaseObserved, Settings};
use crate::probe_token::ProbeToken;
use crate::release::history::{happened, has_ended};
use crate::release::view::View;
use fairway_crds::component::Component;
use fairway_crds::release::MilestoneKind;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

/// The pods to ask now; empty when this release is not at a rung that needs it.
pub fn probe_targets(observed: &ReleaseObserved, settings: &Settings) -> Vec<ProbeTarget> {
    let status = observed.release.status.clone().unwrap_or_default();
    let done = has_ended(&observed.release)
        || happened(&status, MilestoneKind::RollingBack).is_some()
        || happened(&status, MilestoneKind::Baked).is_some();
    let Some(snapshot) = observed.snapshots.get(&observed.release.name_any()) else {
        return Vec::new();
    };
    if done || observed.app.is_none() || observed.release.metadata.deletion_timestamp.is_some() {
        return Vec::new();
    }
    let view = View::new(observed, settings, jiff::Timestamp::UNIX_EPOCH, snapshot);
    let secret = agent::probe_requests(snapshot, previous(&view));
    let asker = (
        own_probe_pod(&view).and_then(address),
        &observed.probe_pod.identity.token,
    );
    let components = snapshot
        .components
        .iter()
        .filter(|component| component.health.is_some());
    let own = components
        .flat_map(|component| {
            view.ready_pods(&component.name, view.name())
                .into_iter()
                .map(move |pod| (component, pod))
        })
        .filter_map(|(component, pod)| target(component, pod, &secret, asker));
    let compared = compared(&view, &status).into_iter();
    own.chain(compared.filter_map(|(component, pod)| target(component, pod, &secret, asker)))
        .collect()
}

fn target(
    component: &Component,
    pod: &Pod,
    secret: &[(String, u16, crate::protocol::HttpRequest)],
    (probe_pod, token): (Option<std::net::IpAddr>, &ProbeToken),
) -> Option<ProbeTarget> {
    let health = component.health.as_ref()?;
    let requests: Vec<_> = health
        .http
        .iter()
        .map(|get| agent::http_request(component, get))
        .collect();
    let indexes: Vec<_> = requests
        .iter()
        .map(|(port, request)| {
            secret.iter().position(|(name, its_port, its)| {
                *name == component.name && its_port == port && its == request
            })
        })
        .collect();
    let via = indexes.iter().any(Option::is_some).then_some(ProbePod {
        address: probe_pod,
        token: token.clone(),
        indexes,
    });
    Some(ProbeTarget {
        pod_uid: pod.metadata.uid.clone()?,
        pod_name: pod.name_any(),
        address: address(pod)?,
        requests,
        via,
        period: health.period.get(),
        success_threshold: health.success_threshold,
        failure_threshold: health.failure_threshold,
    })
}

fn address(pod: &Pod) -> Option<std::net::IpAddr> {
    pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()
}
