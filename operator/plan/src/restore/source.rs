//! What a Restore is made from: its App, its Backup, and the Job that works on them.

use crate::attempt::{Impossible, Planned};
use crate::build::agent;
use crate::conditions::{Progress, State};
use crate::missing::{Comes, Missing};
use crate::observed::{RestoreObserved, Settings};
use crate::protocol::RestoreStep;
use crate::snapshot::Snapshot;
use fairway_crds::backup::{BackupOutcome, BackupSet, Removal, RemovalState};
use fairway_crds::restore::{RestoreSource, RestoreStatus};
use fairway_crds::{App, Reason};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;

/// The set that is restored.
pub(super) struct Source {
    pub(super) set: BackupSet,
    /// UID of the Backup.
    pub(super) uid: String,
}

/// Why there is nothing to restore.
pub(super) enum Absent {
    /// It may come.
    Waits(Planned),
    /// It will not.
    Never(Impossible),
}

/// The set that the Restore names.
pub(super) fn of(observed: &RestoreObserved, now: Timestamp) -> Result<Source, Absent> {
    let spec = &observed.restore.spec;
    let RestoreSource { backup: name } = &spec.from;
    let absent = |missing: Missing| match missing.wait("Restore", &observed.restore.metadata, now) {
        Some(wait) => Absent::Waits(wait),
        None => Absent::Never(missing.into()),
    };
    app(observed).map_err(absent)?;
    let of_the_backup = |what: String, comes| Missing {
        reason: Reason::AppMissing,
        what,
        fix: "Create a Restore of a Backup that has succeeded.".to_owned(),
        comes,
    };
    let Some(backup) = &observed.backup else {
        let what = format!("Backup {name} does not exist");
        return Err(absent(of_the_backup(what, Comes::Perhaps)));
    };
    if backup.spec.app != spec.app {
        let what = format!(
            "Backup {name} is of App {}, not of App {}",
            backup.spec.app, spec.app
        );
        return Err(absent(of_the_backup(what, Comes::Never)));
    }
    let status = backup.status.clone().unwrap_or_default();
    // One that the store does not let go is whole, or the agent says that it is not.
    let goes = |removal: &Removal| removal.state != RemovalState::Retained;
    if status.removal.as_ref().is_some_and(goes) {
        let what = format!("Backup {name} is being removed by retention");
        return Err(absent(of_the_backup(what, Comes::Never)));
    }
    match (status.outcome, status.set, backup.uid()) {
        (None, ..) => {
            let message = format!("Waiting for Backup {name}, which has not ended.");
            let progress = Progress::new(State::Waiting, Reason::WaitingForSource, message);
            Err(Absent::Waits(Planned::new(progress)))
        }
        (Some(BackupOutcome::Succeeded), Some(set), Some(uid)) => Ok(Source { set, uid }),
        (Some(_), ..) => {
            let what = format!("Backup {name} has failed, so that there is nothing to restore");
            Err(absent(of_the_backup(what, Comes::Never)))
        }
    }
}

/// The App, and what its spec says now.
fn app(observed: &RestoreObserved) -> Result<(&App, &Snapshot), Missing> {
    let spec = &observed.restore.spec;
    let (Some(app), Some(snapshot)) = (&observed.app, &observed.snapshot) else {
        return Err(Missing::app(
            &spec.app,
            "Create a Restore whose spec.app names an App of this namespace.",
        ));
    };
    match snapshot.database {
        Some(_) => Ok((app, snapshot)),
        None => Err(Missing {
            reason: Reason::AppMissing,
            what: format!(
                "App {} has no spec.database, so there is nothing to restore",
                spec.app
            ),
            fix: "Add it, then create a new Restore.".to_owned(),
            comes: Comes::Perhaps,
        }),
    }
}

/// The Job that does a step.
pub(super) fn job(
    observed: &RestoreObserved,
    settings: &Settings,
    status: &RestoreStatus,
    step: RestoreStep,
    attempt: u32,
) -> Result<Job, Impossible> {
    let (app, snapshot) = app(observed)?;
    let (Some(set), Some(uid)) = (&status.set, &status.backup_uid) else {
        return Err(Impossible {
            reason: Reason::AppMissing,
            message: "The status does not say which set is restored. Create a new Restore.".to_owned(),
        });
    };
    let backup = app.spec.backup.as_ref();
    // Credentials may have moved to another Secret since the backup was taken.
    let store = backup
        .map(|backup| &backup.store)
        .filter(|current| current.is_same_place(&set.store))
        .unwrap_or(&set.store);
    let set = &BackupSet {
        store: store.clone(),
        path: set.path.clone(),
    };
    let scratch = backup.and_then(|backup| backup.scratch.as_ref());
    Ok(agent::restore_job(
        settings,
        &observed.restore,
        snapshot,
        agent::RestoreInput {
            set,
            backup_uid: uid,
            scratch,
            step,
        },
        attempt,
    ))
}
