//! The removal of a Backup that retention does not keep: of its set in the store first, then of the Backup.
//!
//! | recorded | planned |
//! |---|---|
//! | nothing keeps it | that it is to be removed; from then on it counts as proof for nothing, and nothing brings it back |
//! | it is to be removed | the first attempt, unless something holds it up |
//! | an attempt | its Job, which removes the set |
//! | the set is gone | the deletion of the Backup, if nobody has changed it since |
//! | the store refuses | another attempt when it no longer does, or a day later |
//!
//! Each is recorded before what follows from it is done. Data is only removed while its App wants that, and while a newer
//! verified backup is there: otherwise it waits, also where it is decided already. Sets are removed one after the other.

use super::jobs::{identity, leftovers};
use crate::answers::Answers;
use crate::attempt::{
    self, Advanced, Attempt, Child, DeadlineFor, Failed, Found, Impossible, Planned, SLOW_START,
};
use crate::build::agent;
use crate::conditions::{self, Desired, Progress, State, Status};
use crate::message::{self, moment};
use crate::observed::{BackupObserved, Settings};
use crate::proof::taken_at;
use crate::protocol::{Cause, PruneOutcome, PruneReport};
use crate::readings::has_finished;
use crate::retention::{Candidate, has_newer};
use crate::retry::{Due, Schedule};
use crate::snapshot::Snapshot;
use crate::tasks::PRUNE;
use crate::{Decision, Object, ObjectRef, Step, labels, object::Kind};
use fairway_crds::backup::{BackupOutcome, BackupSet, BackupStatus, Removal, RemovalState};
use fairway_crds::condition::{READY, SUCCEEDED};
use fairway_crds::release::Attempts;
use fairway_crds::{Backup, Reason};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

/// Time for attempts one soon after the other.
const DEADLINE: SignedDuration = SignedDuration::from_hours(1);
/// Time after which a store is asked again that has failed for that long, or refuses and does not say until when.
const AGAIN: SignedDuration = SignedDuration::from_hours(24);
/// Time for attempts on a later day: what cannot begin then holds up the others no longer than that.
const LATER_DEADLINE: SignedDuration = SignedDuration::from_mins(5);
/// Time after which a store is asked again, whatever date it says.
const LATEST: SignedDuration = SignedDuration::from_hours(30 * 24);
/// Message while an attempt is at work.
const WORKING: &str =
    "Removing the set of this backup from the store: backup.keep of the App does not keep it.";

/// What a removal waits for.
struct Hold {
    message: String,
    until: Option<Timestamp>,
}

impl Hold {
    fn new(message: String) -> Self {
        Self { message, until: None }
    }

    fn planned(self) -> Planned {
        let Self { message, until } = self;
        let message = message::sentences([
            "This backup is to be removed: backup.keep of the App did not keep it.",
            &message,
        ]);
        let planned = Planned::new(Progress::new(State::Waiting, Reason::RemovingBackup, message));
        match until {
            Some(until) => planned.until(until),
            None => planned,
        }
    }
}

/// Records that a Backup which nothing keeps is to be removed, unless that has to wait.
pub(super) fn decide(observed: &BackupObserved, status: &mut BackupStatus, now: Timestamp) {
    let waits = |other: &Backup| {
        let mut candidates = observed.candidates.iter();
        candidates.any(|candidate| candidate.name == other.name_any() && candidate.is_held(now))
    };
    let others = || {
        let mut others = observed.removals.iter();
        others.any(|other| is_at_work(other) || is_in_line(other, now) && !waits(other))
    };
    if on_hold(observed, now).is_some() || others() {
        return;
    }
    // One that failed has no set in its status, but may have left something in its place.
    let place = || {
        let settings = observed.app.as_ref()?.spec.backup.as_ref()?;
        Some(BackupSet {
            store: settings.store.clone(),
            path: agent::set_path(&observed.backup),
        })
    };
    let Some(set) = status.set.clone().or_else(place) else {
        return;
    };
    let progress = Progress::running(Reason::RemovingBackup, WORKING);
    describe(observed, status, &progress, now);
    status.removal = Some(Removal {
        since: message::to_seconds(now),
        state: RemovalState::Removing,
        set,
        objects: 0,
        bytes: 0,
        until: None,
        note: None,
        attempts: None,
    });
}

/// Decides the next pass of a Backup that is to be removed.
pub(super) fn plan(
    observed: &BackupObserved,
    settings: &Settings,
    mut status: BackupStatus,
    mut removal: Removal,
    now: Timestamp,
) -> Decision<BackupStatus> {
    let Planned {
        mut steps,
        progress,
        wake,
    } = advance(observed, settings, &mut removal, now);
    status.kept_because.clear();
    describe(observed, &mut status, &progress, now);
    status.removal = Some(removal);
    // What has become of the set is stored before the Backup goes.
    let is_stored = observed.backup.status.as_ref() == Some(&status);
    steps.retain(|step| is_stored || !matches!(step, Step::Delete(target) if target.kind == Kind::Backup));
    Decision {
        steps,
        status,
        wake,
        rung: None,
    }
}

/// What is said of a Backup that was removed, in an Event of its App.
pub fn removed(backup: &Backup) -> Option<String> {
    let removal = backup.status.as_ref()?.removal.as_ref()?;
    let of = taken_at(backup).map(|at| format!(" of {}", moment(at)));
    let removed = format!(
        "Retention has removed Backup {}{}: {} files or objects with {} bytes of {} in {}.",
        backup.name_any(),
        of.unwrap_or_default(),
        removal.objects,
        removal.bytes,
        removal.set.path,
        removal.set.store,
    );
    Some(message::sentences([
        &*removed,
        removal.note.as_deref().unwrap_or_default(),
    ]))
}

/// The conditions of a Backup that is to be removed: how it ended stays, and it is not ready to be used.
fn describe(observed: &BackupObserved, status: &mut BackupStatus, progress: &Progress, now: Timestamp) {
    let Progress {
        state,
        reason,
        message,
    } = progress;
    let ended = match status.outcome {
        Some(BackupOutcome::Succeeded) => Status::True,
        Some(BackupOutcome::Failed) | None => Status::False,
    };
    let ready = format!(
        "Backup {} is to be removed and counts as proof for nothing. Condition Succeeded says more.",
        observed.backup.name_any()
    );
    let mut desired = vec![
        Desired::new(SUCCEEDED, ended, *reason, message),
        Desired::new(READY, Status::False, *reason, ready),
    ];
    desired.extend(conditions::passing(*state, *reason, message));
    let generation = observed.backup.metadata.generation;
    status.conditions = conditions::set(&status.conditions, desired, generation, now);
}

fn advance(observed: &BackupObserved, settings: &Settings, removal: &mut Removal, now: Timestamp) -> Planned {
    if matches!(removal.state, RemovalState::Removed | RemovalState::Hidden) {
        let backup = ObjectRef::of(Kind::Backup, &observed.backup.metadata);
        return gone().with(backup.map(Step::Delete));
    }
    let is_first_day = now.duration_since(removal.since) < AGAIN;
    let schedule = Schedule {
        deadline: Some(if is_first_day { DEADLINE } else { LATER_DEADLINE }),
        now,
    };
    match schedule.due(removal.attempts.as_ref()) {
        Due::Current(attempts) => attend(observed, settings, removal, schedule, attempts),
        Due::Paused { next, message } => {
            let is_short = removal.state == RemovalState::Removing
                && removal
                    .attempts
                    .as_ref()
                    .is_some_and(|attempts| next < schedule.end(attempts));
            match is_short {
                true => attempt::paused(next, message),
                false => postponed(removal, next).after(leftovers(observed, None)),
            }
        }
        Due::Begin(attempts) => match on_hold(observed, now).or_else(|| behind(observed)) {
            Some(hold) => hold.planned(),
            None => {
                let since = match schedule.is_over(&attempts) {
                    true => now,
                    false => attempts.since,
                };
                removal.attempts = Some(Attempts { since, ..attempts });
                working(removal)
            }
        },
    }
}

/// What keeps a set from being removed now, whatever was decided before.
fn on_hold(observed: &BackupObserved, now: Timestamp) -> Option<Hold> {
    let backup = &observed.backup;
    let name = backup.name_any();
    let of = &backup.spec.app;
    let Some(app) = &observed.app else {
        return Some(Hold::new(format!(
            "App {of} does not exist or is being deleted, and backups outlive their App."
        )));
    };
    // Which Release serves is not known then.
    let is_reconciled = app
        .status
        .as_ref()
        .and_then(|status| status.observed_generation)
        .is_some_and(|generation| generation > 0);
    if !is_reconciled {
        return Some(Hold::new(format!("App {of} is not reconciled yet.")));
    }
    if app.spec.suspend {
        return Some(Hold::new(format!(
            "Nothing is removed while spec.suspend of App {of} is true."
        )));
    }
    if app
        .spec
        .backup
        .as_ref()
        .is_none_or(|backup| backup.keep.is_none())
    {
        return Some(Hold::new(format!(
            "Nothing is removed while App {of} has no spec.backup.keep."
        )));
    }
    if let Some(until) = backup.spec.keep_until.filter(|until| *until > now) {
        return Some(Hold {
            message: format!("It stays as it is until {}, its keepUntil.", moment(until)),
            until: Some(until),
        });
    }
    let own = observed
        .candidates
        .iter()
        .find(|candidate| candidate.name == name);
    if own.is_some_and(|own| own.is_of_earlier_app) {
        return Some(Hold::new(format!(
            "It was taken of an earlier App {of}, so its set stays. To forget it, delete this Backup."
        )));
    }
    // One on a node that was lost may come back, and would publish the set once more.
    let writer = observed.pods.iter().find(|pod| is_writing(pod));
    if let Some(writer) = writer {
        return Some(Hold::new(format!(
            "Pod {} of an attempt to take it has not ended, and may still write.",
            writer.name_any()
        )));
    }
    let holder = own.and_then(|own| own.held_by.first());
    if let Some(holder) = holder {
        return Some(Hold::new(format!("{holder} refers to it.")));
    }
    let is_replaced = age(backup).is_some_and(|age| has_newer(&observed.candidates, (age, &name), now));
    (!is_replaced).then(|| Hold::new(format!("No newer backup of App {of} is verified.")))
}

/// Whether this is a pod that takes a backup, and has not ended.
fn is_writing(pod: &Pod) -> bool {
    let work = pod.labels().get(labels::WORK);
    work.is_some_and(|work| work == labels::Work::Backup.as_str()) && !has_finished(pod)
}

/// When a Backup was taken, or failed. What is stored of its removal does not change that.
fn age(backup: &Backup) -> Option<Timestamp> {
    let status = backup.status.as_ref()?;
    match status.outcome? {
        BackupOutcome::Succeeded => taken_at(backup),
        BackupOutcome::Failed => conditions::succeeded_since(&status.conditions),
    }
}

/// The wait for another set of the App that is being removed.
fn behind(observed: &BackupObserved) -> Option<Hold> {
    let other = observed.removals.iter().find(|other| is_at_work(other))?;
    Some(Hold::new(format!(
        "The set of Backup {} is removed first.",
        other.name_any()
    )))
}

/// The removal of a Backup that is not over, if it is not being deleted by a user.
fn removal_of(backup: &Backup) -> Option<&Removal> {
    let removal = backup.status.as_ref()?.removal.as_ref()?;
    let is_over = matches!(removal.state, RemovalState::Removed | RemovalState::Hidden);
    (!is_over && backup.metadata.deletion_timestamp.is_none()).then_some(removal)
}

/// Whether an attempt to remove the set of a Backup is under way.
fn is_at_work(backup: &Backup) -> bool {
    let attempts = removal_of(backup).and_then(|removal| removal.attempts.as_ref());
    attempts.is_some_and(|attempts| attempts.next.is_none())
}

/// Whether an attempt has failed a short while ago, and another follows: as long as a store fails, no more is decided.
fn is_tried_again_soon(backup: &Backup) -> bool {
    let attempts = removal_of(backup).and_then(|removal| removal.attempts.as_ref());
    attempts.is_some_and(|attempts| {
        let end = attempts.since.saturating_add(DEADLINE).unwrap_or(Timestamp::MAX);
        attempts.next.is_some_and(|next| next < end)
    })
}

/// Whether the set of a Backup is being removed, or is next.
fn is_in_line(backup: &Backup, now: Timestamp) -> bool {
    let has_begun = removal_of(backup).map(|removal| removal.attempts.is_some());
    match has_begun {
        None => false,
        Some(true) => is_at_work(backup) || is_tried_again_soon(backup),
        Some(false) => backup.spec.keep_until.is_none_or(|until| until <= now),
    }
}

/// What the retention of the other Backups of its App sees of a Backup. Other changes of one that has ended do not concern them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenByOthers {
    /// Without what refers to it: that is no change of the Backup.
    candidate: Candidate,
    is_being_deleted: bool,
    /// Whether the others wait for its removal, once its `keepUntil` has passed.
    is_in_line: bool,
}

impl SeenByOthers {
    /// What the others see of this Backup.
    pub fn of(backup: &Backup) -> Self {
        Self {
            candidate: Candidate::of(backup, &[], None),
            is_being_deleted: backup.metadata.deletion_timestamp.is_some(),
            is_in_line: is_in_line(backup, Timestamp::MAX),
        }
    }
}

/// Follows the attempt under way.
fn attend(
    observed: &BackupObserved,
    settings: &Settings,
    removal: &mut Removal,
    schedule: Schedule,
    mut attempts: Attempts,
) -> Planned {
    let backup = &observed.backup;
    let name = PRUNE.child(&backup.name_any(), attempts.current);
    let child = Child::find(identity(observed), name.clone(), &observed.jobs, &observed.pods);
    let has_begun =
        !matches!(child.found, Found::Nothing) || agent::pods_of(&child.pods, &name).next().is_some();
    if !has_begun && let Some(hold) = on_hold(observed, schedule.now) {
        // It begins again as another attempt, and holds up no other Backup until then.
        attempts.next = Some(schedule.now);
        removal.attempts = Some(attempts);
        return hold.planned();
    }
    let attempt = Attempt {
        task: &PRUNE,
        namespace: backup.metadata.namespace.as_deref().unwrap_or_default(),
        schedule,
        deadline_for: DeadlineFor::Start,
        answers: Answers::new(&observed.refused, &observed.dry_run_passed),
        working_reason: Reason::RemovingBackup,
        working_message: WORKING,
        blocked_reason: Reason::PodNotStarting,
        slow_start: Some(SLOW_START),
    };
    let current = attempts.current;
    let create = || job_of(observed, settings, removal, current);
    let advanced = attempt.advance(&mut attempts, &child, child.outcome(), create, judge);
    match advanced {
        Advanced::Done(end) => conclude(removal, attempts, end, schedule.now),
        Advanced::Failed { reason, message } => {
            let next = schedule.now.saturating_add(AGAIN).unwrap_or(Timestamp::MAX);
            removal.attempts = Some(Attempts {
                next: Some(next),
                reason: Some(reason.into()),
                message: Some(message),
                ..attempts
            });
            postponed(removal, next)
        }
        Advanced::UnderWay(planned) => {
            removal.attempts = Some(attempts);
            let mut planned = planned.after(leftovers(observed, Some(&name)));
            if planned.progress.reason == Reason::RemovingBackup {
                planned.progress = working(removal).progress;
            }
            planned
        }
    }
}

fn job_of(
    observed: &BackupObserved,
    settings: &Settings,
    removal: &Removal,
    attempt: u32,
) -> Result<Object, Impossible> {
    let backup = &observed.backup;
    let Some(app) = &observed.app else {
        return Err(Impossible {
            reason: Reason::AppMissing,
            message: format!("App {} does not exist or is being deleted.", backup.spec.app),
        });
    };
    // Credentials may have moved to another Secret since the backup was taken.
    let recorded = &removal.set.store;
    let current = app.spec.backup.as_ref().map(|settings| &settings.store);
    let store = current
        .filter(|current| current.is_same_place(recorded))
        .unwrap_or(recorded);
    let set = BackupSet {
        store: store.clone(),
        path: removal.set.path.clone(),
    };
    let snapshot = Snapshot::of(&app.spec);
    Ok(Object::Job(agent::prune_job(
        settings, backup, &snapshot, &set, attempt,
    )))
}

/// What an attempt came to whose agent could say it.
struct End {
    outcome: PruneOutcome,
    objects: u64,
    bytes: u64,
    until: Option<Timestamp>,
    note: Option<String>,
}

fn judge(report: PruneReport) -> Result<End, Failed> {
    let PruneReport {
        outcome,
        objects,
        bytes,
        until,
        note,
        failure,
    } = report;
    match (outcome, failure) {
        (_, Some(failure)) => Err(Failed {
            cause: failure.cause,
            reason: failure.reason(),
            message: failure.message,
        }),
        (Some(outcome), None) => Ok(End {
            outcome,
            objects,
            bytes,
            until: until.and_then(|until| until.parse().ok()),
            note,
        }),
        (None, None) => Err(Failed {
            cause: Cause::Environment,
            reason: Reason::AgentFailed,
            message: "The agent's report has no outcome: the agent's image and the operator may be of different versions."
                .to_owned(),
        }),
    }
}

/// Records what an attempt came to.
fn conclude(removal: &mut Removal, attempts: Attempts, end: End, now: Timestamp) -> Planned {
    let End {
        outcome,
        objects,
        bytes,
        until,
        note,
    } = end;
    let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    removal.objects = removal.objects.saturating_add(number(objects));
    removal.bytes = removal.bytes.saturating_add(number(bytes));
    removal.until = until;
    removal.note = note;
    removal.state = match outcome {
        PruneOutcome::Removed => RemovalState::Removed,
        PruneOutcome::Hidden => RemovalState::Hidden,
        PruneOutcome::Retained => RemovalState::Retained,
    };
    if removal.state != RemovalState::Retained {
        removal.attempts = Some(attempts);
        return gone();
    }
    let tomorrow = now.saturating_add(AGAIN).unwrap_or(Timestamp::MAX);
    let latest = now.saturating_add(LATEST).unwrap_or(Timestamp::MAX);
    let next = until
        .filter(|until| *until > now)
        .map_or(tomorrow, |until| until.min(latest));
    removal.attempts = Some(Attempts {
        next: Some(next),
        reason: Some(Reason::BackupRetained.into()),
        message: None,
        ..attempts
    });
    postponed(removal, next)
}

/// The wait until the store is asked again.
fn postponed(removal: &Removal, next: Timestamp) -> Planned {
    let failed = removal
        .attempts
        .as_ref()
        .and_then(|attempts| attempts.message.as_deref());
    let (reason, why) = match (removal.state, failed) {
        (RemovalState::Removing, failed) => (Reason::WaitingForEnvironment, failed),
        (_, Some(failed)) => (Reason::BackupRetained, Some(failed)),
        (_, None) => (Reason::BackupRetained, removal.note.as_deref()),
    };
    let again = format!("Fairway asks again at {}.", moment(next));
    let message = message::sentences([why.unwrap_or("The store did not remove the set."), &again]);
    Planned::new(Progress::new(State::Waiting, reason, message)).until(next)
}

/// An attempt at work. One at a set that the store retains is nobody's news.
fn working(removal: &Removal) -> Planned {
    let note = removal.note.as_deref();
    match (removal.state, note) {
        (RemovalState::Retained, Some(note)) => {
            let message = message::sentences([note, "Fairway asks again now."]);
            Planned::new(Progress::running(Reason::BackupRetained, message))
        }
        _ => Planned::new(Progress::running(Reason::RemovingBackup, WORKING)),
    }
}

/// The deletion of a Backup whose set is gone.
fn gone() -> Planned {
    Planned::new(Progress::running(
        Reason::RemovingBackup,
        "The set of this backup is removed from the store. The Backup is deleted next.",
    ))
}

#[cfg(test)]
mod tests;
