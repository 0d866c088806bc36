//! Backups beside those of releases: by a schedule, the final one, and why each is kept.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fairway_crds::app::{BackupSchedule, BackupState, Keep, annotation};
use fairway_crds::backup::BackupOutcome;
use fairway_crds::{App, Backup};
use fairway_e2e::apps::{self, crm};
use fairway_e2e::manifest::apply_object;
use fairway_e2e::ns::{Context, with_temp_ns};
use fairway_e2e::{seen, wait};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::json;

use crate::SOON;

/// A run that is two minutes away, with a second one five minutes later: so it begins at most 30 s after its time.
const AWAY: Duration = Duration::from_secs(150 + 30);

fn schedule(cron: String) -> BackupSchedule {
    BackupSchedule {
        cron,
        time_zone: "UTC".to_owned(),
    }
}

/// The minute that begins in at least a minute, as a schedule.
fn soon() -> (Timestamp, BackupSchedule) {
    let minute = (Timestamp::now().as_second() / 60 + 2) * 60;
    let run = Timestamp::from_second(minute).unwrap_or_default();
    let later = run + SignedDuration::from_mins(5);
    let minute = |at: Timestamp| TimeZone::UTC.to_datetime(at).minute();
    (
        run,
        schedule(format!("{},{} * * * *", minute(run), minute(later))),
    )
}

fn state(app: &App) -> Option<&BackupState> {
    app.status.as_ref()?.backup.as_ref()
}

fn is_verified(backup: &Backup) -> bool {
    let status = backup.status.as_ref();
    status.is_some_and(|status| status.outcome == Some(BackupOutcome::Succeeded))
}

/// Waits until a Backup says that it is kept for these reasons.
async fn kept(context: &Context, name: &str, because: &[&str]) -> Result<()> {
    let is_kept = |backup: &Backup| {
        let status = backup.status.as_ref();
        status.is_some_and(|status| status.kept_because == because)
    };
    let what = format!("is kept because of {because:?}");
    wait::wait_for(context.api::<Backup>(), name, &what, is_kept, crm::PATIENCE).await?;
    Ok(())
}

#[tokio::test]
async fn a_backup_is_taken_when_its_time_comes_and_the_app_says_which_is_the_newest() -> Result<()> {
    with_temp_ns(|context| async move {
        let mut edited = crm::install(&context).await?;
        let (run, settings) = soon();
        edited.spec.backup.as_mut().context("no backup")?.schedule = Some(settings);
        apps::apply(&context, &edited).await?;
        let planned = |app: &App| state(app).is_some_and(|state| state.next_runs.len() == 3);
        let planned = seen::app(&context, "crm", "has three runs", planned, SOON).await?;
        let first = state(&planned).context("no state")?.next_runs[0];
        ensure!(
            first >= run && first <= run + SignedDuration::from_secs(30),
            "the run of {run} begins at {first}"
        );

        let name = format!("crm-{}", run.strftime("%Y%m%dt%H%Mz"));
        let deadline = AWAY + crm::PATIENCE;
        wait::wait_for(
            context.api::<Backup>(),
            &name,
            "is verified",
            is_verified,
            deadline,
        )
        .await?;
        let newest = |app: &App| {
            let newest = state(app).and_then(|state| state.last_verified.as_ref());
            newest.is_some_and(|newest| newest.name == name)
        };
        let app = seen::app(&context, "crm", "names the newest backup", newest, SOON).await?;
        ensure!(
            !seen::holds(seen::app_condition(&app, "BackupOverdue")),
            "it is overdue"
        );
        let backups = context.api::<Backup>().list(&ListParams::default()).await?;
        let scheduled: Vec<_> = backups
            .iter()
            .filter(|backup| backup.spec.release.is_none())
            .map(ResourceExt::name_any)
            .collect();
        ensure!(scheduled == [name], "{scheduled:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_time_zone_that_does_not_exist_is_named_with_the_fix() -> Result<()> {
    with_temp_ns(|context| async move {
        let mut edited = crm::install(&context).await?;
        let zone = "Mars/Olympus".to_owned();
        let settings = BackupSchedule {
            time_zone: zone,
            ..schedule("15 2 * * *".to_owned())
        };
        edited.spec.backup.as_mut().context("no backup")?.schedule = Some(settings);
        apps::apply(&context, &edited).await?;
        let invalid = |app: &App| {
            seen::app_condition(app, "Stalled").is_some_and(|stalled| stalled.reason == "ScheduleInvalid")
        };
        let stalled = seen::app(&context, "crm", "says what is wrong", invalid, crm::PATIENCE).await?;
        let message = &seen::app_condition(&stalled, "Stalled")
            .context("not stalled")?
            .message;
        ensure!(
            message.contains("Mars/Olympus is not in the time zone database. Use a name such as"),
            "{message}"
        );
        edited.spec.backup.as_mut().context("no backup")?.schedule = Some(schedule("15 2 * * *".to_owned()));
        apps::apply(&context, &edited).await?;
        let planned = |app: &App| {
            seen::app_condition(app, "Stalled").is_none()
                && state(app).is_some_and(|state| state.next_runs.len() == 3)
        };
        seen::app(&context, "crm", "has three runs", planned, SOON).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn each_backup_says_why_it_is_kept() -> Result<()> {
    with_temp_ns(|context| async move {
        let mut edited = crm::install(&context).await?;
        edited.spec.backup.as_mut().context("no backup")?.keep = Some(Keep {
            last: 1,
            daily: 0,
            weekly: 0,
            monthly: 0,
            yearly: 0,
        });
        apps::apply(&context, &edited).await?;
        let backups = context.api::<Backup>().list(&ListParams::default()).await?;
        let of_release = backups.iter().next().context("no backup")?.name_any();
        kept(&context, &of_release, &["Release crm-1", "last"]).await?;
        let nightly = json!({
            "apiVersion": "fairway.dev/v1alpha1", "kind": "Backup", "metadata": {"name": "nightly"},
            "spec": {"app": "crm"},
        });
        apply_object(&context, nightly).await?;
        kept(&context, "nightly", &["last"]).await?;
        kept(&context, &of_release, &["Release crm-1"]).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_app_says_when_its_final_backup_is_taken_and_the_backup_outlives_it() -> Result<()> {
    with_temp_ns(|context| async move {
        crm::install(&context).await?;
        let asked = json!({"metadata": {"annotations": {annotation::FINAL_BACKUP: "1"}}});
        let apps = context.api::<App>();
        apps.patch("crm", &PatchParams::default(), &Patch::Merge(asked))
            .await?;
        let is_taken = |app: &App| seen::holds(seen::app_condition(app, "FinalBackupTaken"));
        let app = seen::app(&context, "crm", "has its final backup", is_taken, crm::PATIENCE).await?;
        let name = app
            .status
            .and_then(|status| status.final_backup)
            .context("no name")?;
        apps.delete("crm", &DeleteParams::default()).await?;
        wait::wait_gone(context.api::<App>(), "crm", crm::PATIENCE).await?;
        let backup = context.api::<Backup>().get(&name).await?;
        ensure!(is_verified(&backup), "{backup:?}");
        let days = backup
            .spec
            .keep_until
            .map(|until| until.duration_since(Timestamp::now()).as_hours() / 24);
        ensure!(days == Some(89), "it is kept for {days:?} days");
        Ok(())
    })
    .await
}
