//! Health pages that do not answer as they should: the release is stopped, and says what it got.

use anyhow::{Result, ensure};
use fairway_crds::release::MilestoneKind;
use fairway_e2e::apps::{self, crm, small};
use fairway_e2e::ns::with_temp_ns;
use fairway_e2e::seen;

/// A first release whose health page has this fault, as the fixture's README spells it.
async fn is_refused(fault: &'static str, expected: &'static str) -> Result<()> {
    with_temp_ns(|context| async move {
        let mut app = small::app(&context, "shop", "v1")?;
        apps::set_env(&mut app, "web", "CRM_FAULT_HEALTH", fault);
        apps::set_health_deadline(&mut app, "web", 15);
        apps::apply(&context, &app).await?;
        let failed = seen::failed(&context, "shop-1", "Unhealthy", crm::PATIENCE).await?;
        let message = seen::message(&failed);
        for part in ["GET /api/health ", expected, "health.http of component web"] {
            ensure!(message.contains(part), "{message}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_redirect_is_not_followed() -> Result<()> {
    is_refused("302", "302").await
}

#[tokio::test]
async fn a_page_that_is_not_there_is_not_healthy() -> Result<()> {
    is_refused("404", "404").await
}

#[tokio::test]
async fn json_that_is_cut_off_is_not_healthy() -> Result<()> {
    is_refused("garbage", "JSON").await
}

#[tokio::test]
async fn a_page_of_two_gigabytes_is_not_read_to_its_end() -> Result<()> {
    is_refused("huge", "MiB").await
}

#[tokio::test]
async fn a_page_that_never_answers_is_given_up() -> Result<()> {
    is_refused("hang", "5 s").await
}

#[tokio::test]
async fn failing_data_page_counts_although_the_health_page_is_good() -> Result<()> {
    with_temp_ns(|context| async move {
        let mut app = crm::install(&context).await?;
        crm::add_leads(&context, &["Ada"]).await?;
        crm::set_version(&context, &mut app, "v2");
        // Its columns are not there, and its health page does not mind.
        apps::set_env(&mut app, "web", "CRM_FAULT_MIGRATE", "noop");
        apps::set_env(&mut app, "web", "CRM_FAULT_HEALTH_BLIND", "1");
        apps::set_health_deadline(&mut app, "web", 10);
        apps::apply(&context, &app).await?;

        let failed = seen::failed(&context, "crm-2", "Unhealthy", crm::PATIENCE).await?;
        let message = seen::message(&failed);
        ensure!(
            message.contains("/api/leads") && message.contains("500") && !message.contains("/api/health"),
            "{message}"
        );
        ensure!(
            seen::milestone(&failed, MilestoneKind::HandingOver).is_none()
                && seen::milestone(&failed, MilestoneKind::TrafficMoved).is_none(),
            "{:?}",
            failed.status
        );
        seen::selects(&context, "crm", "crm-1", crate::SOON).await?;
        ensure!(crm::leads(&context).await? == ["Ada"]);
        Ok(())
    })
    .await
}
