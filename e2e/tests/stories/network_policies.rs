//! NetworkPolicies that deny what they do not allow: the documented ones are what Fairway needs, and the chart's own closes the metrics.

use anyhow::{Context as _, Result, ensure};
use fairway_crds::release::ReleaseOutcome;
use fairway_e2e::apps::{self, crm};
use fairway_e2e::install::OPERATOR_NAMESPACE;
use fairway_e2e::manifest::{self, apply_object};
use fairway_e2e::ns::{Context, with_temp_ns};
use fairway_e2e::paths::repository;
use fairway_e2e::volumes::{Behaviour, claim};
use fairway_e2e::{reach, seen};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::SOON;

/// The policies of the page, for a namespace and an operator of other names.
fn documented(context: &Context) -> Result<Vec<Value>> {
    let page = std::fs::read_to_string(repository().join("docs/network-policies.md"))?;
    let yaml = page.split("```yaml\n").nth(1).context("the page has no YAML")?;
    let yaml = yaml.split("```").next().unwrap_or_default();
    let yaml = yaml
        .replace("namespace: shop", &format!("namespace: {}", context.namespace))
        .replace("fairway-system", OPERATOR_NAMESPACE);
    Ok(serde_saphyr::from_multiple(&yaml)?)
}

async fn policy(context: &Context, name: &str, spec: Value) -> Result<()> {
    let policy = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name}, "spec": spec,
    });
    apply_object(context, policy).await.map(|_| ())
}

/// Nothing reaches any pod, and none reaches anything, but for the application and its database.
async fn deny(context: &Context) -> Result<()> {
    let everything = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]});
    policy(context, "deny", everything).await?;
    let application = json!({"matchExpressions": [{"key": "fairway.dev/component", "operator": "Exists"}]});
    let database = json!({"matchLabels": {"app": crm::DATABASE}});
    let out = json!({
        "podSelector": application, "policyTypes": ["Egress"],
        "egress": [{"to": [{"podSelector": database}]}, {"ports": [{"port": 53, "protocol": "UDP"}]}],
    });
    policy(context, "application", out).await?;
    let into = json!({
        "podSelector": database, "policyTypes": ["Ingress"], "ingress": [{"from": [{"podSelector": application}]}],
    });
    policy(context, "database", into).await
}

#[tokio::test]
async fn release_succeeds_where_everything_but_the_documented_traffic_is_denied() -> Result<()> {
    with_temp_ns(|context| async move {
        deny(&context).await?;
        claim(&context, "backups", "1Gi", Behaviour::Good).await?;
        manifest::apply(&context, "crm/database.yaml").await?;
        let headers = crm::secret_headers(&context).await?;
        let mut app = crm::app(&context, "v1")?;
        apps::set_bake(&mut app, 0);
        let health = apps::component(&mut app, "web")
            .health
            .as_mut()
            .context("no health")?;
        // Sent by a probe pod.
        health.http[1].headers = headers;
        apps::apply(&context, &app).await?;
        let waiting = seen::waits(&context, "crm-1", "WaitingForEnvironment", crm::PATIENCE).await?;
        let message = seen::message(&waiting);
        ensure!(
            message.contains("network policies let this namespace reach it"),
            "{message}"
        );

        let policies = documented(&context)?;
        let of_health = |policy: &&Value| policy["metadata"]["name"] == "fairway-health";
        for policy in policies.iter().filter(|policy| !of_health(policy)) {
            apply_object(&context, policy.clone()).await?;
        }
        seen::waits(&context, "crm-1", "ProbeUnreachable", crm::PATIENCE).await?;

        for policy in policies.iter().filter(of_health) {
            apply_object(&context, policy.clone()).await?;
        }
        seen::ended(&context, "crm-1", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
        Ok(())
    })
    .await
}

/// S13: the metrics answer those namespaces that are to read them, and nobody else.
#[tokio::test]
async fn metrics_answer_only_namespaces_with_the_label() -> Result<()> {
    with_temp_ns(|context| async move {
        ensure!(
            reach::metrics_refuse(&context, "stranger", SOON).await?,
            "a pod of any namespace reaches the metrics"
        );
        let namespaces = Api::<Namespace>::all(context.client.clone());
        let labels = json!({"metadata": {"labels": {"metrics": "enabled"}}});
        let parameters = PatchParams::default();
        namespaces
            .patch(&context.namespace, &parameters, &Patch::Merge(labels))
            .await?;
        reach::metrics_answer(&context, "prometheus", SOON).await
    })
    .await
}
