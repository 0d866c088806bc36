//! Health requests, and the pod that makes those which need a header from a Secret.

use super::pod::{Errand, from_secret, literal, own_container, own_pod, run_own_agent, task_text};
use crate::names;
use crate::observed::Settings;
use crate::protocol::{self, Header, HttpRequest, PROBE_PORT, ProbeTask, Scheme, Task};
use crate::snapshot::Snapshot;
use crate::tasks::PROBE;
use fairway_crds::Release;
use fairway_crds::component::Component;
use fairway_crds::database::SecretKeySelector;
use fairway_crds::health::{self, HttpGet};
use k8s_openapi::api::core::v1::{ContainerPort, EnvVar, HTTPGetAction, Pod, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{Resource, ResourceExt};
use std::collections::BTreeMap;

/// A component's health request as the prober makes it, with its port.
pub fn http_request(component: &Component, get: &HttpGet) -> (u16, HttpRequest) {
    let HttpGet {
        path,
        port,
        status,
        json,
        scheme,
        host,
        headers,
    } = get;
    // The schema asks for a port where the component does not serve.
    let port = port
        .or(component.serves.as_ref().map(|serves| serves.target_port))
        .unwrap_or(80);
    let headers = headers.iter().map(|header| Header {
        name: header.name.clone(),
        value: header.value.clone(),
        value_from_variable: header
            .value_from
            .as_ref()
            .map(|source| variable(&source.secret_key_ref)),
    });
    let request = HttpRequest {
        scheme: match scheme {
            health::Scheme::Http => Scheme::Http,
            health::Scheme::Https => Scheme::Https,
        },
        path: path.clone(),
        host: host.clone(),
        headers: headers.collect(),
        status: *status,
        json: json.clone(),
    };
    (port, request)
}

/// The variable that holds a key of a Secret: named by both, so that every request of a release that needs it
/// finds the same one.
fn variable(selector: &SecretKeySelector) -> String {
    let SecretKeySelector { name, key } = selector;
    format!(
        "{}HEADER_{}",
        protocol::VARIABLE_PREFIX,
        names::short_hash(format!("{name}/{key}")).to_uppercase()
    )
}

/// The variables that the requests of these components need.
pub(super) fn header_variables<'a>(components: impl IntoIterator<Item = &'a Component>) -> Vec<EnvVar> {
    let selectors = components
        .into_iter()
        .flat_map(|component| component.health.iter().flat_map(|health| &health.http))
        .flat_map(|get| &get.headers)
        .filter_map(|header| Some(&header.value_from.as_ref()?.secret_key_ref));
    let by_variable: BTreeMap<_, _> = selectors.map(|selector| (variable(selector), selector)).collect();
    by_variable
        .into_iter()
        .map(|(variable, selector)| from_secret(&variable, selector))
        .collect()
}

/// The requests that need a Secret, in the order in which the probe pod's task lists them: component, port,
/// request.
pub fn secret_requests(snapshot: &Snapshot) -> Vec<(String, u16, HttpRequest)> {
    let of_component = |component: &Component| {
        let gets = component.health.iter().flat_map(|health| &health.http);
        let secret = gets.filter(|get| get.headers.iter().any(|header| header.value_from.is_some()));
        secret
            .map(|get| {
                let (port, request) = http_request(component, get);
                (component.name.clone(), port, request)
            })
            .collect::<Vec<_>>()
    };
    snapshot.components.iter().flat_map(of_component).collect()
}

/// The pod that makes those requests for this operator process; `None` when there are none.
pub fn probe_pod(settings: &Settings, release: &Release, snapshot: &Snapshot) -> Option<Pod> {
    let requests: Vec<_> = secret_requests(snapshot)
        .into_iter()
        .map(|(_, port, request)| (port, request))
        .collect();
    if requests.is_empty() {
        return None;
    }
    let release_name = release.name_any();
    let errand = Errand {
        task: &PROBE,
        name: &names::probe_pod(&release_name, &settings.probe_token_sha256),
        namespace: release.metadata.namespace.as_ref(),
        app: &release.spec.app,
        release: Some(&release_name),
        work_for: &release_name,
        owner: release.controller_owner_ref(&()),
    };
    let task = Task::Probe(ProbeTask {
        token_sha256: settings.probe_token_sha256.clone(),
        requests,
    });
    let mut variables = vec![literal(protocol::TASK_VARIABLE, task_text(&task))];
    variables.extend(header_variables(&snapshot.components));
    let mut container = own_container(variables);
    run_own_agent(&mut container, settings);
    container.ports = Some(vec![ContainerPort {
        container_port: i32::from(PROBE_PORT),
        ..ContainerPort::default()
    }]);
    container.readiness_probe = Some(Probe {
        http_get: Some(HTTPGetAction {
            path: Some("/healthz".to_owned()),
            port: IntOrString::Int(i32::from(PROBE_PORT)),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(1),
        ..Probe::default()
    });
    let mut pod = own_pod(settings, &[]);
    // It serves until it is deleted, also over a crash.
    pod.restart_policy = Some("Always".to_owned());
    pod.termination_grace_period_seconds = Some(5);
    pod.containers = vec![container];
    Some(Pod {
        metadata: errand.metadata(),
        spec: Some(pod),
        status: None,
    })
}
