//! Retention: a backup that is not kept is removed with its set, and the others stay.

use anyhow::{Context as _, Result, ensure};
use fairway_crds::app::Keep;
use fairway_crds::backup::BackupOutcome;
use fairway_crds::release::ReleaseOutcome;
use fairway_crds::{App, Backup};
use fairway_e2e::apps::{self, crm};
use fairway_e2e::manifest::apply_object;
use fairway_e2e::ns::{Context, with_temp_ns};
use fairway_e2e::{seen, wait};
use k8s_openapi::api::core::v1::Event;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams};
use kube::runtime::watcher;
use serde_json::json;

use crate::SOON;
use crate::stores::{access_key, bucket, server};

fn is_verified(backup: &Backup) -> bool {
    let status = backup.status.as_ref();
    status.is_some_and(|status| status.outcome == Some(BackupOutcome::Succeeded) && status.removal.is_none())
}

/// Takes a backup by hand, and then one of a release.
async fn take_two(context: &Context, app: &mut App) -> Result<()> {
    let older = json!({
        "apiVersion": "fairway.dev/v1alpha1", "kind": "Backup", "metadata": {"name": "older"}, "spec": {"app": "crm"},
    });
    apply_object(context, older).await?;
    wait::wait_for(
        context.api::<Backup>(),
        "older",
        "is verified",
        is_verified,
        crm::PATIENCE,
    )
    .await?;
    apps::set_bake(app, 1);
    crm::set_version(context, app, "v2");
    apps::apply(context, app).await?;
    seen::ended(context, "crm-2", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
    Ok(())
}

/// Keeps one backup, and sees how the others go.
async fn keep_one(context: &Context, app: &mut App) -> Result<()> {
    app.spec.backup.as_mut().context("no backup")?.keep = Some(Keep {
        last: 1,
        daily: 0,
        weekly: 0,
        monthly: 0,
        yearly: 0,
    });
    apps::apply(context, app).await?;
    wait::wait_gone(context.api::<Backup>(), "older", crm::PATIENCE).await?;
    let tells = |event: &Event| {
        let message = event.message.as_deref().unwrap_or_default();
        event.reason.as_deref() == Some("BackupRemoved")
            && event.involved_object.kind.as_deref() == Some("App")
            && message.contains("Retention has removed Backup older of ")
            && !message.contains(": 0 files")
    };
    wait::wait_for_all(
        context.api::<Event>(),
        watcher::Config::default(),
        "an Event of the App that names the backup",
        |events: &[Event]| events.iter().any(tells),
        SOON,
    )
    .await?;
    Ok(())
}

/// Names of the Backups that are left once the one of the first release has gone too.
async fn left(context: &Context) -> Result<Vec<Backup>> {
    let is_alone = |backups: &[Backup]| backups.len() == 1;
    wait::wait_for_all(
        context.api::<Backup>(),
        watcher::Config::default(),
        "one Backup is left",
        is_alone,
        crm::PATIENCE,
    )
    .await
}

#[tokio::test]
async fn retention_removes_a_backup_with_its_set_and_keeps_that_of_the_live_release() -> Result<()> {
    with_temp_ns(|context| async move {
        let mut app = crm::install(&context).await?;
        take_two(&context, &mut app).await?;
        keep_one(&context, &mut app).await?;
        let left = left(&context).await?;
        let kept = &left[0];
        ensure!(
            kept.spec.release.as_deref() == Some("crm-2"),
            "{}",
            kept.name_any()
        );
        let status = kept.status.as_ref().context("no status")?;
        ensure!(status.kept_because == ["Release crm-2", "last"], "{status:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn retention_removes_a_set_from_a_bucket() -> Result<()> {
    with_temp_ns(|context| async move {
        server(&context).await?;
        access_key(&context, "fairway-secret").await?;
        let mut app = crm::install(&context).await?;
        app.spec.backup.as_mut().context("no backup")?.store = bucket()?;
        apps::apply(&context, &app).await?;
        take_two(&context, &mut app).await?;
        keep_one(&context, &mut app).await?;
        // That of the first release is in the volume that the App named then.
        left(&context).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn deleting_a_backup_or_its_app_deletes_no_data() -> Result<()> {
    with_temp_ns(|context| async move {
        let mut app = crm::install(&context).await?;
        take_two(&context, &mut app).await?;
        let deleted = DeleteParams::default();
        context.api::<App>().delete("crm", &deleted).await?;
        wait::wait_gone(context.api::<App>(), "crm", crm::PATIENCE).await?;
        let backups = context.api::<Backup>().list(&ListParams::default()).await?;
        ensure!(backups.iter().count() == 3, "{backups:?}");
        ensure!(backups.iter().all(is_verified), "{backups:?}");
        Ok(())
    })
    .await
}
