//! A migration under way, and the proof that it was started once.
//!
//! The migration first appends a row to a table without any unique key, so a second run would be seen.

use anyhow::{Context as _, Result, ensure};
use fairway_crds::migration::MigrationOutcome;
use fairway_crds::release::ReleaseOutcome;
use fairway_crds::{App, Release};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::ListParams;

use crate::apps::{self, crm};
use crate::context::Context;
use crate::{reach, seen};

/// Installs CRM v1 and edits it to a v2 whose migration has begun and pauses at this moment, `middle` or `end`.
///
/// # Errors
/// When it does not come that far.
pub async fn migrating(context: &Context, moment: &str) -> Result<()> {
    migrating_with(context, moment, |_| {}).await
}

/// [`migrating`] with a v2 that migrates the database itself when it starts, and pauses in the middle.
///
/// # Errors
/// When it does not come that far.
pub async fn migrating_on_start(context: &Context) -> Result<()> {
    migrating_with(context, "middle", crm::migrate_on_start).await
}

async fn migrating_with(context: &Context, moment: &str, also: impl FnOnce(&mut App)) -> Result<()> {
    let mut app = crm::install(context).await?;
    crm::set_version(context, &mut app, "v2");
    apps::set_bake(&mut app, 1);
    apps::set_env(&mut app, "web", "CRM_FAULT_MIGRATE", "sleep:6000");
    apps::set_env(&mut app, "web", "CRM_FAULT_MIGRATE_AT", moment);
    also(&mut app);
    apps::apply(context, &app).await?;
    let begun = match moment {
        "end" => "select count(*) from pg_tables where tablename = 'lead_note'",
        _ => "select count(*) from migration_runs where version = 'v2'",
    };
    reach::until(context, crm::DATABASE, begun, 1, crm::PATIENCE).await
}

/// Waits until the release has ended or needs a user, and proves that the migration was started once.
///
/// # Errors
/// When it was started more often, or the outcome is not what the database shows.
pub async fn was_run_once(context: &Context) -> Result<()> {
    let settled = |release: &Release| {
        seen::outcome(release).is_some() || seen::holds(seen::release_condition(release, "Stalled"))
    };
    let release = seen::release(
        context,
        "crm-2",
        "to end or to need a user",
        settled,
        crm::PATIENCE,
    )
    .await?;
    let rows = reach::count(
        context,
        crm::DATABASE,
        "select count(*) from migration_runs where version = 'v2'",
    )
    .await?;
    ensure!(rows == 1, "the migration was started {rows} times");
    // The outcome is what the database shows.
    let done = reach::count(
        context,
        crm::DATABASE,
        "select count(*) from pg_tables where tablename = 'lead_note'",
    )
    .await?;
    let migration = context
        .api::<fairway_crds::Migration>()
        .get("crm-2")
        .await?
        .status
        .unwrap_or_default();
    let outcome = migration
        .outcome
        .with_context(|| format!("no outcome: {}", seen::message(&release)))?;
    let right = match outcome {
        MigrationOutcome::Applied | MigrationOutcome::AlreadyApplied => done == 1,
        MigrationOutcome::Failed | MigrationOutcome::NotStarted => done == 0,
        MigrationOutcome::Partial | MigrationOutcome::Unknown => true,
    };
    ensure!(
        right,
        "the outcome is {outcome:?}, and the table is there {done} times"
    );
    Ok(())
}

/// Name of the Job that migrates for crm-2.
///
/// # Errors
/// When there is none.
pub async fn job(context: &Context) -> Result<String> {
    let jobs = ListParams::default().labels(&format!("{}=migrate,{}=crm-2", seen::WORK, seen::RELEASE));
    let jobs = context.api::<Job>().list(&jobs).await?;
    Ok(jobs.items.first().context("no Job migrates")?.name_any())
}

/// Name of the pod that migrates for crm-2.
///
/// # Errors
/// When there is none.
pub async fn pod(context: &Context) -> Result<String> {
    let pods = ListParams::default().labels(&format!("{}=migrate,{}=crm-2", seen::WORK, seen::RELEASE));
    let pods = context.api::<Pod>().list(&pods).await?;
    Ok(pods.items.first().context("no pod migrates")?.name_any())
}

/// Waits until the release has this outcome, and proves that the ledger has one run of it.
///
/// # Errors
/// When it has more, or as [`was_run_once`].
pub async fn ended_after_one_run(context: &Context, outcome: ReleaseOutcome) -> Result<()> {
    seen::ended(context, "crm-2", outcome, crm::PATIENCE).await?;
    let runs = "select count(*) from fairway.migration_run where release = 'crm-2'";
    let runs = reach::count(context, crm::DATABASE, runs).await?;
    ensure!(runs == 1, "the ledger has {runs} runs of crm-2");
    was_run_once(context).await
}
