//! The Backup: attempted until it is proven, or until it is clear that it will not be.
//!
//! Every attempt is a Job of its own number. The number is recorded before the Job exists, so a crash between the
//! two creates the same Job again. What the environment causes (store full, claim missing, wrong password) is retried
//! for a day; the Job of an attempt that failed is removed when the next begins, the last one at the end.
//!
//! One that has ended says why retention keeps it, and is removed when nothing does: [`removal`].

mod jobs;
mod removal;

pub use removal::{SeenByOthers, removed};

use crate::answers::Answers;
use crate::attempt::{self, Advanced, Attempt, Child, DeadlineFor, Failed, Impossible, Planned, SLOW_START};
use crate::build::agent;
use crate::conditions::{self, Desired, Progress, State, succeeded_since};
use crate::kubectl;
use crate::message;
use crate::missing::{Comes, Missing};
use crate::names;
use crate::observed::{BackupObserved, Settings};
use crate::protocol::{BackupEvidence, BackupReport, Cause};
use crate::release::history::{happened, has_ended};
use crate::retention::{self, Candidate};
use crate::retry::{self, Due, Schedule};
use crate::snapshot::Snapshot;
use crate::tasks::BACKUP;
use crate::{Decision, Object, Wake};
use fairway_crds::app::BackupSettings;
use fairway_crds::backup::{BackupOutcome, BackupSet, BackupStatus, Level, RestoreProof};
use fairway_crds::condition::{STALLED, WARNED};
use fairway_crds::database::Database;
use fairway_crds::migration::MigrationStatus;
use fairway_crds::release::{Attempts, MilestoneKind};
use fairway_crds::{App, Backup, Migration, Reason, Release};
use jiff::{SignedDuration, Timestamp};
use jobs::{identity, leftovers};
use kube::ResourceExt;

/// Time for all attempts together.
const DEADLINE: SignedDuration = SignedDuration::from_hours(24);
/// Least time between the end of a Backup applied by hand and the beginning of the next one of the same App. A dump reads
/// the whole database: somebody who applies many must not keep it reading.
const LEAST_INTERVAL: SignedDuration = SignedDuration::from_mins(5);
/// Message while an attempt is at work.
const WORKING: &str = "Dumping the database and reading the dump back.";
/// Message while an attempt is at work that restores the backup.
const RESTORING: &str =
    "Dumping the database, reading the dump back and restoring it into a throwaway server.";
/// A backup that is smaller than the last proven one, divided by this, is a warning.
const SHRUNK: i64 = 2;
/// For how long a user is advised to keep the backup before one that shrank.
const KEPT_WHILE_CHECKED: SignedDuration = SignedDuration::from_hours(30 * 24);

/// Decides the next pass of a Backup.
pub fn plan(observed: &BackupObserved, settings: &Settings, now: Timestamp) -> Decision<BackupStatus> {
    let settings = &*settings.of_app(observed.app.as_deref());
    let backup = &observed.backup;
    let mut status = backup.status.clone().unwrap_or_default();
    if backup.metadata.deletion_timestamp.is_some() {
        // Its Job goes with it.
        return Decision {
            steps: Vec::new(),
            status,
            wake: Wake::OnChange,
            rung: None,
        };
    }
    if status.outcome.is_some() {
        // An edit of `keepUntil` changes nothing about how it ended.
        let generation = backup.metadata.generation;
        status.observed_generation = generation;
        for condition in &mut status.conditions {
            condition.observed_generation = generation;
        }
        if let Some(decided) = status.removal.take() {
            return removal::plan(observed, settings, status, decided, now);
        }
        let wake = keep(observed, &mut status, now);
        return Decision {
            steps: leftovers(observed, None),
            status,
            wake,
            rung: None,
        };
    }
    let Planned {
        steps,
        progress,
        wake,
    } = next(observed, settings, &mut status, now);
    let generation = backup.metadata.generation;
    status.observed_generation = generation;
    let mut desired = conditions::summary(&format!("Backup {}", backup.name_any()), &progress);
    desired.extend(shrunk(observed, &status, now));
    status.conditions = conditions::set(&status.conditions, desired, generation, now);
    Decision {
        steps,
        status,
        wake,
        rung: None,
    }
}

/// Says why a Backup that has ended is kept, or that it is to be removed. Returns when that may be another, without any change.
fn keep(observed: &BackupObserved, status: &mut BackupStatus, now: Timestamp) -> Wake {
    let settings = observed.app.as_ref().and_then(|app| app.spec.backup.as_ref());
    let until = observed.backup.spec.keep_until.filter(|until| *until > now);
    let Some((settings, keep)) = settings.and_then(|settings| Some((settings, settings.keep?))) else {
        // A final backup outlives the App that would say more.
        status.kept_because = until.map(retention::wanted).into_iter().collect();
        return until.map_or(Wake::OnChange, Wake::At);
    };
    let name = observed.backup.name_any();
    let mut kept = retention::kept(&observed.candidates, &keep, &retention::zone_of(settings), now);
    status.kept_because = kept.remove(&name).unwrap_or_default();
    if status.kept_because.is_empty() {
        removal::decide(observed, status, now);
    }
    // Backups of a clock that was ahead begin to count, for all of them.
    let ahead = observed
        .candidates
        .iter()
        .filter_map(|candidate| candidate.verified);
    let mut candidates = observed.candidates.iter();
    let own = candidates.find(|candidate| candidate.name == name);
    let unproven = own.and_then(Candidate::unproven_until);
    let times = ahead.chain(unproven).filter(|time| *time > now);
    let next = times.chain(until).min();
    next.map_or(Wake::OnChange, Wake::At)
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
        Due::Begin(attempts) => {
            let has_begun = status.attempts.is_some();
            let wait = after_migration(observed).or_else(|| turn(observed, now).filter(|_| !has_begun));
            wait.unwrap_or_else(|| begin(observed, status, attempts, now))
        }
        Due::Paused { next, message } => attempt::paused(next, message),
        Due::Current(attempts) => attend(observed, settings, status, schedule, attempts),
    }
}

/// The wait for the end of a migration beside which no attempt begins; `None` when there is none, when a Release waits for this
/// Backup before it migrates, or when a user has to apply first what the Backup names.
fn after_migration(observed: &BackupObserved) -> Option<Planned> {
    let names_release = observed.backup.spec.release.is_some();
    let is_missing = observed.app.is_none() || names_release && observed.release.is_none();
    let is_waited_for = names_release && !is_by_hand(&observed.backup, observed.release.as_deref(), None);
    let may_begin = is_missing || is_waited_for;
    let migration = observed.migration.as_ref().filter(|_| !may_begin)?;
    let message =
        format!("Waiting for the end of Migration {migration}: no backup begins beside a migration.");
    Some(Planned::new(Progress::new(
        State::Waiting,
        Reason::WaitingForMigration,
        message,
    )))
}

/// The wait until it is this Backup's turn; `None` when it is.
fn turn(observed: &BackupObserved, now: Timestamp) -> Option<Planned> {
    let app = &observed.backup.spec.app;
    let waiting = |message| Planned::new(Progress::new(State::Waiting, Reason::WaitingForBackup, message));
    if let Some(first) = first_in_line(observed) {
        return Some(waiting(format!(
            "Waiting for Backup {first}: backups of App {app} run one after the other."
        )));
    }
    let (last, ended) = observed.last_by_hand.as_ref()?;
    let turn = ended.saturating_add(LEAST_INTERVAL).unwrap_or(Timestamp::MAX);
    let waits = now < turn
        && is_by_hand(
            &observed.backup,
            observed.release.as_deref(),
            observed.app.as_deref(),
        );
    waits.then(|| {
        waiting(format!(
            "Waiting until {}: Backup {last} has just ended, and {} lie between two backups of App {app} that are applied \
             by hand.",
            message::moment(turn),
            message::duration(LEAST_INTERVAL),
        ))
        .until(turn)
    })
}

/// Whether a Backup is that of the last run of its App's schedule, or the final one, as the App has recorded it: anybody can
/// give a Backup such a name.
fn is_of_app(backup: &Backup, app: Option<&App>) -> bool {
    let Some(status) = app.and_then(|app| app.status.as_ref()) else {
        return false;
    };
    let last_run = status.backup.as_ref().and_then(|state| state.last_run.as_ref());
    let mut recorded = last_run
        .map(|run| &run.backup)
        .into_iter()
        .chain(&status.final_backup);
    recorded.any(|name| Some(name) == backup.metadata.name.as_ref())
}

/// Whether a Backup was applied by hand: one that Fairway creates for a Release that is in progress has a part of the
/// Release's UID in its name, and one that the App takes is recorded in its status.
pub fn is_by_hand(backup: &Backup, release: Option<&Release>, app: Option<&App>) -> bool {
    let Some(release) = release else {
        return !is_of_app(backup, app);
    };
    let uid = release.metadata.uid.as_deref().unwrap_or_default();
    let name = backup.name_any();
    let is_of_release = match name.strip_prefix(&names::backup(&release.name_any(), uid, 1)) {
        None => false,
        Some("") => true,
        Some(rest) => rest
            .strip_prefix('-')
            .is_some_and(|number| number.parse::<u32>().is_ok()),
    };
    let status = release.status.as_ref().filter(|_| has_ended(release));
    let ended = status.and_then(|status| succeeded_since(&status.conditions));
    let created = backup.metadata.creation_timestamp.as_ref().map(|time| time.0);
    !is_of_release || ended.is_some_and(|ended| created > Some(ended))
}

/// Whether a Release is about to migrate, or migrates: its backup is proven, and it waits for no user.
pub fn is_about_to_migrate(release: &Release, snapshot: &Snapshot, suspended: bool) -> bool {
    let Some(status) = &release.status else {
        return false;
    };
    let has = |kind| happened(status, kind).is_some();
    let begins = has(MilestoneKind::Migrating)
        || status.evidence.backup.is_some() && (!suspended || has(MilestoneKind::HandingOver));
    let is_over = has(MilestoneKind::Migrated) || has(MilestoneKind::RollingBack) || has_ended(release);
    let mut conditions = status.conditions.iter();
    let waits_for_user = conditions.any(|condition| condition.type_ == STALLED && condition.status == "True");
    snapshot.migration.is_some()
        && begins
        && !is_over
        && !waits_for_user
        && release.metadata.deletion_timestamp.is_none()
}

/// Whether a Migration may run: it has not ended.
pub fn may_migrate(migration: &Migration) -> bool {
    let has_ended = |status: &MigrationStatus| status.outcome.is_some();
    migration.metadata.deletion_timestamp.is_none() && !migration.status.as_ref().is_some_and(has_ended)
}

/// Whether an attempt at a Backup is under way, rather than to begin or between two attempts.
pub fn is_under_way(backup: &Backup) -> bool {
    let Some(status) = &backup.status else {
        return false;
    };
    let works = status
        .attempts
        .as_ref()
        .is_some_and(|attempts| attempts.next.is_none());
    works && status.outcome.is_none() && backup.metadata.deletion_timestamp.is_none()
}

/// The Backup of the same App that runs before this one: the one that has begun, else one that names a Release, else one
/// that the App takes, else the oldest. A dump reads the whole database, so there is never more than one.
fn first_in_line(observed: &BackupObserved) -> Option<String> {
    let rank = |backup: &Backup| {
        let has_begun = backup
            .status
            .as_ref()
            .is_some_and(|status| status.attempts.is_some());
        let created = backup.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (
            !has_begun,
            backup.spec.release.is_none(),
            !is_of_app(backup, observed.app.as_deref()),
            created,
            backup.name_any(),
        )
    };
    let first = observed.others.iter().min_by_key(|other| rank(other))?;
    (rank(first) < rank(&observed.backup)).then(|| first.name_any())
}

/// Records an attempt. The store is the App's of this moment, so that a corrected one is used.
fn begin(
    observed: &BackupObserved,
    status: &mut BackupStatus,
    attempts: Attempts,
    now: Timestamp,
) -> Planned {
    let (backup_settings, _) = match ready(observed) {
        Ok(ready) => ready,
        Err(missing) => {
            let wait = missing.wait("Backup", &observed.backup.metadata, now);
            return wait.filter(|_| status.attempts.is_none()).unwrap_or_else(|| {
                let Impossible { reason, message } = missing.into();
                fail(status, reason, &message)
            });
        }
    };
    // A set keeps the level that it reached, and every attempt finds that of the one before it: a Backup is asked for less
    // meanwhile, and the next one for more.
    let before = status
        .attempts
        .as_ref()
        .map(|_| status.verify.unwrap_or_default());
    let today = backup_settings.level();
    status.verify = Some(before.map_or(today, |before| before.min(today)));
    status.attempts = Some(attempts);
    status.set = Some(BackupSet {
        store: backup_settings.store.clone(),
        path: agent::set_path(&observed.backup),
    });
    Planned::new(Progress::running(Reason::BackingUp, working(status)))
}

/// What an attempt is doing.
fn working(status: &BackupStatus) -> &'static str {
    match status.verify {
        Some(Level::Restored) => RESTORING,
        Some(Level::Decoded) | None => WORKING,
    }
}

/// How far the backup is to be proven: what the App asked for when the attempt began, or less if the App asks for less by
/// now.
fn asked(observed: &BackupObserved, status: &BackupStatus) -> Level {
    let recorded = status.verify.unwrap_or_default();
    let today = ready(observed).map(|(settings, _)| settings.level());
    today.map_or(recorded, |today| recorded.min(today))
}

/// What a backup is made from, or what is missing.
fn ready(observed: &BackupObserved) -> Result<(&BackupSettings, &Snapshot), Missing> {
    let spec = &observed.backup.spec;
    // An edit of the App may be applied together with a Backup by hand. That of a Release has waited for its App.
    let of_the_app = |what: String, fix: &str| Missing {
        reason: Reason::AppMissing,
        what,
        fix: fix.to_owned(),
        comes: match spec.release {
            None => Comes::Perhaps,
            Some(_) => Comes::Never,
        },
    };
    let Some(app) = &observed.app else {
        return Err(Missing::app(
            &spec.app,
            "Create a Backup whose spec.app names an App of this namespace.",
        ));
    };
    let Some(settings) = &app.spec.backup else {
        return Err(of_the_app(
            format!("App {} has no spec.backup", spec.app),
            "Add its store, then create a new Backup.",
        ));
    };
    let Some(snapshot) = &observed.snapshot else {
        return Err(Missing::snapshot(
            &spec.app,
            spec.release.as_deref().unwrap_or_default(),
            observed.release.as_deref(),
            "Create a Backup without spec.release.",
        ));
    };
    match snapshot.database {
        Some(_) => Ok((settings, snapshot)),
        None => Err(of_the_app(
            format!(
                "App {} has no spec.database, so there is nothing to back up",
                spec.app
            ),
            "Add it, then create a new Backup.",
        )),
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
    let child = Child::find(identity(observed), name.clone(), &observed.jobs, &observed.pods);
    let current = attempts.current;
    let create = || job_of(observed, settings, status, current);
    let attempt = Attempt {
        task: &BACKUP,
        namespace: backup.metadata.namespace.as_deref().unwrap_or_default(),
        schedule,
        deadline_for: DeadlineFor::Start,
        answers: Answers::new(&observed.refused, &observed.dry_run_passed),
        working_reason: Reason::BackingUp,
        working_message: working(status),
        blocked_reason: Reason::PodNotStarting,
        slow_start: Some(SLOW_START),
    };
    let judge = |report| judge(report, asked(observed, status));
    let advanced = attempt.advance(&mut attempts, &child, child.outcome(), create, judge);
    match advanced {
        Advanced::Done(evidence) => succeed(status, evidence),
        Advanced::Failed { reason, message } => fail(status, reason, &message),
        Advanced::UnderWay(planned) => {
            let is_blocked = child.started().is_none() && attempt.is_blocked(&attempts);
            if is_blocked && store_has_changed(observed, status) {
                return begin(observed, status, retry::following(&attempts), schedule.now);
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
    // The recorded store, so that the status never names another one than the Job uses.
    let recorded = status.set.as_ref().map(|set| set.store.clone());
    let backup_settings = BackupSettings {
        store: recorded.unwrap_or_else(|| backup_settings.store.clone()),
        verify: Some(asked(observed, status)),
        ..backup_settings.clone()
    };
    let snapshot = &with_clone_of_today(snapshot, observed);
    let release = observed
        .release
        .as_ref()
        .and_then(|release| release.status.as_ref());
    let images = release.map_or_else(|| snapshot.images(), |release| release.digests.clone());
    let backup = &observed.backup;
    let job = agent::backup_job(settings, backup, snapshot, &backup_settings, &images, attempt);
    Ok(Object::Job(job))
}

/// The snapshot with what the App says today of the server that a backup is restored into.
fn with_clone_of_today(snapshot: &Snapshot, observed: &BackupObserved) -> Snapshot {
    let today = observed.app.as_ref().and_then(|app| app.spec.database.as_ref());
    Snapshot {
        database: snapshot.database.as_ref().map(|database| Database {
            clone: today.and_then(|today| today.clone.clone()),
            ..database.clone()
        }),
        ..snapshot.clone()
    }
}

fn judge(report: BackupReport, asked: Level) -> Result<BackupEvidence, Failed> {
    match report {
        BackupReport {
            failure: Some(failure),
            ..
        } => Err(Failed {
            cause: failure.cause,
            reason: failure.reason(),
            message: failure.message,
        }),
        // What a later version of the agent calls its level is not known to be enough.
        BackupReport {
            evidence: Some(evidence),
            failure: None,
        } if Level::of(&evidence.level) < Some(asked) => Err(Failed {
            cause: Cause::Version,
            reason: Reason::AgentFailed,
            message: format!(
                "The backup is proven to the level {} and not to {}, which backup.verify asks for. Create another Backup; if \
                 that ends in the same way, set agent.image of the chart to the operator's own version.",
                message::one_line(&evidence.level),
                asked.as_str()
            ),
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
            message: "The agent's report has no outcome: the agent's image and the operator may be of different versions. Set \
                      agent.image of the chart to the operator's own version.".to_owned(),
        }),
    }
}

/// Whether the App names another store than the attempt uses: what keeps its pod from starting may be corrected.
fn store_has_changed(observed: &BackupObserved, status: &BackupStatus) -> bool {
    let used = status.set.as_ref().map(|set| &set.store);
    let desired = ready(observed).ok().map(|(settings, _)| &settings.store);
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
        proof,
    } = evidence;
    let place = status
        .set
        .as_ref()
        .map(|set| format!("{} of {}", set.path, set.store))
        .unwrap_or_default();
    let made = format!("Wrote {bytes} bytes to {place} in {seconds:.0} s, proven to the level {level}.");
    let restored = proof.as_ref().map(|proof| {
        format!(
            "Restored {} tables and {} bytes in {:.0} s.",
            proof.tables, proof.bytes, proof.seconds
        )
    });
    let message = message::sentences(std::iter::once(&made).chain(&restored).chain(&notes));
    status.outcome = Some(BackupOutcome::Succeeded);
    status.level = Some(level);
    status.bytes = Some(i64::try_from(bytes).unwrap_or(i64::MAX));
    status.proof = proof.map(|proof| RestoreProof {
        // The float's own conversion stays within the integer's limits.
        seconds: proof.seconds.round() as i64,
        tables: i64::try_from(proof.tables).unwrap_or(i64::MAX),
        bytes: i64::try_from(proof.bytes).unwrap_or(i64::MAX),
    });
    status.sha256 = Some(sha256);
    status.taken_at = Some(taken_at);
    status.server_version = Some(server_version);
    status.fingerprint = Some(fingerprint);
    status.notes = notes;
    Planned::new(Progress::succeeded(Reason::Succeeded, message))
}

/// The warning of a backup that is proven and has less than half the size of the last one.
fn shrunk(observed: &BackupObserved, status: &BackupStatus, now: Timestamp) -> Option<Desired> {
    let bytes = status
        .bytes
        .filter(|_| status.outcome == Some(BackupOutcome::Succeeded))?;
    let (last, last_bytes) = observed.last_proven.as_ref()?;
    if bytes.saturating_mul(SHRUNK) >= *last_bytes {
        return None;
    }
    let namespace = observed.backup.metadata.namespace.as_deref().unwrap_or_default();
    let until = now.saturating_add(KEPT_WHILE_CHECKED).unwrap_or(Timestamp::MAX);
    let message = format!(
        "This backup has {bytes} bytes, and Backup {last}, the last proven one of App {}, has {last_bytes}. Check whether \
         somebody deleted rows or tables, and keep the earlier backup until that is clear: {}",
        observed.backup.spec.app,
        kubectl::keep_until(namespace, last, until),
    );
    Some(Desired::new(
        WARNED,
        conditions::Status::True,
        Reason::BackupShrank,
        message,
    ))
}

#[cfg(test)]
mod tests;
