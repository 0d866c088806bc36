//! No operator runs for a while: the release goes on where it was.

use anyhow::Result;
use fairway_crds::release::ReleaseOutcome;
use fairway_e2e::apps::{self, crm, small};
use fairway_e2e::ns::alone;
use fairway_e2e::{operator, seen, wait};

#[tokio::test]
async fn release_goes_on_after_an_operator_absent_for_the_rollout() -> Result<()> {
    alone(|context| async move {
        let mut app = small::app(&context, "shop", "v1")?;
        apps::apply(&context, &app).await?;
        seen::ended(&context, "shop-1", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
        small::set_version(&context, &mut app, "v2")?;
        // Long enough for the operator to be gone before the pods are ready.
        apps::component(&mut app, "web").template["spec"]["containers"][0]["readinessProbe"]["initialDelaySeconds"] = 5.into();
        apps::apply(&context, &app).await?;
        seen::waits(&context, "shop-2", "StartingPods", crm::PATIENCE).await?;
        operator::scale(&context, 0).await?;
        wait::deployment_available(&context.client, &context.namespace, "shop-web-2", crm::PATIENCE).await?;
        seen::selects(&context, "shop", "shop-1", crm::PATIENCE).await?;
        operator::scale(&context, 1).await?;
        seen::ended(&context, "shop-2", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
        seen::selects(&context, "shop", "shop-2", crm::PATIENCE).await?;
        Ok(())
    })
    .await
}
