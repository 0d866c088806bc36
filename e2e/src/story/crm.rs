//! Steps 3 and 4: a version whose migration fails, and one that becomes unhealthy after the switch.

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

/// Seconds from a pod's first request of a client until its health page turns bad, of the version that becomes unhealthy.
const TURNS_BAD_AFTER: &str = "4";

/// Longest time from the third failed health request until the Service selects the previous version again, on a machine that
/// does nothing else.
pub const BACK_WITHIN: Duration = Duration::from_secs(1);

/// Time for an App's status to follow its Release.
const SOON: Duration = Duration::from_secs(10);

/// Step 3: crm-1 serves v1, and the spec is edited to v2, whose migration fails halfway.
pub struct BadMigration;

impl BadMigration {
    /// Edits the spec, and proves that the release fails and nothing else happens.
    ///
    /// # Errors
    /// When anything else happens, or a request fails.
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
            "the pods that serve were {before:?} before the edit and are {after:?} now"
        );
        ensure!(
            seen::milestone(&release, MilestoneKind::HandingOver).is_none(),
            "the handover to crm-2 has begun"
        );
        let workers = crm::pods(context, "worker", "crm-1").await?;
        ensure!(
            workers.len() == 1,
            "crm-1 should have one worker pod, and has {workers:?}"
        );
        timeline.proven("every pod of the previous version still runs");
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
        timeline.proven("the App says that crm-1 serves and that crm-2 is desired");
        timeline.requests("CRM", load).await?;
        Ok(release)
    }
}

/// Ensures that the Release says what failed and that the previous version keeps serving, and shows no secret.
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
        "crm-2 is not Stalled"
    );
    ensure!(
        !seen::holds(seen::release_condition(release, "SchemaAhead")),
        "the schema counts as migrated, although the migration failed"
    );
    Ok(())
}

/// Ensures that there is at most one Job, and one row each in the ledger and in the migration's own table, which accepts any number.
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
    timeline.proven("the migration was executed exactly once");
    Ok(())
}

/// Step 4: the spec is edited to v3, which becomes healthy and receives the traffic; then its health page turns bad, and
/// nothing else.
pub struct TurnsBad;

impl TurnsBad {
    /// Edits the spec, and proves that the traffic returns. Returns the time that this took from the third failed health
    /// request.
    ///
    /// # Errors
    /// When the traffic does not return, or a request fails.
    pub async fn is_rolled_back(story: &Story, app: &mut App, load: &Running) -> Result<Duration> {
        let Story { context, timeline } = story;
        let _watching = timeline.watch(context);
        let name = next_release(story).await?;
        let leads = crm::leads(context).await?;
        crm::set_version(context, app, "v3");
        apps::unset_env(app, "web", "CRM_FAULT_MIGRATE");
        apps::set_env(
            app,
            "web",
            "CRM_FAULT_HEALTH_BAD_AFTER_FIRST_REQUEST_S",
            TURNS_BAD_AFTER,
        );
        timeline.act("kubectl edit app crm                         (the images are crm:v3, which becomes unhealthy after the switch)");
        apps::apply(context, app).await?;
        seen::reaches(context, &name, MilestoneKind::TrafficMoved, crm::PATIENCE).await?;
        let candidates = crm::running_pods(context, "web", &name).await?;
        seen::selects(context, "crm", "crm-1", crm::PATIENCE).await?;
        let returned_ms = now_ms()?;
        let took = time_to_return(story, &candidates, returned_ms).await?;

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
            "{name} has no condition SchemaAhead, although its migration stays"
        );
        ensure!(crm::leads(context).await? == leads, "the leads have changed");
        crm::never_two_workers(context, &["v1", "v3"]).await?;
        timeline
            .proven("the worker was handed over and handed back, and two versions of it never ran at once");
        is_not_run_again(story, app, &name).await?;
        timeline.requests("CRM", load).await?;
        Ok(took)
    }
}

async fn next_release(story: &Story) -> Result<String> {
    let releases = seen::releases(&story.context, "crm").await?;
    let newest = releases.last().context("there is no release of crm")?;
    Ok(format!("crm-{}", newest.spec.revision + 1))
}

/// The time from the third failed health request of one of the candidate's pods until the Service selected crm-1 again.
async fn time_to_return(story: &Story, candidates: &[String], returned_ms: u64) -> Result<Duration> {
    let Story { context, timeline } = story;
    let mut third_failures = Vec::new();
    let mut unanswered = Vec::new();
    for pod in candidates {
        match crm::bad_health_ms(context, pod).await {
            Ok(failures) => third_failures.extend(failures.get(2).copied()),
            // A pod that has drained is gone; one that answers is enough.
            Err(error) => unanswered.push(format!("{error:#}")),
        }
    }
    let third_ms = third_failures.into_iter().min().with_context(|| {
        let errors = unanswered.join("; ");
        format!("none of {candidates:?} says that it failed three health requests ({errors})")
    })?;
    let took = returned_ms.checked_sub(third_ms).with_context(|| {
        let early = third_ms - returned_ms;
        format!("the Service selected crm-1 {early} ms before the third failed health request")
    })?;
    timeline.proven(&format!(
        "{took} ms after the third failed health request the Service selected crm-1 again"
    ));
    Ok(Duration::from_millis(took))
}

/// Ensures that nothing is released when the same manifest is applied again. An edit that needs no release shows that Fairway has
/// seen it.
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
    ensure!(
        before == after,
        "there were {before} releases before the manifest was applied again, and are {after} now"
    );
    let status = found.status.clone().unwrap_or_default();
    ensure!(
        status.desired.as_deref() == Some(name),
        "desired: {:?}",
        status.desired
    );
    ensure!(
        seen::holds(seen::app_condition(&found, "DivergedFromSpec")),
        "the App does not say DivergedFromSpec"
    );
    timeline.proven("the same manifest applied again releases nothing");
    Ok(())
}

fn now_ms() -> Result<u64> {
    Ok(u64::try_from(std::time::UNIX_EPOCH.elapsed()?.as_millis())?)
}
