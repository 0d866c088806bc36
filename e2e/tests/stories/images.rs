//! The agent runs in whatever image the application has: here in such that hold a loader, a C library and one
//! program, with a read-only root, and as users that no file of theirs knows.

use anyhow::{Context as _, Result, ensure};
use fairway_crds::App;
use fairway_crds::migration::MigrationOutcome;
use fairway_crds::release::ReleaseOutcome;
use fairway_e2e::apps::{self, crm};
use fairway_e2e::ns::{Context, with_temp_ns};
use fairway_e2e::volumes::{Behaviour, claim};
use fairway_e2e::{reach, seen};

/// As somebody may have written it.
const CHOSEN: i64 = 12_345;
/// As OpenShift takes one from the range of a namespace.
const ASSIGNED: i64 = 1_000_680_000;

fn run_as(app: &mut App, user: i64) {
    for component in ["web", "worker"] {
        let security = &mut apps::component(app, component).template["spec"]["securityContext"];
        security["runAsUser"] = user.into();
        security["runAsGroup"] = user.into();
    }
}

/// The migration of a release was run once, by this image, and changed the schema.
async fn was_migrated(context: &Context, release: &str, version: &str) -> Result<()> {
    let ended = seen::ended(context, release, ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
    let migration = ended
        .status
        .unwrap_or_default()
        .evidence
        .migration
        .context("no migration")?;
    ensure!(
        migration.outcome == MigrationOutcome::Applied && !migration.unchanged,
        "{migration:?}"
    );
    for statement in [
        format!("select count(*) from fairway.migration_run where release = '{release}'"),
        format!("select count(*) from migration_runs where version = '{version}'"),
    ] {
        let rows = reach::count(context, crm::DATABASE, &statement).await?;
        ensure!(rows == 1, "{rows} rows: {statement}");
    }
    Ok(())
}

/// v1 migrates by its command, v2 when it starts, each as another user.
async fn is_released_in_both_forms(image: &'static str) -> Result<()> {
    with_temp_ns(|context| async move {
        claim(&context, "backups", "1Gi", Behaviour::Good).await?;
        crm::database(&context).await?;
        let mut app = crm::app(&context, "v1")?;
        crm::set_image_and_version(&context, &mut app, image, "v1");
        run_as(&mut app, CHOSEN);
        apps::set_bake(&mut app, 0);
        apps::apply(&context, &app).await?;
        was_migrated(&context, "crm-1", "v1").await?;

        crm::set_image_and_version(&context, &mut app, image, "v2");
        crm::migrate_on_start(&mut app);
        run_as(&mut app, ASSIGNED);
        apps::apply(&context, &app).await?;
        was_migrated(&context, "crm-2", "v2").await?;
        crm::never_two_workers(&context, &["v1", "v2"]).await
    })
    .await
}

#[tokio::test]
async fn glibc_application_is_released_from_an_image_without_shell() -> Result<()> {
    is_released_in_both_forms("crm-bare").await
}

#[tokio::test]
async fn musl_application_is_released_from_an_image_without_shell() -> Result<()> {
    is_released_in_both_forms("crm-musl").await
}
