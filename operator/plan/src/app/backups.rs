//! Scheduled backups of an App: one Backup for each run of the schedule, and how long ago one was verified.
//!
//! A run has one Backup, whose name says which: one that was created before a crash is found again. Of the runs that went by
//! while nobody was there, the last is caught up on. While a scheduled Backup is under way no other begins.

use crate::build::control;
use crate::kubectl::{self, Resource};
use crate::message::{self, moment, to_seconds};
use crate::names;
use crate::observed::{AppObserved, refusal};
use crate::proof::{ended_at, is_verified, taken_at};
use crate::schedule::Schedule;
use crate::{Object, Step, Wake};
use fairway_crds::Reason;
use fairway_crds::app::{
    AppStatus, BackupSchedule, BackupState, CountedSchedule, ScheduledRun, VerifiedBackup,
};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

/// Time in which a run has to lead to a verified backup, if the next run is not earlier: that of all attempts of a Backup.
const LATEST: SignedDuration = SignedDuration::from_hours(24);

/// What a pass of an App does about its scheduled backups, and what it says of them.
#[derive(Debug)]
pub(super) struct Backups {
    /// The Backup to create.
    pub(super) steps: Vec<Step>,
    /// When a run begins, or is overdue.
    pub(super) wake: Wake,
    /// Why no scheduled backup is taken, which a user has to fix.
    pub(super) trouble: Option<(Reason, String)>,
    /// That no backup was verified in time.
    pub(super) overdue: Option<String>,
}

impl Backups {
    fn none() -> Self {
        Self {
            steps: Vec::new(),
            wake: Wake::OnChange,
            trouble: None,
            overdue: None,
        }
    }
}

/// Decides what is due of the schedule, and records it.
pub(super) fn plan(observed: &AppObserved, status: &mut AppStatus, now: Timestamp) -> Backups {
    let app = &observed.app;
    let asked = app
        .spec
        .backup
        .as_ref()
        .and_then(|backup| backup.schedule.as_ref());
    let Some(asked) = asked else {
        status.backup = None;
        return Backups::none();
    };
    let mut state = status.backup.take().unwrap_or_default();
    state.last_verified = newest_verified(observed, now);
    state.next_runs.clear();
    let namespace = app.metadata.namespace.as_deref().unwrap_or_default();
    let backups = match Schedule::of(asked, namespace, &app.name_any()) {
        Err(invalid) => {
            state.schedule = None;
            Backups {
                trouble: Some((Reason::ScheduleInvalid, invalid.to_string())),
                ..Backups::none()
            }
        }
        // Runs of this time do not count when it is over.
        Ok(_) if app.spec.suspend => {
            state.schedule = None;
            Backups::none()
        }
        Ok(schedule) => {
            let view = View {
                schedule: &schedule,
                since: counted_since(&mut state, asked, now),
                now,
                latest: schedule.latest(now),
            };
            follow(observed, &mut state, &view)
        }
    };
    status.backup = Some(state);
    backups
}

/// Since when runs of this schedule count. One that is new or was edited begins now, and so does one that was seen first by a
/// clock that was ahead.
fn counted_since(state: &mut BackupState, asked: &BackupSchedule, now: Timestamp) -> Timestamp {
    let counted = state.schedule.as_ref().filter(|counted| {
        counted.cron == asked.cron && counted.time_zone == asked.time_zone && counted.since <= now
    });
    let since = counted.map_or_else(|| to_seconds(now), |counted| counted.since);
    state.schedule = Some(CountedSchedule {
        cron: asked.cron.clone(),
        time_zone: asked.time_zone.clone(),
        since,
    });
    since
}

/// The schedule at the time of a pass.
struct View<'a> {
    schedule: &'a Schedule,
    since: Timestamp,
    now: Timestamp,
    /// The last run whose time has come.
    latest: Option<Timestamp>,
}

impl View<'_> {
    /// The moment after which runs have not had their Backup. A run that a clock recorded which was ahead does not count.
    fn handled(&self, state: &BackupState) -> Timestamp {
        let last = state.last_run.as_ref().map(|run| run.at);
        last.filter(|last| *last <= self.now)
            .map_or(self.since, |last| last.max(self.since))
    }

    /// The last run that should have begun and has no Backup yet.
    fn due(&self, state: &BackupState) -> Option<Timestamp> {
        let latest = self.latest?;
        let run = if self.schedule.start(latest) <= self.now {
            latest
        } else {
            self.before(latest)?
        };
        (run > self.handled(state)).then_some(run)
    }

    /// The run before that one.
    fn before(&self, run: Timestamp) -> Option<Timestamp> {
        let moment = run.checked_sub(SignedDuration::from_secs(1)).ok()?;
        self.schedule.latest(moment)
    }

    /// When the next three runs begin.
    fn next_runs(&self, state: &BackupState) -> Vec<Timestamp> {
        let handled = self.handled(state);
        let is_to_begin = |run: &Timestamp| self.schedule.start(*run) > self.now && *run > handled;
        let first = self.latest.filter(is_to_begin);
        let first = first.or_else(|| self.schedule.next(self.now));
        let runs = std::iter::successors(first, |run| self.schedule.next(*run));
        runs.take(3).map(|run| self.schedule.start(run)).collect()
    }

    /// By when a run has to have led to a verified backup.
    fn deadline(&self, run: Timestamp) -> Timestamp {
        let start = self.schedule.start(run);
        let latest = start.checked_add(LATEST).unwrap_or(Timestamp::MAX);
        self.schedule.next(run).map_or(latest, |next| next.min(latest))
    }
}

fn follow(observed: &AppObserved, state: &mut BackupState, view: &View) -> Backups {
    let app = observed.app.name_any();
    let (mut steps, mut trouble) = (Vec::new(), None);
    if let Some(run) = view.due(state) {
        let backup = control::scheduled_backup(&observed.app, run);
        let name = backup.name_any();
        let exists = observed.backups.iter().any(|backup| backup.name_any() == name);
        let step = Step::Create(Box::new(Object::Backup(backup)));
        let refused = refusal(&observed.refused, &step).filter(|_| !exists);
        if let Some(refused) = refused {
            trouble = Some((Reason::WriteRefused, refused.retried(&step)));
        } else if exists || !is_under_way(observed, &app) {
            steps.extend((!exists).then_some(step));
            state.last_run = Some(ScheduledRun {
                at: run,
                backup: name,
            });
        }
    }
    state.next_runs = view.next_runs(state);
    let (overdue, overdue_at) = overdue(observed, state, view);
    let wakes = state.next_runs.first().copied().into_iter().chain(overdue_at);
    Backups {
        steps,
        wake: wakes.min().map_or(Wake::OnChange, Wake::At),
        trouble,
        overdue,
    }
}

/// Whether a scheduled Backup has not ended.
fn is_under_way(observed: &AppObserved, app: &str) -> bool {
    observed.backups.iter().any(|backup| {
        let status = backup.status.as_ref();
        let has_ended = status.is_some_and(|status| status.outcome.is_some());
        !has_ended
            && backup.metadata.deletion_timestamp.is_none()
            && names::scheduled_run(app, &backup.name_any()).is_some()
    })
}

/// The verified backup that was taken last; one that was taken by a clock that was ahead only if there is no other.
fn newest_verified(observed: &AppObserved, now: Timestamp) -> Option<VerifiedBackup> {
    let verified = observed.backups.iter().filter(|backup| is_verified(backup));
    let taken = verified.filter_map(|backup| Some((taken_at(backup)?, backup)));
    let (taken_at, backup) =
        taken.max_by_key(|(taken, backup)| (*taken <= now, *taken, backup.name_any()))?;
    let level = backup.status.as_ref().and_then(|status| status.level.clone());
    Some(VerifiedBackup {
        name: backup.name_any(),
        taken_at,
        level: level.unwrap_or_default(),
    })
}

/// That no backup was verified in time, and when the run under way is overdue.
fn overdue(observed: &AppObserved, state: &BackupState, view: &View) -> (Option<String>, Option<Timestamp>) {
    // By the operator's clock, as the runs are: the clock of a database server may differ.
    let verified = observed.backups.iter().filter(|backup| is_verified(backup));
    let times = verified.flat_map(|backup| [ended_at(backup), taken_at(backup)]);
    let verified = times.flatten().filter(|at| *at <= view.now).max();
    let is_missed = |run: &Timestamp| *run > view.since && verified.is_none_or(|verified| verified < *run);
    let Some(latest) = view.latest else {
        return (None, None);
    };
    let (over, open) = if view.deadline(latest) <= view.now {
        (Some(latest), None)
    } else {
        (view.before(latest), Some(latest))
    };
    let message = over.filter(is_missed).map(|run| missed(observed, state, run));
    let open = open.filter(is_missed).map(|run| view.deadline(run));
    (message, open)
}

fn missed(observed: &AppObserved, state: &BackupState, run: Timestamp) -> String {
    let missed = format!(
        "No backup has been verified since {}, when the schedule asked for one.",
        moment(run)
    );
    let newest = match &state.last_verified {
        Some(newest) => format!(
            "The newest verified one is Backup {} of {}.",
            newest.name,
            moment(newest.taken_at)
        ),
        None => "There is no verified backup.".to_owned(),
    };
    let namespace = observed.app.metadata.namespace.as_deref().unwrap_or_default();
    let why = state.last_run.as_ref().map(|last| {
        if is_gone(observed, last) {
            return format!(
                "Backup {} of the last run of the schedule was deleted.",
                last.backup
            );
        }
        let command = kubectl::describe(namespace, Resource::Backup(&last.backup));
        format!("To see how the last run of the schedule went: {command}")
    });
    message::sentences([missed, newest, why.unwrap_or_default()])
}

/// Whether the Backup of a run that was recorded by an earlier pass does not exist.
fn is_gone(observed: &AppObserved, run: &ScheduledRun) -> bool {
    let status = observed.app.status.as_ref();
    let recorded = status.and_then(|status| status.backup.as_ref()?.last_run.as_ref());
    let mut backups = observed.backups.iter();
    recorded == Some(run) && !backups.any(|backup| backup.name_any() == run.backup)
}

#[cfg(test)]
mod tests;
