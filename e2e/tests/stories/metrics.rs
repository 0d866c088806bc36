//! Metrics of the running operator.

use anyhow::{Result, ensure};
use fairway_crds::release::ReleaseOutcome;
use fairway_e2e::apps::{self, crm, small};
use fairway_e2e::install::OPERATOR_NAMESPACE;
use fairway_e2e::ns::with_temp_ns;
use fairway_e2e::seen;

#[tokio::test]
async fn metrics_have_the_names_that_dashboards_use() -> Result<()> {
    with_temp_ns(async |context| {
        apps::apply(&context, &small::app(&context, "shop", "v1")?).await?;
        seen::ended(&context, "shop-1", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
        let page = format!("/api/v1/namespaces/{OPERATOR_NAMESPACE}/services/fairway:metrics/proxy/metrics");
        let page = context
            .client
            .request_text(http::Request::get(page).body(Vec::new())?)
            .await?;
        for line in [
            r#"leader_election_master_status{name="fairway"} 1"#,
            r#"controller_runtime_reconcile_total{controller="app",result="success"}"#,
            r#"workqueue_adds_total{name="release",controller="release"}"#,
            r#"workqueue_queue_duration_seconds_count{name="release",controller="release"}"#,
            r#"workqueue_longest_running_processor_seconds{name="release",controller="release"}"#,
            "# TYPE fairway_releases counter",
            "fairway_unreadable_objects ",
            r#"fairway_watch_failing{kind="EndpointSlice"} 0"#,
        ] {
            ensure!(page.contains(line), "{line} is not in\n{page}");
        }
        Ok(())
    })
    .await
}
