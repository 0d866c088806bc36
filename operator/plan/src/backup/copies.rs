//! The copies of a proven backup in further stores: each is attempted by itself until it is verified, for at most a week. No
//! release waits for them: the Backup has succeeded before the first one begins.

use crate::answers::Answers;
use crate::attempt::{self, Advanced, Attempt, Child, DeadlineFor, Failed, Impossible, Planned, SLOW_START};
use crate::build::agent;
use crate::conditions::{Desired, Progress, Status};
use crate::message::{self, fit};
use crate::observed::{BackupObserved, Settings};
use crate::protocol::{Cause, CopyEvidence, CopyReport};
use crate::retry::{self, Due, Schedule};
use crate::snapshot::Snapshot;
use crate::tasks::{COPY, Identity};
use crate::{Object, Step, Wake};
use fairway_crds::app::FurtherStore;
use fairway_crds::backup::{BackupCopy, BackupSet, BackupStatus, CopyState};
use fairway_crds::condition::COPY_MISSING;
use fairway_crds::release::Attempts;
use fairway_crds::store::Store;
use fairway_crds::{App, Reason};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use std::sync::Arc;

/// Time for all attempts at one copy together.
const DEADLINE: SignedDuration = SignedDuration::from_hours(7 * 24);
/// Message while an attempt is at work.
const WORKING: &str = "Copying the backup and reading the copy back.";

/// The copies that the App asks for when its backup is proven.
pub(super) fn asked(app: Option<&App>) -> Vec<BackupCopy> {
    let settings = app.and_then(|app| app.spec.backup.as_ref());
    let copies = settings.into_iter().flat_map(|settings| &settings.copies);
    copies
        .map(|FurtherStore { name, store }| BackupCopy {
            name: name.clone(),
            store: store.clone(),
            state: CopyState::Pending,
            reason: None,
            message: None,
            verified_at: None,
            attempts: None,
        })
        .collect()
}

/// What one pass does for the copies of a backup.
pub(super) struct Pass {
    /// Effects, in order.
    pub(super) steps: Vec<Step>,
    /// When to plan again although nothing was seen to change.
    pub(super) wake: Wake,
    /// Names of the Jobs that are still needed.
    pub(super) needed: Vec<String>,
}

/// Follows every copy that is neither verified nor failed.
pub(super) fn advance(
    observed: &BackupObserved,
    settings: &Settings,
    status: &mut BackupStatus,
    now: Timestamp,
) -> Pass {
    let mut pass = Pass {
        steps: Vec::new(),
        wake: Wake::OnChange,
        needed: Vec::new(),
    };
    let Some(set) = &status.set else {
        return pass;
    };
    for (index, copy) in status.copies.iter_mut().enumerate() {
        if copy.state != CopyState::Pending {
            continue;
        }
        let one = One {
            observed,
            settings,
            set,
            part: index + 1,
            schedule: Schedule {
                deadline: Some(DEADLINE),
                now,
            },
        };
        // As it was recorded: its report is read before its Job is removed.
        pass.needed
            .extend(copy.attempts.as_ref().map(|attempts| one.job(attempts)));
        let Planned {
            steps,
            progress,
            wake,
        } = one.follow(copy);
        copy.reason = Some(progress.reason.into());
        copy.message = Some(fit(&progress.message, message::LIMIT));
        pass.steps.extend(steps);
        pass.wake = pass.wake.sooner(wake);
    }
    pass
}

/// The condition of a backup of which a copy is not verified.
pub(super) fn missing(copies: &[BackupCopy]) -> Option<Desired> {
    let missing = || copies.iter().filter(|copy| copy.state != CopyState::Verified);
    let failed = missing().find(|copy| copy.state == CopyState::Failed);
    let shown = failed.or_else(|| missing().next())?;
    let reason = shown.reason.as_deref().and_then(|reason| reason.parse().ok());
    let count = match (missing().count(), copies.len()) {
        (1, 1) => "The copy of this backup is not verified.".to_owned(),
        (1, all) => format!("Of {all} copies of this backup, 1 is not verified."),
        (missing, all) => format!("Of {all} copies of this backup, {missing} are not verified."),
    };
    let why = format!(
        "Copy {} in {}: {}",
        shown.name,
        shown.store,
        shown.message.as_deref().unwrap_or(WORKING)
    );
    let message = message::sentences([count, why]);
    Some(Desired::new(
        COPY_MISSING,
        Status::True,
        reason.unwrap_or(Reason::Copying),
        message,
    ))
}

/// One copy, and what this pass sees.
struct One<'a> {
    observed: &'a BackupObserved,
    settings: &'a Settings,
    set: &'a BackupSet,
    /// Number of the copy among those of the backup, counted from 1.
    part: usize,
    schedule: Schedule,
}

impl One<'_> {
    /// Name of the Job of an attempt.
    fn job(&self, attempts: &Attempts) -> String {
        COPY.child_of_part(&self.observed.backup.name_any(), self.part, attempts.current)
    }

    fn follow(&self, copy: &mut BackupCopy) -> Planned {
        match self.schedule.due(copy.attempts.as_ref()) {
            Due::Begin(attempts) => self.begin(copy, attempts),
            Due::Paused { next, message } => attempt::paused(next, message),
            Due::Current(attempts) => self.attend(copy, attempts),
        }
    }

    /// Records an attempt. The store is the App's of this moment, so that a corrected one is used.
    fn begin(&self, copy: &mut BackupCopy, attempts: Attempts) -> Planned {
        match self.desired(copy) {
            Ok(store) => {
                copy.store = store.clone();
                copy.attempts = Some(attempts);
                Planned::new(Progress::running(Reason::Copying, WORKING))
            }
            Err(Impossible { reason, message }) => fail(copy, reason, &message),
        }
    }

    /// The store of a copy as the App names it today.
    fn desired(&self, copy: &BackupCopy) -> Result<&Store, Impossible> {
        let app = &self.observed.backup.spec.app;
        let gone = |message| Impossible {
            reason: Reason::AppMissing,
            message,
        };
        let Some(found) = &self.observed.app else {
            return Err(gone(format!(
                "App {app} does not exist or is being deleted, so that nothing is copied any more."
            )));
        };
        let mut copies = found.spec.backup.iter().flat_map(|settings| &settings.copies);
        let named = copies.find(|named| named.name == copy.name);
        named.map(|named| &named.store).ok_or_else(|| {
            gone(format!(
                "App {app} does not name {} in spec.backup.copies any more.",
                copy.name
            ))
        })
    }

    /// Follows the attempt under way.
    fn attend(&self, copy: &mut BackupCopy, mut attempts: Attempts) -> Planned {
        let observed = self.observed;
        let backup = &observed.backup;
        let identity = Identity::OwnerUid(backup.metadata.uid.as_deref().unwrap_or_default());
        let child = Child::find(identity, self.job(&attempts), &observed.jobs, &observed.pods);
        let current = attempts.current;
        let create = || self.job_of(copy, current);
        let attempt = Attempt {
            task: &COPY,
            namespace: backup.metadata.namespace.as_deref().unwrap_or_default(),
            schedule: self.schedule,
            deadline_for: DeadlineFor::Start,
            answers: Answers::new(&observed.refused, &observed.dry_run_passed),
            working_reason: Reason::Copying,
            working_message: WORKING,
            blocked_reason: Reason::PodNotStarting,
            slow_start: Some(SLOW_START),
        };
        match attempt.advance(&mut attempts, &child, child.outcome(), create, judge) {
            Advanced::Done(evidence) => self.verified(copy, &evidence),
            Advanced::Failed { reason, message } => fail(copy, reason, &message),
            Advanced::UnderWay(planned) => {
                let has_changed = self.desired(copy).is_ok_and(|desired| *desired != copy.store);
                if planned.progress.reason == Reason::PodNotStarting && has_changed {
                    return self.begin(copy, retry::following(&attempts));
                }
                copy.attempts = Some(attempts);
                planned
            }
        }
    }

    fn job_of(&self, copy: &BackupCopy, attempt: u32) -> Result<Object, Impossible> {
        // Nothing more is started for an App that is gone, nor for a copy that it does not name any more.
        self.desired(copy)?;
        let BackupObserved {
            backup,
            snapshot,
            app,
            ..
        } = self.observed;
        // That of the Release may have been pruned by now; it says no more here than where the pod runs.
        let of_app = || app.as_ref().map(|app| Arc::new(Snapshot::of(&app.spec)));
        let Some(snapshot) = snapshot.clone().or_else(of_app) else {
            return Err(Impossible {
                reason: Reason::SnapshotMissing,
                message: format!("Nothing says where the pod of copy {} is to run.", copy.name),
            });
        };
        let Self {
            settings, set, part, ..
        } = self;
        let job = agent::copy_job(settings, backup, &snapshot, set, copy, *part, attempt);
        Ok(Object::Job(job))
    }

    fn verified(&self, copy: &mut BackupCopy, evidence: &CopyEvidence) -> Planned {
        let CopyEvidence { bytes, note } = evidence;
        let made = format!(
            "Copied {bytes} bytes to {} of {}, and read them back.",
            self.set.path, copy.store
        );
        copy.state = CopyState::Verified;
        copy.verified_at = Some(message::moment(self.schedule.now));
        let message = message::sentences(std::iter::once(&made).chain(note));
        Planned::new(Progress::succeeded(Reason::Succeeded, message))
    }
}

fn judge(report: CopyReport) -> Result<CopyEvidence, Failed> {
    match report {
        CopyReport {
            failure: Some(failure),
            ..
        } => Err(Failed {
            cause: failure.cause,
            reason: failure.reason(),
            message: failure.message,
        }),
        CopyReport {
            evidence: Some(evidence),
            failure: None,
        } => Ok(evidence),
        CopyReport {
            evidence: None,
            failure: None,
        } => Err(Failed {
            cause: Cause::Environment,
            reason: Reason::AgentFailed,
            message: "The agent's report has no outcome: the agent's image and the operator may be of different versions.".to_owned(),
        }),
    }
}

fn fail(copy: &mut BackupCopy, reason: Reason, message: &str) -> Planned {
    copy.state = CopyState::Failed;
    Planned::new(Progress::failed(reason, message))
}
