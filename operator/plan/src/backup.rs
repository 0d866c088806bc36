//! The Backup: tried until it is proven, or until it is clear that it will not be.
//!
//! Every try is a Job of its own number. The number is on record before the Job exists, so a crash between the
//! two makes the same Job again. What the environment cause (store full, claim missing, wrong password) is tried
//! again for a day; the Job of a try that failed is removed when the next begins, the last one at the end.

use crate::build::agent::{self, Outcome};
use crate::conditions::{self, Progress};
use crate::observed::{BackupObserved, Settings};
use crate::protocol::{BackupEvidence, BackupReport, Cause};
use crate::retry::{self, Next};
use crate::snapshot::Snapshot;
use crate::stand::Stand;
use crate::{Decision, Object, ObjectRef, Step, Wake, names, object::Kind};
use fairway_crds::Reason;
use fairway_crds::app::{BackupSettings, Store, VolumeStore};
use fairway_crds::backup::{BackupOutcome, BackupSet, BackupStatus};
use fairway_crds::release::Attempts;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;
use std::sync::Arc;

/// Time for all tries together.
const DEADLINE: SignedDuration = SignedDuration::from_hours(24);
/// A pod that has not started by then is worth looking at, although Kubernetes says nothing of it.
const SLOW_START: SignedDuration = SignedDuration::from_mins(2);

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
    let Stand {
        steps,
        progress,
        wake,
    } = next(observed, settings, &mut status, now);
    status.observed_generation = backup.metadata.generation;
    status.conditions = conditions::bounded(&status.conditions, &progress, backup.metadata.generation, now);
    Decision { steps, status, wake }
}

fn next(observed: &BackupObserved, settings: &Settings, status: &mut BackupStatus, now: Timestamp) -> Stand {
    let Some(attempts) = status.attempts.clone() else {
        return begin(observed, status, 1, now);
    };
    match attempts.next {
        Some(next) if now < next => {
            let message = retry::pausing(&attempts, next, DEADLINE);
            Stand::at(Progress::running(Reason::WaitingForEnvironment, message)).until(next)
        }
        Some(_) => begin(observed, status, attempts.current + 1, attempts.since),
        None => attend(observed, settings, status, &attempts, now),
    }
}

/// Puts a try on record. The store is the App's of this moment, so that a mended one is used.
fn begin(observed: &BackupObserved, status: &mut BackupStatus, current: u32, since: Timestamp) -> Stand {
    let (backup_settings, _) = match ready(observed) {
        Ok(ready) => ready,
        Err(message) => return fail(status, Reason::AppMissing, message),
    };
    status.attempts = Some(Attempts {
        current,
        since,
        next: None,
        reason: None,
        message: None,
    });
    status.set = Some(BackupSet {
        claim_name: backup_settings.store.volume.claim_name.clone(),
        path: agent::set_path(&observed.backup),
    });
    Stand::at(Progress::running(Reason::BackingUp, working()))
}

fn working() -> String {
    "dumping the database and reading the dump back".to_owned()
}

/// What a backup is made from, or the sentence that says what is missing.
fn ready(observed: &BackupObserved) -> Result<(&BackupSettings, &Snapshot), String> {
    let spec = &observed.backup.spec;
    let Some(app) = &observed.app else {
        return Err(format!(
            "App {} does not exist: set spec.app to the name of one in this namespace",
            spec.app
        ));
    };
    let Some(settings) = &app.spec.backup else {
        return Err(format!("App {} has no spec.backup: add its store", spec.app));
    };
    let Some(snapshot) = &observed.snapshot else {
        let release = spec.release.as_deref().unwrap_or_default();
        return Err(format!(
            "Release {release}, or its snapshot, is gone: make a Backup without spec.release"
        ));
    };
    match snapshot.database {
        Some(_) => Ok((settings, snapshot)),
        None => Err(format!(
            "App {} has no spec.database: there is nothing to back up",
            spec.app
        )),
    }
}

/// Looks after the Job of the try under way.
fn attend(
    observed: &BackupObserved,
    settings: &Settings,
    status: &mut BackupStatus,
    attempts: &Attempts,
    now: Timestamp,
) -> Stand {
    let name = names::backup_job(&observed.backup.name_any(), attempts.current);
    let Some(job) = observed.jobs.iter().find(|job| job.name_any() == name) else {
        return start(observed, settings, status, attempts, now);
    };
    if !is_ours(observed, job) {
        // Left by a Backup of the same name that was deleted; the garbage collector is at it.
        let message = format!("waiting until Job {name} of a deleted Backup is gone");
        return Stand::at(Progress::running(Reason::BackingUp, message));
    }
    let mut stand = match agent::job_report::<BackupReport>(Some(job.as_ref()), &observed.pods, &name) {
        Outcome::Reported(BackupReport {
            evidence: Some(evidence),
            failure: None,
        }) => {
            return succeed(status, evidence);
        }
        Outcome::Reported(BackupReport {
            failure: Some(failure),
            ..
        }) => match failure.cause {
            Cause::Version => return fail(status, failure.reason(), failure.message),
            Cause::Environment => failed(status, attempts, now, failure.reason(), &failure.message),
        },
        Outcome::Reported(BackupReport {
            failure: None,
            evidence: None,
        }) => failed(
            status,
            attempts,
            now,
            Reason::AgentFailed,
            "the agent's answer says neither success nor failure",
        ),
        Outcome::Lost { reason } => {
            let message = format!("the backup's pod ended without an answer: {reason}");
            failed(status, attempts, now, Reason::PodLost, &message)
        }
        Outcome::Running {
            waiting: Some((_, message)),
        } => held_up(observed, status, attempts, now, message),
        Outcome::NotThere | Outcome::Running { waiting: None } => {
            under_way(observed, status, job, &name, attempts, now)
        }
    };
    stand.steps.extend(leftovers(observed, Some(&name)));
    stand
}

fn start(
    observed: &BackupObserved,
    settings: &Settings,
    status: &mut BackupStatus,
    attempts: &Attempts,
    now: Timestamp,
) -> Stand {
    let (backup_settings, snapshot) = match ready(observed) {
        Ok(ready) => ready,
        Err(message) => return fail(status, Reason::AppMissing, message),
    };
    if now >= retry::end(attempts, DEADLINE) {
        let namespace = observed.backup.namespace().unwrap_or_default();
        let message = format!(
            "its Job could not be made within {}; the events say why: kubectl -n {namespace} describe backup {}",
            conditions::duration(DEADLINE),
            observed.backup.name_any(),
        );
        return fail(status, Reason::PodNotStarting, message);
    }
    // The claim on record, lest the status name another one than the Job uses.
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
    let images = match observed
        .release
        .as_ref()
        .and_then(|release| release.status.as_ref())
    {
        Some(release) => release.digests.clone(),
        None => snapshot.images(),
    };
    let job = agent::backup_job(
        settings,
        &observed.backup,
        snapshot,
        &backup_settings,
        &images,
        attempts.current,
    );
    let mut steps = leftovers(observed, None);
    steps.push(Step::Create(Box::new(Object::Job(job))));
    Stand::at(Progress::running(Reason::BackingUp, working()))
        .until(retry::end(attempts, DEADLINE))
        .with(steps)
}

fn under_way(
    observed: &BackupObserved,
    status: &mut BackupStatus,
    job: &Job,
    name: &str,
    attempts: &Attempts,
    now: Timestamp,
) -> Stand {
    let slow = job
        .metadata
        .creation_timestamp
        .as_ref()
        .and_then(|created| created.0.checked_add(SLOW_START).ok());
    match slow {
        Some(slow) if agent::started_at(&observed.pods, name).is_none() => {
            if now < slow {
                return Stand::at(Progress::running(Reason::BackingUp, working())).until(slow);
            }
            let namespace = observed.backup.namespace().unwrap_or_default();
            let message = format!(
                "the pod of Job {name} is not starting; what keeps it says: kubectl -n {namespace} describe job,pod -l fairway.dev/work-for={}",
                observed.backup.name_any()
            );
            not_starting(status, attempts, now, message)
        }
        _ => Stand::at(Progress::running(Reason::BackingUp, working())),
    }
}

/// The pod does not start. A store that was changed in the App meanwhile is tried at once.
fn held_up(
    observed: &BackupObserved,
    status: &mut BackupStatus,
    attempts: &Attempts,
    now: Timestamp,
    message: String,
) -> Stand {
    let used = status.set.as_ref().map(|set| set.claim_name.as_str());
    let desired = ready(observed)
        .ok()
        .map(|(settings, _)| settings.store.volume.claim_name.as_str());
    if desired.is_some() && desired != used {
        return begin(observed, status, attempts.current + 1, attempts.since);
    }
    not_starting(status, attempts, now, message)
}

/// Waits for the pod until the deadline of all tries.
fn not_starting(status: &mut BackupStatus, attempts: &Attempts, now: Timestamp, message: String) -> Stand {
    let end = retry::end(attempts, DEADLINE);
    if now >= end {
        let message = format!(
            "{} Given up after {}.",
            retry::sentence(&message),
            conditions::duration(DEADLINE)
        );
        return fail(status, Reason::PodNotStarting, message);
    }
    Stand::at(Progress::running(Reason::PodNotStarting, message)).until(end)
}

fn failed(
    status: &mut BackupStatus,
    attempts: &Attempts,
    now: Timestamp,
    reason: Reason,
    message: &str,
) -> Stand {
    match retry::after_failure(attempts, attempts.current, DEADLINE, now, reason, message) {
        Next::GiveUp { reason, message } => fail(status, reason, message),
        Next::Again(again) => {
            let next = again.next.unwrap_or(now);
            let message = retry::pausing(&again, next, DEADLINE);
            status.attempts = Some(again);
            Stand::at(Progress::running(Reason::WaitingForEnvironment, message)).until(next)
        }
    }
}

fn fail(status: &mut BackupStatus, reason: Reason, message: String) -> Stand {
    status.outcome = Some(BackupOutcome::Failed);
    status.set = None;
    Stand::at(Progress::failed(reason, message))
}

fn succeed(status: &mut BackupStatus, evidence: BackupEvidence) -> Stand {
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
    let noted: String = notes.iter().map(|note| format!("; {note}")).collect();
    let message = format!("{bytes} bytes in {place}, made in {seconds:.0} s; proven: {level}{noted}");
    status.outcome = Some(BackupOutcome::Succeeded);
    status.level = Some(level);
    status.bytes = Some(i64::try_from(bytes).unwrap_or(i64::MAX));
    status.sha256 = Some(sha256);
    status.taken_at = Some(taken_at);
    status.server_version = Some(server_version);
    status.fingerprint = Some(fingerprint);
    status.notes = notes;
    Stand::at(Progress::succeeded(Reason::Succeeded, message))
}

fn is_ours(observed: &BackupObserved, job: &Job) -> bool {
    let uid = observed.backup.metadata.uid.as_deref();
    job.owner_references()
        .iter()
        .any(|owner| Some(&*owner.uid) == uid)
}

/// Jobs of tries that are over.
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
