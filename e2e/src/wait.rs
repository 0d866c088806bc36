//! Waits that are driven by watches, have a deadline, and report on failure what they last saw.

use std::fmt::Debug;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::{Api, DeleteParams};
use kube::runtime::watcher::{self, watch_object};
use kube::runtime::{WatchStreamExt, reflector, watcher as watch_all};
use kube::{Client, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How long a namespace may take to be removed. One that hangs is a finding of its own: some finalizer waits for what
/// will not happen.
///
/// Kubernetes begins 5 s after the request, and looks again after half of the longest `terminationGracePeriodSeconds` of
/// the pods, so pods of tests should have a short one. A migration's pod has three minutes, and uses them when its
/// database is removed before it.
pub(crate) const GONE: Duration = Duration::from_secs(360);

/// Waits until the object of this name satisfies the predicate, and returns it as it was then.
///
/// # Errors
/// When it does not within the deadline; the error holds the object as it was last seen.
pub async fn wait_for<K>(
    api: Api<K>,
    name: &str,
    what: &str,
    mut predicate: impl FnMut(&K) -> bool,
    deadline: Duration,
) -> Result<K>
where
    K: kube::Resource + Clone + DeserializeOwned + Serialize + Debug + Send + 'static,
{
    let mut last = None;
    let mut failure = None;
    let watching = async {
        let mut seen = watch_object(api, name).boxed();
        while let Some(seen) = seen.next().await {
            match seen {
                Ok(Some(object)) if predicate(&object) => return Some(object),
                Ok(object) => last = object,
                // The watch reconnects by itself; the error says why if it never succeeds.
                Err(error) => failure = Some(error),
            }
        }
        None
    };
    match tokio::time::timeout(deadline, watching).await {
        Ok(Some(object)) => Ok(object),
        _ => Err(unmet(
            &format!("{name}: {what}"),
            deadline,
            last.as_ref(),
            failure,
        )),
    }
}

/// Waits until there is no object of this name.
///
/// # Errors
/// When there still is one at the deadline; the error holds it as it was last seen.
pub async fn wait_gone<K>(api: Api<K>, name: &str, deadline: Duration) -> Result<()>
where
    K: kube::Resource + Clone + DeserializeOwned + Serialize + Debug + Send + 'static,
{
    let mut last = None;
    let mut failure = None;
    let watching = async {
        let mut seen = watch_object(api, name).boxed();
        while let Some(seen) = seen.next().await {
            match seen {
                Ok(None) => return,
                Ok(object) => last = object,
                Err(error) => failure = Some(error),
            }
        }
    };
    match tokio::time::timeout(deadline, watching).await {
        Ok(()) => Ok(()),
        Err(_) => Err(unmet(
            &format!("{name} to be gone"),
            deadline,
            last.as_ref(),
            failure,
        )),
    }
}

/// Deletes an object, if it is there, and waits until it is gone: nothing can be made beside what still goes.
///
/// # Errors
/// When it cannot be deleted, or is still there at the deadline.
pub async fn remove<K>(api: Api<K>, name: &str, deadline: Duration) -> Result<()>
where
    K: kube::Resource + Clone + DeserializeOwned + Serialize + Debug + Send + 'static,
{
    match api.delete(name, &DeleteParams::background()).await {
        Err(kube::Error::Api(answer)) if answer.is_not_found() => return Ok(()),
        deleted => {
            deleted.with_context(|| format!("delete {name}"))?;
        }
    }
    wait_gone(api, name, deadline).await
}

/// Waits until all objects that match, taken together, satisfy the predicate, and returns them.
///
/// # Errors
/// When they do not within the deadline; the error holds them as they were last seen.
pub async fn wait_for_all<K>(
    api: Api<K>,
    config: watcher::Config,
    what: &str,
    mut predicate: impl FnMut(&[K]) -> bool,
    deadline: Duration,
) -> Result<Vec<K>>
where
    K: kube::Resource<DynamicType = ()>
        + Clone
        + DeserializeOwned
        + Serialize
        + Debug
        + Send
        + Sync
        + 'static,
{
    let (store, writer) = reflector::store::<K>();
    let current = || {
        store
            .state()
            .iter()
            .map(|object| (**object).clone())
            .collect::<Vec<K>>()
    };
    let mut failure = None;
    let watching = async {
        let mut events = watch_all(api, config).default_backoff().reflect(writer).boxed();
        loop {
            match events.try_next().await {
                // Nothing is known for sure while the first list is being read.
                Ok(Some(watcher::Event::Init | watcher::Event::InitApply(_))) => {}
                Ok(Some(_)) => {
                    let objects = current();
                    if predicate(&objects) {
                        return Some(objects);
                    }
                }
                Ok(None) => return None,
                Err(error) => failure = Some(error),
            }
        }
    };
    match tokio::time::timeout(deadline, watching).await {
        Ok(Some(objects)) => Ok(objects),
        _ => Err(unmet(what, deadline, Some(&current()), failure)),
    }
}

/// Waits until every replica of a Deployment is updated and available.
///
/// # Errors
/// When they are not within the deadline.
pub async fn deployment_available(
    client: &Client,
    namespace: &str,
    name: &str,
    deadline: Duration,
) -> Result<Deployment> {
    let api = Api::<Deployment>::namespaced(client.clone(), namespace);
    wait_for(
        api,
        name,
        "every replica to be available",
        is_rolled_out,
        deadline,
    )
    .await
}

/// Waits until a pod is Ready.
///
/// # Errors
/// When it is not within the deadline.
pub async fn pod_ready(client: &Client, namespace: &str, name: &str, deadline: Duration) -> Result<Pod> {
    wait_for(
        Api::<Pod>::namespaced(client.clone(), namespace),
        name,
        "Ready",
        is_ready,
        deadline,
    )
    .await
}

/// Waits until pods can be made in a new namespace: they need its service account.
pub async fn namespace_usable(client: &Client, namespace: &str) -> Result<()> {
    let api = Api::<ServiceAccount>::namespaced(client.clone(), namespace);
    wait_for(
        api,
        "default",
        "made by the controller of service accounts",
        |_| true,
        Duration::from_secs(30),
    )
    .await?;
    Ok(())
}

/// Whether a pod is Ready.
#[must_use]
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    conditions
        .into_iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Whether the newest template of a Deployment has all its replicas, and no older one has any.
#[must_use]
pub fn is_rolled_out(deployment: &Deployment) -> bool {
    let desired = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(1);
    deployment.status.as_ref().is_some_and(|status| {
        status.observed_generation >= deployment.metadata.generation
            && status.updated_replicas.unwrap_or(0) == desired
            && status.available_replicas.unwrap_or(0) == desired
            && status.replicas.unwrap_or(0) == desired
    })
}

fn unmet<T: Serialize>(
    what: &str,
    deadline: Duration,
    last: Option<&T>,
    failure: Option<watcher::Error>,
) -> anyhow::Error {
    let seen = match last {
        Some(object) => match serde_saphyr::to_string(object) {
            Ok(text) => format!("last seen:\n{text}"),
            Err(error) => format!("what was last seen cannot be shown: {error}"),
        },
        None => "there was no such object".to_owned(),
    };
    let failure = failure
        .map(|error| format!("\nthe watch failed: {error}"))
        .unwrap_or_default();
    anyhow!("waited {} s for {what}; {seen}{failure}", deadline.as_secs())
}

/// The names of objects, for messages.
#[must_use]
pub fn names<K: ResourceExt>(objects: &[K]) -> Vec<String> {
    objects.iter().map(ResourceExt::name_any).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment(status: serde_json::Value) -> Deployment {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "generation": 2},
            "spec": {"replicas": 2, "selector": {}, "template": {}},
            "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn a_deployment_is_rolled_out_only_when_its_controller_has_seen_the_newest_template() {
        let status = |generation| json!({"observedGeneration": generation, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2});
        assert!(is_rolled_out(&deployment(status(2))));
        assert!(!is_rolled_out(&deployment(status(1))));
    }

    #[test]
    fn an_old_replica_that_still_runs_means_not_rolled_out() {
        let status =
            json!({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 2, "availableReplicas": 2});
        assert!(!is_rolled_out(&deployment(status)));
    }

    #[test]
    fn a_failed_wait_tells_what_it_last_saw() {
        let error = unmet(
            "web: rolled out",
            Duration::from_secs(3),
            Some(&deployment(json!({"replicas": 7}))),
            None,
        );
        let text = error.to_string();
        assert!(text.contains("3 s") && text.contains("replicas: 7"), "{text}");
    }
}
