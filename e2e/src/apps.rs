//! The applications that Fairway releases in the demo and the tests, and how a user edits them.

pub mod crm;
pub mod small;
pub mod unleash;

use anyhow::{Context as _, Result};
use fairway_crds::component::Component;
use fairway_crds::duration::Duration;
use fairway_crds::{App, Release};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::context::Context;
use crate::manifest;
use crate::target::Target;

/// The App in a manifest, with the other objects of the file.
fn from_file(target: &Target, file: &str) -> Result<(App, Vec<Value>)> {
    let (apps, others): (Vec<_>, Vec<_>) = manifest::read(target, file)?
        .into_iter()
        .partition(|object| object["kind"] == "App");
    let app = apps
        .into_iter()
        .next()
        .with_context(|| format!("there is no App in {file}"))?;
    Ok((serde_json::from_value(app)?, others))
}

/// Applies an App as `kubectl apply --server-side` does, and returns it as it is stored then.
///
/// # Errors
/// When the API server refuses it.
pub async fn apply(context: &Context, app: &App) -> Result<App> {
    let applied = manifest::apply_object(context, serde_json::to_value(app)?).await?;
    Ok(serde_json::from_value(serde_json::to_value(applied)?)?)
}

/// `kubectl annotate release NAME VERB=TOKEN`
///
/// # Errors
/// When there is no such Release.
pub async fn say(context: &Context, release: &str, verb: &str, token: &str) -> Result<()> {
    let annotation = json!({"metadata": {"annotations": {verb: token}}});
    context
        .api::<Release>()
        .patch(release, &PatchParams::default(), &Patch::Merge(annotation))
        .await
        .with_context(|| format!("annotate {release} with {verb}={token}"))?;
    Ok(())
}

/// A component of an App.
///
/// # Panics
/// When the App has none of that name, which is a mistake of the test.
#[must_use]
pub fn component<'a>(app: &'a mut App, name: &str) -> &'a mut Component {
    let found = app
        .spec
        .components
        .iter_mut()
        .find(|component| component.name == name);
    found.unwrap_or_else(|| panic!("there is no component {name}"))
}

/// Edits the image of a component's first container.
pub fn set_image(app: &mut App, name: &str, image: &str) {
    component(app, name).template["spec"]["containers"][0]["image"] = json!(image);
}

/// Sets a variable of a component's first container.
pub fn set_env(app: &mut App, name: &str, variable: &str, value: &str) {
    unset_env(app, name, variable);
    let container = &mut component(app, name).template["spec"]["containers"][0];
    match container["env"].as_array_mut() {
        Some(all) => all.push(json!({"name": variable, "value": value})),
        None => container["env"] = json!([{"name": variable, "value": value}]),
    }
}

/// Removes a variable of a component's first container.
pub fn unset_env(app: &mut App, name: &str, variable: &str) {
    let container = &mut component(app, name).template["spec"]["containers"][0];
    if let Some(all) = container["env"].as_array_mut() {
        all.retain(|entry| entry["name"] != variable);
    }
}

/// Sets how long a component's new pods have to be healthy, if it has a health of its own.
pub fn set_health_deadline(app: &mut App, name: &str, seconds: u64) {
    if let Some(health) = &mut component(app, name).health {
        health.deadline = Duration::from_seconds(seconds);
    }
}

/// Sets how long the new version is watched.
pub fn set_bake(app: &mut App, seconds: u64) {
    app.spec.policy.bake.duration = Duration::from_seconds(seconds);
}
