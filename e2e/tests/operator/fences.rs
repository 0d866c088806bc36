//! Jobs deleted, pods evicted, guards and the operator killed while a migration runs: it is never run twice.
//!
//! The migration first appends a row to a table without any unique key, so a second run would be seen.

use anyhow::{Context as _, Result, ensure};
use fairway_crds::migration::MigrationOutcome;
use fairway_crds::release::ReleaseOutcome;
use fairway_crds::{App, Release};
use fairway_e2e::apps::{self, crm};
use fairway_e2e::ns::Context;
use fairway_e2e::{operator, reach, seen};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{DeleteParams, EvictParams, ListParams};

use crate::{alone, undisturbed};

/// crm at v1, edited to a v2 whose migration has begun and pauses at this moment.
async fn migrating(context: &Context, moment: &str) -> Result<()> {
    migrating_with(context, moment, |_| {}).await
}

/// The same for a v2 that migrates the database itself when it starts, pausing in the middle.
async fn migrating_on_start(context: &Context) -> Result<()> {
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

/// The release has come to an end or waits for a person, and the migration was begun once.
async fn was_run_once(context: &Context) -> Result<()> {
    let settled = |release: &Release| {
        seen::outcome(release).is_some() || seen::holds(seen::release_condition(release, "Stalled"))
    };
    let release = seen::release(
        context,
        "crm-2",
        "to end or to wait for a person",
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
    ensure!(rows == 1, "the migration was begun {rows} times");
    // What is told is what is so.
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
    let told = migration
        .outcome
        .with_context(|| format!("no outcome: {}", seen::message(&release)))?;
    let right = match told {
        MigrationOutcome::Applied | MigrationOutcome::AlreadyApplied => done == 1,
        MigrationOutcome::Failed | MigrationOutcome::NotStarted => done == 0,
        MigrationOutcome::Partial | MigrationOutcome::Unknown => true,
    };
    ensure!(
        right,
        "the outcome is {told:?}, and the table is there {done} times"
    );
    Ok(())
}

async fn job(context: &Context) -> Result<String> {
    let jobs = ListParams::default().labels(&format!("{}=migrate,{}=crm-2", seen::WORK, seen::RELEASE));
    let jobs = context.api::<Job>().list(&jobs).await?;
    Ok(jobs.items.first().context("no Job migrates")?.name_any())
}

async fn pod(context: &Context) -> Result<String> {
    let pods = ListParams::default().labels(&format!("{}=migrate,{}=crm-2", seen::WORK, seen::RELEASE));
    let pods = context.api::<Pod>().list(&pods).await?;
    Ok(pods.items.first().context("no pod migrates")?.name_any())
}

#[tokio::test]
async fn a_migration_whose_job_is_deleted_is_not_begun_again() -> Result<()> {
    undisturbed(|context| async move {
        migrating(&context, "middle").await?;
        context
            .api::<Job>()
            .delete(&job(&context).await?, &DeleteParams::background())
            .await?;
        was_run_once(&context).await
    })
    .await
}

#[tokio::test]
async fn a_migration_whose_job_and_pod_are_deleted_without_grace_after_it_committed_is_not_begun_again()
-> Result<()> {
    undisturbed(|context| async move {
        migrating(&context, "end").await?;
        let (job, pod) = (job(&context).await?, pod(&context).await?);
        context
            .api::<Job>()
            .delete(&job, &DeleteParams::background())
            .await?;
        context
            .api::<Pod>()
            .delete(&pod, &DeleteParams::default().grace_period(0))
            .await?;
        was_run_once(&context).await
    })
    .await
}

#[tokio::test]
async fn a_migration_whose_pod_is_evicted_is_not_begun_again() -> Result<()> {
    undisturbed(|context| async move {
        migrating(&context, "middle").await?;
        context
            .api::<Pod>()
            .evict(&pod(&context).await?, &EvictParams::default())
            .await?;
        was_run_once(&context).await
    })
    .await
}

#[tokio::test]
async fn a_migration_whose_operator_is_killed_while_its_job_is_deleted_is_not_begun_again() -> Result<()> {
    alone(|context| async move {
        migrating(&context, "middle").await?;
        let job = job(&context).await?;
        operator::kill(&context).await?;
        context
            .api::<Job>()
            .delete(&job, &DeleteParams::background())
            .await?;
        operator::ready(&context).await?;
        was_run_once(&context).await
    })
    .await
}

/// The release has ended so, the ledger knows one run of it, and the migration was begun once.
async fn ended_after_one_run(context: &Context, outcome: ReleaseOutcome) -> Result<()> {
    seen::ended(context, "crm-2", outcome, crm::PATIENCE).await?;
    let runs = "select count(*) from fairway.migration_run where release = 'crm-2'";
    let runs = reach::count(context, crm::DATABASE, runs).await?;
    ensure!(runs == 1, "the ledger has {runs} runs of crm-2");
    was_run_once(context).await
}

#[tokio::test]
async fn an_application_that_migrates_itself_is_not_started_again_when_its_pod_is_deleted() -> Result<()> {
    undisturbed(|context| async move {
        migrating_on_start(&context).await?;
        context
            .api::<Pod>()
            .delete(&pod(&context).await?, &DeleteParams::default())
            .await?;
        ended_after_one_run(&context, ReleaseOutcome::Failed).await?;
        seen::selects(&context, "crm", "crm-1", crm::PATIENCE).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_application_that_migrates_itself_is_not_started_again_when_its_pod_is_deleted_without_grace()
-> Result<()> {
    undisturbed(|context| async move {
        migrating_on_start(&context).await?;
        context
            .api::<Pod>()
            .delete(&pod(&context).await?, &DeleteParams::default().grace_period(0))
            .await?;
        ended_after_one_run(&context, ReleaseOutcome::Failed).await?;
        seen::selects(&context, "crm", "crm-1", crm::PATIENCE).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_application_that_migrates_itself_finishes_although_its_guard_is_killed() -> Result<()> {
    undisturbed(|context| async move {
        migrating_on_start(&context).await?;
        operator::kill_agent(&context, "migrate").await?;
        ended_after_one_run(&context, ReleaseOutcome::Succeeded).await
    })
    .await
}
