//! A team releases web and worker together: a release that goes well, one that is stopped, one that is rolled back.

use anyhow::{Context as _, Result, ensure};
use fairway_crds::release::{MilestoneKind, ReleaseOutcome};
use fairway_crds::{App, Release};
use fairway_e2e::apps::{self, crm};
use fairway_e2e::load::{self, Load, Running};
use fairway_e2e::ns::{Context, with_temp_ns};
use fairway_e2e::story::Story;
use fairway_e2e::story::crm::{BadMigration, TurnsBad};
use fairway_e2e::{reach, seen};

use crate::{SOON, shown};

async fn clients(context: &Context) -> Result<Running> {
    load::start(context, &Load::on("crm", 80, "/api/leads")).await
}

/// How long the first version's worker goes on working when it is asked to stop.
const SLOW_STOP_MS: u64 = 5000;

/// Its last heartbeat is later than the hand-over's beginning by almost all the time that it took to stop: so it is
/// its end that was waited for, and not the order to end.
async fn worked_on_after_it_was_asked_to_stop(context: &Context, release: &Release) -> Result<()> {
    let begun = seen::milestone(release, MilestoneKind::HandingOver).context("no hand-over")?;
    let statement = format!(
        "select (extract(epoch from max(at) - '{}'::timestamptz) * 1000)::bigint from worker_heartbeat where version = 'v1'",
        begun.at
    );
    let worked_on = reach::count(context, crm::DATABASE, &statement).await?;
    ensure!(
        worked_on >= i64::try_from(SLOW_STOP_MS)? - 500,
        "v1's worker worked for {worked_on} ms after the hand-over had begun"
    );
    Ok(())
}

#[tokio::test]
async fn web_and_worker_are_released_together_without_two_workers() -> Result<()> {
    with_temp_ns(|context| async move {
        let slow = |app: &mut App| {
            apps::set_env(app, "worker", "CRM_FAULT_WORKER_SLOW_STOP_MS", &SLOW_STOP_MS.to_string());
        };
        let mut app = crm::install_with(&context, slow).await?;
        crm::add_leads(&context, &["Ada", "Grace"]).await?;
        let clients = clients(&context).await?;
        let story = Story::new(&context);
        let _watching = story.timeline.watch(&context);

        crm::set_version(&context, &mut app, "v2");
        apps::unset_env(&mut app, "worker", "CRM_FAULT_WORKER_SLOW_STOP_MS");
        apps::set_bake(&mut app, 3);
        apps::apply(&context, &app).await?;
        let release = seen::ended(&context, "crm-2", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;

        let milestones = release.status.clone().unwrap_or_default().milestones;
        let order: Vec<_> = milestones.iter().map(|milestone| milestone.kind).collect();
        ensure!(
            order
                == [
                    MilestoneKind::Migrating,
                    MilestoneKind::Migrated,
                    MilestoneKind::HandingOver,
                    MilestoneKind::TrafficMoved,
                    MilestoneKind::Baked
                ],
            "{order:?}"
        );
        crm::never_two_workers(&context, &["v1", "v2"]).await?;
        worked_on_after_it_was_asked_to_stop(&context, &release).await?;
        let handed_over = "select count(*) from worker_session x join worker_session y \
             on x.version = 'v1' and x.event = 'stopped' and y.version = 'v2' and y.event = 'started' and x.at < y.at";
        ensure!(reach::count(&context, crm::DATABASE, handed_over).await? == 1, "v1 did not stop before v2 started");
        let mut leads = crm::leads(&context).await?;
        leads.sort();
        ensure!(leads == ["Ada", "Grace"], "{leads:?}");
        story.no_request_failed("CRM", &clients).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
#[ignore = "make test-long PART=applications; the demo shows it"]
async fn failed_migration_stops_the_release_and_v1_goes_on_serving() -> Result<()> {
    with_temp_ns(|context| async move {
        let mut app = crm::install(&context).await?;
        let clients = clients(&context).await?;
        let story = Story::new(&context);
        BadMigration::is_stopped(&story, &mut app, &clients).await?;
        story.no_request_failed("CRM", &clients).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn version_that_turns_bad_is_rolled_back() -> Result<()> {
    with_temp_ns(|context| async move {
        let mut app = crm::install(&context).await?;
        let clients = clients(&context).await?;
        let story = Story::new(&context);
        TurnsBad::is_rolled_back(&story, &mut app, &clients).await?;
        story.no_request_failed("CRM", &clients).await?;
        seen::observed(&context, "crm", SOON).await?;
        shown::listed(&context, "get.txt")?;
        shown::described(&context, "app", "crm", "app.txt")?;
        shown::described(&context, "release", "crm-2", "release.txt")?;
        shown::described(&context, "migration", "crm-2", "migration.txt")?;
        Ok(())
    })
    .await
}
