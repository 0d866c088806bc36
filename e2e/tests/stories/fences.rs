//! Jobs deleted, pods evicted and agents killed while a migration runs: it never runs twice.

use anyhow::Result;
use fairway_crds::release::ReleaseOutcome;
use fairway_e2e::apps::crm;
use fairway_e2e::ns::with_temp_ns;
use fairway_e2e::once::{ended_after_one_run, job, migrating, migrating_on_start, pod, was_run_once};
use fairway_e2e::{operator, seen};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, EvictParams};

#[tokio::test]
async fn job_deleted_during_migration_does_not_start_it_again() -> Result<()> {
    with_temp_ns(|context| async move {
        migrating(&context, "middle").await?;
        context
            .api::<Job>()
            .delete(&job(&context).await?, &DeleteParams::background())
            .await?;
        was_run_once(&context).await
    })
    .await
}

#[tokio::test]
async fn job_and_pod_deleted_after_commit_do_not_start_it_again() -> Result<()> {
    with_temp_ns(|context| async move {
        migrating(&context, "end").await?;
        let (job, pod) = (job(&context).await?, pod(&context).await?);
        context
            .api::<Job>()
            .delete(&job, &DeleteParams::background())
            .await?;
        context
            .api::<Pod>()
            .delete(&pod, &DeleteParams::default().grace_period(0))
            .await?;
        was_run_once(&context).await
    })
    .await
}

#[tokio::test]
async fn pod_evicted_during_migration_does_not_start_it_again() -> Result<()> {
    with_temp_ns(|context| async move {
        migrating(&context, "middle").await?;
        context
            .api::<Pod>()
            .evict(&pod(&context).await?, &EvictParams::default())
            .await?;
        was_run_once(&context).await
    })
    .await
}

#[tokio::test]
async fn on_start_pod_deleted_is_not_started_again() -> Result<()> {
    with_temp_ns(|context| async move {
        migrating_on_start(&context).await?;
        context
            .api::<Pod>()
            .delete(&pod(&context).await?, &DeleteParams::default())
            .await?;
        ended_after_one_run(&context, ReleaseOutcome::Failed).await?;
        seen::selects(&context, "crm", "crm-1", crm::PATIENCE).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn on_start_pod_deleted_without_grace_is_not_started_again() -> Result<()> {
    with_temp_ns(|context| async move {
        migrating_on_start(&context).await?;
        context
            .api::<Pod>()
            .delete(&pod(&context).await?, &DeleteParams::default().grace_period(0))
            .await?;
        ended_after_one_run(&context, ReleaseOutcome::Failed).await?;
        seen::selects(&context, "crm", "crm-1", crm::PATIENCE).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn on_start_migration_finishes_although_its_agent_is_killed() -> Result<()> {
    with_temp_ns(|context| async move {
        migrating_on_start(&context).await?;
        operator::kill_agent(&context, "migrate").await?;
        ended_after_one_run(&context, ReleaseOutcome::Succeeded).await
    })
    .await
}
