//! Everything that explains a failed test: objects, events and logs of a namespace, and the log of
//! the operator. What cannot be read is said and skipped, so that the rest is still shown.

use std::fmt::Write;

use anyhow::Result;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{Api, DynamicObject, ListParams, LogParams};
use kube::discovery::Discovery;
use kube::{Client, ResourceExt};

use crate::install::OPERATOR_NAMESPACE;

/// Lines of each container's log; earlier ones seldom matter.
const LOG_LINES: i64 = 400;
const OPERATOR_LOG_LINES: i64 = 1500;

/// Writes everything to standard error.
pub async fn to_stderr(client: &Client, namespace: &str) {
    eprintln!("{}", text(client, namespace).await);
}

/// Everything as text.
pub async fn text(client: &Client, namespace: &str) -> String {
    let mut out = String::new();
    section(&mut out, "objects", objects(client, namespace).await);
    section(&mut out, "events", events(client, namespace).await);
    section(&mut out, "logs", logs(client, namespace, LOG_LINES).await);
    section(
        &mut out,
        "logs of the operator",
        logs(client, OPERATOR_NAMESPACE, OPERATOR_LOG_LINES).await,
    );
    out
}

fn section(out: &mut String, title: &str, text: Result<String>) {
    let text = text.unwrap_or_else(|error| format!("cannot be read: {error:#}"));
    // Writing to a String does not fail.
    let _ = write!(out, "======== {title}\n{text}\n");
}

/// All of Fairway's kinds, and those of Kubernetes that take part in a release. Secrets are left out.
async fn objects(client: &Client, namespace: &str) -> Result<String> {
    const KINDS: &[&str] = &[
        "Deployment",
        "ReplicaSet",
        "Job",
        "Pod",
        "Service",
        "EndpointSlice",
        "PersistentVolumeClaim",
        "ControllerRevision",
    ];
    let groups = ["fairway.dev", "apps", "batch", "", "discovery.k8s.io"];
    let discovery = Discovery::new(client.clone()).filter(&groups).run().await?;
    let mut out = String::new();
    for group in discovery.groups_alphabetical() {
        for (resource, capabilities) in group.recommended_resources() {
            let desired = resource.group == "fairway.dev" || KINDS.contains(&resource.kind.as_str());
            if !desired || capabilities.scope != kube::discovery::Scope::Namespaced {
                continue;
            }
            let api = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &resource);
            match api.list(&ListParams::default()).await {
                Ok(list) => {
                    for mut object in list {
                        object.managed_fields_mut().clear();
                        let yaml = serde_saphyr::to_string(&object)?;
                        let _ = write!(out, "---- {} {}\n{yaml}\n", resource.kind, object.name_any());
                    }
                }
                Err(error) => {
                    let _ = writeln!(out, "---- {} cannot be listed: {error}", resource.plural);
                }
            }
        }
    }
    Ok(out)
}

async fn events(client: &Client, namespace: &str) -> Result<String> {
    let mut events = Api::<Event>::namespaced(client.clone(), namespace)
        .list(&ListParams::default())
        .await?
        .items;
    events.sort_by_key(|event| event.metadata.creation_timestamp.as_ref().map(|time| time.0));
    let mut out = String::new();
    for event in events {
        let time = event
            .metadata
            .creation_timestamp
            .map(|time| time.0.to_string())
            .unwrap_or_default();
        let (kind, name) = (
            event.involved_object.kind.unwrap_or_default(),
            event.involved_object.name.unwrap_or_default(),
        );
        let (reason, message) = (
            event.reason.unwrap_or_default(),
            event.message.unwrap_or_default(),
        );
        let _ = writeln!(out, "{time} {kind}/{name} {reason}: {message}");
    }
    Ok(out)
}

/// The end of the log of every container, and of the one before it where it was restarted.
async fn logs(client: &Client, namespace: &str, lines: i64) -> Result<String> {
    let pods = Api::<Pod>::namespaced(client.clone(), namespace);
    let mut out = String::new();
    for pod in pods.list(&ListParams::default()).await? {
        let status = pod.status.clone().unwrap_or_default();
        let containers = status
            .init_container_statuses
            .into_iter()
            .flatten()
            .chain(status.container_statuses.into_iter().flatten());
        for container in containers {
            for previous in [true, false] {
                if previous && container.restart_count == 0 {
                    continue;
                }
                let parameters = LogParams {
                    container: Some(container.name.clone()),
                    previous,
                    tail_lines: Some(lines),
                    timestamps: true,
                    ..LogParams::default()
                };
                let text = pods
                    .logs(&pod.name_any(), &parameters)
                    .await
                    .unwrap_or_else(|error| format!("cannot be read: {error}"));
                let which = if previous { " before its last restart" } else { "" };
                let _ = write!(out, "---- {}/{}{which}\n{text}\n", pod.name_any(), container.name);
            }
        }
    }
    Ok(out)
}
