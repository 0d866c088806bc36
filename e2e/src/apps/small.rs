//! The smallest App: one component of the fixture application, without a database, by digest.

use anyhow::{Context as _, Result};
use fairway_crds::App;
use serde_json::json;

use crate::context::Context;

/// An App of this name with one component `web`, one pod, and a Service of the same name.
///
/// # Errors
/// When the image was not built.
pub fn app(context: &Context, name: &str, version: &str) -> Result<App> {
    serde_json::from_value(json!({
        "apiVersion": "fairway.dev/v1alpha1",
        "kind": "App",
        "metadata": {"name": name},
        "spec": {
            "components": [{
                "name": "web",
                "replicas": 1,
                "serves": {"service": name, "port": 80, "targetPort": 3000},
                "health": {"http": [{"path": "/api/health", "json": {"/ok": "true"}}], "successThreshold": 1, "deadline": "1m"},
                "template": {"spec": {
                    "automountServiceAccountToken": false,
                    "terminationGracePeriodSeconds": 2,
                    "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
                    "containers": [{
                        "name": "web",
                        "image": context.target.image_by_digest("crm", version)?,
                        "args": ["web"],
                        "env": [{"name": "CRM_DRAIN_MS", "value": "200"}],
                        "readinessProbe": {"httpGet": {"path": "/", "port": 3000}, "periodSeconds": 1},
                        "securityContext": {
                            "allowPrivilegeEscalation": false,
                            "readOnlyRootFilesystem": true,
                            "capabilities": {"drop": ["ALL"]},
                        },
                    }],
                }},
            }],
            "traffic": {"drain": "1s"},
            "policy": {"bake": {"for": "0s"}},
        },
    }))
    .context("make the smallest App")
}

/// Edits its image.
///
/// # Errors
/// When the image was not built.
pub fn set_version(context: &Context, app: &mut App, version: &str) -> Result<()> {
    super::set_image(app, "web", &context.target.image_by_digest("crm", version)?);
    Ok(())
}
