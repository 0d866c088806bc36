//! Fairway itself, installed as a user installs it: with its Helm charts.

use std::fmt::Debug;

use anyhow::{Context, Result, bail};
use fairway_crds::{App, Backup, Migration, Release, Restore};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::ListParams;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::command::{describe, feed, last_lines};
use crate::paths::repository;
use crate::target::Target;
use crate::wait::{self, GONE};

/// Where the operator runs.
pub const OPERATOR_NAMESPACE: &str = "fairway-system";

/// Installs both charts or upgrades them, with the operator's image that was built last, and returns
/// when the operator is ready. `values` are laid over those that name the image.
///
/// # Errors
/// When the image was not built, or Helm fails; the error holds what Helm said.
pub fn fairway(target: &Target, values: Value) -> Result<()> {
    let mut all = json!({
        "image": {
            "repository": format!("{}/fairway", target.registry()),
            "digest": target.digest("fairway", "dev")?,
        },
    });
    merge(&mut all, values);
    upgrade(target, "fairway-crds", &json!({}))?;
    upgrade(target, "fairway", &all)
}

/// Removes the operator. The CRDs stay, and with them every App.
///
/// # Errors
/// When Helm fails.
pub fn remove_operator(target: &Target) -> Result<()> {
    helm(
        target,
        &[
            "uninstall",
            "fairway",
            "--ignore-not-found",
            "--wait",
            "--timeout",
            "2m",
        ],
        &json!({}),
    )
}

/// Removes the CRDs too, and the namespace, where no object of any of the kinds is left in the whole cluster. Returns
/// whether it did.
///
/// # Errors
/// When Helm fails, or the API server does not answer.
pub async fn remove_unused(target: &Target) -> Result<bool> {
    let client = target.client().await?;
    let left = is_there::<App>(&client).await?
        || is_there::<Release>(&client).await?
        || is_there::<Migration>(&client).await?
        || is_there::<Backup>(&client).await?
        || is_there::<Restore>(&client).await?;
    if left {
        return Ok(false);
    }
    helm(
        target,
        &["uninstall", "fairway-crds", "--ignore-not-found", "--wait"],
        &json!({}),
    )?;
    let definitions = Api::<CustomResourceDefinition>::all(client.clone());
    for name in ["apps", "releases", "migrations", "backups", "restores"] {
        wait::remove(definitions.clone(), &format!("{name}.fairway.dev"), GONE).await?;
    }
    wait::remove(Api::<Namespace>::all(client), OPERATOR_NAMESPACE, GONE).await?;
    Ok(true)
}

/// Whether an object of the kind is anywhere. A kind that is not installed has none.
async fn is_there<K>(client: &Client) -> Result<bool>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    match Api::<K>::all(client.clone())
        .list(&ListParams::default().limit(1))
        .await
    {
        Ok(list) => Ok(!list.items.is_empty()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(error) => Err(error).with_context(|| format!("list the objects of kind {}", K::kind(&()))),
    }
}

/// Runs the chart's own tests.
///
/// # Errors
/// When one of them fails.
pub fn test(target: &Target) -> Result<()> {
    helm(
        target,
        &["test", "fairway", "--logs", "--timeout", "2m"],
        &json!({}),
    )
}

fn upgrade(target: &Target, chart: &str, values: &Value) -> Result<()> {
    let folder = repository().join("charts").join(chart);
    let folder = folder.to_str().context("the repository's path is not UTF-8")?;
    let arguments = [
        "upgrade",
        "--install",
        chart,
        folder,
        "--create-namespace",
        "--wait",
        "--timeout",
        "2m",
        "--values",
        "-",
    ];
    helm(target, &arguments, values)
}

fn helm(target: &Target, arguments: &[&str], values: &Value) -> Result<()> {
    let mut command = target.helm();
    command.args(arguments).args(["--namespace", OPERATOR_NAMESPACE]);
    let line = describe(&command);
    let output = feed(command, values.to_string().as_bytes())
        .context("run Helm, which `make cluster-binaries` builds")?;
    if !output.status.success() {
        bail!(
            "`{line}` failed: {}\nthe operator's pods: kubectl --namespace {OPERATOR_NAMESPACE} describe pods",
            last_lines(&output.stderr, 20)
        );
    }
    Ok(())
}

/// Lays one tree of values over another, as Helm does.
fn merge(under: &mut Value, over: Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (key, value) in over {
                merge(under.entry(key).or_insert(Value::Null), value);
            }
        }
        (under, over) => *under = over,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_a_test_are_laid_over_those_that_name_the_image() {
        let mut all = json!({"image": {"repository": "a", "digest": "b"}});
        merge(
            &mut all,
            json!({"replicas": 2, "image": {"pullPolicy": "Always"}}),
        );
        assert_eq!(
            all,
            json!({"image": {"repository": "a", "digest": "b", "pullPolicy": "Always"}, "replicas": 2})
        );
    }
}
