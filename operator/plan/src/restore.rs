//! The Restore: its backup becomes a database beside the one in use, and after the user's agreement takes its place.
//!
//! | recorded in status | what is done |
//! |---|---|
//! | nothing | the set is restored beside the database in use, proven, and what would be lost is counted |
//! | `prepared` | the user is asked |
//! | `agreed` | the restored database is put in place; where more would be lost than that, the user is asked again |
//! | `replaced` | nothing more: it has succeeded |
//! | `discarding` | the restored database is removed: the restore has failed or was aborted |
//!
//! Each step is a Job of its own number, recorded before the Job exists. What is recorded is recorded before its effect.

mod agreement;
mod source;

use crate::answers::Answers;
use crate::attempt::{self, Advanced, Attempt, Child, DeadlineFor, Failed, Planned, SLOW_START};
use crate::conditions::{self, Progress, State};
use crate::kubectl;
use crate::message::{self, duration, moment};
use crate::observed::{RestoreObserved, Settings};
use crate::protocol::{self, Cause, Loss, PreparedDatabase, RestoreReport, RestoreStep, SwappedDatabase};
use crate::requester;
use crate::retry::{Due, Schedule};
use crate::tasks::{Identity, RESTORE};
use crate::{Decision, Object, Step, Wake};
use agreement::Agreement;
use fairway_crds::release::{Attempts, annotation};
use fairway_crds::restore::{
    ReplacedDatabase, RestoreEnd, RestoreLoss, RestoreOutcome, RestoreStatus, RestoredDatabase, TableLoss,
};
use fairway_crds::{Reason, Restore};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

/// Time for all attempts to restore the set beside the database in use, and for those to remove it again.
const DEADLINE: SignedDuration = SignedDuration::from_hours(24);
/// Time for all attempts to put the restored database in place.
const REPLACE_DEADLINE: SignedDuration = SignedDuration::from_hours(1);
/// Time for which the user's agreement is waited for: a restored database takes as much room as the one in use.
const AGREEMENT_DEADLINE: SignedDuration = SignedDuration::from_hours(24);

/// The step that is next, as the status says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Preparing,
    Asking,
    Replacing,
    Discarding,
}

impl Stage {
    fn of(status: &RestoreStatus) -> Self {
        match status {
            RestoreStatus {
                discarding: Some(_), ..
            } => Self::Discarding,
            RestoreStatus { prepared: None, .. } => Self::Preparing,
            RestoreStatus { agreed: None, .. } => Self::Asking,
            _ => Self::Replacing,
        }
    }

    fn deadline(self) -> SignedDuration {
        match self {
            Self::Replacing => REPLACE_DEADLINE,
            Self::Preparing | Self::Asking | Self::Discarding => DEADLINE,
        }
    }

    /// Reason and message while its Job is at work.
    fn working(self) -> (Reason, &'static str) {
        match self {
            Self::Preparing | Self::Asking => (
                Reason::Restoring,
                "Restoring the backup beside the database in use, which is not touched.",
            ),
            Self::Replacing => (
                Reason::ReplacingDatabase,
                "Putting the restored database in place. Connections are refused for a moment.",
            ),
            Self::Discarding => (
                Reason::DiscardingRestore,
                "Removing the restored database, which was not put in place.",
            ),
        }
    }
}

/// Decides the next pass of a Restore.
pub fn plan(observed: &RestoreObserved, settings: &Settings, now: Timestamp) -> Decision<RestoreStatus> {
    let settings = &*settings.of_app(observed.app.as_deref());
    let restore = &observed.restore;
    let mut status = restore.status.clone().unwrap_or_default();
    let still = |steps, status| Decision {
        steps,
        status,
        wake: Wake::OnChange,
        rung: None,
    };
    if restore.metadata.deletion_timestamp.is_some() {
        // Its Jobs go with it.
        return still(Vec::new(), status);
    }
    if status.outcome.is_some() {
        return still(leftovers(observed, None), status);
    }
    let Planned {
        steps,
        progress,
        wake,
    } = next(observed, settings, &mut status, now);
    let generation = restore.metadata.generation;
    status.observed_generation = generation;
    let desired = conditions::summary(&format!("Restore {}", restore.name_any()), &progress);
    status.conditions = conditions::set(&status.conditions, desired, generation, now);
    Decision {
        steps,
        status,
        wake,
        rung: None,
    }
}

fn next(
    observed: &RestoreObserved,
    settings: &Settings,
    status: &mut RestoreStatus,
    now: Timestamp,
) -> Planned {
    let stage = Stage::of(status);
    if let Some(end) = aborted(observed, status, stage) {
        return discard(status, end, now);
    }
    if stage == Stage::Asking {
        return ask(observed, status, now);
    }
    let schedule = Schedule {
        deadline: Some(stage.deadline()),
        now,
    };
    match schedule.due(status.attempts.as_ref()) {
        Due::Begin(attempts) if status.attempts.is_none() => match turn(observed) {
            Some(wait) => wait,
            None => begin(observed, status, attempts, now),
        },
        Due::Begin(attempts) => {
            status.attempts = Some(attempts);
            let (reason, message) = stage.working();
            Planned::new(Progress::running(reason, message))
        }
        Due::Paused { next, message } => attempt::paused(next, message),
        Due::Current(attempts) => attend(observed, settings, status, schedule, attempts),
    }
}

/// The end that an abort asks for, where it can be obeyed: while the restored database is being put in place, nobody knows
/// yet whether it is.
fn aborted(observed: &RestoreObserved, status: &mut RestoreStatus, stage: Stage) -> Option<RestoreEnd> {
    let value = observed.restore.annotations().get(annotation::ABORT);
    let pauses = || {
        let attempts = status.attempts.as_ref();
        attempts.is_some_and(|attempts| attempts.next.is_some())
    };
    match stage {
        Stage::Replacing if !pauses() => return None,
        Stage::Discarding => {
            requester::take(value, &mut status.last_handled_abort);
            return None;
        }
        Stage::Preparing | Stage::Asking | Stage::Replacing => {}
    }
    let token = requester::take(value, &mut status.last_handled_abort)?;
    Some(RestoreEnd {
        outcome: RestoreOutcome::Aborted,
        reason: Reason::Aborted.into(),
        message: format!(
            "{} aborted the restore (annotation {}). The database in use was not changed.",
            requester::subject(token),
            annotation::ABORT
        ),
    })
}

/// Ends a restore whose database is not put in place; first removes that database, where there may be one.
fn discard(status: &mut RestoreStatus, end: RestoreEnd, now: Timestamp) -> Planned {
    let Some(attempts) = &status.attempts else {
        return ended(status, end);
    };
    let (reason, message) = Stage::Discarding.working();
    let message = message::sentences([&*end.message, message]);
    status.attempts = Some(first_of_next_step(attempts, now));
    status.agreed = None;
    status.discarding = Some(end);
    Planned::new(Progress::running(reason, message))
}

fn ended(status: &mut RestoreStatus, end: RestoreEnd) -> Planned {
    let RestoreEnd {
        outcome,
        reason,
        message,
    } = end;
    status.outcome = Some(outcome);
    status.prepared = None;
    status.discarding = None;
    Planned::new(Progress::failed(
        reason.parse().unwrap_or(Reason::RestoreFailed),
        message,
    ))
}

/// The first attempt at the next step: the number goes on, so that each Job has its own name.
fn first_of_next_step(attempts: &Attempts, now: Timestamp) -> Attempts {
    Attempts {
        current: attempts.current + 1,
        since: now,
        next: None,
        reason: None,
        message: None,
    }
}

/// The wait until it is this Restore's turn; `None` when it is.
fn turn(observed: &RestoreObserved) -> Option<Planned> {
    let first = first_in_line(observed)?;
    let message = format!(
        "Waiting for Restore {first}: those of App {} run one after the other.",
        observed.restore.spec.app
    );
    Some(Planned::new(Progress::new(
        State::Waiting,
        Reason::WaitingForRestore,
        message,
    )))
}

/// The Restore of the same App that runs before this one: the one that has begun, else the oldest.
fn first_in_line(observed: &RestoreObserved) -> Option<String> {
    let rank = |restore: &Restore| {
        let status = restore.status.as_ref();
        let has_begun = status.is_some_and(|status| status.attempts.is_some());
        let created = restore.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (!has_begun, created, restore.name_any())
    };
    let first = observed.others.iter().min_by_key(|other| rank(other))?;
    (rank(first) < rank(&observed.restore)).then(|| first.name_any())
}

/// Records the first attempt, and the set that all of them read.
fn begin(
    observed: &RestoreObserved,
    status: &mut RestoreStatus,
    attempts: Attempts,
    now: Timestamp,
) -> Planned {
    let source = match source::of(observed, now) {
        Ok(source) => source,
        Err(source::Absent::Waits(wait)) => return wait,
        Err(source::Absent::Never(impossible)) => {
            return ended(
                status,
                RestoreEnd {
                    outcome: RestoreOutcome::Failed,
                    reason: impossible.reason.into(),
                    message: impossible.message,
                },
            );
        }
    };
    status.attempts = Some(attempts);
    status.set = Some(source.set);
    status.backup_uid = Some(source.uid);
    let (reason, message) = Stage::Preparing.working();
    Planned::new(Progress::running(reason, message))
}

/// Asks the user, and takes the answer.
fn ask(observed: &RestoreObserved, status: &mut RestoreStatus, now: Timestamp) -> Planned {
    let (Some(prepared), Some(attempts)) = (&status.prepared, &status.attempts) else {
        // Both are recorded together.
        return Planned::new(Progress::running(
            Reason::Restoring,
            "The restore is about to go on.",
        ));
    };
    let loss = status.loss.clone().unwrap_or_else(|| to_status(Loss::default()));
    // What the last agreement turned out not to cover.
    let lost_more = attempts
        .message
        .clone()
        .filter(|_| attempts.reason.as_deref() == Some(Reason::RestoreLosesMore.as_str()));
    let until = prepared
        .at
        .saturating_add(AGREEMENT_DEADLINE)
        .unwrap_or(Timestamp::MAX);
    let value = observed.restore.annotations().get(annotation::RESTORE);
    let answer = requester::pending(value, status.last_handled_restore.as_ref());
    let refused = match answer.map(Agreement::parse) {
        Some(Some(agreement)) if agreement.covers(&loss) => {
            status.attempts = Some(first_of_next_step(attempts, now));
            status.agreed = Some(agreement.recorded());
            requester::take(value, &mut status.last_handled_restore);
            let (reason, message) = Stage::Replacing.working();
            return Planned::new(Progress::running(reason, message));
        }
        // Said until there is another value.
        Some(Some(agreement)) => Some(agreement.falls_short()),
        Some(None) => Some(format!(
            "The value of annotation {} is neither a number nor any, followed by a colon and a new token.",
            annotation::RESTORE
        )),
        None => lost_more,
    };
    if now >= until {
        let message = format!(
            "Nobody agreed to the restore within {}. The database in use was not changed. Create a new Restore.",
            duration(AGREEMENT_DEADLINE)
        );
        let end = RestoreEnd {
            outcome: RestoreOutcome::Failed,
            reason: Reason::NotAgreed.into(),
            message,
        };
        return discard(status, end, now);
    }
    let question = question(observed, &loss, &prepared.taken_at, until);
    let message = message::sentences(refused.iter().map(String::as_str).chain([&*question]));
    Planned::new(Progress::stalled(Reason::AwaitingAgreement, message)).until(until)
}

/// What would be lost, and what the user can do.
fn question(observed: &RestoreObserved, loss: &RestoreLoss, taken_at: &str, until: Timestamp) -> String {
    let (namespace, name) = (
        observed.restore.metadata.namespace.as_deref().unwrap_or_default(),
        observed.restore.name_any(),
    );
    let bound = match &loss.uncounted {
        None => loss.rows.to_string(),
        Some(_) => agreement::ANY.to_owned(),
    };
    let more = match &loss.uncounted {
        None => "The application goes on writing, so a higher number may be needed, or any".to_owned(),
        Some(why) => format!("More may be lost: {why}"),
    };
    let prepared = format!(
        "The restore to {taken_at} is prepared and would lose {}",
        describe(loss)
    );
    let ends = format!("Without an answer it ends at {}", moment(until));
    let said = message::sentences([prepared, more].into_iter().chain(notes(observed)).chain([ends]));
    format!(
        "{said} To go on, run: {} To abort it: {}",
        kubectl::restore(namespace, &name, &bound),
        kubectl::abort_restore(namespace, &name)
    )
}

/// What the Backup says of itself: what is not in it, for example.
fn notes(observed: &RestoreObserved) -> Vec<String> {
    let restored = observed
        .restore
        .status
        .as_ref()
        .and_then(|status| status.backup_uid.as_ref());
    let backup = observed
        .backup
        .as_ref()
        .filter(|backup| backup.metadata.uid.as_ref() == restored);
    backup
        .and_then(|backup| backup.status.as_ref())
        .map(|status| status.notes.clone())
        .unwrap_or_default()
}

/// `at least 11 row changes in 2 tables (public.lead: 9)`.
fn describe(loss: &RestoreLoss) -> String {
    let tables: Vec<_> = loss
        .largest
        .iter()
        .map(|TableLoss { table, rows }| format!("{table}: {rows}"))
        .collect();
    let named = match tables.is_empty() {
        true => String::new(),
        false => format!(" ({})", tables.join(", ")),
    };
    format!(
        "at least {} in {}{named}",
        message::counted(loss.rows, "row change"),
        message::counted(loss.tables, "table")
    )
}

/// Follows the attempt under way.
fn attend(
    observed: &RestoreObserved,
    settings: &Settings,
    status: &mut RestoreStatus,
    schedule: Schedule,
    mut attempts: Attempts,
) -> Planned {
    let stage = Stage::of(status);
    let restore = &observed.restore;
    let name = RESTORE.child(&restore.name_any(), attempts.current);
    let child = Child::find(identity(observed), name.clone(), &observed.jobs, &observed.pods);
    let current = attempts.current;
    let create = || {
        let step = step(stage, status);
        source::job(observed, settings, status, step, current).map(Object::Job)
    };
    let (working_reason, working_message) = stage.working();
    let attempt = Attempt {
        task: &RESTORE,
        namespace: restore.metadata.namespace.as_deref().unwrap_or_default(),
        schedule,
        deadline_for: DeadlineFor::Start,
        answers: Answers::new(&observed.refused, &observed.dry_run_passed),
        working_reason,
        working_message,
        blocked_reason: Reason::PodNotStarting,
        slow_start: Some(SLOW_START),
    };
    let mut counted = None;
    let judge = |report: RestoreReport| {
        counted = report.loss.clone();
        judge(report)
    };
    let advanced = attempt.advance(&mut attempts, &child, child.outcome(), create, judge);
    if let Some(loss) = counted {
        status.loss = Some(to_status(loss));
    }
    match advanced {
        Advanced::Done(report) => done(observed, status, stage, report, &attempts, schedule.now),
        Advanced::Failed { reason, message } => {
            failed(observed, status, stage, reason, message, &attempts, schedule.now)
        }
        Advanced::UnderWay(planned) => {
            status.attempts = Some(attempts);
            planned.after(leftovers(observed, Some(&name)))
        }
    }
}

fn step(stage: Stage, status: &RestoreStatus) -> RestoreStep {
    match stage {
        Stage::Preparing | Stage::Asking => RestoreStep::Prepare,
        Stage::Replacing => RestoreStep::Swap {
            agreed_rows: status
                .agreed
                .as_ref()
                .and_then(|agreed| agreed.rows)
                .map(i64::unsigned_abs),
        },
        Stage::Discarding => RestoreStep::Discard,
    }
}

fn judge(report: RestoreReport) -> Result<RestoreReport, Failed> {
    match &report.failure {
        None => Ok(report),
        Some(failure) => Err(Failed {
            // To repeat it would count no less.
            cause: match failure.reason {
                Reason::RestoreLosesMore => Cause::Version,
                _ => failure.cause,
            },
            reason: failure.reason,
            message: failure.message.clone(),
        }),
    }
}

fn done(
    observed: &RestoreObserved,
    status: &mut RestoreStatus,
    stage: Stage,
    report: RestoreReport,
    attempts: &Attempts,
    now: Timestamp,
) -> Planned {
    let RestoreReport {
        prepared,
        swapped,
        loss: _,
        failure: _,
    } = report;
    match (stage, prepared, swapped) {
        (Stage::Preparing | Stage::Asking, Some(prepared), _) => {
            let PreparedDatabase {
                database,
                taken_at,
                fingerprint: _,
                bytes,
                seconds,
            } = prepared;
            status.prepared = Some(RestoredDatabase {
                name: database,
                taken_at,
                bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
                seconds,
                at: now,
            });
            status.attempts = Some(attempts.clone());
            let message = "The backup is restored beside the database in use.";
            Planned::new(Progress::running(Reason::Restoring, message))
        }
        // An attempt whose answer was lost may have put it in place before it was given up.
        (Stage::Replacing | Stage::Discarding, _, Some(swapped)) => succeed(status, swapped),
        (Stage::Discarding, ..) => {
            let end = status.discarding.clone();
            ended(status, end.unwrap_or_else(without_outcome))
        }
        (Stage::Preparing | Stage::Asking | Stage::Replacing, ..) => {
            let RestoreEnd { message, .. } = without_outcome();
            failed(
                observed,
                status,
                stage,
                Reason::AgentFailed,
                message,
                attempts,
                now,
            )
        }
    }
}

fn without_outcome() -> RestoreEnd {
    RestoreEnd {
        outcome: RestoreOutcome::Failed,
        reason: Reason::AgentFailed.into(),
        message: "The agent's report has no outcome: the agent's image and the operator may be of different versions."
            .to_owned(),
    }
}

fn succeed(status: &mut RestoreStatus, swapped: SwappedDatabase) -> Planned {
    let SwappedDatabase {
        replaced,
        at,
        refused_milliseconds,
    } = swapped;
    let taken_at = status.prepared.as_ref().map(|prepared| prepared.taken_at.clone());
    let refused = refused_milliseconds
        .map(|milliseconds| format!("Connections were refused for {milliseconds} ms"))
        .unwrap_or_default();
    let lost = status
        .loss
        .as_ref()
        .map(|loss| {
            format!(
                "It held {}",
                describe(loss).replacen(" row change", " later row change", 1)
            )
        })
        .unwrap_or_default();
    let message = message::sentences([
        format!(
            "The database has been that of {} since {at}",
            taken_at.unwrap_or_default()
        ),
        refused,
        format!(
            "The replaced database is kept as {replaced} and accepts no connections; drop it when nobody needs it"
        ),
        lost,
    ]);
    status.outcome = Some(RestoreOutcome::Succeeded);
    status.discarding = None;
    status.replaced = Some(ReplacedDatabase {
        name: replaced,
        at,
        refused_milliseconds: refused_milliseconds
            .map(|milliseconds| i64::try_from(milliseconds).unwrap_or(i64::MAX)),
    });
    Planned::new(Progress::succeeded(Reason::Succeeded, message))
}

/// A step has failed for good.
fn failed(
    observed: &RestoreObserved,
    status: &mut RestoreStatus,
    stage: Stage,
    reason: Reason,
    message: String,
    attempts: &Attempts,
    now: Timestamp,
) -> Planned {
    match stage {
        // The user is asked again, with the new count.
        Stage::Replacing if reason == Reason::RestoreLosesMore => {
            status.agreed = None;
            status.attempts = Some(Attempts {
                reason: Some(reason.into()),
                message: Some(message),
                ..attempts.clone()
            });
            ask(observed, status, now)
        }
        Stage::Discarding => {
            let end = status.discarding.clone().unwrap_or_else(without_outcome);
            let left = format!("The restored database could not be removed: {message}");
            let message = message::sentences([&*end.message, &left]);
            ended(status, RestoreEnd { message, ..end })
        }
        Stage::Preparing | Stage::Asking | Stage::Replacing => {
            let end = RestoreEnd {
                outcome: RestoreOutcome::Failed,
                reason: reason.into(),
                message,
            };
            status.attempts = Some(attempts.clone());
            discard(status, end, now)
        }
    }
}

fn to_status(loss: Loss) -> RestoreLoss {
    let protocol::Loss {
        rows,
        tables,
        largest,
        uncounted,
    } = loss;
    let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    RestoreLoss {
        rows: signed(rows),
        tables: signed(tables),
        largest: largest
            .into_iter()
            .map(|(table, rows)| TableLoss {
                table,
                rows: signed(rows),
            })
            .collect(),
        uncounted,
    }
}

/// What tells the Jobs and pods of this Restore from those of an earlier one with its name.
fn identity(observed: &RestoreObserved) -> Identity<'_> {
    Identity::OwnerUid(observed.restore.metadata.uid.as_deref().unwrap_or_default())
}

/// Removal of the Jobs of attempts that are over.
fn leftovers(observed: &RestoreObserved, keep: Option<&str>) -> Vec<Step> {
    attempt::leftovers(identity(observed), &observed.jobs, keep)
}

#[cfg(test)]
mod tests;
