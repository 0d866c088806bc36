//! The manifests of the demo and the tests: real YAML files, as a user would apply them.

use std::fs;

use anyhow::{Context as _, Result};
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use serde_json::{Value, json};

use crate::context::Context;
use crate::paths::repository;
use crate::target::Target;

/// The registry that the files name, for which the target's own is put.
const REGISTRY: &str = "registry.example.com/";

/// Who applies, as Kubernetes records it.
pub const MANAGER: &str = "e2e";

/// The objects of one file below `e2e/manifests`, with the images of the target's registry.
///
/// # Errors
/// When the file is not there or is not YAML.
pub fn read(target: &Target, file: &str) -> Result<Vec<Value>> {
    let path = repository().join("e2e/manifests").join(file);
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let text = text.replace(REGISTRY, &format!("{}/", target.registry()));
    serde_saphyr::from_multiple(&text).with_context(|| format!("parse {}", path.display()))
}

/// Applies every object of a file, as `kubectl apply --server-side` does.
///
/// # Errors
/// When the API server refuses one.
pub async fn apply(context: &Context, file: &str) -> Result<()> {
    for object in read(&context.target, file)? {
        apply_object(context, object).await?;
    }
    Ok(())
}

/// Applies one object in the test's namespace.
///
/// # Errors
/// When the API server refuses it; the source is its answer.
pub async fn apply_object(context: &Context, object: Value) -> Result<DynamicObject> {
    let text = |pointer: &str| {
        object
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let (group, version) = text("/apiVersion")
        .split_once('/')
        .unwrap_or(("", text("/apiVersion")));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, text("/kind")));
    let api = Api::<DynamicObject>::namespaced_with(context.client.clone(), &context.namespace, &resource);
    api.patch(
        text("/metadata/name"),
        &PatchParams::apply(MANAGER).force(),
        &Patch::Apply(&object),
    )
    .await
    .with_context(|| format!("apply {} {}", text("/kind"), text("/metadata/name")))
}

/// The spec of a pod with what the restricted profile of Pod Security asks for, and a read-only root besides.
#[must_use]
pub fn restricted(mut spec: Value) -> Value {
    spec["securityContext"]["runAsNonRoot"] = json!(true);
    spec["securityContext"]["seccompProfile"] = json!({"type": "RuntimeDefault"});
    for container in spec["containers"].as_array_mut().into_iter().flatten() {
        let security = &mut container["securityContext"];
        security["allowPrivilegeEscalation"] = json!(false);
        security["readOnlyRootFilesystem"] = json!(true);
        security["capabilities"] = json!({"drop": ["ALL"]});
    }
    spec
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paths::Paths;

    #[test]
    fn every_file_is_yaml_and_names_images_of_the_target_only() -> Result<()> {
        let target = Target::embedded(Paths::at("/nowhere".into()));
        for file in [
            "unleash/database.yaml",
            "unleash/app.yaml",
            "crm/database.yaml",
            "crm/app.yaml",
        ] {
            let objects = read(&target, file)?;
            let text = serde_json::to_string(&objects)?;
            assert!(!objects.is_empty() && !text.contains(REGISTRY), "{file}");
            assert!(text.contains(&target.registry()), "{file} names no image");
        }
        Ok(())
    }
}
