//! What the agent's own pods say to those who inject containers into pods.
//!
//! A proxy that was injected into a pod which only works on the database, or only runs the agent in an image, is of no use to
//! it, and may not let its connections through before it is ready itself. So these pods decline, by the words of the meshes
//! themselves, unless the component for which the agent works says the opposite, as it must where the database answers pods
//! of the mesh alone. A pod that was made from the team's own template says what that says.
//!
//! | | who reads it |
//! |---|---|
//! | `sidecar.istio.io/inject` | <https://istio.io/latest/docs/setup/additional-setup/sidecar-injection/> |
//! | `linkerd.io/inject` | <https://linkerd.io/2/features/proxy-injection/> |
//! | `kuma.io/sidecar-injection` | <https://kuma.io/docs/latest/reference/kubernetes-annotations/> |
//! | `consul.hashicorp.com/connect-inject` | <https://developer.hashicorp.com/consul/docs/k8s/annotations-and-labels> |
//! | `sidecar.opentelemetry.io/inject` | <https://opentelemetry.io/docs/platforms/kubernetes/operator/> |

use crate::build::template;
use fairway_crds::component::Component;
use kube::core::ObjectMeta;
use std::collections::BTreeMap;

/// Labels by which a pod declines.
const LABELS: [(&str, &str); 2] = [
    ("sidecar.istio.io/inject", "false"),
    ("kuma.io/sidecar-injection", "disabled"),
];
/// Annotations by which a pod declines.
const ANNOTATIONS: [(&str, &str); 4] = [
    ("sidecar.istio.io/inject", "false"),
    ("linkerd.io/inject", "disabled"),
    ("consul.hashicorp.com/connect-inject", "false"),
    ("sidecar.opentelemetry.io/inject", "false"),
];

/// Declines whatever would be injected.
pub(super) fn keep_out(meta: &mut ObjectMeta) {
    as_component(meta, None);
}

/// Says what the template of a component says to an injector, and declines where it says nothing.
pub(super) fn as_component(meta: &mut ObjectMeta, component: Option<&Component>) {
    let template = component.and_then(|component| template::read(component).ok());
    let said = template
        .and_then(|(template, _)| template.metadata)
        .unwrap_or_default();
    let (labels, annotations) = (
        said.labels.unwrap_or_default(),
        said.annotations.unwrap_or_default(),
    );
    // Istio reads a label before an annotation: one that declines must not stand beside an annotation that accepts.
    let is_said = |key: &str| labels.contains_key(key) || annotations.contains_key(key);
    put(meta.labels.get_or_insert_default(), &LABELS, &labels, &is_said);
    let on_pod = meta.annotations.get_or_insert_default();
    put(on_pod, &ANNOTATIONS, &annotations, &is_said);
}

fn put(
    on_pod: &mut BTreeMap<String, String>,
    words: &[(&str, &str)],
    said: &BTreeMap<String, String>,
    is_said: &dyn Fn(&str) -> bool,
) {
    for (key, declined) in words {
        match said.get(*key) {
            Some(value) => on_pod.insert((*key).to_owned(), value.clone()),
            None if is_said(key) => None,
            None => on_pod.insert((*key).to_owned(), (*declined).to_owned()),
        };
    }
}
