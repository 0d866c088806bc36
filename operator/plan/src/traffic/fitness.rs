//! Whether a Service that the team brought is fit for the switch: found before anything is changed, because Fairway owns only
//! its selector.

use super::port::{TrafficState, TrafficTarget, serving};
use crate::build::{service, template};
use crate::labels;
use fairway_crds::component::{Component, Serves};
use k8s_openapi::api::core::v1::{PodSpec, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use std::collections::BTreeMap;

/// Why a Service is not fit for a target, and what to change: one message for the first.
pub(super) fn unfit(state: &TrafficState, to: &TrafficTarget) -> Option<String> {
    serving(to.snapshot).find_map(|(component, serves)| {
        let found = state.objects.services.get(&serves.service)?;
        if service::is_ours(to.app, found) {
            return None;
        }
        leads_out(found, component)
            .or_else(|| leads_elsewhere(found, component, serves))
            .or_else(|| selects_candidate(found, to))
    })
}

/// What is wrong with a Service that selects the candidate's pods before it is switched: users would reach them before their
/// health is known.
fn selects_candidate(service: &Service, to: &TrafficTarget) -> Option<String> {
    let selector = service.spec.as_ref()?.selector.as_ref()?;
    if selector.is_empty() || selector.contains_key(labels::RELEASE) {
        return None;
    }
    to.snapshot.components.iter().find_map(|component| {
        let (template, _) = template::read(component).ok()?;
        let own = template.metadata.and_then(|meta| meta.labels).unwrap_or_default();
        let of_fairway = [
            (labels::APP, to.app.metadata.name.as_deref().unwrap_or_default()),
            (labels::COMPONENT, &component.name),
            (labels::MANAGED_BY, labels::FAIRWAY),
        ];
        let mut all = own.clone();
        all.extend(of_fairway.map(|(key, value)| (key.to_owned(), value.to_owned())));
        let is_selected = selector.iter().all(|(key, value)| all.get(key) == Some(value));
        is_selected.then(|| with_label_to_remove(service, selector, component, &own))
    })
}

fn with_label_to_remove(
    service: &Service,
    selector: &BTreeMap<String, String>,
    component: &Component,
    own: &BTreeMap<String, String>,
) -> String {
    let pairs: Vec<_> = selector
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let name = service.name_any();
    let what = format!(
        "Service {name} selects pods by {}, and the pods of component {} have that too, so users would reach them before \
         their health is known.",
        pairs.join(","),
        component.name
    );
    let removable: Vec<_> = selector.keys().filter(|key| own.contains_key(*key)).collect();
    match removable[..] {
        [] => format!("{what} Remove spec.selector from the manifest of the Service."),
        [label] => format!(
            "{what} Remove the label {label} from template.metadata.labels of component {} in the App.",
            component.name
        ),
        [label, ..] => format!(
            "{what} Remove one of these labels, say {label}, from template.metadata.labels of component {} in the App.",
            component.name
        ),
    }
}

/// What is wrong with a Service whose name DNS answers with another host: its selector is ignored.
pub(super) fn leads_out(service: &Service, component: &Component) -> Option<String> {
    let is_external = service.spec.as_ref()?.type_.as_deref() == Some("ExternalName");
    is_external.then(|| {
        format!(
            "Service {} has type ExternalName, so its users are sent to another host whatever it selects. Set spec.type of the \
             Service to ClusterIP, or name another Service in serves.service of component {}.",
            service.name_any(),
            component.name
        )
    })
}

/// What is wrong with a Service that does not lead to the component's port: every user would be refused. Where no port of the
/// Service has the number that the App names, one that leads there is enough.
fn leads_elsewhere(service: &Service, component: &Component, serves: &Serves) -> Option<String> {
    let (_, pods) = template::read(component).ok()?;
    let ports = service.spec.as_ref()?.ports.as_deref().unwrap_or_default();
    let desired = i32::from(serves.target_port);
    let leads_there = |port: &ServicePort| target(port, &pods) == Some(desired);
    let named = ports.iter().position(|port| port.port == i32::from(serves.port));
    let Some(index) = named else {
        let is_fit = ports.is_empty() || ports.iter().any(leads_there);
        return (!is_fit).then(|| {
            format!(
                "No port of Service {} leads to port {desired}, on which component {} serves. Set \
                 spec.ports[0].targetPort of the Service to {desired}.",
                serves.service, component.name
            )
        });
    };
    let port = &ports[index];
    if leads_there(port) {
        return None;
    }
    let (leads_to, or) = match (&port.target_port, target(port, &pods)) {
        (Some(IntOrString::String(name)), None) => (
            format!("the port named {name} of its pods, which no container has"),
            format!("name that port {name} in template.spec.containers[].ports of that component"),
        ),
        (Some(IntOrString::String(name)), Some(found)) => (
            format!("the port named {name} of its pods, which is {found}"),
            format!("serves.targetPort of that component to {found}"),
        ),
        (_, found) => {
            let found = found.unwrap_or(port.port);
            (
                format!("port {found} of its pods"),
                format!("serves.targetPort of that component to {found}"),
            )
        }
    };
    Some(format!(
        "Port {} of Service {} leads to {leads_to}, and component {} serves on port {desired}. Set \
         spec.ports[{index}].targetPort of the Service to {desired}, or {or} in the App.",
        port.port, serves.service, component.name
    ))
}

/// The port of the pods to which a port of a Service leads; `None` for a name that no container has.
fn target(port: &ServicePort, pods: &PodSpec) -> Option<i32> {
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            let sidecars = pods.init_containers.iter().flatten();
            let containers = pods.containers.iter().chain(sidecars);
            let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
            let found = ports.find(|port| port.name.as_ref() == Some(name))?;
            Some(found.container_port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Snapshot;
    use fairway_crds::App;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn component(ports: &Value) -> Component {
        let container = json!({"name": "web", "image": "crm:1", "ports": ports});
        let component = json!({"name": "web", "template": {"spec": {"containers": [container]}}});
        serde_json::from_value(component).unwrap()
    }

    /// F15: a component with these labels of its pods, and whose Service selects by those.
    #[rstest]
    #[case::by_its_only_label(json!({"app": "crm"}), json!({"app": "crm"}), Some(
        "Service crm selects pods by app=crm, and the pods of component web have that too, so users would reach them before \
         their health is known. Remove the label app from template.metadata.labels of component web in the App."
    ))]
    #[case::by_one_of_several(json!({"app": "crm", "tier": "web", "team": "a"}), json!({"app": "crm", "tier": "web"}), Some(
        "Service crm selects pods by app=crm,tier=web, and the pods of component web have that too, so users would reach \
         them before their health is known. Remove one of these labels, say app, from template.metadata.labels of component \
         web in the App."
    ))]
    #[case::by_what_fairway_adds(json!({}), json!({"app.kubernetes.io/managed-by": "fairway"}), Some(
        "Service crm selects pods by app.kubernetes.io/managed-by=fairway, and the pods of component web have that too, so \
         users would reach them before their health is known. Remove spec.selector from the manifest of the Service."
    ))]
    #[case::by_another_value(json!({"app": "crm-2"}), json!({"app": "crm"}), None)]
    #[case::by_more(json!({"app": "crm"}), json!({"app": "crm", "tier": "web"}), None)]
    #[case::by_nothing(json!({"app": "crm"}), json!({}), None)]
    #[case::by_a_release(json!({}), json!({"fairway.dev/app": "crm", "fairway.dev/component": "web", "fairway.dev/release": "crm-1"}), None)]
    fn f15_a_service_that_selects_the_candidate_is_unfit(
        #[case] own: Value,
        #[case] selector: Value,
        #[case] expected: Option<&str>,
    ) {
        let mut component = component(&json!([]));
        component.template["metadata"] = json!({"labels": own});
        let snapshot = Snapshot {
            components: vec![component],
            ..Snapshot::default()
        };
        let app = json!({"metadata": {"name": "crm"}, "spec": {"components": []}});
        let app: App = serde_json::from_value(app).unwrap();
        let to = TrafficTarget {
            app: &app,
            snapshot: &snapshot,
            release: "crm-1",
        };
        let service = json!({"metadata": {"name": "crm"}, "spec": {"selector": selector}});
        let found = selects_candidate(&serde_json::from_value(service).unwrap(), &to);
        assert_eq!(found.as_deref(), expected);
    }

    fn serves() -> Serves {
        serde_json::from_value(json!({"service": "crm", "port": 80, "targetPort": 3000})).unwrap()
    }

    /// F13: number, name or default, the port that users reach is the one that was asked for its health.
    #[rstest]
    #[case::the_same_number(json!([{"port": 80, "targetPort": 3000}]), None)]
    #[case::a_name(json!([{"port": 80, "targetPort": "http"}]), None)]
    #[case::the_default(json!([{"port": 3000}]), None)]
    #[case::another_port_of_the_service(json!([{"port": 8080, "targetPort": 3000}]), None)]
    #[case::beside_metrics(json!([{"port": 9090, "targetPort": 9090}, {"port": 80, "targetPort": 3000}]), None)]
    #[case::no_ports(json!([]), None)]
    #[case::another_number(json!([{"port": 80, "targetPort": 8080}]), Some(
        "Port 80 of Service crm leads to port 8080 of its pods, and component web serves on port 3000. Set \
         spec.ports[0].targetPort of the Service to 3000, or serves.targetPort of that component to 8080 in the App."
    ))]
    #[case::no_target(json!([{"port": 80}]), Some(
        "Port 80 of Service crm leads to port 80 of its pods, and component web serves on port 3000. Set \
         spec.ports[0].targetPort of the Service to 3000, or serves.targetPort of that component to 80 in the App."
    ))]
    #[case::a_missing_name(json!([{"port": 80, "targetPort": "web"}]), Some(
        "Port 80 of Service crm leads to the port named web of its pods, which no container has, and component web serves \
         on port 3000. Set spec.ports[0].targetPort of the Service to 3000, or name that port web in \
         template.spec.containers[].ports of that component in the App."
    ))]
    #[case::another_name(json!([{"port": 9090, "targetPort": "admin"}, {"port": 80, "targetPort": "admin"}]), Some(
        "Port 80 of Service crm leads to the port named admin of its pods, which is 9000, and component web serves on port \
         3000. Set spec.ports[1].targetPort of the Service to 3000, or serves.targetPort of that component to 9000 in \
         the App."
    ))]
    #[case::no_port_leads_there(json!([{"port": 8080, "targetPort": 8080}]), Some(
        "No port of Service crm leads to port 3000, on which component web serves. Set spec.ports[0].targetPort of the \
         Service to 3000."
    ))]
    fn f13_a_service_leads_to_the_port_of_the_component(
        #[case] ports: Value,
        #[case] expected: Option<&str>,
    ) {
        let service = json!({"metadata": {"name": "crm"}, "spec": {"ports": ports}});
        let service = serde_json::from_value(service).unwrap();
        let named =
            json!([{"name": "http", "containerPort": 3000}, {"name": "admin", "containerPort": 9000}]);
        let found = leads_elsewhere(&service, &component(&named), &serves());
        assert_eq!(found.as_deref(), expected);
    }
}
