//! A team removes an App, or a whole namespace, whatever is going on.

use anyhow::{Context as _, Result, ensure};
use fairway_crds::release::MilestoneKind;
use fairway_crds::{App, Backup, Migration, Release};
use fairway_e2e::apps::{self, crm};
use fairway_e2e::ns::{Context, with_temp_ns};
use fairway_e2e::volumes::{Behaviour, claim};
use fairway_e2e::wait::{names, wait_for_all, wait_gone};
use fairway_e2e::{reach, seen};
use k8s_openapi::api::apps::v1::{ControllerRevision, Deployment};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::DeleteParams;
use kube::runtime::watcher;

/// `kubectl delete app crm`, and waits until nothing that belongs to it is left but its backups.
async fn delete_app(context: &Context) -> Result<()> {
    context
        .api::<App>()
        .delete("crm", &DeleteParams::default())
        .await?;
    wait_gone(context.api::<App>(), "crm", crm::PATIENCE).await?;
    all_gone::<Release>(context).await?;
    all_gone::<Migration>(context).await?;
    all_gone::<ControllerRevision>(context).await?;
    all_gone::<Deployment>(context).await?;
    all_gone::<Service>(context).await?;
    all_gone::<Job>(context).await?;
    all_gone::<Pod>(context).await
}

/// Waits until no object of this kind belongs to the App. A Job that makes a backup goes with its Backup.
async fn all_gone<K>(context: &Context) -> Result<()>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::Serialize
        + serde::de::DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    let config = watcher::Config::default().labels(&format!("{}=crm,{}!=backup", seen::APP, seen::WORK));
    let what = format!("every {} of crm to be gone", K::kind(&()));
    wait_for_all(context.api::<K>(), config, &what, <[K]>::is_empty, crm::PATIENCE).await?;
    Ok(())
}

async fn backups(context: &Context) -> Result<Vec<String>> {
    Ok(names(
        &context
            .api::<Backup>()
            .list(&kube::api::ListParams::default())
            .await?
            .items,
    ))
}

#[tokio::test]
async fn an_app_deleted_at_any_rung_takes_with_it_what_it_owns_and_leaves_its_backups() -> Result<()> {
    with_temp_ns(|context| async move {
        claim(&context, "backups", "1Gi", Behaviour::Good).await?;
        crm::database(&context).await?;
        let app = crm::app(&context, "v1")?;
        let mut kept = 0;
        for rung in [
            "PullingImages",
            "CheckingDatabase",
            "BackingUp",
            "Migrating",
            "StartingPods",
            "Baking",
        ] {
            apps::apply(&context, &app).await?;
            seen::waits(&context, "crm-1", rung, crm::PATIENCE)
                .await
                .with_context(|| format!("stop at {rung}"))?;
            delete_app(&context)
                .await
                .with_context(|| format!("delete at {rung}"))?;
            let left = backups(&context).await?.len();
            ensure!(left >= kept, "deleting the App at {rung} took a backup with it");
            kept = left;
        }
        ensure!(kept > 0, "no backup was made");
        let runs = reach::count(&context, crm::DATABASE, "select count(*) from migration_runs").await?;
        ensure!(
            runs == 1,
            "the same migration of the same database was run {runs} times"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_migration_that_runs_finishes_although_its_app_is_deleted() -> Result<()> {
    with_temp_ns(|context| async move {
        claim(&context, "backups", "1Gi", Behaviour::Good).await?;
        crm::database(&context).await?;
        let mut app = crm::app(&context, "v1")?;
        apps::set_env(&mut app, "web", "CRM_FAULT_MIGRATE", "sleep:5000");
        apps::apply(&context, &app).await?;
        seen::reaches(&context, "crm-1", MilestoneKind::Migrating, crm::PATIENCE).await?;
        let running = watcher::Config::default().labels(&format!("{}=migrate", seen::WORK));
        let runs = |pods: &[Pod]| {
            pods.iter()
                .any(|pod| pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running"))
        };
        wait_for_all(
            context.api::<Pod>(),
            running,
            "the migration to run",
            runs,
            crm::PATIENCE,
        )
        .await?;
        delete_app(&context).await?;
        let committed = "select count(*) from fairway.migration_run where state = 'committed'";
        ensure!(
            reach::count(&context, crm::DATABASE, committed).await? == 1,
            "the migration was not finished"
        );
        let tables = "select count(*) from pg_tables where tablename = 'worker_session'";
        ensure!(
            reach::count(&context, crm::DATABASE, tables).await? == 1,
            "its last statement was not run"
        );
        Ok(())
    })
    .await
}

/// Removing the namespace is the end of every test; here it happens in the middle of a release.
async fn namespace_deleted_at(rung: &'static str) -> Result<()> {
    with_temp_ns(|context| async move {
        claim(&context, "backups", "1Gi", Behaviour::Good).await?;
        crm::database(&context).await?;
        let mut app = crm::app(&context, "v1")?;
        apps::set_env(&mut app, "web", "CRM_FAULT_MIGRATE", "sleep:2000");
        apps::apply(&context, &app).await?;
        seen::waits(&context, "crm-1", rung, crm::PATIENCE).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_namespace_deleted_during_a_migration_does_not_hang() -> Result<()> {
    namespace_deleted_at("Migrating").await
}

#[tokio::test]
async fn a_namespace_deleted_during_the_bake_does_not_hang() -> Result<()> {
    namespace_deleted_at("Baking").await
}
