//! The operator is killed, there twice, or hears nothing: every release ends as if nothing had happened.

use anyhow::{Result, ensure};
use fairway_crds::release::{MilestoneKind, ReleaseOutcome};
use fairway_crds::{App, Release};
use fairway_e2e::apps::{self, crm};
use fairway_e2e::load::{self, Load};
use fairway_e2e::ns::Context;
use fairway_e2e::{operator, reach, seen};

use crate::alone;

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
        "another release was made"
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

#[tokio::test]
async fn an_operator_killed_at_every_stage_of_a_release_ends_it_as_if_it_had_not_been() -> Result<()> {
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
            operator::kill(&context).await?;
            killed_at.push(stage(&release));
            operator::ready(&context).await?;
        }
        ensure!(killed_at.len() > 5, "killed only at {killed_at:?}");
        went_well(&context).await?;
        load::assert_none_failed(&clients.stop().await?)?;
        Ok(())
    })
    .await
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
async fn an_operator_killed_while_it_takes_traffic_back_takes_it_back_all_the_same() -> Result<()> {
    alone(|context| async move {
        let mut app = crm::install(&context).await?;
        let clients = load::start(&context, &Load::on("crm", 80, "/api/leads")).await?;
        crm::set_version(&context, &mut app, "v2");
        apps::set_bake(&mut app, 60);
        apps::set_env(&mut app, "web", "CRM_FAULT_HEALTH_BAD_AFTER_FIRST_REQUEST_S", "1");
        apps::apply(&context, &app).await?;
        for milestone in [
            MilestoneKind::TrafficMoved,
            MilestoneKind::RollingBack,
            MilestoneKind::TrafficReturned,
        ] {
            seen::reaches(&context, "crm-2", milestone, crm::PATIENCE).await?;
            operator::kill(&context).await?;
            operator::ready(&context).await?;
        }
        seen::ended(&context, "crm-2", ReleaseOutcome::RolledBack, crm::PATIENCE).await?;
        seen::selects(&context, "crm", "crm-1", crm::PATIENCE).await?;
        ensure!(
            crm::pods(&context, "worker", "crm-1").await?.len() == 1,
            "the old worker does not work"
        );
        crm::never_two_workers(&context, &["v1", "v2"]).await?;
        load::assert_none_failed(&clients.stop().await?)?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn two_operators_at_once_end_a_release_as_one_does() -> Result<()> {
    alone(|context| async move {
        let mut app = crm::install(&context).await?;
        let clients = load::start(&context, &Load::on("crm", 80, "/api/leads")).await?;
        operator::start_second(&context).await?;
        let outcome = upgraded_well(&context, &mut app).await;
        operator::stop_second(&context).await?;
        outcome?;
        load::assert_none_failed(&clients.stop().await?)?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_operator_that_dies_after_each_of_its_writes_ends_a_release_as_one_that_lives() -> Result<()> {
    alone(|context| release_with(context, "crash")).await
}

#[tokio::test]
async fn an_operator_that_hears_no_answer_to_any_write_ends_a_release_as_one_that_does() -> Result<()> {
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
