//! A team releases web and worker together: what goes well, what is stopped, what is taken back.

use anyhow::{Result, ensure};
use fairway_crds::release::{MilestoneKind, ReleaseOutcome};
use fairway_e2e::apps::{self, crm};
use fairway_e2e::load::{self, Load, Running};
use fairway_e2e::ns::{Context, with_temp_ns};
use fairway_e2e::story::{BadMigration, Story, TurnsBad};
use fairway_e2e::{reach, seen};

async fn clients(context: &Context) -> Result<Running> {
    load::start(context, &Load::on("crm", 80, "/api/leads")).await
}

#[tokio::test]
async fn web_and_worker_pass_to_the_new_version_together_and_no_two_workers_work_at_once() -> Result<()> {
    with_temp_ns(|context| async move {
        let mut app = crm::install(&context).await?;
        crm::add_leads(&context, &["Ada", "Grace"]).await?;
        let clients = clients(&context).await?;
        let story = Story::new(&context);
        let _watching = story.timeline.watch(&context);

        crm::set_version(&context, &mut app, "v2");
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
async fn a_version_whose_migration_fails_is_stopped_and_the_old_one_never_stops_serving() -> Result<()> {
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
async fn a_version_that_turns_bad_after_the_switch_is_taken_back_within_a_second() -> Result<()> {
    with_temp_ns(|context| async move {
        let mut app = crm::install(&context).await?;
        let clients = clients(&context).await?;
        let story = Story::new(&context);
        TurnsBad::is_taken_back(&story, &mut app, &clients).await?;
        story.no_request_failed("CRM", &clients).await?;
        Ok(())
    })
    .await
}
