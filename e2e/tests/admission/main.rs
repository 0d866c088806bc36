//! What the API server lets in, what it answers to what it does not, and what the operator may do: asked of the
//! real API server, with the charts installed. Nothing here starts a pod: objects are created as a dry run
//! wherever that is enough.

mod accepted;
mod chart;
mod docs;
mod immutable;
mod policy;
mod refused;
mod role;
mod unreconciled;

use anyhow::{Result, anyhow, bail};
use fairway_e2e::target::Target;
use kube::Client;
use serde_json::{Value, json};

/// A namespace that every cluster has; nothing is stored in it.
const ANY: &str = "default";
/// A digest as it should be.
const DIGEST: &str = "sha256:f1d2d2f924e986ac86fdf7b36c94bcdf32beec15f1d2d2f924e986ac86fdf7b3";

/// What a request does to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Stored,
    DryRun,
}

/// Why an object was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Refusal {
    code: u16,
    message: String,
    /// Field and message of each cause.
    causes: Vec<(String, String)>,
}

async fn client() -> Result<Client> {
    Target::from_env()?.client().await
}

/// Creates an object as `kubectl create` does, with strict validation.
async fn create(
    client: &Client,
    namespace: &str,
    object: &Value,
    effect: Effect,
    user: Option<&str>,
) -> Result<Result<Value, Refusal>> {
    let path = collection(namespace, object)?;
    send(
        client,
        http::Method::POST,
        &path,
        object,
        "application/json",
        effect,
        user,
    )
    .await
}

/// Changes an object by a merge patch.
async fn patch(
    client: &Client,
    namespace: &str,
    object: &Value,
    change: &Value,
    user: Option<&str>,
) -> Result<Result<Value, Refusal>> {
    let path = path(namespace, object)?;
    merge(client, &path, change, user).await
}

/// Changes the status of an object by a merge patch; nothing is stored.
async fn patch_status(
    client: &Client,
    namespace: &str,
    object: &Value,
    change: &Value,
    user: Option<&str>,
) -> Result<Result<Value, Refusal>> {
    let path = format!("{}/status", path(namespace, object)?);
    merge(client, &path, change, user).await
}

/// Deletes an object; nothing is deleted.
async fn delete(
    client: &Client,
    namespace: &str,
    object: &Value,
    user: Option<&str>,
) -> Result<Result<Value, Refusal>> {
    let path = path(namespace, object)?;
    let (method, kind) = (http::Method::DELETE, "application/json");
    send(client, method, &path, &json!({}), kind, Effect::DryRun, user).await
}

async fn merge(
    client: &Client,
    path: &str,
    change: &Value,
    user: Option<&str>,
) -> Result<Result<Value, Refusal>> {
    let (method, kind) = (http::Method::PATCH, "application/merge-patch+json");
    send(client, method, path, change, kind, Effect::DryRun, user).await
}

async fn send(
    client: &Client,
    method: http::Method,
    path: &str,
    body: &Value,
    content: &str,
    effect: Effect,
    user: Option<&str>,
) -> Result<Result<Value, Refusal>> {
    let dry = if effect == Effect::DryRun {
        "&dryRun=All"
    } else {
        ""
    };
    let mut request = http::Request::builder()
        .method(method)
        .uri(format!("{path}?fieldValidation=Strict{dry}"))
        .header(http::header::CONTENT_TYPE, content);
    if let Some(user) = user {
        request = request.header("Impersonate-User", user);
    }
    match client
        .request::<Value>(request.body(serde_json::to_vec(body)?)?)
        .await
    {
        Ok(stored) => Ok(Ok(stored)),
        Err(kube::Error::Api(status)) => {
            let causes = status.details.iter().flat_map(|details| &details.causes);
            let causes = causes
                .map(|cause| (cause.field.clone(), cause.message.clone()))
                .collect();
            Ok(Err(Refusal {
                code: status.code,
                message: status.message.clone(),
                causes,
            }))
        }
        Err(error) => Err(error.into()),
    }
}

fn path(namespace: &str, object: &Value) -> Result<String> {
    let name = object["metadata"]["name"]
        .as_str()
        .ok_or_else(|| anyhow!("no name in {object}"))?;
    Ok(format!("{}/{name}", collection(namespace, object)?))
}

fn collection(namespace: &str, object: &Value) -> Result<String> {
    let (Some(version), Some(kind)) = (object["apiVersion"].as_str(), object["kind"].as_str()) else {
        bail!("no apiVersion or kind in {object}");
    };
    let root = if version.contains('/') { "/apis" } else { "/api" };
    Ok(format!(
        "{root}/{version}/namespaces/{namespace}/{}s",
        kind.to_lowercase()
    ))
}

/// An App with everything that this version of the API has.
fn app() -> Value {
    json!({
        "apiVersion": "fairway.dev/v1alpha1",
        "kind": "App",
        "metadata": {"name": "crm"},
        "spec": {
            "components": [
                {
                    "name": "web",
                    "replicas": 2,
                    "serves": {"service": "crm", "port": 80, "targetPort": 3000},
                    "health": {
                        "http": [
                            {"path": "/api/health", "json": {"/ok": "true", "/database": "connected"}},
                            {
                                "path": "/api/leads?limit=1",
                                "host": "crm.example.com",
                                "headers": [
                                    {"name": "Accept", "value": "application/json"},
                                    {"name": "Authorization", "valueFrom": {"secretKeyRef": {"name": "crm", "key": "probe"}}}
                                ]
                            }
                        ],
                        "period": "1s",
                        "deadline": "5m"
                    },
                    "template": {
                        "metadata": {"labels": {"team": "sales"}},
                        "spec": {"containers": [
                            {"name": "web", "image": format!("registry.example.com/crm@{DIGEST}"), "ports": [{"containerPort": 3000}]}
                        ]}
                    }
                },
                {
                    "name": "worker",
                    "strategy": "Recreate",
                    "replicas": 0,
                    "template": {"spec": {"containers": [{"name": "worker", "image": "registry.example.com/crm:2.11.0"}]}}
                }
            ],
            "database": {
                "image": "registry.example.com/postgres:16",
                "connection": {"urlFrom": {"secretKeyRef": {"name": "crm-db", "key": "url"}}}
            },
            "migration": {
                "component": "web",
                "command": ["node", "dist/migrate.js"],
                "timeout": "30m",
                "checks": [{"name": "no-orphans", "sql": "select count(*) from leads where owner is null", "expect": "0"}]
            },
            "traffic": {"driver": "Service", "drain": "10s"},
            "backup": {"scratch": {"size": "20Gi"}, "store": {"volume": {"claimName": "backups"}}},
            "policy": {"bake": {"for": "30m"}}
        }
    })
}

/// A Release as a user or CI applies it.
fn release() -> Value {
    json!({
        "apiVersion": "fairway.dev/v1alpha1",
        "kind": "Release",
        "metadata": {"name": "crm-42"},
        "spec": {"app": "crm", "revision": 42, "images": {"web": format!("registry.example.com/crm@{DIGEST}")}, "trigger": "CI"}
    })
}

/// A Migration as Fairway makes it.
fn migration() -> Value {
    json!({
        "apiVersion": "fairway.dev/v1alpha1",
        "kind": "Migration",
        "metadata": {"name": "crm-42"},
        "spec": {
            "app": "crm",
            "release": "crm-42",
            "image": format!("registry.example.com/crm@{DIGEST}"),
            "component": "web",
            "command": ["node", "dist/migrate.js"],
            "timeout": "30m"
        }
    })
}

/// A Backup as a user applies it.
fn backup() -> Value {
    json!({
        "apiVersion": "fairway.dev/v1alpha1",
        "kind": "Backup",
        "metadata": {"name": "crm-before-cleanup"},
        "spec": {"app": "crm", "reason": "before the cleanup of leads"}
    })
}

/// A Restore as users apply it.
fn restore() -> Value {
    json!({
        "apiVersion": "fairway.dev/v1alpha1",
        "kind": "Restore",
        "metadata": {"name": "noon"},
        "spec": {"app": "crm", "from": {"backup": "nightly"}, "into": "InPlace"}
    })
}
