//! What a migration reads from its App, beside its image and command.

use anyhow::{Context as _, Result, ensure};
use fairway_crds::App;
use fairway_crds::migration::MigrationOutcome;
use fairway_crds::release::ReleaseOutcome;
use fairway_e2e::apps::{self, crm, small};
use fairway_e2e::manifest::apply_object;
use fairway_e2e::ns::{Context, with_temp_ns};
use fairway_e2e::volumes::{Behaviour, claim};
use fairway_e2e::{reach, seen};
use serde_json::json;

/// F5: the SQL of a migration is in a ConfigMap. A release with the same SQL runs nothing, and one whose ConfigMap has
/// changed runs it again, with the same image and command.
#[tokio::test]
async fn f5_sql_that_changed_in_a_config_map_is_run() -> Result<()> {
    with_temp_ns(|context| async move {
        claim(&context, "backups", "1Gi", Behaviour::Good).await?;
        crm::database(&context).await?;
        sql(
            &context,
            "create table first (); create table runs as select now();",
        )
        .await?;
        let mut app = with_sql(&context)?;
        apps::apply(&context, &app).await?;
        outcome(&context, "shop-1", MigrationOutcome::Applied).await?;

        apps::set_env(&mut app, "web", "EDIT", "2");
        apps::apply(&context, &app).await?;
        outcome(&context, "shop-2", MigrationOutcome::AlreadyApplied).await?;

        sql(&context, "create table second (); insert into runs select now();").await?;
        apps::set_env(&mut app, "web", "EDIT", "3");
        apps::apply(&context, &app).await?;
        outcome(&context, "shop-3", MigrationOutcome::Applied).await?;
        let tables = "select count(*) from pg_tables where tablename in ('first', 'second')";
        ensure!(reach::count(&context, crm::DATABASE, tables).await? == 2);
        ensure!(reach::count(&context, crm::DATABASE, "select count(*) from runs").await? == 2);
        Ok(())
    })
    .await
}

async fn sql(context: &Context, schema: &str) -> Result<()> {
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "sql"}, "data": {"schema.sql": schema},
    });
    apply_object(context, map).await?;
    Ok(())
}

/// The smallest App with a database, and a second container that has psql and the SQL.
fn with_sql(context: &Context) -> Result<App> {
    let mut app = small::app(context, "shop", "v1")?;
    let crm = crm::app(context, "v1")?;
    app.spec.database = crm.spec.database;
    app.spec.backup = crm.spec.backup;
    app.spec.migration = Some(serde_json::from_value(json!({
        "component": "web",
        "container": "sql",
        "command": ["sh", "-c", "exec psql --set=ON_ERROR_STOP=1 --file=/sql/schema.sql \"$DATABASE_URL\""],
        "timeout": "1m",
    }))?);
    let spec = &mut apps::component(&mut app, "web").template["spec"];
    let mut container = spec["containers"][0].clone();
    container["name"] = json!("sql");
    container["image"] = json!(context.target.image_by_digest("postgres", "15")?);
    container["command"] = json!(["sleep", "infinity"]);
    container["args"] = json!([]);
    container["env"] = json!([
        {"name": "DATABASE_URL", "valueFrom": {"secretKeyRef": {"name": crm::DATABASE, "key": "url"}}},
    ]);
    container["readinessProbe"] = json!({"exec": {"command": ["true"]}});
    container["volumeMounts"] = json!([{"name": "sql", "mountPath": "/sql"}]);
    spec["volumes"] = json!([{"name": "sql", "configMap": {"name": "sql"}}]);
    spec["containers"]
        .as_array_mut()
        .context("no containers")?
        .push(container);
    Ok(app)
}

/// Waits until a release has succeeded, and fails unless that became of its migration.
async fn outcome(context: &Context, release: &str, desired: MigrationOutcome) -> Result<()> {
    let ended = seen::ended(context, release, ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
    let migration = ended.status.unwrap_or_default().evidence.migration;
    let migration = migration.context("no migration")?;
    ensure!(migration.outcome == desired, "{release}: {migration:?}");
    Ok(())
}
