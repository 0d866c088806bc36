//! What is done to a team's pod template wherever pods are made from it.

use crate::json::json;
use crate::snapshot;
use fairway_crds::component::Component;
use k8s_openapi::api::core::v1::{Container, PodSpec, PodTemplateSpec};
use serde_json::Value;
use std::collections::BTreeMap;

/// A template from which no pods can be made. Its text is a message for status, with the field and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTemplate {
    /// The template is no PodTemplateSpec.
    #[error("The template of component {component} is not a pod template: {detail}. Correct it in the App.")]
    Unreadable {
        /// Name of the component.
        component: String,
        /// What serde found.
        detail: String,
    },
    /// The template has a field that Kubernetes does not know, and would drop silently.
    #[error(
        "{field} of component {component} is not a field of a pod template (or one of a newer Kubernetes than this Fairway knows). Correct or remove it in the App."
    )]
    UnknownField {
        /// Name of the component.
        component: String,
        /// Path of the member, e.g. `template.spec.containers[0].imagee`.
        field: String,
    },
    /// The template has no spec, or no container.
    #[error(
        "The template of component {component} has no containers. Add template.spec.containers in the App."
    )]
    NoContainers {
        /// Name of the component.
        component: String,
    },
    /// A migration names a component that the spec does not have.
    #[error(
        "Component {component} of the migration does not exist. Set it to the name of one in the App's spec.components."
    )]
    NoComponent {
        /// The name.
        component: String,
    },
    /// A migration names a container that its component does not have.
    #[error(
        "Container {container} of the migration does not exist in component {component}. Set it to one of: {}.",
        existing.join(", ")
    )]
    NoContainer {
        /// Name of the component.
        component: String,
        /// The name.
        container: String,
        /// Names of the containers that exist.
        existing: Vec<String>,
    },
    /// A migration of an App without a database.
    #[error("The App has no spec.database. Add its image and connection.")]
    NoDatabase,
    /// An `onStart` migration of a component without health.
    #[error(
        "Component {component} has no health requests, so the end of its onStart migration cannot be observed. Add health.http, or use migration.command."
    )]
    NoHealth {
        /// The name.
        component: String,
    },
}

/// Prefixes of labels and annotations by which other tools find what they manage: a copy of theirs on our
/// objects would make them prune or adopt those.
const OF_OTHER_TOOLS: [&str; 5] = [
    "argocd.argoproj.io/",
    "kustomize.toolkit.fluxcd.io/",
    "helm.toolkit.fluxcd.io/",
    "helm.sh/",
    "meta.helm.sh/",
];
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What serde says of a template, without the value that it quotes: that may be a secret.
fn without_value(error: &str) -> String {
    match error.rsplit_once(", expected ") {
        Some((_, expected)) => format!("a value has the wrong type, expected {expected}"),
        None => error.to_owned(),
    }
}

/// The typed template of a component, without what belongs to other tools.
///
/// # Errors
/// When the template is no pod template.
pub(crate) fn read(component: &Component) -> Result<(PodTemplateSpec, PodSpec), InvalidTemplate> {
    let mut template = snapshot::pod_template(component).map_err(|error| InvalidTemplate::Unreadable {
        component: component.name.clone(),
        detail: without_value(&error.to_string()),
    })?;
    let known = json(&template);
    if let Some(field) = unknown_field("template", &component.template, &known) {
        return Err(InvalidTemplate::UnknownField {
            component: component.name.clone(),
            field,
        });
    }
    let none = || InvalidTemplate::NoContainers {
        component: component.name.clone(),
    };
    let spec = template
        .spec
        .take()
        .filter(|spec| !spec.containers.is_empty())
        .ok_or_else(none)?;
    let metadata = template.metadata.get_or_insert_default();
    let meta = std::mem::take(metadata);
    metadata.labels = meta.labels.map(without_other_tools);
    metadata.annotations = meta
        .annotations
        .map(without_other_tools)
        .filter(|annotations| !annotations.is_empty());
    Ok((template, spec))
}

/// The first member that the typed form does not have. Empty ones do not count: the typed form leaves them out.
fn unknown_field(path: &str, given: &Value, known: &Value) -> Option<String> {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => given.iter().find_map(|(key, value)| {
            let path = format!("{path}.{key}");
            match known.get(key) {
                Some(known) => unknown_field(&path, value, known),
                None => (!is_empty(value)).then_some(path),
            }
        }),
        (Value::Array(given), Value::Array(known)) => given
            .iter()
            .zip(known)
            .enumerate()
            .find_map(|(index, (given, known))| unknown_field(&format!("{path}[{index}]"), given, known)),
        _ => None,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(array) => array.is_empty(),
        Value::Object(object) => object.values().all(is_empty),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

fn without_other_tools(map: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let foreign =
        |key: &str| key == LAST_APPLIED || OF_OTHER_TOOLS.iter().any(|prefix| key.starts_with(prefix));
    map.into_iter().filter(|(key, _)| !foreign(key)).collect()
}

/// Puts the pinned references into all containers; one without an entry keeps what the template says.
pub(crate) fn pin(spec: &mut PodSpec, component: &str, images: &BTreeMap<String, String>) {
    for container in spec
        .init_containers
        .iter_mut()
        .flatten()
        .chain(&mut spec.containers)
    {
        if let Some(image) = images.get(&key(component, container)) {
            container.image = Some(image.clone());
        }
    }
}

/// How images are keyed: `component/container`.
pub(crate) fn key(component: &str, container: &Container) -> String {
    format!("{component}/{}", container.name)
}

/// A reference without tag and digest: `registry:5000/team/web:1` is `registry:5000/team/web`.
pub(crate) fn repository(reference: &str) -> &str {
    let named = reference.split_once('@').map_or(reference, |(named, _)| named);
    let path = named.rfind('/').map_or(0, |slash| slash + 1);
    named[path..]
        .find(':')
        .map_or(named, |colon| &named[..path + colon])
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("nginx", "nginx")]
    #[case("nginx:1.27", "nginx")]
    #[case("registry:5000/team/web:1", "registry:5000/team/web")]
    #[case("registry:5000/team/web", "registry:5000/team/web")]
    #[case("ghcr.io/acme/crm:2@sha256:00", "ghcr.io/acme/crm")]
    fn a_repository_is_a_reference_without_tag_and_digest(#[case] reference: &str, #[case] expected: &str) {
        assert_eq!(repository(reference), expected);
    }

    #[test]
    fn a_misspelt_field_is_an_error() {
        let component = |container: Value| -> Component {
            serde_json::from_value(serde_json::json!({
                "name": "web",
                "template": {"metadata": {"creationTimestamp": null}, "spec": {"containers": [container]}},
            }))
            .unwrap()
        };
        let right = serde_json::json!({"name": "web", "image": "a", "resources": {}, "ports": [{"containerPort": 80}]});
        assert!(read(&component(right)).is_ok());
        let wrong = serde_json::json!({"name": "web", "image": "a", "ports": [{"containerport": 80, "containerPort": 80}]});
        let error = read(&component(wrong)).unwrap_err().to_string();
        assert!(
            error.starts_with("template.spec.containers[0].ports[0].containerport of component web"),
            "{error}"
        );
    }

    #[test]
    fn labels_by_which_other_tools_prune_are_not_copied() {
        let map = [
            ("app", "crm"),
            ("app.kubernetes.io/instance", "crm"),
            ("argocd.argoproj.io/instance", "x"),
            ("kustomize.toolkit.fluxcd.io/name", "x"),
            ("helm.sh/chart", "x"),
            (LAST_APPLIED, "x"),
        ];
        let map = map.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let kept: Vec<_> = without_other_tools(map.into_iter().collect())
            .into_keys()
            .collect();
        assert_eq!(kept, ["app", "app.kubernetes.io/instance"]);
    }
}
