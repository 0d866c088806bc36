//! Steps 3 and 4: a version whose migration fails, and one that turns bad after the switch.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fairway_crds::release::{MilestoneKind, ReleaseOutcome};
use fairway_crds::{App, Release};
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;
use kube::api::ListParams;

use super::Story;
use crate::apps::{self, crm};
use crate::load::Running;
use crate::{reach, seen};

/// Seconds after a pod's first request from a client at which the bad version's health page turns bad.
const TURNS_BAD_AFTER: &str = "4";

/// Time between the third failed probe and the Service's selecting the old version again.
const BACK_WITHIN_MS: u64 = 1000;

/// Time for an App's status to follow its Release.
const SOON: Duration = Duration::from_secs(10);

/// Step 3: crm-1 at v1 serves; the spec is edited to a v2 whose migration fails in its middle.
pub struct BadMigration;

impl BadMigration {
    /// Edits, and proves that the release is stopped and nothing else happens.
    ///
    /// # Errors
    /// When any of it is not as it should be.
    pub async fn is_stopped(story: &Story, app: &mut App, load: &Running) -> Result<Release> {
        let Story { context, timeline } = story;
        let _watching = timeline.watch(context);
        let before = crm::pods(context, "web", "crm-1").await?;
        crm::set_version(context, app, "v2");
        apps::set_env(app, "web", "CRM_FAULT_MIGRATE", "fail");
        timeline.act(
            "kubectl edit app crm                         (the images are crm:v2, whose migration fails)",
        );
        apps::apply(context, app).await?;
        let release = seen::ended(context, "crm-2", ReleaseOutcome::Failed, crm::PATIENCE).await?;
        message_is_clear(&release)?;
        timeline.proven("the Release failed, and its message says why");

        let after = crm::pods(context, "web", "crm-1").await?;
        ensure!(
            before == after,
            "the pods that serve were {before:?} and are {after:?}"
        );
        ensure!(
            seen::milestone(&release, MilestoneKind::HandingOver).is_none(),
            "the worker was stopped"
        );
        let old = crm::pods(context, "worker", "crm-1").await?;
        ensure!(old.len() == 1, "the old worker does not run: {old:?}");
        timeline.proven("no pod of the old version was touched");
        was_run_once(story, "crm-2", "v2").await?;

        let diverged = |app: &App| seen::holds(seen::app_condition(app, "DivergedFromSpec"));
        let found = seen::app(context, "crm", "DivergedFromSpec=True", diverged, SOON).await?;
        let status = found.status.clone().unwrap_or_default();
        ensure!(seen::live(&found) == Some("crm-1"), "live: {:?}", status.live);
        ensure!(
            status.desired.as_deref() == Some("crm-2"),
            "desired: {:?}",
            status.desired
        );
        timeline.proven("the App says that crm-1 serves and that its spec asks for crm-2");
        timeline.requests("CRM", load).await?;
        Ok(release)
    }
}

/// What failed, that the old version goes on, and what to do; and nothing that is secret.
fn message_is_clear(release: &Release) -> Result<()> {
    let message = seen::message(release);
    ensure!(
        seen::reason(release) == "MigrationFailed",
        "{}: {message}",
        seen::reason(release)
    );
    ensure!(message.contains("crm-1 keeps serving"), "{message}");
    ensure!(
        !message.contains("demo-only-crm"),
        "the password is in the message: {message}"
    );
    ensure!(
        seen::holds(seen::release_condition(release, "Stalled")),
        "not Stalled"
    );
    ensure!(
        !seen::holds(seen::release_condition(release, "SchemaAhead")),
        "nothing was migrated"
    );
    Ok(())
}

/// One Job, one row in the ledger, and one row in the table that takes any number.
async fn was_run_once(story: &Story, release: &str, version: &str) -> Result<()> {
    let Story { context, timeline } = story;
    let labels = ListParams::default().labels(&format!("{}={release},{}=migrate", seen::RELEASE, seen::WORK));
    let jobs = context.api::<Job>().list(&labels).await?;
    let names: Vec<_> = jobs.items.iter().map(ResourceExt::name_any).collect();
    ensure!(names.len() <= 1, "several Jobs migrated: {names:?}");
    for (statement, what) in [
        (
            format!("select count(*) from fairway.migration_run where release = '{release}'"),
            "the ledger",
        ),
        (
            format!("select count(*) from migration_runs where version = '{version}'"),
            "the migration's own table",
        ),
    ] {
        let rows = reach::count(context, crm::DATABASE, &statement).await?;
        ensure!(rows == 1, "{what} has {rows} rows of {release}");
    }
    timeline.proven("the migration was started exactly once");
    Ok(())
}

/// Step 4: the spec is edited to a v3 that becomes healthy and takes the traffic, and then only its
/// health page turns bad.
pub struct TurnsBad;

impl TurnsBad {
    /// Edits, and proves that the traffic comes back in time.
    ///
    /// # Errors
    /// When any of it is not as it should be.
    pub async fn is_rolled_back(story: &Story, app: &mut App, load: &Running) -> Result<Release> {
        let Story { context, timeline } = story;
        let _watching = timeline.watch(context);
        let name = next(story).await?;
        let leads = crm::leads(context).await?;
        crm::set_version(context, app, "v3");
        apps::unset_env(app, "web", "CRM_FAULT_MIGRATE");
        apps::set_env(
            app,
            "web",
            "CRM_FAULT_HEALTH_BAD_AFTER_FIRST_REQUEST_S",
            TURNS_BAD_AFTER,
        );
        timeline.act("kubectl edit app crm                         (the images are crm:v3, which turns bad after the switch)");
        apps::apply(context, app).await?;
        seen::reaches(context, &name, MilestoneKind::TrafficMoved, crm::PATIENCE).await?;
        let new = crm::pods(context, "web", &name).await?;
        seen::selects(context, "crm", "crm-1", crm::PATIENCE).await?;
        let back = now_ms()?;
        returned_in_time(story, &new, back).await?;

        let release = seen::ended(context, &name, ReleaseOutcome::RolledBack, crm::PATIENCE).await?;
        ensure!(
            seen::reason(&release) == "HealthLost",
            "{}",
            seen::reason(&release)
        );
        let message = seen::message(&release);
        ensure!(
            message.contains("times in a row") && message.contains("503"),
            "{message}"
        );
        timeline.proven("the Release says why");
        ensure!(
            seen::holds(seen::release_condition(&release, "SchemaAhead")),
            "there is no condition SchemaAhead"
        );
        ensure!(crm::leads(context).await? == leads, "the leads have changed");
        crm::never_two_workers(context, &["v1", "v3"]).await?;
        timeline.proven("the worker went there and back, and never were there two versions of it at once");
        is_not_run_again(story, app, &name).await?;
        timeline.requests("CRM", load).await?;
        Ok(release)
    }
}

async fn next(story: &Story) -> Result<String> {
    let releases = seen::releases(&story.context, "crm").await?;
    let newest = releases.last().context("there is no release of crm")?;
    Ok(format!("crm-{}", newest.spec.revision + 1))
}

async fn returned_in_time(story: &Story, new: &[String], back: u64) -> Result<()> {
    let Story { context, timeline } = story;
    let mut third: Option<u64> = None;
    for pod in new {
        // They drain still. One that has gone already turned bad no earlier than the others.
        let bad = crm::bad_health_ms(context, pod).await?;
        third = third.into_iter().chain(bad.get(2).copied()).min();
    }
    let third = third.context("no pod was asked three times after it had turned bad")?;
    let took = back.saturating_sub(third);
    ensure!(
        took <= BACK_WITHIN_MS,
        "the Service came back {took} ms after the third failed probe"
    );
    timeline.proven(&format!(
        "{took} ms after the third failed probe the Service selected crm-1 again"
    ));
    Ok(())
}

/// The same manifest is applied again, and an edit that needs no release shows that Fairway has looked.
async fn is_not_run_again(story: &Story, app: &mut App, name: &str) -> Result<()> {
    let Story { context, timeline } = story;
    let before = seen::releases(context, "crm").await?.len();
    apps::apply(context, app).await?;
    apps::component(app, "web").replicas += 1;
    apps::apply(context, app).await?;
    let found = seen::observed(context, "crm", SOON).await?;
    apps::component(app, "web").replicas -= 1;
    apps::apply(context, app).await?;
    let after = seen::releases(context, "crm").await?.len();
    ensure!(before == after, "there were {before} releases and are {after}");
    let status = found.status.clone().unwrap_or_default();
    ensure!(
        status.desired.as_deref() == Some(name),
        "desired: {:?}",
        status.desired
    );
    ensure!(
        seen::holds(seen::app_condition(&found, "DivergedFromSpec")),
        "the App does not say that it diverged"
    );
    timeline.proven("the same manifest applied again releases nothing");
    Ok(())
}

fn now_ms() -> Result<u64> {
    Ok(u64::try_from(std::time::UNIX_EPOCH.elapsed()?.as_millis())?)
}
