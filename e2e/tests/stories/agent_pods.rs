//! Namespaces that are particular about pods: the agent's are refused by name, and fit as soon as the App says how.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, ensure};
use fairway_crds::App;
use fairway_crds::release::ReleaseOutcome;
use fairway_e2e::admission;
use fairway_e2e::apps::{self, crm, small};
use fairway_e2e::manifest::apply_object;
use fairway_e2e::ns::{Context, with_temp_ns};
use fairway_e2e::seen;
use fairway_e2e::volumes::{Behaviour, claim};
use futures::StreamExt;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use kube::api::{DeleteParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::SOON;

/// The fixture application with a database, not yet applied.
async fn prepared(context: &Context) -> Result<App> {
    claim(context, "backups", "1Gi", Behaviour::Good).await?;
    crm::database(context).await?;
    let mut app = crm::app(context, "v1")?;
    apps::set_bake(&mut app, 0);
    Ok(app)
}

/// Applies an App whose agent pods are refused with this sentence of the cluster's, and then one that says how they run.
async fn refused_until(context: &Context, mut app: App, refusal: &str, agent: Value) -> Result<()> {
    apps::apply(context, &app).await?;
    let waiting = seen::waits(context, "crm-1", "WriteRefused", SOON).await?;
    let message = seen::message(&waiting);
    ensure!(message.contains(refusal), "{message}");
    app.spec.agent = Some(serde_json::from_value(agent)?);
    apps::apply(context, &app).await?;
    seen::ended(context, "crm-1", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
    Ok(())
}

/// F12: a LimitRange has a minimum for each container.
#[tokio::test]
async fn agent_pods_have_the_resources_that_a_namespace_asks_for() -> Result<()> {
    with_temp_ns(|context| async move {
        let mut app = prepared(&context).await?;
        apps::component(&mut app, "worker").template["spec"]["containers"][0]["resources"]["requests"]["memory"] =
            json!("32Mi");
        let least = json!({"cpu": "20m", "memory": "32Mi"});
        let limits = json!({
            "apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "least"},
            "spec": {"limits": [{"type": "Container", "min": least, "defaultRequest": least}]},
        });
        apply_object(&context, limits).await?;
        let agent = json!({"resources": {"requests": least}});
        refused_until(&context, app, "minimum memory usage per Container is 32Mi", agent).await
    })
    .await
}

/// F12: a cluster refuses user IDs that a pod names, as OpenShift does outside the range of the namespace.
#[tokio::test]
async fn agent_pods_leave_the_user_to_the_cluster() -> Result<()> {
    with_temp_ns(|context| async move {
        let app = prepared(&context).await?;
        let name = format!("no-users-{}", context.namespace);
        let policies = Api::<ValidatingAdmissionPolicy>::all(context.client.clone());
        let bindings = Api::<ValidatingAdmissionPolicyBinding>::all(context.client.clone());
        let policy = serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {
                "matchConstraints": {
                    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": context.namespace}},
                    "objectSelector": {"matchExpressions": [{"key": "fairway.dev/work", "operator": "Exists"}]},
                    "resourceRules": [
                        {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]},
                    ],
                },
                "validations": [{
                    "expression": "!has(object.spec.securityContext.runAsUser) && object.spec.containers.all(c, \
                                   !has(c.securityContext.runAsUser)) && (!has(object.spec.initContainers) || \
                                   object.spec.initContainers.all(c, !has(c.securityContext.runAsUser)))",
                    "message": "runAsUser is not of this namespace's range",
                }],
            },
        }))?;
        let binding = serde_json::from_value(
            json!({"metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]}}),
        )?;
        policies.create(&PostParams::default(), &policy).await?;
        bindings.create(&PostParams::default(), &binding).await?;
        let agent = json!({"user": {"assigned": {}}});
        let refusal = "runAsUser is not of this namespace's range";
        let pod = admission::example_pod(&json!({"fairway.dev/work": "example"}), 65532);
        let is_refused = |answer: &_| admission::is_refused(answer, refusal);
        let result = async {
            admission::until_asked(&context, pod, is_refused).await?;
            refused_until(&context, app, refusal, agent).await
        }
        .await;
        // Unlike what the test creates in its namespace, these stay.
        bindings.delete(&name, &DeleteParams::default()).await?;
        policies.delete(&name, &DeleteParams::default()).await?;
        result
    })
    .await
}

/// Label of a node that no other node has.
const HOST: &str = "kubernetes.io/hostname";

/// F12: components tolerate a taint, are bound to a node, know the database by `hostAliases` alone, and name a resolver
/// option and a pull secret. So do all pods of the agent.
#[tokio::test]
async fn f12_agent_pods_run_where_and_as_the_component_does() -> Result<()> {
    with_temp_ns(|context| async move {
        let mut app = prepared(&context).await?;
        let services = context.api::<Service>();
        let address = services
            .get(crm::DATABASE)
            .await?
            .spec
            .and_then(|spec| spec.cluster_ip);
        let database = context.api::<Pod>().get("crm-db-0").await?;
        let node = database
            .spec
            .and_then(|spec| spec.node_name)
            .context("the database has no node")?;
        let nodes = Api::<Node>::all(context.client.clone());
        let host = nodes.get(&node).await?.labels().get(HOST).cloned();
        let place = json!({
            "nodeSelector": {HOST: host},
            "tolerations": [{"key": "example.com/database", "operator": "Exists", "effect": "NoSchedule"}],
            "hostAliases": [{"ip": address, "hostnames": ["database.example.com"]}],
            "dnsConfig": {"options": [{"name": "ndots", "value": "1"}]},
            "imagePullSecrets": [{"name": "registry"}],
        });
        let fields = place.as_object().context("no object")?;
        for component in ["web", "worker"] {
            let spec = &mut apps::component(&mut app, component).template["spec"];
            for (field, value) in fields {
                spec[field] = value.clone();
            }
        }
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": crm::DATABASE},
            "stringData": {"url": "postgres://postgres:demo-only-crm@database.example.com:5432/crm"},
        });
        apply_object(&context, secret).await?;
        let headers = crm::secret_headers(&context).await?;
        let health = apps::component(&mut app, "web").health.as_mut();
        health.context("web has no health")?.http[1].headers = headers;

        let pods = watched(&context);
        apps::apply(&context, &app).await?;
        seen::ended(&context, "crm-1", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
        let mut works = BTreeSet::new();
        for pod in pods.lock().unwrap_or_else(PoisonError::into_inner).values() {
            let spec = serde_json::to_value(&pod.spec)?;
            for (field, value) in fields {
                ensure!(
                    contains(&spec[field], value),
                    "{field} of {}: {}",
                    pod.name_any(),
                    spec[field]
                );
            }
            works.extend(pod.labels().get(seen::WORK).cloned());
        }
        ensure!(
            works == BTreeSet::from(["backup", "migrate", "pin", "preflight", "probe"].map(String::from)),
            "{works:?}"
        );
        Ok(())
    })
    .await
}

/// Whether all of this is there; Kubernetes and Fairway add to it.
fn contains(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Array(all), Value::Array(some)) => some.iter().all(|one| all.contains(one)),
        (Value::Object(all), Value::Object(some)) => {
            some.iter().all(|(name, value)| all.get(name) == Some(value))
        }
        _ => whole == part,
    }
}

/// The agent's pods from now on, also those that are gone, as they were last.
fn watched(context: &Context) -> Arc<Mutex<BTreeMap<String, Pod>>> {
    let seen = Arc::new(Mutex::new(BTreeMap::new()));
    let into = seen.clone();
    let config = watcher::Config::default().labels(seen::WORK);
    let mut events = watcher(context.api::<Pod>(), config).applied_objects().boxed();
    tokio::spawn(async move {
        while let Some(event) = events.next().await {
            if let Ok(pod) = event {
                let mut pods = into.lock().unwrap_or_else(PoisonError::into_inner);
                pods.insert(pod.name_any(), pod);
            }
        }
    });
    seen
}

/// F16: `shop` with component `api-web`, and `shop-api` with component `web`.
#[tokio::test]
async fn deployments_of_two_apps_never_have_one_name() -> Result<()> {
    with_temp_ns(|context| async move {
        let mut first = small::app(&context, "shop", "v1")?;
        apps::component(&mut first, "web").name = "api-web".to_owned();
        let second = small::app(&context, "shop-api", "v1")?;
        apps::apply(&context, &first).await?;
        apps::apply(&context, &second).await?;
        seen::ended(&context, "shop-1", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
        seen::ended(&context, "shop-api-1", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
        ensure!(
            seen::names_of::<Deployment>(&context, "shop").await?.len() == 1
                && seen::names_of::<Deployment>(&context, "shop-api").await?.len() == 1,
            "one App's Deployment took the place of the other's"
        );
        Ok(())
    })
    .await
}
