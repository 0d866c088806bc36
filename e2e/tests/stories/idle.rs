//! When nothing changes, nothing is asked and nothing is written.
//!
//! Other tests run meanwhile: what counts are requests about this namespace, and lists of all namespaces, which are never made
//! after the start of the operator.

use std::time::Duration;

use anyhow::{Result, ensure};
use fairway_crds::App;
use fairway_crds::release::{ReleaseOutcome, annotation};
use fairway_e2e::apps::{self, crm, small};
use fairway_e2e::ns::{Context, with_temp_ns};
use fairway_e2e::seen;
use jiff::Timestamp;

use crate::audit::{asked_since, resource};

/// Time after an outcome from which on nothing may be asked.
const SETTLING: Duration = Duration::from_secs(60);
/// Time in which requests are counted. What the operator did periodically would be seen.
const LOOKING: Duration = Duration::from_secs(60);

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

/// Asks for health where none is, with this many seconds until the deadline.
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

async fn is_rolled_back(context: &Context) -> Result<()> {
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
async fn a_minute_after_any_outcome_nothing_is_asked_or_written() -> Result<()> {
    with_temp_ns(|context| async move {
        tokio::try_join!(
            goes_well(&context),
            fails(&context),
            is_aborted(&context),
            is_rolled_back(&context),
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
        let here = format!("/namespaces/{}/", context.namespace);
        let more: Vec<_> = asked
            .iter()
            .filter(|request| {
                let of_all = request.verb == "list" && !request.uri.contains("/namespaces/");
                of_all || request.verb != "watch" && request.uri.contains(&here)
            })
            .map(|request| format!("{} {}", request.verb, request.uri))
            .collect();
        ensure!(more.is_empty(), "asked while nothing changed: {more:#?}");
        Ok(())
    })
    .await
}
