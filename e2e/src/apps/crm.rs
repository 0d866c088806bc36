//! The fixture application: `web` serves, `worker` is never there twice, both are released together.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fairway_crds::App;
use fairway_crds::database::OnStart;
use fairway_crds::health::HttpHeader;
use fairway_crds::release::ReleaseOutcome;
use http::Request;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::{Value, json};

use super::{apply, component, from_file, set_bake, set_env, set_image};
use crate::context::Context;
use crate::manifest::apply_object;
use crate::volumes::{Behaviour, claim};
use crate::{manifest, reach, seen, wait};

/// The StatefulSet and Secret of its database.
pub const DATABASE: &str = "crm-db";

/// The port of `web`.
pub const PORT: u16 = 3000;

/// The key of the lock in its database under which it migrates.
pub const MIGRATION_LOCK: i64 = 0x63_72_6d;

/// How long a release of it may take in a test.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// The pairs of worker pods of two versions that worked at once, from the rows that they wrote.
const OVERLAPS: &str = "with pods as (select version, pod, min(at) as began, max(at) as ended from worker_heartbeat group by version, pod) \
     select count(*) from pods x join pods y on x.version < y.version and x.began <= y.ended and y.began <= x.ended";

/// The App of the manifest, at this version.
///
/// # Errors
/// When the manifest cannot be read.
pub fn app(context: &Context, version: &str) -> Result<App> {
    let (mut app, _) = from_file(&context.target, "crm/app.yaml")?;
    set_version(context, &mut app, version);
    Ok(app)
}

/// Edits the version of both components, and makes each migration leave a row in a table without any
/// unique key before it does anything else, so that a second run would be seen.
pub fn set_version(context: &Context, app: &mut App, version: &str) {
    set_image_and_version(context, app, "crm", version);
}

/// The same with another of its images: `crm-bare` is linked with the GNU C library, `crm-musl` with musl.
pub fn set_image_and_version(context: &Context, app: &mut App, image: &str, version: &str) {
    let image = context.target.image(image, version);
    for component in ["web", "worker"] {
        set_image(app, component, &image);
    }
    set_env(app, "web", "CRM_MIGRATE_APPEND", "1");
}

/// Lets `web` migrate the database itself when it starts, in place of the command.
pub fn migrate_on_start(app: &mut App) {
    component(app, "web").template["spec"]["containers"][0]["args"] = json!(["serve-and-migrate"]);
    if let Some(migration) = &mut app.spec.migration {
        migration.command = None;
        migration.on_start = Some(OnStart {});
    }
}

/// Starts its database, in an empty state, and makes a claim for backups.
///
/// # Errors
/// When the database does not become ready.
pub async fn database(context: &Context) -> Result<()> {
    manifest::apply(context, "crm/database.yaml").await?;
    wait::pod_ready(
        &context.client,
        &context.namespace,
        "crm-db-0",
        Duration::from_secs(90),
    )
    .await?;
    Ok(())
}

/// Database, claim and the first release, at version v1, which is live when this returns. There is
/// nothing to go back to, so the first release is not watched.
///
/// # Errors
/// When the release does not succeed.
pub async fn install(context: &Context) -> Result<App> {
    install_with(context, |_| {}).await
}

/// The same with an App that is edited first.
///
/// # Errors
/// When the release does not succeed.
pub async fn install_with(context: &Context, edit: impl FnOnce(&mut App)) -> Result<App> {
    claim(context, "backups", "1Gi", Behaviour::Good).await?;
    database(context).await?;
    let mut app = app(context, "v1")?;
    edit(&mut app);
    first(context, &mut app).await?;
    Ok(app)
}

/// Releases an App for the first time, without a watch afterwards, and then sets the watch that the
/// manifest asks for, which takes effect without a release.
///
/// # Errors
/// When the release does not succeed.
pub async fn first(context: &Context, app: &mut App) -> Result<()> {
    let bake = app.spec.policy.bake.clone();
    set_bake(app, 0);
    apply(context, app).await?;
    let name = format!("{}-1", app.metadata.name.as_deref().unwrap_or_default());
    seen::ended(context, &name, ReleaseOutcome::Succeeded, PATIENCE).await?;
    app.spec.policy.bake = bake;
    apply(context, app).await?;
    Ok(())
}

/// Puts leads into it through its API, by way of one of its pods.
///
/// # Errors
/// When it does not take them.
pub async fn add_leads(context: &Context, names: &[&str]) -> Result<()> {
    let pod = web_pod(context).await?;
    for name in names {
        let request = Request::post("/api/leads")
            .header("host", "crm")
            .header("content-type", "application/json")
            .body(json!({"name": name}).to_string())?;
        reach::json(context, &pod, PORT, request).await?;
    }
    Ok(())
}

/// The names of its leads, through its API.
///
/// # Errors
/// When it does not answer.
pub async fn leads(context: &Context) -> Result<Vec<String>> {
    let pod = web_pod(context).await?;
    let request = Request::get("/api/leads")
        .header("host", "crm")
        .body(String::new())?;
    let leads = reach::json(context, &pod, PORT, request).await?;
    let names = leads.as_array().into_iter().flatten();
    Ok(names
        .filter_map(|lead| lead["name"].as_str().map(ToOwned::to_owned))
        .collect())
}

/// When Fairway was given a bad health page by one pod, in milliseconds since 1970.
///
/// # Errors
/// When it does not answer.
pub async fn bad_health_ms(context: &Context, pod: &str) -> Result<Vec<u64>> {
    let request = Request::get("/fault").header("host", "crm").body(String::new())?;
    let report = reach::json(context, pod, PORT, request).await?;
    let times = report["bad_health_ms"].as_array().into_iter().flatten();
    Ok(times.filter_map(Value::as_u64).collect())
}

/// Turns pages of one pod bad, or good again; see the fixture's README.
///
/// # Errors
/// When it does not answer.
pub async fn switch_fault(context: &Context, pod: &str, faults: &Value) -> Result<()> {
    let request = Request::post("/fault")
        .header("host", "crm")
        .header("content-type", "application/json")
        .body(faults.to_string())?;
    reach::json(context, pod, PORT, request).await?;
    Ok(())
}

/// A header of health requests whose value is in a Secret, which is created: such requests are sent by a probe pod.
///
/// # Errors
/// When the API server refuses the Secret.
pub async fn secret_headers(context: &Context) -> Result<Vec<HttpHeader>> {
    const NAME: &str = "crm-header";
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": NAME}, "stringData": {"token": "of-the-test"}});
    apply_object(context, secret).await?;
    let headers = json!([{"name": "X-Token", "valueFrom": {"secretKeyRef": {"name": NAME, "key": "token"}}}]);
    Ok(serde_json::from_value(headers)?)
}

/// All pods of a component of a release that there are.
///
/// # Errors
/// When the API server does not answer.
pub async fn running_pods(context: &Context, component: &str, release: &str) -> Result<Vec<String>> {
    let labels = format!("{}={component},{}={release}", seen::COMPONENT, seen::RELEASE);
    let pods = context
        .api::<Pod>()
        .list(&ListParams::default().labels(&labels))
        .await?;
    Ok(pods.items.iter().map(ResourceExt::name_any).collect())
}

/// The ready pods of a component of a release.
///
/// # Errors
/// When the API server does not answer.
pub async fn pods(context: &Context, component: &str, release: &str) -> Result<Vec<String>> {
    let labels = format!("{}={component},{}={release}", seen::COMPONENT, seen::RELEASE);
    reach::ready_pods(context, &labels).await
}

/// Fails when worker pods of two versions worked at once, or when one of these versions has not worked at all:
/// a version that did nothing proves nothing.
///
/// # Errors
/// The error names the version that did not work, or counts the pairs of pods that worked at once.
pub async fn never_two_workers(context: &Context, versions: &[&str]) -> Result<()> {
    for version in versions {
        let statement = format!("select count(*) from worker_heartbeat where version = '{version}'");
        let heartbeats = reach::count(context, DATABASE, &statement).await?;
        ensure!(heartbeats > 0, "no worker of {version} has worked");
    }
    let overlaps = reach::count(context, DATABASE, OVERLAPS).await?;
    ensure!(
        overlaps == 0,
        "{overlaps} pairs of workers of two versions worked at once"
    );
    Ok(())
}

async fn web_pod(context: &Context) -> Result<String> {
    let live = context.api::<App>().get("crm").await?;
    let release = seen::live(&live).context("no release of crm serves")?;
    let pods = pods(context, "web", release).await?;
    pods.into_iter()
        .next()
        .with_context(|| format!("no pod of web in {release} is ready"))
}
