//! What a user can ask of a release: abort, roll back, retry, resolve.

use anyhow::{Result, ensure};
use fairway_crds::Release;
use fairway_crds::migration::MigrationOutcome;
use fairway_crds::release::{MilestoneKind, ReleaseOutcome, annotation};
use fairway_e2e::apps::{self, crm, small};
use fairway_e2e::ns::{Context, with_temp_ns};
use fairway_e2e::{reach, seen};

use crate::SOON;

/// `shop` at v1, and an edit to v2 that is being watched for a minute.
async fn baking(context: &Context) -> Result<()> {
    let mut app = small::app(context, "shop", "v1")?;
    apps::apply(context, &app).await?;
    seen::ended(context, "shop-1", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
    apps::set_bake(&mut app, 60);
    small::set_version(context, &mut app, "v2")?;
    apps::apply(context, &app).await?;
    seen::waits(context, "shop-2", "Baking", crm::PATIENCE).await?;
    Ok(())
}

#[tokio::test]
async fn release_aborted_before_migration_leaves_the_previous_as_is() -> Result<()> {
    with_temp_ns(|context| async move {
        let mut app = crm::install(&context).await?;
        crm::set_version(&context, &mut app, "v2");
        apps::apply(&context, &app).await?;
        seen::release(&context, "crm-2", "to exist", |_| true, SOON).await?;
        apps::say(&context, "crm-2", annotation::ABORT, "one").await?;
        let release = seen::ended(&context, "crm-2", ReleaseOutcome::Aborted, crm::PATIENCE).await?;
        let status = release.status.clone().unwrap_or_default();
        ensure!(
            status.milestones.is_empty() && status.last_handled_abort.as_deref() == Some("one"),
            "{status:?}"
        );
        ensure!(crm::pods(&context, "web", "crm-1").await?.len() == 2);
        ensure!(crm::pods(&context, "web", "crm-2").await?.is_empty());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_person_takes_traffic_back_during_the_bake() -> Result<()> {
    with_temp_ns(|context| async move {
        baking(&context).await?;
        apps::say(&context, "shop-2", annotation::ROLLBACK, "now").await?;
        let release = seen::ended(&context, "shop-2", ReleaseOutcome::RolledBack, crm::PATIENCE).await?;
        ensure!(
            seen::reason(&release) == "RollbackRequested",
            "{}",
            seen::message(&release)
        );
        seen::selects(&context, "shop", "shop-1", SOON).await?;
        ensure!(
            release
                .status
                .unwrap_or_default()
                .last_handled_rollback
                .as_deref()
                == Some("now")
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_abort_during_the_bake_takes_traffic_back_too() -> Result<()> {
    with_temp_ns(|context| async move {
        baking(&context).await?;
        apps::say(&context, "shop-2", annotation::ABORT, "now").await?;
        let release = seen::ended(&context, "shop-2", ReleaseOutcome::RolledBack, crm::PATIENCE).await?;
        ensure!(seen::reason(&release) == "Aborted", "{}", seen::message(&release));
        seen::selects(&context, "shop", "shop-1", SOON).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_person_takes_a_release_back_long_after_it_succeeded() -> Result<()> {
    with_temp_ns(|context| async move {
        let mut app = crm::install(&context).await?;
        apps::set_bake(&mut app, 1);
        crm::set_version(&context, &mut app, "v2");
        apps::apply(&context, &app).await?;
        seen::ended(&context, "crm-2", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
        apps::say(&context, "crm-2", annotation::ROLLBACK, "later").await?;
        let back = |release: &Release| seen::outcome(release) == Some(ReleaseOutcome::RolledBack);
        let release = seen::release(&context, "crm-2", "to be rolled back", back, crm::PATIENCE).await?;
        seen::selects(&context, "crm", "crm-1", SOON).await?;
        ensure!(
            crm::pods(&context, "worker", "crm-1").await?.len() == 1,
            "the old worker does not work"
        );
        ensure!(
            seen::holds(seen::release_condition(&release, "SchemaAhead")),
            "there is no condition SchemaAhead"
        );
        crm::never_two_workers(&context, &["v1", "v2"]).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn failed_release_is_retried_on_request_and_only_once() -> Result<()> {
    with_temp_ns(|context| async move {
        let mut app = crm::install(&context).await?;
        // A table of this name stands in the way of v2's migration.
        let database = reach::database(&context, crm::DATABASE).await?;
        database.batch_execute("create table lead_note (x int)").await?;
        apps::set_bake(&mut app, 1);
        crm::set_version(&context, &mut app, "v2");
        apps::apply(&context, &app).await?;
        let failed = seen::ended(&context, "crm-2", ReleaseOutcome::Failed, crm::PATIENCE).await?;
        ensure!(
            seen::message(&failed).contains("fairway.dev/retry"),
            "{}",
            seen::message(&failed)
        );
        database.batch_execute("drop table lead_note").await?;

        apps::say(&context, "crm-2", annotation::RETRY, "fixed").await?;
        let again = seen::ended(&context, "crm-3", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
        ensure!(again.spec.trigger == "Retry", "{}", again.spec.trigger);
        let answered = |release: &Release| {
            release
                .status
                .as_ref()
                .and_then(|status| status.last_handled_retry.as_deref())
                == Some("fixed")
        };
        seen::release(&context, "crm-2", "the retry to be answered", answered, SOON).await?;
        ensure!(seen::releases(&context, "crm").await?.len() == 3);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn partial_migration_blocks_others_until_it_is_resolved() -> Result<()> {
    with_temp_ns(|context| async move {
        let mut app = crm::install(&context).await?;
        apps::set_bake(&mut app, 1);
        crm::set_version(&context, &mut app, "v2");
        apps::set_env(&mut app, "web", "CRM_FAULT_MIGRATE", "partial");
        apps::apply(&context, &app).await?;
        let waiting = seen::waits(&context, "crm-2", "MigrationUnresolved", crm::PATIENCE).await?;
        ensure!(
            seen::holds(seen::release_condition(&waiting, "Stalled")),
            "no condition says that a user must act"
        );
        ensure!(
            seen::message(&waiting).contains("fairway.dev/resolve"),
            "{}",
            seen::message(&waiting)
        );
        ensure!(
            crm::pods(&context, "web", "crm-1").await?.len() == 2,
            "the old version does not serve"
        );

        // The user repairs the database by hand and says so.
        let database = reach::database(&context, crm::DATABASE).await?;
        database.batch_execute("drop table lead_note").await?;
        apps::say(&context, "crm-2", annotation::RESOLVE, "not-applied:by-hand").await?;
        seen::ended(&context, "crm-2", ReleaseOutcome::Failed, crm::PATIENCE).await?;
        apps::unset_env(&mut app, "web", "CRM_FAULT_MIGRATE");
        apps::apply(&context, &app).await?;
        let resolved = seen::ended(&context, "crm-3", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
        let migration = resolved.status.clone().unwrap_or_default().evidence.migration;
        ensure!(migration.is_some_and(|migration| migration.outcome == MigrationOutcome::Applied));
        ensure!(seen::milestone(&resolved, MilestoneKind::Migrated).is_some());
        Ok(())
    })
    .await
}
