//! Unleash, a real application from npm, with its own PostgreSQL.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result};
use fairway_crds::App;
use http::Request;
use http::request::Builder;
use serde_json::{Value, json};

use super::{from_file, set_image};
use crate::context::Context;
use crate::load::Load;
use crate::{manifest, reach, seen, wait};

/// The StatefulSet and Secret of its database.
pub const DATABASE: &str = "unleash-db";

/// The port of its pods.
pub const PORT: u16 = 4242;

/// How long a release of it may take in a test: its start from an empty database alone takes half a minute on two cores.
pub const PATIENCE: Duration = Duration::from_secs(360);

/// What it takes for an administrator, as the manifest says.
const ADMINISTRATOR: &str = "*:*.demo-only-administrator";

/// The App of the manifest, at this version. Its Secret is applied.
///
/// # Errors
/// When the manifest cannot be read or the Secret is refused.
pub async fn app(context: &Context, version: &str) -> Result<App> {
    let (mut app, others) = from_file(&context.target, "unleash/app.yaml")?;
    for object in others {
        manifest::apply_object(context, object).await?;
    }
    set_version(context, &mut app, version);
    Ok(app)
}

/// Edits its one image.
pub fn set_version(context: &Context, app: &mut App, version: &str) {
    set_image(app, "server", &context.target.image("unleash", version));
}

/// Starts its database, in an empty state.
///
/// # Errors
/// When the database does not become ready.
pub async fn database(context: &Context) -> Result<()> {
    manifest::apply(context, "unleash/database.yaml").await?;
    wait::pod_ready(
        &context.client,
        &context.namespace,
        "unleash-db-0",
        Duration::from_secs(90),
    )
    .await?;
    Ok(())
}

/// What a client of Unleash does all day: it asks which features are on, with a token of its own.
///
/// # Errors
/// When Unleash makes no token.
pub async fn client(context: &Context) -> Result<Load> {
    let wish =
        json!({"tokenName": "shop", "type": "client", "environment": "development", "projects": ["default"]});
    let token = ask(context, Request::post("/api/admin/api-tokens"), Some(&wish)).await?;
    let secret = token["secret"].as_str().context("the new token has no secret")?;
    let mut load = Load::on("unleash", 80, "/api/client/features");
    load.headers.push(("Authorization".to_owned(), secret.to_owned()));
    Ok(load)
}

/// Makes feature flags through the API and turns each on for development.
///
/// # Errors
/// When Unleash refuses one.
pub async fn add_flags(context: &Context, names: &[&str]) -> Result<()> {
    let features = "/api/admin/projects/default/features";
    for name in names {
        let flag = json!({"name": name, "type": "release"});
        ask(context, Request::post(features), Some(&flag)).await?;
        let strategy = json!({"name": "flexibleRollout", "parameters": {"rollout": "50", "stickiness": "default", "groupId": name}});
        let development = format!("{features}/{name}/environments/development");
        ask(
            context,
            Request::post(format!("{development}/strategies")),
            Some(&strategy),
        )
        .await?;
    }
    Ok(())
}

/// The names of its feature flags.
///
/// # Errors
/// When Unleash does not answer.
pub async fn flags(context: &Context) -> Result<BTreeSet<String>> {
    let answer = ask(
        context,
        Request::get("/api/admin/projects/default/features"),
        None,
    )
    .await?;
    let flags = answer["features"]
        .as_array()
        .context("the answer holds no features")?;
    Ok(flags
        .iter()
        .filter_map(|flag| flag["name"].as_str().map(ToOwned::to_owned))
        .collect())
}

/// The version that one of its ready pods reports.
///
/// # Errors
/// When Unleash does not answer.
pub async fn version(context: &Context) -> Result<String> {
    let answer = ask(context, Request::get("/api/admin/ui-config"), None).await?;
    Ok(answer["version"].as_str().unwrap_or_default().to_owned())
}

/// Asks a ready pod of what serves, as the administrator.
async fn ask(context: &Context, request: Builder, body: Option<&Value>) -> Result<Value> {
    let app = context.api::<App>().get("unleash").await?;
    let release = seen::live(&app).context("no release of unleash serves")?;
    let labels = format!("{}=server,{}={release}", seen::COMPONENT, seen::RELEASE);
    let pods = reach::ready_pods(context, &labels).await?;
    let pod = pods
        .first()
        .with_context(|| format!("no pod of {release} is ready"))?;
    let request = request
        .header("host", "unleash")
        .header("authorization", ADMINISTRATOR)
        .header("content-type", "application/json")
        .body(body.map(Value::to_string).unwrap_or_default())?;
    reach::json(context, pod, PORT, request).await
}
