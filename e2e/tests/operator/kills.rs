//! The operator is killed or loses answers, and every release ends as usual.
//!
//! The simulator proves it for a crash and for a lost answer at each single write. What it cannot show is a process that
//! is gone, with its watches and its Lease; four points are enough for that.

use anyhow::{Result, ensure};
use fairway_crds::release::{MilestoneKind, ReleaseOutcome};
use fairway_crds::{App, Release};
use fairway_e2e::apps::{self, crm};
use fairway_e2e::load::{self, Load};
use fairway_e2e::ns::{Context, alone, with_temp_ns};
use fairway_e2e::once::{job, migrating, was_run_once};
use fairway_e2e::{operator, reach, seen};
use k8s_openapi::api::batch::v1::Job;
use kube::api::DeleteParams;

/// Edits the App to v2 and sees its release go well.
pub(crate) async fn upgraded_well(context: &Context, app: &mut App) -> Result<()> {
    crm::set_version(context, app, "v2");
    apps::set_bake(app, 2);
    apps::apply(context, app).await?;
    went_well(context).await
}

/// What a release of v2 that went well leaves behind.
pub(crate) async fn went_well(context: &Context) -> Result<()> {
    let release = seen::ended(context, "crm-2", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
    let milestones = release.status.unwrap_or_default().milestones;
    let kinds: Vec<_> = milestones.iter().map(|milestone| milestone.kind).collect();
    ensure!(
        kinds
            == [
                MilestoneKind::Migrating,
                MilestoneKind::Migrated,
                MilestoneKind::HandingOver,
                MilestoneKind::TrafficMoved,
                MilestoneKind::Baked
            ],
        "{kinds:?}"
    );
    ensure!(
        seen::releases(context, "crm").await?.len() == 2,
        "another release was created"
    );
    ensure!(
        crm::pods(context, "web", "crm-2").await?.len() == 2
            && crm::pods(context, "web", "crm-1").await?.is_empty()
    );
    for (statement, desired) in [
        ("select count(*) from migration_runs where version = 'v2'", 1),
        (
            "select count(*) from fairway.migration_run where release = 'crm-2'",
            1,
        ),
    ] {
        let found = reach::count(context, crm::DATABASE, statement).await?;
        ensure!(found == desired, "{found} instead of {desired}: {statement}");
    }
    crm::never_two_workers(context, &["v1", "v2"]).await
}

/// Edits CRM to v2 and kills the operator at these milestones of the release.
async fn killed_at(context: &Context, points: &[MilestoneKind]) -> Result<()> {
    let mut app = crm::install(context).await?;
    let clients = load::start(context, &Load::on("crm", 80, "/api/leads")).await?;
    crm::set_version(context, &mut app, "v2");
    apps::set_bake(&mut app, 5);
    apps::set_env(&mut app, "web", "CRM_FAULT_MIGRATE", "sleep:1000");
    edited_and_killed_at(context, &app, points).await?;
    went_well(context).await?;
    load::assert_none_failed(&clients.stop().await?)
}

/// Applies the edit of CRM to v2 and kills the operator when its release reaches each of these milestones. No other test
/// kills it from the edit on, or the release would be past the milestone by the time that it is this one's turn.
async fn edited_and_killed_at(context: &Context, app: &App, points: &[MilestoneKind]) -> Result<()> {
    let _disruption = operator::disrupt(context).await?;
    apps::apply(context, app).await?;
    for point in points {
        seen::reaches(context, "crm-2", *point, crm::PATIENCE).await?;
        operator::kill(context).await?;
        operator::works(context).await?;
    }
    Ok(())
}

#[tokio::test]
async fn operator_killed_while_it_migrates_ends_the_release_as_usual() -> Result<()> {
    with_temp_ns(async |context| killed_at(&context, &[MilestoneKind::Migrating]).await).await
}

#[tokio::test]
async fn operator_killed_at_handover_and_switch_ends_it_as_usual() -> Result<()> {
    let points = [MilestoneKind::HandingOver, MilestoneKind::TrafficMoved];
    with_temp_ns(async |context| killed_at(&context, &points).await).await
}

#[tokio::test]
async fn operator_killed_during_a_rollback_completes_it() -> Result<()> {
    with_temp_ns(async |context| killed_during_rollback(&context, &[MilestoneKind::RollingBack]).await).await
}

#[tokio::test]
async fn operator_killed_while_its_job_is_deleted_migrates_once() -> Result<()> {
    with_temp_ns(|context| async move {
        // Before the migration starts: it does not wait for another test's turn.
        let disruption = operator::disrupt(&context).await?;
        migrating(&context, "middle").await?;
        let job = job(&context).await?;
        operator::kill(&context).await?;
        context
            .api::<Job>()
            .delete(&job, &DeleteParams::background())
            .await?;
        operator::works(&context).await?;
        drop(disruption);
        was_run_once(&context).await
    })
    .await
}

#[tokio::test]
#[ignore = "make test-long PART=kills"]
async fn operator_killed_at_every_stage_ends_the_release_as_usual() -> Result<()> {
    alone(|context| async move {
        let mut app = crm::install(&context).await?;
        let clients = load::start(&context, &Load::on("crm", 80, "/api/leads")).await?;
        crm::set_version(&context, &mut app, "v2");
        apps::set_bake(&mut app, 5);
        apps::set_env(&mut app, "web", "CRM_FAULT_MIGRATE", "sleep:1000");
        apps::apply(&context, &app).await?;
        let mut killed_at = vec![String::new()];
        loop {
            let moved_on =
                |release: &Release| seen::outcome(release).is_some() || !killed_at.contains(&stage(release));
            let release = seen::release(&context, "crm-2", "to move on", moved_on, crm::PATIENCE).await?;
            if seen::outcome(&release).is_some() {
                break;
            }
            operator::kill_and_wait(&context).await?;
            killed_at.push(stage(&release));
        }
        ensure!(killed_at.len() > 5, "killed only at {killed_at:?}");
        went_well(&context).await?;
        load::assert_none_failed(&clients.stop().await?)?;
        Ok(())
    })
    .await
}

#[tokio::test]
#[ignore = "make test-long PART=kills"]
async fn operator_killed_at_every_point_of_a_rollback_completes_it() -> Result<()> {
    let points = [
        MilestoneKind::TrafficMoved,
        MilestoneKind::RollingBack,
        MilestoneKind::TrafficReturned,
    ];
    alone(async |context| killed_during_rollback(&context, &points).await).await
}

/// Lets CRM v2 turn bad after the switch, and kills the operator at these milestones of the release.
async fn killed_during_rollback(context: &Context, points: &[MilestoneKind]) -> Result<()> {
    let mut app = crm::install(context).await?;
    let clients = load::start(context, &Load::on("crm", 80, "/api/leads")).await?;
    crm::set_version(context, &mut app, "v2");
    apps::set_bake(&mut app, 60);
    apps::set_env(&mut app, "web", "CRM_FAULT_HEALTH_BAD_AFTER_FIRST_REQUEST_S", "1");
    edited_and_killed_at(context, &app, points).await?;
    seen::ended(context, "crm-2", ReleaseOutcome::RolledBack, crm::PATIENCE).await?;
    seen::selects(context, "crm", "crm-1", crm::PATIENCE).await?;
    ensure!(
        crm::pods(context, "worker", "crm-1").await?.len() == 1,
        "the previous worker does not run"
    );
    crm::never_two_workers(context, &["v1", "v2"]).await?;
    load::assert_none_failed(&clients.stop().await?)
}

/// Where a release is: the last milestone, or what it waits for before there is one.
fn stage(release: &Release) -> String {
    let milestones = release.status.clone().unwrap_or_default().milestones;
    match milestones.last() {
        Some(milestone) => format!("{:?}", milestone.kind),
        None => seen::reason(release).to_owned(),
    }
}

#[tokio::test]
#[ignore = "make test-long PART=kills"]
async fn operator_that_crashes_after_each_write_ends_it_as_usual() -> Result<()> {
    alone(|context| release_with(context, "crash")).await
}

#[tokio::test]
#[ignore = "make test-long PART=kills"]
async fn operator_that_loses_every_answer_ends_it_as_usual() -> Result<()> {
    alone(|context| release_with(context, "lost")).await
}

/// A release by an operator that meets this fault at each of its writes.
async fn release_with(context: Context, fault: &str) -> Result<()> {
    let mut app = crm::install(&context).await?;
    let clients = load::start(&context, &Load::on("crm", 80, "/api/leads")).await?;
    operator::start_faulty(&context, fault).await?;
    let outcome = upgraded_well(&context, &mut app).await;
    operator::stop_faulty(&context).await?;
    outcome?;
    load::assert_none_failed(&clients.stop().await?)
}
