//! Images that cannot be had and templates that Kubernetes refuses.

use anyhow::{Result, ensure};
use fairway_crds::component::Strategy;
use fairway_crds::release::ReleaseOutcome;
use fairway_e2e::apps::{self, crm, small};
use fairway_e2e::ns::{Context, with_temp_ns};
use fairway_e2e::volumes::{self, Behaviour};
use fairway_e2e::{reach, seen};
use serde_json::json;

use crate::SOON;

async fn live(context: &Context) -> Result<fairway_crds::App> {
    let app = small::app(context, "shop", "v1")?;
    apps::apply(context, &app).await?;
    seen::ended(context, "shop-1", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
    Ok(app)
}

#[tokio::test]
async fn image_that_cannot_be_pulled_is_named_and_replaced() -> Result<()> {
    with_temp_ns(|context| async move {
        let mut app = live(&context).await?;
        let missing = context.target.image("crm", "no-such-tag");
        apps::set_image(&mut app, "web", &missing);
        apps::apply(&context, &app).await?;
        let waiting = seen::waits(&context, "shop-2", "ImagePullFailed", crm::PATIENCE).await?;
        ensure!(
            seen::message(&waiting).contains("no-such-tag"),
            "{}",
            seen::message(&waiting)
        );
        ensure!(
            seen::holds(seen::release_condition(&waiting, "Reconciling")),
            "it is tried again by itself"
        );

        small::set_version(&context, &mut app, "v2")?;
        apps::apply(&context, &app).await?;
        seen::ended(&context, "shop-2", ReleaseOutcome::Superseded, crm::PATIENCE).await?;
        seen::ended(&context, "shop-3", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn missing_digest_keeps_the_previous_version_serving() -> Result<()> {
    with_temp_ns(|context| async move {
        let mut app = live(&context).await?;
        let image = context.target.image("crm", "v1");
        let (repository, _) = image.rsplit_once(':').unwrap_or((&image, ""));
        apps::set_image(
            &mut app,
            "web",
            &format!("{repository}@sha256:{}", "0".repeat(64)),
        );
        apps::set_health_deadline(&mut app, "web", 15);
        apps::apply(&context, &app).await?;
        let failed = seen::failed(&context, "shop-2", "PodsNotReady", crm::PATIENCE).await?;
        let message = seen::message(&failed);
        ensure!(message.contains("shop-1 keeps serving"), "{message}");
        seen::selects(&context, "shop", "shop-1", SOON).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn refused_template_fails_with_the_apiservers_words() -> Result<()> {
    with_temp_ns(|context| async move {
        let mut app = live(&context).await?;
        apps::component(&mut app, "web").template["spec"]["containers"][0]["ports"] =
            json!([{"containerPort": 99999}]);
        apps::apply(&context, &app).await?;
        let failed = seen::failed(&context, "shop-2", "TemplateRefused", crm::PATIENCE).await?;
        let message = seen::message(&failed);
        ensure!(
            message.contains("component web") && message.contains("containerPort"),
            "{message}"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn refused_template_is_reported_before_the_migration_runs() -> Result<()> {
    with_temp_ns(|context| async move {
        let mut app = crm::install(&context).await?;
        crm::set_version(&context, &mut app, "v2");
        // Not the component that migrates, so that its own pod would have been made.
        apps::component(&mut app, "worker").template["spec"]["containers"][0]["ports"] =
            json!([{"containerPort": 99999}]);
        apps::apply(&context, &app).await?;
        let failed = seen::failed(&context, "crm-2", "TemplateRefused", crm::PATIENCE).await?;
        let message = seen::message(&failed);
        for part in ["component worker", "containerPort", "crm-1 keeps serving"] {
            ensure!(message.contains(part), "{part} is missing: {message}");
        }
        let milestones = failed.status.unwrap_or_default().milestones;
        ensure!(milestones.is_empty(), "{milestones:?}");
        for statement in [
            "select count(*) from migration_runs where version = 'v2'",
            "select count(*) from fairway.migration_run where release = 'crm-2'",
        ] {
            let rows = reach::count(&context, crm::DATABASE, statement).await?;
            ensure!(rows == 0, "{rows} rows: {statement}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_field_that_does_not_exist_is_refused_too_and_not_dropped() -> Result<()> {
    with_temp_ns(|context| async move {
        let mut app = live(&context).await?;
        apps::component(&mut app, "web").template["spec"]["containers"][0]["imagePulPolicy"] =
            json!("Always");
        apps::apply(&context, &app).await?;
        let failed = seen::failed(&context, "shop-2", "TemplateRefused", crm::PATIENCE).await?;
        let message = seen::message(&failed);
        ensure!(message.contains("imagePulPolicy"), "{message}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn single_node_claim_needs_the_recreate_strategy() -> Result<()> {
    with_temp_ns(|context| async move {
        volumes::claim(&context, "uploads", "1Gi", Behaviour::Good).await?;
        let mut app = live(&context).await?;
        let pods = &mut apps::component(&mut app, "web").template["spec"];
        pods["volumes"] = json!([{"name": "files", "persistentVolumeClaim": {"claimName": "uploads"}}]);
        pods["containers"][0]["volumeMounts"] = json!([{"name": "files", "mountPath": "/uploads"}]);
        apps::apply(&context, &app).await?;
        let failed = seen::failed(&context, "shop-2", "ClaimNotShared", crm::PATIENCE).await?;
        let message = seen::message(&failed);
        for part in [
            "Volume files",
            "component web",
            "claim uploads",
            "strategy: Recreate",
            "shop-1 keeps serving",
        ] {
            ensure!(message.contains(part), "{part} is missing: {message}");
        }
        seen::selects(&context, "shop", "shop-1", SOON).await?;

        apps::component(&mut app, "web").strategy = Strategy::Recreate;
        apps::apply(&context, &app).await?;
        seen::ended(&context, "shop-3", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
        seen::selects(&context, "shop", "shop-3", SOON).await?;
        Ok(())
    })
    .await
}
