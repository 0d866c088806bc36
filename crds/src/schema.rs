//! What schemars and kube-derive cannot express: schema fragments and the finishing touches of a CRD.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps,
};
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::json;

/// A pod template: open, because teams need sidecars, volumes and probes, but with the fields that the
/// admission rules read spelled out. The whole is checked by a server-side dry run of the Deployment.
pub(crate) fn pod_template(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
        "required": ["spec"],
        "properties": {
            "spec": {
                "type": "object",
                "x-kubernetes-preserve-unknown-fields": true,
                "required": ["containers"],
                "properties": {
                    "hostNetwork": {"type": "boolean"},
                    "containers": containers(1),
                    "initContainers": containers(0),
                }
            }
        }
    })
}

fn containers(minimum: u32) -> serde_json::Value {
    json!({
        "type": "array",
        "minItems": minimum,
        "maxItems": 20,
        "items": {
            "type": "object",
            "x-kubernetes-preserve-unknown-fields": true,
            "required": ["name"],
            "properties": {
                "name": {"type": "string", "maxLength": 63},
                "image": {"type": "string", "maxLength": 512},
                "ports": {
                    "type": "array",
                    "maxItems": 32,
                    "items": {
                        "type": "object",
                        "x-kubernetes-preserve-unknown-fields": true,
                        "properties": {"hostPort": {"type": "integer"}}
                    }
                }
            }
        }
    })
}

/// Any JSON object.
pub(crate) fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// Adds what makes an unreconciled object look unreconciled, and what Argo CD needs.
pub(crate) fn finish(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        let Some(root) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) else {
            continue;
        };
        if let Some(status) = root.properties.as_mut().and_then(|properties| properties.get_mut("status")) {
            default_status(status);
        }
    }
    let annotations = crd.metadata.annotations.get_or_insert_default();
    // Larger than the annotation of a client-side apply may be one day; Argo CD applies it server-side.
    annotations.insert("argocd.argoproj.io/sync-options".into(), "ServerSideApply=true".into());
    crd
}

fn default_status(status: &mut JSONSchemaProps) {
    status.default = Some(JSON(json!({"observedGeneration": -1})));
    // An object with a default may not be nullable.
    status.nullable = None;
}
