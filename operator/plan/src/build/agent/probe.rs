//! Health requests, and the pod that makes those which need a header from a Secret.

use super::place::Place;
use super::pod::{TaskContext, agent_container, agent_pod_spec, from_secret, run_own_agent, task_variables};
use super::sidecars;
use crate::names;
use crate::observed::{ProbeIdentity, Settings};
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

/// The requests that a release's probe pod makes, in the order in which its task lists them: component, port, request.
///
/// Those of the release that need a Secret come first. Those of the previous release that differ follow, as far as the
/// pod has their Secrets: its pods are asked for comparison.
pub fn probe_requests(snapshot: &Snapshot, previous: Option<&Snapshot>) -> Vec<(String, u16, HttpRequest)> {
    let mut requests = secret_requests(snapshot);
    for request in previous.into_iter().flat_map(secret_requests) {
        let component = previous.and_then(|previous| previous.component(&request.0));
        if component.is_some_and(|component| can_ask(snapshot, component)) && !requests.contains(&request) {
            requests.push(request);
        }
    }
    requests
}

/// Whether a release can make the health requests of a component of the previous one: none needs a key of a Secret that no
/// request of its own needs. Its probe pod has no other, because a key that is gone would keep the pod from starting.
pub fn can_ask(snapshot: &Snapshot, previous: &Component) -> bool {
    let own = header_variables(&snapshot.components);
    header_variables([previous])
        .iter()
        .all(|variable| own.contains(variable))
}

/// The requests of a release that need a Secret: component, port, request.
fn secret_requests(snapshot: &Snapshot) -> Vec<(String, u16, HttpRequest)> {
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

/// The first component with such a request.
fn asking(snapshot: &Snapshot) -> Option<&Component> {
    let mut components = snapshot.components.iter();
    components.find(|component| !header_variables([*component]).is_empty())
}

/// The pod that makes those requests for this operator process; `None` when the release has none.
pub fn probe_pod(
    settings: &Settings,
    release: &Release,
    snapshot: &Snapshot,
    previous: Option<&Snapshot>,
    identity: &ProbeIdentity,
) -> Option<Pod> {
    let requests: Vec<_> = probe_requests(snapshot, previous)
        .into_iter()
        .map(|(_, port, request)| (port, request))
        .collect();
    if requests.is_empty() {
        return None;
    }
    let release_name = release.name_any();
    let context = TaskContext {
        task: &PROBE,
        name: &identity.name,
        namespace: release.metadata.namespace.as_ref(),
        app: &release.spec.app,
        release: Some(&release_name),
        work_for: &release_name,
        owner: release.controller_owner_ref(&()),
    };
    let task = Task::Probe(ProbeTask {
        token_sha256: identity.token.sha256(),
        requests,
    });
    let mut variables = task_variables(&task);
    variables.extend(header_variables(&snapshot.components));
    let mut container = agent_container(settings, variables);
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
    let place = asking(snapshot).map(Place::of).unwrap_or_default();
    let mut pod = agent_pod_spec(settings, place.on_nodes_of_app(settings));
    // It serves until it is deleted, also over a crash.
    pod.restart_policy = Some("Always".to_owned());
    pod.termination_grace_period_seconds = Some(5);
    pod.containers = vec![container];
    let mut metadata = context.metadata();
    sidecars::as_component(&mut metadata, asking(snapshot));
    Some(Pod {
        metadata,
        spec: Some(pod),
        status: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn snapshot(path: &str, secret: Option<&str>) -> Snapshot {
        let headers = secret.map(|name| {
            json!({"name": "Authorization", "valueFrom": {"secretKeyRef": {"name": name, "key": "probe"}}})
        });
        let headers: Vec<_> = headers.into_iter().collect();
        let component = json!({
            "name": "web",
            "health": {"http": [{"path": path, "port": 3000, "headers": headers}]},
            "template": {},
        });
        Snapshot {
            components: vec![serde_json::from_value(component).unwrap()],
            ..Snapshot::default()
        }
    }

    #[rstest]
    #[case::the_same_request(snapshot("/health", Some("crm")), true, &["/health"])]
    #[case::another_path(snapshot("/ping", Some("crm")), true, &["/health", "/ping"])]
    #[case::another_secret(snapshot("/ping", Some("former")), false, &["/health"])]
    #[case::no_secret(snapshot("/ping", None), true, &["/health"])]
    fn w18_the_probe_pod_asks_the_previous_version_too(
        #[case] previous: Snapshot,
        #[case] can: bool,
        #[case] expected: &[&str],
    ) {
        let own = snapshot("/health", Some("crm"));
        assert_eq!(can_ask(&own, &previous.components[0]), can);
        let requests = probe_requests(&own, Some(&previous));
        let paths: Vec<_> = requests.iter().map(|(_, _, request)| &*request.path).collect();
        assert_eq!(paths, expected);
    }
}
