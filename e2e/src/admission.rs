//! Admission policies that a test creates: the API server asks them some time after they are stored, and nothing can be
//! watched that says when.

use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::context::Context;
use crate::manifest::restricted;

/// How long the API server may take to ask a policy that was stored.
const WITHIN: Duration = Duration::from_mins(1);

/// Waits until the API server's answer to the creation of a pod is what a policy makes of it. No pod is created.
///
/// # Errors
/// When it is not within a minute, or the pod is none.
pub async fn until_asked(
    context: &Context,
    pod: Value,
    is_of_policy: impl Fn(&kube::Result<Pod>) -> bool,
) -> Result<()> {
    let pod = serde_json::from_value(pod)?;
    let pods = context.api::<Pod>();
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    let asked = async {
        loop {
            tick.tick().await;
            if is_of_policy(&pods.create(&dry_run, &pod).await) {
                return;
            }
        }
    };
    tokio::time::timeout(WITHIN, asked)
        .await
        .context("the API server does not ask a policy a minute after it was stored")
}

/// A pod that the restricted profile accepts, with these labels and this user, for [`until_asked`].
#[must_use]
pub fn example_pod(labels: &Value, user: i64) -> Value {
    let mut spec = restricted(json!({"containers": [{"name": "example", "image": "example:1"}]}));
    spec["securityContext"]["runAsUser"] = json!(user);
    json!({"metadata": {"name": "example", "labels": labels}, "spec": spec})
}

/// Whether the API server refused a pod with this in its message.
#[must_use]
pub fn is_refused(answer: &kube::Result<Pod>, with: &str) -> bool {
    matches!(answer, Err(kube::Error::Api(status)) if status.message.contains(with))
}
