//! Migrations that hang, are killed, or say that they have done what they have not.

use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use fairway_crds::duration::Duration;
use fairway_crds::migration::MigrationOutcome;
use fairway_crds::release::ReleaseOutcome;
use fairway_crds::{App, Migration, Release};
use fairway_e2e::apps::{self, crm};
use fairway_e2e::load::{self, Load};
use fairway_e2e::ns::{Context, with_temp_ns};
use fairway_e2e::{reach, seen};
use serde_json::json;

/// crm at v1, edited to a v2 whose migration has this fault.
async fn edited(context: &Context, fault: &str, also: impl FnOnce(&mut App)) -> Result<()> {
    let app = crm::install(context).await?;
    edit(context, app, fault, also).await
}

async fn edit(context: &Context, mut app: App, fault: &str, also: impl FnOnce(&mut App)) -> Result<()> {
    crm::set_version(context, &mut app, "v2");
    apps::set_bake(&mut app, 1);
    apps::set_env(&mut app, "web", "CRM_FAULT_MIGRATE", fault);
    also(&mut app);
    apps::apply(context, &app).await?;
    Ok(())
}

/// 1 when v2's migration has begun.
const BEGUN: &str = "select count(*) from migration_runs where version = 'v2'";

/// The release has failed, was run once, changed nothing and left nothing behind.
async fn failed_cleanly(context: &Context) -> Result<Release> {
    let failed = seen::ended(context, "crm-2", ReleaseOutcome::Failed, crm::PATIENCE).await?;
    let migration = context
        .api::<Migration>()
        .get("crm-2")
        .await?
        .status
        .unwrap_or_default();
    ensure!(
        migration.outcome == Some(MigrationOutcome::Failed),
        "{migration:?}"
    );
    for (statement, desired) in [
        (BEGUN, 1),
        (
            "select count(*) from fairway.migration_run where release = 'crm-2'",
            1,
        ),
        ("select count(*) from pg_tables where tablename = 'lead_note'", 0),
        (
            "select count(*) from pg_stat_activity where datname = 'crm' and state = 'idle in transaction'",
            0,
        ),
    ] {
        let found = reach::count(context, crm::DATABASE, statement).await?;
        ensure!(found == desired, "{found} instead of {desired}: {statement}");
    }
    ensure!(
        crm::pods(context, "web", "crm-1").await?.len() == 2,
        "the old version does not serve"
    );
    Ok(failed)
}

fn ten_seconds(app: &mut App) {
    app.spec
        .migration
        .iter_mut()
        .for_each(|migration| migration.timeout = Duration::from_seconds(10));
}

#[tokio::test]
async fn hanging_migration_is_ended_with_its_sessions() -> Result<()> {
    with_temp_ns(|context| async move {
        edited(&context, "hang", |app| {
            ten_seconds(app);
            apps::set_env(app, "web", "CRM_FAULT_MIGRATE_IGNORE_SIGTERM", "1");
        })
        .await?;
        let clients = load::start(&context, &Load::on("crm", 80, "/api/leads")).await?;
        let failed = failed_cleanly(&context).await?;
        ensure!(
            seen::message(&failed).contains("within 10 s"),
            "{}",
            seen::message(&failed)
        );
        load::assert_none_failed(&clients.stop().await?)?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn unhealthy_on_start_migration_is_ended_then_judged() -> Result<()> {
    with_temp_ns(|context| async move {
        edited(&context, "hang", |app| {
            crm::migrate_on_start(app);
            ten_seconds(app);
        })
        .await?;
        let failed = failed_cleanly(&context).await?;
        ensure!(
            seen::message(&failed).contains("was not seen to be complete within 10 s"),
            "{}",
            seen::message(&failed)
        );
        Ok(())
    })
    .await
}

/// Whom the kernel ended when the memory of the migration's container was used up.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    /// The migration, as the agent reported.
    TheMigration,
    /// The agent as well, so that the ledger had to be asked.
    TheAgentToo,
}

/// Reads it from the status message, which says in either case that it was the memory.
async fn ended(context: &Context, failed: &Release) -> Result<Ended> {
    let migration = context.api::<Migration>().get("crm-2").await?;
    let exit_code = migration.status.unwrap_or_default().exit_code;
    let (ended, words) = match exit_code {
        Some(137) => (Ended::TheMigration, "was killed by SIGKILL (out of memory?)"),
        None => (
            Ended::TheAgentToo,
            "container agent ran out of memory (OOMKilled)",
        ),
        Some(other) => bail!("the migration has exited with {other}"),
    };
    let (reason, message) = (seen::reason(failed), seen::message(failed));
    ensure!(
        reason == "MigrationFailed" && message.contains(words),
        "{reason}: {message}"
    );
    eprintln!("out of memory, the kernel has ended {ended:?}: {message}");
    Ok(ended)
}

fn little_memory(app: &mut App) {
    let container = &mut apps::component(app, "web").template["spec"]["containers"][0];
    container["resources"] = json!({"limits": {"memory": "96Mi"}});
}

#[tokio::test]
async fn migration_out_of_memory_fails_and_is_not_run_again() -> Result<()> {
    with_temp_ns(|context| async move {
        edited(&context, "oom", little_memory).await?;
        let failed = failed_cleanly(&context).await?;
        let ended = ended(&context, &failed).await?;
        if context.target.is_embedded() {
            // With cgroups of version 2 the kubelet has all of a container ended.
            let desired = match Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
                true => Ended::TheAgentToo,
                false => Ended::TheMigration,
            };
            ensure!(ended == desired, "{ended:?} on a machine for {desired:?}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn migration_that_takes_the_agents_memory_is_not_run_again() -> Result<()> {
    with_temp_ns(|context| async move {
        let app = crm::install(&context).await?;
        // The migration waits for this lock of its own before it does anything.
        let database = reach::database(&context, crm::DATABASE).await?;
        database
            .batch_execute(&format!("select pg_advisory_lock({})", crm::MIGRATION_LOCK))
            .await?;
        edit(&context, app, "oom", little_memory).await?;
        reach::until(&context, crm::DATABASE, BEGUN, 1, crm::PATIENCE).await?;
        fairway_e2e::operator::prefer_as_victim(&context, "migrate").await?;
        database
            .batch_execute(&format!("select pg_advisory_unlock({})", crm::MIGRATION_LOCK))
            .await?;

        let failed = failed_cleanly(&context).await?;
        let ended = ended(&context, &failed).await?;
        ensure!(ended == Ended::TheAgentToo, "the agent lives");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn migration_of_a_killed_agent_is_settled_by_the_ledger() -> Result<()> {
    with_temp_ns(|context| async move {
        edited(&context, "hang", |_| {}).await?;
        reach::until(&context, crm::DATABASE, BEGUN, 1, crm::PATIENCE).await?;
        fairway_e2e::operator::kill_agent(&context, "migrate").await?;
        failed_cleanly(&context).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn migration_without_effect_keeps_traffic_from_its_version() -> Result<()> {
    with_temp_ns(|context| async move {
        edited(&context, "noop", |app| {
            apps::set_health_deadline(app, "web", 25);
        })
        .await?;
        let failed = seen::ended(&context, "crm-2", ReleaseOutcome::Failed, crm::PATIENCE).await?;
        let migration = failed
            .status
            .clone()
            .unwrap_or_default()
            .evidence
            .migration
            .context("no migration")?;
        ensure!(
            migration.unchanged,
            "no message says that the schema is unchanged: {migration:?}"
        );
        let message = seen::message(&failed);
        ensure!(message.contains("left the schema unchanged"), "{message}");
        ensure!(
            !seen::holds(seen::release_condition(&failed, "SchemaAhead")),
            "nothing was migrated"
        );
        seen::selects(&context, "crm", "crm-1", crate::SOON).await?;
        Ok(())
    })
    .await
}
