//! Databases that cannot be had: the release waits, says why, and goes on by itself when they can.

use anyhow::{Context as _, Result, ensure};
use fairway_crds::Release;
use fairway_crds::migration::MigrationOutcome;
use fairway_crds::release::ReleaseOutcome;
use fairway_e2e::apps::{self, crm};
use fairway_e2e::manifest;
use fairway_e2e::ns::{Context, with_temp_ns};
use fairway_e2e::volumes::{Behaviour, claim};
use fairway_e2e::{reach, seen, wait};
use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use serde_json::json;
use std::time::Duration;

/// Writes the URL that applications and Fairway use.
async fn set_url(context: &Context, url: &str) -> Result<()> {
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": crm::DATABASE}, "stringData": {"url": url}});
    manifest::apply_object(context, secret).await?;
    Ok(())
}

/// A first release with a wrong URL waits with this reason, and succeeds once the Secret is fixed.
async fn waits_until_mended(wrong: &'static str, reason: &'static str) -> Result<()> {
    with_temp_ns(|context| async move {
        claim(&context, "backups", "1Gi", Behaviour::Good).await?;
        crm::database(&context).await?;
        set_url(&context, wrong).await?;
        let mut app = crm::app(&context, "v1")?;
        apps::set_bake(&mut app, 0);
        apps::apply(&context, &app).await?;
        let waiting = seen::waits(&context, "crm-1", "WaitingForEnvironment", crm::PATIENCE).await?;
        let attempts = waiting.status.clone().unwrap_or_default().attempts;
        let attempt = attempts
            .get("Preflighted")
            .context("no attempt of Preflighted is recorded")?;
        ensure!(attempt.reason.as_deref() == Some(reason), "{attempt:?}");
        ensure!(
            !seen::message(&waiting).contains("wrong-password"),
            "{}",
            seen::message(&waiting)
        );

        set_url(&context, "postgres://postgres:demo-only-crm@crm-db:5432/crm").await?;
        seen::ended(&context, "crm-1", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn release_waits_for_an_unreachable_database_and_continues() -> Result<()> {
    waits_until_mended(
        "postgres://postgres:demo-only-crm@crm-db:5433/crm",
        "DatabaseUnreachable",
    )
    .await
}

#[tokio::test]
async fn a_release_waits_for_the_right_password_and_goes_on_by_itself() -> Result<()> {
    waits_until_mended(
        "postgres://postgres:wrong-password@crm-db:5432/crm",
        "PasswordRejected",
    )
    .await
}

#[tokio::test]
async fn two_apps_on_one_database_are_refused() -> Result<()> {
    with_temp_ns(|context| async move {
        crm::install(&context).await?;
        let mut other = crm::app(&context, "v1")?;
        other.metadata.name = Some("other".to_owned());
        if let Some(serves) = &mut apps::component(&mut other, "web").serves {
            serves.service = "other".to_owned();
        }
        apps::apply(&context, &other).await?;
        let owned = |release: &Release| {
            let attempts = release
                .status
                .as_ref()
                .and_then(|status| status.attempts.get("Preflighted"));
            attempts.and_then(|attempt| attempt.reason.as_deref()) == Some("DatabaseOwned")
                || seen::reason(release) == "DatabaseOwned"
        };
        let refused = seen::release(&context, "other-1", "DatabaseOwned", owned, crm::PATIENCE).await?;
        ensure!(
            seen::message(&refused).contains("crm"),
            "{}",
            seen::message(&refused)
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn first_release_keeps_an_existing_schema_and_its_data() -> Result<()> {
    with_temp_ns(|context| async move {
        claim(&context, "backups", "1Gi", Behaviour::Good).await?;
        crm::database(&context).await?;
        // As a team that has run the application without Fairway so far. Its first try may come before the node knows
        // where the database's Service leads.
        let url = json!({"name": "DATABASE_URL", "valueFrom": {"secretKeyRef": {"name": crm::DATABASE, "key": "url"}}});
        let by_hand: Pod = serde_json::from_value(json!({
            "metadata": {"name": "by-hand"},
            "spec": manifest::restricted(json!({"restartPolicy": "OnFailure", "containers": [{
                "name": "migrate", "image": context.target.image("crm", "v1"), "args": ["migrate"], "env": [url],
            }]})),
        }))?;
        context.api::<Pod>().create(&PostParams::default(), &by_hand).await?;
        let done = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Succeeded");
        wait::wait_for(context.api::<Pod>(), "by-hand", "to succeed", done, Duration::from_secs(60)).await?;
        let database = reach::database(&context, crm::DATABASE).await?;
        database.batch_execute("insert into leads (name) values ('Ada')").await?;
        let history = "select string_agg(format('%s %s %s', version, name, applied_at), '; ' order by version) from schema_migrations";
        let before: String = database.query_one(history, &[]).await?.try_get(0)?;

        let mut app = crm::app(&context, "v1")?;
        // Nothing but what the application does by itself may change the schema.
        apps::unset_env(&mut app, "web", "CRM_MIGRATE_APPEND");
        crm::first(&context, &mut app).await?;
        let live = |app: &fairway_crds::App| seen::live(app) == Some("crm-1");
        seen::app(&context, "crm", "crm-1 to be live", live, crate::SOON).await?;
        ensure!(crm::leads(&context).await? == ["Ada"]);
        let release = context.api::<Release>().get("crm-1").await?;
        let migration = release.status.clone().unwrap_or_default().evidence.migration.context("no migration")?;
        ensure!(migration.outcome == MigrationOutcome::Applied && migration.unchanged, "{migration:?}");
        let message = seen::message(&release);
        ensure!(message.contains("The migration left the schema unchanged: if it should have changed it, check its log"), "{message}");
        let after: String = database.query_one(history, &[]).await?.try_get(0)?;
        ensure!(before == after, "the history was {before} and is {after}");
        Ok(())
    })
    .await
}
