//! Users edit while a release is under way, apply the same again, and change their minds.

use anyhow::{Context as _, Result, ensure};
use fairway_crds::Release;
use fairway_crds::migration::MigrationOutcome;
use fairway_crds::release::{MilestoneKind, ReleaseOutcome};
use fairway_e2e::apps::{self, crm, small};
use fairway_e2e::ns::{Context, with_temp_ns};
use fairway_e2e::{reach, seen};
use k8s_openapi::api::apps::v1::Deployment;

use crate::SOON;

/// How often the migration of a version was run, by the rows that each run appends.
async fn runs(context: &Context, version: &str) -> Result<i64> {
    let statement = format!("select count(*) from migration_runs where version = '{version}'");
    reach::count(context, crm::DATABASE, &statement).await
}

#[tokio::test]
async fn last_of_two_edits_is_released_and_the_first_does_nothing() -> Result<()> {
    with_temp_ns(|context| async move {
        let mut app = crm::install(&context).await?;
        apps::set_bake(&mut app, 1);
        crm::set_version(&context, &mut app, "v2");
        apps::apply(&context, &app).await?;
        seen::release(&context, "crm-2", "to exist", |_| true, SOON).await?;
        crm::set_version(&context, &mut app, "v3");
        apps::apply(&context, &app).await?;

        let first = seen::ended(&context, "crm-2", ReleaseOutcome::Superseded, crm::PATIENCE).await?;
        ensure!(
            first.status.unwrap_or_default().milestones.is_empty(),
            "crm-2 has changed something"
        );
        seen::ended(&context, "crm-3", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
        ensure!(runs(&context, "v2").await? == 0 && runs(&context, "v3").await? == 1);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_edit_during_the_backup_supersedes_the_release() -> Result<()> {
    with_temp_ns(|context| async move {
        let mut app = crm::install(&context).await?;
        apps::set_bake(&mut app, 1);
        crm::set_version(&context, &mut app, "v2");
        apps::apply(&context, &app).await?;
        seen::waits(&context, "crm-2", "BackingUp", crm::PATIENCE).await?;
        crm::set_version(&context, &mut app, "v3");
        apps::apply(&context, &app).await?;

        seen::ended(&context, "crm-2", ReleaseOutcome::Superseded, crm::PATIENCE).await?;
        let second = seen::ended(&context, "crm-3", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
        ensure!(runs(&context, "v2").await? == 0 && runs(&context, "v3").await? == 1);
        let backup = second
            .status
            .unwrap_or_default()
            .evidence
            .backup
            .context("no backup")?;
        ensure!(
            backup.name.starts_with("crm-3-"),
            "crm-3 relies on the backup {}",
            backup.name
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn edit_during_a_migration_waits_for_that_release() -> Result<()> {
    with_temp_ns(|context| async move {
        let mut app = crm::install(&context).await?;
        apps::set_bake(&mut app, 1);
        crm::set_version(&context, &mut app, "v2");
        apps::set_env(&mut app, "web", "CRM_FAULT_MIGRATE", "sleep:3000");
        apps::apply(&context, &app).await?;
        seen::reaches(&context, "crm-2", MilestoneKind::Migrating, crm::PATIENCE).await?;
        apps::unset_env(&mut app, "web", "CRM_FAULT_MIGRATE");
        crm::set_version(&context, &mut app, "v3");
        apps::apply(&context, &app).await?;

        let waiting = seen::waits(&context, "crm-3", "WaitingForRelease", crm::PATIENCE).await?;
        ensure!(
            seen::message(&waiting).contains("crm-2"),
            "{}",
            seen::message(&waiting)
        );
        seen::ended(&context, "crm-2", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
        seen::ended(&context, "crm-3", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
        ensure!(runs(&context, "v2").await? == 1 && runs(&context, "v3").await? == 1);
        crm::never_two_workers(&context, &["v1", "v2", "v3"]).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_edit_during_the_bake_is_released_after_it() -> Result<()> {
    with_temp_ns(|context| async move {
        let mut app = small::app(&context, "shop", "v1")?;
        apps::apply(&context, &app).await?;
        seen::ended(&context, "shop-1", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
        apps::set_bake(&mut app, 8);
        small::set_version(&context, &mut app, "v2")?;
        apps::apply(&context, &app).await?;
        let baking = seen::waits(&context, "shop-2", "Baking", crm::PATIENCE).await?;
        ensure!(
            !seen::holds(seen::release_condition(&baking, "Reconciling")),
            "a bake is not Reconciling"
        );
        small::set_version(&context, &mut app, "v3")?;
        apps::apply(&context, &app).await?;

        seen::waits(&context, "shop-3", "WaitingForRelease", SOON).await?;
        seen::ended(&context, "shop-2", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
        seen::ended(&context, "shop-3", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_same_spec_applied_again_releases_nothing() -> Result<()> {
    with_temp_ns(|context| async move {
        let mut app = small::app(&context, "shop", "v1")?;
        apps::apply(&context, &app).await?;
        seen::ended(&context, "shop-1", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
        apps::apply(&context, &app).await?;
        // An edit that needs no release shows that Fairway has looked.
        apps::set_bake(&mut app, 1);
        apps::apply(&context, &app).await?;
        let found = seen::observed(&context, "shop", SOON).await?;
        ensure!(found.status.unwrap_or_default().revision == Some(1));
        ensure!(seen::releases(&context, "shop").await?.len() == 1);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn revert_is_a_release_without_migration_on_a_schema_ahead() -> Result<()> {
    with_temp_ns(|context| async move {
        let mut app = crm::install(&context).await?;
        apps::set_bake(&mut app, 1);
        crm::set_version(&context, &mut app, "v2");
        apps::apply(&context, &app).await?;
        seen::ended(&context, "crm-2", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
        crm::set_version(&context, &mut app, "v1");
        apps::apply(&context, &app).await?;

        let back = seen::ended(&context, "crm-3", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
        let migration = back
            .status
            .clone()
            .unwrap_or_default()
            .evidence
            .migration
            .context("no migration")?;
        ensure!(
            migration.outcome == MigrationOutcome::AlreadyApplied,
            "{migration:?}"
        );
        ensure!(
            seen::holds(seen::release_condition(&back, "SchemaAhead")),
            "there is no condition SchemaAhead"
        );
        ensure!(
            runs(&context, "v1").await? == 1,
            "the migration of v1 was run again"
        );
        let ahead = |app: &fairway_crds::App| seen::holds(seen::app_condition(app, "SchemaAhead"));
        seen::app(&context, "crm", "SchemaAhead=True", ahead, SOON).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn edited_replicas_take_effect_without_a_release() -> Result<()> {
    with_temp_ns(|context| async move {
        let mut app = small::app(&context, "shop", "v1")?;
        apps::apply(&context, &app).await?;
        seen::ended(&context, "shop-1", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
        apps::set_bake(&mut app, 15);
        small::set_version(&context, &mut app, "v2")?;
        apps::apply(&context, &app).await?;
        seen::waits(&context, "shop-2", "Baking", crm::PATIENCE).await?;
        apps::component(&mut app, "web").replicas = 2;
        apps::apply(&context, &app).await?;
        // Both sides: the old one may have to take the traffic back.
        for deployment in ["shop-web-1", "shop-web-2"] {
            fairway_e2e::wait::deployment_available(
                &context.client,
                &context.namespace,
                deployment,
                crm::PATIENCE,
            )
            .await?;
        }
        seen::ended(&context, "shop-2", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
        apps::component(&mut app, "web").replicas = 3;
        apps::apply(&context, &app).await?;
        let three =
            |found: &Deployment| found.status.as_ref().and_then(|status| status.ready_replicas) == Some(3);
        fairway_e2e::wait::wait_for(
            context.api::<Deployment>(),
            "shop-web-2",
            "three pods",
            three,
            crm::PATIENCE,
        )
        .await?;
        let releases: Vec<Release> = seen::releases(&context, "shop").await?;
        ensure!(releases.len() == 2, "{} releases", releases.len());
        Ok(())
    })
    .await
}
