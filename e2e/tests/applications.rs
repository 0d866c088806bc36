//! The applications of the tests, without Fairway: what other tests conclude from them is true.

use anyhow::Result;
use fairway_e2e::apps::crm;
use fairway_e2e::manifest::restricted;
use fairway_e2e::ns::with_temp_ns;
use fairway_e2e::reach;
use http::Request;
use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use serde_json::json;
use std::time::Duration;

#[tokio::test]
async fn a_database_and_a_pod_are_reached_through_the_apiserver() -> Result<()> {
    with_temp_ns(|context| async move {
        crm::database(&context).await?;
        assert_eq!(
            reach::count(
                &context,
                crm::DATABASE,
                "select count(*) from pg_tables where schemaname = 'public'"
            )
            .await?,
            0
        );
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "crm"},
            "spec": restricted(json!({"terminationGracePeriodSeconds": 1, "containers": [{
                "name": "web",
                "image": context.target.image("crm", "v1"),
                "args": ["web"],
                "readinessProbe": {"httpGet": {"path": "/api/health", "port": 3000}, "periodSeconds": 1},
            }]})),
        }))?;
        context.api::<Pod>().create(&PostParams::default(), &pod).await?;
        fairway_e2e::wait::pod_ready(
            &context.client,
            &context.namespace,
            "crm",
            Duration::from_secs(60),
        )
        .await?;

        crm::switch_fault(&context, "crm", &json!({"health": "503"})).await?;
        let ask = |agent: &str| {
            Request::get("/api/health")
                .header("host", "crm")
                .header("user-agent", agent)
                .body(String::new())
        };
        let answer = reach::http(&context, "crm", crm::PORT, ask("fairway/0.1.0")?).await?;
        assert_eq!(answer.status(), 503);
        reach::http(&context, "crm", crm::PORT, ask("curl")?).await?;
        assert_eq!(
            crm::bad_health_ms(&context, "crm").await?.len(),
            1,
            "only what Fairway is given counts"
        );
        Ok(())
    })
    .await
}
