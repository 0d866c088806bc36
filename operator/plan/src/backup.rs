//! The Backup: attempted until it is proven, or until it is clear that it will not be.
//!
//! Every attempt is a Job of its own number. The number is recorded before the Job exists, so a crash between the
//! two creates the same Job again. What the environment causes (store full, claim missing, wrong password) is retried
//! for a day; the Job of an attempt that failed is removed when the next begins, the last one at the end.

use crate::attempt::{self, Advanced, Attempt, Bounds, Child, Failed, Impossible, Planned, SLOW_START};
use crate::build::agent;
use crate::conditions::{self, Progress};
use crate::message;
use crate::observed::{BackupObserved, Settings};
use crate::protocol::{BackupEvidence, BackupReport, Cause};
use crate::retry::{self, Due, Schedule};
use crate::snapshot::Snapshot;
use crate::tasks::BACKUP;
use crate::{Decision, Object, ObjectRef, Step, Wake, object::Kind};
use fairway_crds::Reason;
use fairway_crds::app::{BackupSettings, Store, VolumeStore};
use fairway_crds::backup::{BackupOutcome, BackupSet, BackupStatus};
use fairway_crds::release::Attempts;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;
use std::sync::Arc;

/// Time for all attempts together.
const DEADLINE: SignedDuration = SignedDuration::from_hours(24);
/// Message while an attempt is at work.
const WORKING: &str = "Dumping the database and reading the dump back.";

/// Decides the next pass of a Backup.
pub fn plan(observed: &BackupObserved, settings: &Settings, now: Timestamp) -> Decision<BackupStatus> {
    let backup = &observed.backup;
    let mut status = backup.status.clone().unwrap_or_default();
    if backup.metadata.deletion_timestamp.is_some() {
        // Its Job goes with it.
        return Decision {
            steps: Vec::new(),
            status,
            wake: Wake::OnChange,
        };
    }
    if status.outcome.is_some() {
        return Decision {
            steps: leftovers(observed, None),
            status,
            wake: Wake::OnChange,
        };
    }
    let Planned {
        steps,
        progress,
        wake,
    } = next(observed, settings, &mut status, now);
    let generation = backup.metadata.generation;
    status.observed_generation = generation;
    let desired = conditions::summary(&format!("Backup {}", backup.name_any()), &progress);
    status.conditions = conditions::set(&status.conditions, desired, generation, now);
    Decision { steps, status, wake }
}

fn next(
    observed: &BackupObserved,
    settings: &Settings,
    status: &mut BackupStatus,
    now: Timestamp,
) -> Planned {
    let schedule = Schedule {
        deadline: Some(DEADLINE),
        now,
    };
    match schedule.due(status.attempts.as_ref()) {
        Due::Begin(attempts) => begin(observed, status, attempts),
        Due::Paused { next, message } => attempt::paused(next, message),
        Due::Current(attempts) => attend(observed, settings, status, schedule, attempts),
    }
}

/// Records an attempt. The store is the App's of this moment, so that a corrected one is used.
fn begin(observed: &BackupObserved, status: &mut BackupStatus, attempts: Attempts) -> Planned {
    let (backup_settings, _) = match ready(observed) {
        Ok(ready) => ready,
        Err(Impossible { reason, message }) => return fail(status, reason, &message),
    };
    status.attempts = Some(attempts);
    status.set = Some(BackupSet {
        claim_name: backup_settings.store.volume.claim_name.clone(),
        path: agent::set_path(&observed.backup),
    });
    Planned::new(Progress::running(Reason::BackingUp, WORKING))
}

/// What a backup is made from, or what is missing.
fn ready(observed: &BackupObserved) -> Result<(&BackupSettings, &Snapshot), Impossible> {
    let spec = &observed.backup.spec;
    let missing = |message: String| Impossible {
        reason: Reason::AppMissing,
        message,
    };
    let Some(app) = &observed.app else {
        return Err(missing(format!(
            "App {} does not exist. Create a Backup whose spec.app names an App of this namespace.",
            spec.app
        )));
    };
    let Some(settings) = &app.spec.backup else {
        return Err(missing(format!(
            "App {} has no spec.backup. Add its store, then create a new Backup.",
            spec.app
        )));
    };
    let Some(snapshot) = &observed.snapshot else {
        let release = spec.release.as_deref().unwrap_or_default();
        return Err(missing(format!(
            "Release {release}, or its snapshot, is gone. Create a Backup without spec.release."
        )));
    };
    match snapshot.database {
        Some(_) => Ok((settings, snapshot)),
        None => Err(missing(format!(
            "App {} has no spec.database, so there is nothing to back up.",
            spec.app
        ))),
    }
}

/// Follows the attempt under way.
fn attend(
    observed: &BackupObserved,
    settings: &Settings,
    status: &mut BackupStatus,
    schedule: Schedule,
    mut attempts: Attempts,
) -> Planned {
    let backup = &observed.backup;
    let name = BACKUP.child(&backup.name_any(), attempts.current);
    let uid = backup.metadata.uid.as_deref().unwrap_or_default();
    let child = Child::find(&BACKUP, uid, name.clone(), &observed.jobs, &observed.pods);
    let current = attempts.current;
    let create = || job_of(observed, settings, status, current);
    let attempt = Attempt {
        task: &BACKUP,
        namespace: backup.metadata.namespace.as_deref().unwrap_or_default(),
        work_for: &backup.name_any(),
        schedule,
        bounds: Bounds::Start,
        refused: &observed.refused,
        working: Reason::BackingUp,
        doing: WORKING,
        not_starting: Reason::PodNotStarting,
        slow_start: Some(SLOW_START),
    };
    let advanced = attempt.advance(&mut attempts, &child, child.outcome(), create, judge);
    match advanced {
        Advanced::Done(evidence) => succeed(status, evidence),
        Advanced::Failed { reason, message } => fail(status, reason, &message),
        Advanced::UnderWay(planned) => {
            if planned.progress.reason == Reason::PodNotStarting && store_has_changed(observed, status) {
                return begin(observed, status, retry::following(&attempts));
            }
            status.attempts = Some(attempts);
            planned.after(leftovers(observed, Some(&name)))
        }
    }
}

fn job_of(
    observed: &BackupObserved,
    settings: &Settings,
    status: &BackupStatus,
    attempt: u32,
) -> Result<Object, Impossible> {
    let (backup_settings, snapshot) = ready(observed)?;
    // The recorded claim, so that the status never names another one than the Job uses.
    let claim_name = match &status.set {
        Some(set) => set.claim_name.clone(),
        None => backup_settings.store.volume.claim_name.clone(),
    };
    let backup_settings = BackupSettings {
        store: Store {
            volume: VolumeStore { claim_name },
        },
        ..backup_settings.clone()
    };
    let release = observed
        .release
        .as_ref()
        .and_then(|release| release.status.as_ref());
    let images = release.map_or_else(|| snapshot.images(), |release| release.digests.clone());
    let backup = &observed.backup;
    let job = agent::backup_job(settings, backup, snapshot, &backup_settings, &images, attempt);
    Ok(Object::Job(job))
}

fn judge(report: BackupReport) -> Result<BackupEvidence, Failed> {
    match report {
        BackupReport {
            failure: Some(failure),
            ..
        } => Err(Failed {
            cause: failure.cause,
            reason: failure.reason(),
            message: failure.message,
        }),
        BackupReport {
            evidence: Some(evidence),
            failure: None,
        } => Ok(evidence),
        BackupReport {
            evidence: None,
            failure: None,
        } => Err(Failed {
            cause: Cause::Environment,
            reason: Reason::AgentFailed,
            message: "The agent's report says neither success nor failure.".to_owned(),
        }),
    }
}

/// Whether the App names another store than the attempt uses: what keeps its pod from starting may be corrected.
fn store_has_changed(observed: &BackupObserved, status: &BackupStatus) -> bool {
    let used = status.set.as_ref().map(|set| set.claim_name.as_str());
    let desired = ready(observed)
        .ok()
        .map(|(settings, _)| settings.store.volume.claim_name.as_str());
    desired.is_some() && desired != used
}

fn fail(status: &mut BackupStatus, reason: Reason, message: &str) -> Planned {
    status.outcome = Some(BackupOutcome::Failed);
    status.set = None;
    Planned::new(Progress::failed(reason, message))
}

fn succeed(status: &mut BackupStatus, evidence: BackupEvidence) -> Planned {
    let BackupEvidence {
        level,
        bytes,
        sha256,
        taken_at,
        server_version,
        fingerprint,
        seconds,
        notes,
    } = evidence;
    let place = status
        .set
        .as_ref()
        .map(|set| format!("{} of claim {}", set.path, set.claim_name))
        .unwrap_or_default();
    let made = format!("Wrote {bytes} bytes to {place} in {seconds:.0} s, proven to the level {level}.");
    let message = message::sentences(std::iter::once(&made).chain(&notes));
    status.outcome = Some(BackupOutcome::Succeeded);
    status.level = Some(level);
    status.bytes = Some(i64::try_from(bytes).unwrap_or(i64::MAX));
    status.sha256 = Some(sha256);
    status.taken_at = Some(taken_at);
    status.server_version = Some(server_version);
    status.fingerprint = Some(fingerprint);
    status.notes = notes;
    Planned::new(Progress::succeeded(Reason::Succeeded, message))
}

fn is_ours(observed: &BackupObserved, job: &Job) -> bool {
    let uid = observed.backup.metadata.uid.as_deref().unwrap_or_default();
    BACKUP.is_of(&job.metadata, uid)
}

/// Removal of the Jobs of attempts that are over.
fn leftovers(observed: &BackupObserved, keep: Option<&str>) -> Vec<Step> {
    let over = |job: &&Arc<Job>| {
        is_ours(observed, job) && job.metadata.deletion_timestamp.is_none() && Some(&*job.name_any()) != keep
    };
    observed
        .jobs
        .iter()
        .filter(over)
        .filter_map(|job| ObjectRef::of(Kind::Job, &job.metadata))
        .map(Step::Delete)
        .collect()
}

#[cfg(test)]
mod tests;
