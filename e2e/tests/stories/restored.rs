//! Backups that are restored before they count: in a container of the backup's pod that holds no secret.

use anyhow::{Context as _, Result, ensure};
use fairway_crds::app::Scratch;
use fairway_crds::backup::{BackupOutcome, Level};
use fairway_crds::release::{MilestoneKind, ReleaseOutcome, annotation};
use fairway_crds::{Backup, Release};
use fairway_e2e::apps::{self, crm};
use fairway_e2e::ns::{Context, with_temp_ns};
use fairway_e2e::{reach, seen};

use crate::SOON;

/// An index whose function finds another one by `search_path`: it can be dumped, and no server takes it back.
const NOT_RESTORABLE: &str = "
    create function fold(t text) returns text language sql immutable as 'select lower(t)';
    create function folded(t text) returns text language plpgsql immutable as 'begin return fold(t); end';
    create index leads_folded on leads (folded(name))";
const FIX: &str = "alter function folded(text) set search_path = public, pg_temp";

/// The Backup that a release counts on.
async fn backup_of(context: &Context, release: &str) -> Result<Backup> {
    let release = context.api::<Release>().get(release).await?;
    let evidence = release.status.unwrap_or_default().evidence.backup;
    let name = evidence.context("no backup")?.name;
    Ok(context.api::<Backup>().get(&name).await?)
}

#[tokio::test]
async fn a_backup_that_cannot_be_restored_stops_the_release_until_it_can() -> Result<()> {
    with_temp_ns(|context| async move {
        let mut app = crm::install_with(&context, |app| {
            if let Some(backup) = &mut app.spec.backup {
                backup.scratch = Some(Scratch {
                    size: "256Mi".to_owned(),
                });
            }
        })
        .await?;
        let backup = backup_of(&context, "crm-1").await?;
        let status = backup.status.context("no status")?;
        ensure!(
            status.level.as_deref() == Some(Level::Restored.as_str()),
            "{status:?}"
        );
        ensure!(
            status.proof.as_ref().is_some_and(|proof| proof.bytes > 0),
            "{status:?}"
        );

        crm::add_leads(&context, &["Ada"]).await?;
        let database = reach::database(&context, crm::DATABASE).await?;
        database.batch_execute(NOT_RESTORABLE).await?;
        apps::set_bake(&mut app, 1);
        crm::set_version(&context, &mut app, "v2");
        apps::apply(&context, &app).await?;
        let failed = seen::failed(&context, "crm-2", "BackupFailed", crm::PATIENCE).await?;
        let message = seen::message(&failed);
        ensure!(
            message.contains("INDEX leads_folded") && message.contains("search_path"),
            "{message}"
        );
        ensure!(seen::milestone(&failed, MilestoneKind::Migrating).is_none());
        seen::selects(&context, "crm", "crm-1", SOON).await?;

        database.batch_execute(FIX).await?;
        apps::say(&context, "crm-2", annotation::RETRY, "fixed").await?;
        seen::ended(&context, "crm-3", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
        let backup = backup_of(&context, "crm-3").await?;
        let status = backup.status.context("no status")?;
        ensure!(
            status.outcome == Some(BackupOutcome::Succeeded)
                && status.level.as_deref() == Some(Level::Restored.as_str())
                && status.proof.as_ref().is_some_and(|proof| proof.tables > 1),
            "{status:?}"
        );
        Ok(())
    })
    .await
}
