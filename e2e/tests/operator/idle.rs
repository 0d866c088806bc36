//! When nothing changes, nothing is asked and nothing is written.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use fairway_crds::App;
use fairway_crds::release::{ReleaseOutcome, annotation};
use fairway_e2e::apps::{self, crm, small};
use fairway_e2e::ns::Context;
use fairway_e2e::{operator, seen};
use jiff::Timestamp;
use serde::Deserialize;

use crate::alone;

/// From when on after an outcome nothing may be asked.
const SETTLING: Duration = Duration::from_secs(60);
/// How long is looked on. Whatever the operator did in a rhythm would be seen.
const LOOKING: Duration = Duration::from_secs(60);

/// One request, as the apiserver's audit log has it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Asked {
    verb: String,
    #[serde(rename = "requestURI")]
    uri: String,
    user: User,
    #[serde(default)]
    object_ref: Option<ObjectRef>,
    request_received_timestamp: Timestamp,
}

#[derive(Clone, Debug, Deserialize)]
struct User {
    username: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct ObjectRef {
    #[serde(default)]
    resource: String,
}

/// What the operator has asked the apiserver since a moment.
fn asked_since(context: &Context, since: Timestamp) -> Result<Vec<Asked>> {
    if !context.target.is_embedded() {
        bail!("the audit log of the embedded cluster alone can be read");
    }
    let path = context.target.paths.audit_log();
    let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
    let mut asked = Vec::new();
    for line in BufReader::new(file).lines() {
        // The last line may be half written.
        let Ok(request) = serde_json::from_str::<Asked>(&line?) else {
            continue;
        };
        if request.user.username == operator::USER && request.request_received_timestamp >= since {
            asked.push(request);
        }
    }
    Ok(asked)
}

fn resource(request: &Asked) -> &str {
    request.object_ref.as_ref().map_or("", |object| &object.resource)
}

/// An App of the fixture application with its database, whose second release went well.
async fn goes_well(context: &Context) -> Result<()> {
    let mut app = crm::install(context).await?;
    apps::set_bake(&mut app, 1);
    crm::set_version(context, &mut app, "v2");
    apps::apply(context, &app).await?;
    seen::ended(context, "crm-2", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
    Ok(())
}

/// An App of this name whose first release went well, and an edit of it to v2.
async fn edited(context: &Context, name: &str, edit: impl FnOnce(&mut App)) -> Result<()> {
    let mut app = small::app(context, name, "v1")?;
    apps::apply(context, &app).await?;
    seen::ended(
        context,
        &format!("{name}-1"),
        ReleaseOutcome::Succeeded,
        crm::PATIENCE,
    )
    .await?;
    small::set_version(context, &mut app, "v2")?;
    edit(&mut app);
    apps::apply(context, &app).await?;
    Ok(())
}

/// Asks for health where none is, and gives up after so many seconds.
fn unhealthy_for(app: &mut App, seconds: u64) {
    let health = apps::component(app, "web").health.as_mut();
    for health in health.into_iter() {
        health.deadline = fairway_crds::duration::Duration::from_seconds(seconds);
        health.http[0].path = "/nothing-is-here".to_owned();
    }
}

async fn fails(context: &Context) -> Result<()> {
    edited(context, "failing", |app| unhealthy_for(app, 10)).await?;
    seen::ended(context, "failing-2", ReleaseOutcome::Failed, crm::PATIENCE).await?;
    Ok(())
}

async fn is_aborted(context: &Context) -> Result<()> {
    edited(context, "aborted", |app| unhealthy_for(app, 600)).await?;
    seen::waits(context, "aborted-2", "StartingPods", crm::PATIENCE).await?;
    apps::say(context, "aborted-2", annotation::ABORT, "now").await?;
    seen::ended(context, "aborted-2", ReleaseOutcome::Aborted, crm::PATIENCE).await?;
    Ok(())
}

async fn is_taken_back(context: &Context) -> Result<()> {
    edited(context, "back", |app| apps::set_bake(app, 600)).await?;
    seen::waits(context, "back-2", "Baking", crm::PATIENCE).await?;
    apps::say(context, "back-2", annotation::ROLLBACK, "now").await?;
    seen::ended(context, "back-2", ReleaseOutcome::RolledBack, crm::PATIENCE).await?;
    Ok(())
}

async fn is_watched(context: &Context) -> Result<()> {
    edited(context, "watched", |app| apps::set_bake(app, 600)).await?;
    seen::waits(context, "watched-2", "Baking", crm::PATIENCE).await?;
    Ok(())
}

async fn is_held(context: &Context) -> Result<()> {
    edited(context, "held", |app| app.spec.suspend = true).await?;
    let held = |app: &App| {
        seen::app_condition(app, "Ready").is_some_and(|condition| condition.reason == "Suspended")
    };
    seen::app(context, "held", "to be suspended", held, crm::PATIENCE).await?;
    Ok(())
}

#[tokio::test]
async fn a_minute_after_any_outcome_nothing_is_asked_or_written_but_the_lease() -> Result<()> {
    alone(|context| async move {
        tokio::try_join!(
            goes_well(&context),
            fails(&context),
            is_aborted(&context),
            is_taken_back(&context),
            is_watched(&context),
            is_held(&context),
        )?;
        // Time itself is what this test is about.
        tokio::time::sleep(SETTLING).await;
        let since = Timestamp::now();
        tokio::time::sleep(LOOKING).await;

        let asked = asked_since(&context, since)?;
        ensure!(
            asked.iter().any(|request| resource(request) == "leases"),
            "the Lease was not renewed: is the log read right?"
        );
        let more: Vec<_> = asked
            .iter()
            .filter(|request| resource(request) != "leases" && request.verb != "watch")
            .map(|request| format!("{} {}", request.verb, request.uri))
            .collect();
        ensure!(more.is_empty(), "asked while nothing changed: {more:#?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_operator_has_never_asked_for_a_secret() -> Result<()> {
    alone(|context| async move {
        let asked = asked_since(&context, Timestamp::UNIX_EPOCH)?;
        ensure!(
            !asked.is_empty(),
            "the operator has asked for nothing at all: is the log read right?"
        );
        let secrets: Vec<_> = asked
            .iter()
            .filter(|request| resource(request) == "secrets")
            .collect();
        ensure!(secrets.is_empty(), "{secrets:?}");
        Ok(())
    })
    .await
}
