//! A table is dropped at noon, and last night's backup comes back.

use anyhow::{Context as _, Result, ensure};
use fairway_crds::backup::BackupOutcome;
use fairway_crds::release::{ReleaseOutcome, annotation};
use fairway_crds::restore::{RestoreOutcome, RestoreStatus};
use fairway_crds::{Backup, Restore};
use fairway_e2e::apps::{self, crm};
use fairway_e2e::manifest::apply_object;
use fairway_e2e::ns::{Context, with_temp_ns};
use fairway_e2e::{reach, seen, wait};
use kube::api::{Patch, PatchParams};
use serde_json::json;

async fn backup(context: &Context) -> Result<()> {
    let backup = json!({
        "apiVersion": "fairway.dev/v1alpha1", "kind": "Backup", "metadata": {"name": "nightly"},
        "spec": {"app": "crm", "reason": "the night before"},
    });
    apply_object(context, backup).await?;
    let ended = |backup: &Backup| {
        let status = backup.status.as_ref();
        status.is_some_and(|status| status.outcome == Some(BackupOutcome::Succeeded))
    };
    wait::wait_for(
        context.api::<Backup>(),
        "nightly",
        "has succeeded",
        ended,
        crm::PATIENCE,
    )
    .await?;
    Ok(())
}

async fn restore(context: &Context) -> Result<()> {
    let restore = json!({
        "apiVersion": "fairway.dev/v1alpha1", "kind": "Restore", "metadata": {"name": "noon"},
        "spec": {"app": "crm", "from": {"backup": "nightly"}, "into": "InPlace"},
    });
    apply_object(context, restore).await?;
    Ok(())
}

async fn until(context: &Context, what: &str, is: impl Fn(&RestoreStatus) -> bool) -> Result<RestoreStatus> {
    let seen = |restore: &Restore| restore.status.as_ref().is_some_and(&is);
    let restore = wait::wait_for(context.api::<Restore>(), "noon", what, seen, crm::PATIENCE).await?;
    restore.status.context("no status")
}

fn says(status: &RestoreStatus, reason: &str) -> bool {
    seen::condition(&status.conditions, "Succeeded").is_some_and(|condition| condition.reason == reason)
}

#[tokio::test]
async fn a_dropped_table_comes_back_after_the_user_has_agreed() -> Result<()> {
    with_temp_ns(|context| async move {
        let mut app = crm::install(&context).await?;
        crm::add_leads(&context, &["Ada", "Grace"]).await?;
        backup(&context).await?;
        crm::add_leads(&context, &["Late"]).await?;
        let database = reach::database(&context, crm::DATABASE).await?;
        let drop_table = "drop table leads cascade";
        database.batch_execute(drop_table).await.context(drop_table)?;
        drop(database);

        restore(&context).await?;
        let asked = until(&context, "asks", |status| says(status, "AwaitingAgreement")).await?;
        let loss = asked.loss.context("nothing was counted")?;
        ensure!(
            asked.agreed.is_none() && asked.replaced.is_none(),
            "it did not wait"
        );
        ensure!(
            loss.tables > 0,
            "what was written after the backup was counted: {loss:?}"
        );

        let agreed = json!({"metadata": {"annotations": {annotation::RESTORE: "any:1"}}});
        context
            .api::<Restore>()
            .patch("noon", &PatchParams::default(), &Patch::Merge(agreed))
            .await?;
        let ended = until(&context, "has ended", |status| status.outcome.is_some()).await?;
        ensure!(
            ended.outcome == Some(RestoreOutcome::Succeeded),
            "{:?}",
            ended.conditions
        );
        let replaced = ended.replaced.context("nothing was replaced")?;
        let leads = reach::count(&context, crm::DATABASE, "select count(*) from leads").await?;
        ensure!(leads == 2, "{leads} leads");
        let kept = format!(
            "select count(*) from pg_database where datname = '{}' and not datallowconn",
            replaced.name
        );
        ensure!(
            reach::count(&context, crm::DATABASE, &kept).await? == 1,
            "the replaced database is kept"
        );

        // The ledger that came back knows the first migration, and not the next.
        crm::set_version(&context, &mut app, "v2");
        apps::set_bake(&mut app, 1);
        apps::apply(&context, &app).await?;
        seen::ended(&context, "crm-2", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
        Ok(())
    })
    .await
}
