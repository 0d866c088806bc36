//! What schemars and kube-derive cannot express: schema fragments and the finishing touches of a CRD.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::json;
use std::collections::BTreeMap;

/// A pod template: open, because applications need sidecars, volumes and probes, but with the fields that the
/// admission rules read. The whole template is checked by a server-side dry run of the Deployment.
pub(crate) fn pod_template(generator: &mut SchemaGenerator) -> Schema {
    let image = crate::text::image(generator);
    json_schema!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
        "required": ["spec"],
        "properties": {
            "metadata": {
                "type": "object",
                "description": "Labels and annotations of the pods.",
                "x-kubernetes-preserve-unknown-fields": true,
                "properties": {
                    "labels": strings("Labels of the pods, in addition to those of Fairway, by which Services select them."),
                    "annotations": strings("Annotations of the pods."),
                }
            },
            "spec": {
                "type": "object",
                "description": "Every field of a PodSpec; see `kubectl explain deployment.spec.template.spec`.",
                "x-kubernetes-preserve-unknown-fields": true,
                "required": ["containers"],
                "properties": {
                    "hostNetwork": {
                        "type": "boolean",
                        "description": "Not allowed: two versions could not run on one node."
                    },
                    "containers": containers(&image, 1, "Containers of the pods, 1 to 20."),
                    "initContainers": containers(&image, 0, "Init containers of the pods, at most 20."),
                }
            }
        }
    })
}

fn strings(description: &str) -> serde_json::Value {
    json!({
        "type": "object",
        "description": description,
        "maxProperties": 64,
        "additionalProperties": {"type": "string", "maxLength": 65536}
    })
}

fn containers(image: &Schema, minimum: u32, description: &str) -> serde_json::Value {
    let mut image = image.clone();
    image.insert(
        "description".into(),
        "Image of the container. If it is omitted, the App waits for a Release that names one.".into(),
    );
    json!({
        "type": "array",
        "description": description,
        "minItems": minimum,
        "maxItems": 20,
        // As in a Deployment, so that each container can be applied by its own field manager.
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
        "items": {
            "type": "object",
            "x-kubernetes-preserve-unknown-fields": true,
            "required": ["name"],
            "properties": {
                "name": {"type": "string", "maxLength": 63, "description": "Name of the container."},
                "image": image,
                "ports": {
                    "type": "array",
                    "description": "Ports of the container.",
                    "maxItems": 32,
                    "items": {
                        "type": "object",
                        "x-kubernetes-preserve-unknown-fields": true,
                        "properties": {"hostPort": {
                            "type": "integer",
                            "description": "Not allowed: two versions could not run on one node."
                        }}
                    }
                }
            }
        }
    })
}

/// Adds the default status of an object that was not reconciled yet, and what Argo CD needs; adapts what the
/// generator writes for Rust.
pub(crate) fn finish(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        let Some(root) = version
            .schema
            .as_mut()
            .and_then(|schema| schema.open_api_v3_schema.as_mut())
        else {
            continue;
        };
        smooth(root);
        root.title = None;
        if let Some(status) = root
            .properties
            .as_mut()
            .and_then(|properties| properties.get_mut("status"))
        {
            status.default = Some(JSON(json!({"observedGeneration": -1})));
            conditions(status);
            bound(status);
        }
    }
    let annotations = crd.metadata.annotations.get_or_insert_default();
    // One day the CRD may exceed the limit of the annotation of a client-side apply; Argo CD applies it server-side.
    annotations.insert(
        "argocd.argoproj.io/sync-options".into(),
        "ServerSideApply=true".into(),
    );
    crd
}

/// Gives conditions the limits that metav1.Condition has in Kubernetes' own schemas.
fn conditions(status: &mut JSONSchemaProps) {
    let Some(list) = status
        .properties
        .as_mut()
        .and_then(|properties| properties.get_mut("conditions"))
    else {
        return;
    };
    list.max_items = Some(16);
    let Some(JSONSchemaPropsOrArray::Schema(condition)) = &mut list.items else {
        return;
    };
    for (name, field) in condition.properties.iter_mut().flatten() {
        match name.as_str() {
            "status" => {
                field.enum_ = Some(
                    ["True", "False", "Unknown"]
                        .map(|value| JSON(json!(value)))
                        .to_vec(),
                )
            }
            "type" => field.max_length = Some(316),
            "message" => field.max_length = Some(32_768),
            "reason" => {
                field.max_length = Some(1024);
                field.pattern = Some("^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$".into());
            }
            "observedGeneration" => field.minimum = Some(0.0),
            _ => {}
        }
    }
}

/// Bounds what a status holds where its type says nothing: far above what the operator writes, and enough that nobody
/// with a right to write it can fill the operator's memory.
fn bound(schema: &mut JSONSchemaProps) {
    let kind = schema.type_.as_deref();
    if kind == Some("string") && schema.enum_.is_none() && schema.format.is_none() {
        schema.max_length.get_or_insert(32_768);
    }
    if kind == Some("array") {
        schema.max_items.get_or_insert(256);
    }
    if schema.additional_properties.is_some() {
        schema.max_properties.get_or_insert(1024);
    }
    for property in schema.properties.iter_mut().flat_map(BTreeMap::values_mut) {
        bound(property);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        bound(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        bound(values);
    }
}

/// Gives a schema, and all schemas in it, the form that the schemas of Kubernetes' own types have.
fn smooth(schema: &mut JSONSchemaProps) {
    // The line breaks of the source mean nothing; `kubectl explain` wraps lines itself.
    if let Some(description) = &mut schema.description {
        *description = description
            .split("\n\n")
            .map(|text| text.replace('\n', " "))
            .collect::<Vec<_>>()
            .join("\n\n");
    }
    // The API server drops a null from a field that is not nullable, so that the field counts as absent. If the
    // null were kept, `has()` would find the field, and the rules that read it would fail.
    schema.nullable = None;
    // Kubernetes knows only int32 and int64, and warns about other formats.
    if schema
        .format
        .as_deref()
        .is_some_and(|format| format.starts_with("uint"))
    {
        schema.format = Some("int32".into());
    }
    // Without this, unknown fields are pruned, and strict validation names them.
    if matches!(
        schema.additional_properties,
        Some(JSONSchemaPropsOrBool::Bool(false))
    ) {
        schema.additional_properties = None;
    }
    for property in schema
        .properties
        .iter_mut()
        .flat_map(|properties| properties.values_mut())
    {
        smooth(property);
    }
    match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => smooth(items),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => items.iter_mut().for_each(smooth),
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        smooth(values);
    }
}
