//! The ladder of a release.
//!
//! [`FORWARD`] is read from the top on every pass; the first rung that is not met says what to do, what is
//! waited for, or why the release cannot go on. [`BACKWARD`] takes its place once the milestone `RollingBack`
//! is on record, and nothing turns that around. A rung reads what is observed and the milestones, never a
//! stored phase.

mod attempted;
mod children;
pub mod claims;
mod health;
pub mod history;
mod images;
mod leftovers;
mod patience;
mod position;
mod readiness;
mod rung;
mod status;
mod stopping;
pub mod traffic;
mod verbs;
pub mod verdict;
pub mod view;
mod workloads;

pub use health::targets::probe_targets;

use crate::object::Kind;
use crate::observed::{ReleaseObserved, Settings};
use crate::{Decision, Step, Wake};
use fairway_crds::Reason;
use fairway_crds::release::{Milestone, MilestoneKind, ReleaseOutcome, ReleaseStatus};
use history::happened;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use position::Position;
use verdict::{Failure, Verdict, Wait, WaitOn};
use view::View;

/// One rung: its name, and the question whether it is met.
pub struct Rung {
    /// As in the documentation.
    pub name: &'static str,
    climb: fn(&View, &mut ReleaseStatus) -> Verdict,
}

/// From an edited App to a version that serves.
pub const FORWARD: &[Rung] = &[
    Rung {
        name: "Accepted",
        climb: rung::accepted::climb,
    },
    Rung {
        name: "Pinned",
        climb: rung::pinned::climb,
    },
    Rung {
        name: "Preflighted",
        climb: rung::preflighted::climb,
    },
    Rung {
        name: "BackedUp",
        climb: rung::backed_up::climb,
    },
    Rung {
        name: "Migrated",
        climb: rung::migrated::climb,
    },
    Rung {
        name: "RolledOut",
        climb: rung::rolled_out::climb,
    },
    Rung {
        name: "Healthy",
        climb: rung::healthy::climb,
    },
    Rung {
        name: "HandedOver",
        climb: rung::handed_over::climb,
    },
    Rung {
        name: "TrafficMoved",
        climb: rung::traffic_moved::climb,
    },
    Rung {
        name: "Baked",
        climb: rung::baked::climb,
    },
    Rung {
        name: "Retired",
        climb: rung::retired::climb,
    },
];

/// From a version that cannot stay to the one before it. The database keeps its schema: the old image runs
/// on what the migration made (`SchemaAhead`).
pub const BACKWARD: &[Rung] = &[
    Rung {
        name: "TrafficReturned",
        climb: rung::traffic_returned::climb,
    },
    Rung {
        name: "HandedBack",
        climb: rung::handed_back::climb,
    },
    Rung {
        name: "Withdrawn",
        climb: rung::withdrawn::climb,
    },
];

/// Decides the next pass of a release.
pub fn plan(observed: &ReleaseObserved, settings: &Settings, now: Timestamp) -> Decision<ReleaseStatus> {
    let mut status = observed.release.status.clone().unwrap_or_default();
    let empty = crate::snapshot::Snapshot::default();
    let Some(snapshot) = observed.snapshots.get(&observed.release.name_any()) else {
        let view = View {
            observed,
            settings,
            now,
            snapshot: &empty,
        };
        let position = not_taken_up(&view, &mut status);
        return decided(&view, status, Vec::new(), position);
    };
    let view = View {
        observed,
        settings,
        now,
        snapshot,
    };
    let (steps, position) = if status.outcome.is_some() {
        after_the_end(&view, &mut status)
    } else if happened(&status, MilestoneKind::RollingBack).is_some() {
        go_back(&view, &mut status)
    } else {
        go_forward(&view, &mut status)
    };
    decided(&view, status, steps, position)
}

/// Where a Release positions that has no snapshot: the App makes that when it takes the Release up, and it takes up
/// only what is newer than what it has.
fn not_taken_up(view: &View, status: &mut ReleaseStatus) -> Position {
    if status.outcome.is_some() {
        return Position::Unchanged;
    }
    let app = view.app_name();
    let revision = view
        .observed
        .app
        .as_ref()
        .and_then(|app| app.status.as_ref()?.revision);
    let failure = match revision {
        _ if !status.milestones.is_empty() => None,
        Some(revision) if revision > view.release().spec.revision => Some(Failure {
            outcome: ReleaseOutcome::Superseded,
            ..Failure::new(
                Reason::Superseded,
                format!(
                    "App {app} is at revision {revision} already and takes up only newer ones; to release this, apply it \
                     again as {} with that revision",
                    crate::names::release(app, revision + 1)
                ),
            )
        }),
        _ => verbs::give_up(view, status),
    };
    if let Some(failure) = failure {
        status.outcome = Some(failure.outcome);
        return Position::Ended(failure);
    }
    let wait = Wait::machine(
        Reason::WaitingForApp,
        format!("waiting for App {app} to take this Release up"),
    );
    Position::Waiting {
        rung: "Accepted",
        wait,
    }
}

fn go_forward(view: &View, status: &mut ReleaseStatus) -> (Vec<Step>, Position) {
    if let Some(failure) = verbs::give_up(view, status) {
        return fail(view, status, failure);
    }
    if let Some(token) = verbs::pending_resolve(view, status) {
        verbs::answer_resolve(view, status, &token);
    }
    match climb(FORWARD, view, status) {
        Climbed::Top => {
            status.outcome = Some(ReleaseOutcome::Succeeded);
            // Should one of these writes fail, the whole pass is repeated.
            (history::pruned(view, status), Position::Succeeded)
        }
        Climbed::Waiting(mut steps, position) => {
            if position.rung() != Some("Retired") && !matches!(position, Position::Recorded { .. }) {
                steps.extend(workloads::both_sides(view, status));
            }
            (steps, position)
        }
        Climbed::Failed(failure) => fail(view, status, failure),
    }
}

/// How long the old version may take to be ready for its traffic before a newer version may take its place.
const RETURN_DEADLINE: SignedDuration = SignedDuration::from_mins(10);

fn go_back(view: &View, status: &mut ReleaseStatus) -> (Vec<Step>, Position) {
    verbs::already_going_back(view, status);
    match climb(BACKWARD, view, status) {
        Climbed::Waiting(
            _,
            Position::Waiting {
                rung: rung @ ("TrafficReturned" | "HandedBack"),
                wait,
            },
        ) if is_stuck(view, status)
            && history::newer(view).is_some()
            && (rung == "TrafficReturned" || wait.reason == Reason::RestoringPrevious) =>
        {
            let newer = history::newer(view).unwrap_or_default();
            let failure = cause(status);
            let until = if rung == "TrafficReturned" {
                format!(
                    "it could not be taken back ({}), so it serves until {newer} does",
                    wait.message
                )
            } else {
                format!(
                    "not all of the old version could be started again ({}), so {newer} takes over",
                    wait.message
                )
            };
            let message = format!("{}; {until}", failure.message.trim_end_matches('.'));
            status.outcome = Some(ReleaseOutcome::Failed);
            (Vec::new(), Position::Ended(Failure { message, ..failure }))
        }
        Climbed::Waiting(
            steps,
            Position::Waiting {
                rung: rung @ ("TrafficReturned" | "HandedBack"),
                wait,
            },
        ) if wait.reason == Reason::RestoringPrevious => {
            let wait = match stuck_at(status) {
                Some(stuck) if view.now < stuck => wait.until(stuck),
                _ => Wait::person(
                    Reason::RestoringPrevious,
                    format!(
                        "{}; to go forward instead, edit the App to a version that works",
                        wait.message
                    ),
                ),
            };
            (steps, Position::Waiting { rung, wait })
        }
        Climbed::Top => {
            let failure = cause(status);
            status.outcome = Some(failure.outcome);
            (Vec::new(), Position::Ended(failure))
        }
        Climbed::Waiting(steps, position) => (steps, position),
        Climbed::Failed(failure) => (Vec::new(), Position::Ended(failure)),
    }
}

/// When a release that has waited for its predecessor since it turned back counts as stuck.
fn stuck_at(status: &ReleaseStatus) -> Option<Timestamp> {
    let back = happened(status, MilestoneKind::RollingBack)?;
    back.at.checked_add(RETURN_DEADLINE).ok()
}

fn is_stuck(view: &View, status: &ReleaseStatus) -> bool {
    stuck_at(status).is_some_and(|stuck| view.now >= stuck)
}

enum Climbed {
    Top,
    Waiting(Vec<Step>, Position),
    Failed(Failure),
}

fn climb(ladder: &[Rung], view: &View, status: &mut ReleaseStatus) -> Climbed {
    for rung in ladder {
        return match (rung.climb)(view, status) {
            Verdict::Met => continue,
            Verdict::Act(steps, wait) => Climbed::Waiting(
                steps,
                Position::Waiting {
                    rung: rung.name,
                    wait,
                },
            ),
            Verdict::Wait(wait) => Climbed::Waiting(
                Vec::new(),
                Position::Waiting {
                    rung: rung.name,
                    wait,
                },
            ),
            Verdict::Commit(kind) => {
                record(status, kind, view.now, None);
                Climbed::Waiting(Vec::new(), recorded(ladder, view, status))
            }
            Verdict::Fail(failure) => Climbed::Failed(failure),
        };
    }
    Climbed::Top
}

/// What is told while a milestone is put on record: what the next pass will wait for, so that the next pass
/// has nothing new to write.
fn recorded(ladder: &[Rung], view: &View, status: &ReleaseStatus) -> Position {
    let next = climb(ladder, view, &mut status.clone());
    match next {
        Climbed::Waiting(_, Position::Waiting { rung, wait }) => Position::Recorded {
            rung,
            wait: Some(wait),
        },
        Climbed::Waiting(_, recorded) => recorded,
        Climbed::Top | Climbed::Failed(_) => Position::Recorded {
            rung: "Retired",
            wait: None,
        },
    }
}

fn record(status: &mut ReleaseStatus, kind: MilestoneKind, at: Timestamp, failure: Option<&Failure>) {
    status.milestones.push(Milestone {
        kind,
        at: position::to_milliseconds(at),
        reason: failure.map(|failure| failure.reason.into()),
        message: failure.map(|failure| crate::conditions::shorten(&failure.message)),
    });
}

/// A release that cannot go on: ends where nothing has to be undone, goes on serving where there is nothing to
/// go back to, and goes back otherwise.
fn fail(view: &View, status: &mut ReleaseStatus, failure: Failure) -> (Vec<Step>, Position) {
    let moved = happened(status, MilestoneKind::TrafficMoved).is_some();
    if moved && view.previous(status).is_none() {
        let message = format!(
            "{}; nothing served before {}, so it goes on serving",
            failure.message,
            view.name()
        );
        status.outcome = Some(ReleaseOutcome::Failed);
        return (Vec::new(), Position::Ended(Failure { message, ..failure }));
    }
    let handed = happened(status, MilestoneKind::HandingOver).is_some();
    if !moved && !handed && !runs(view) {
        status.outcome = Some(failure.outcome);
        return (Vec::new(), Position::Ended(failure));
    }
    record(status, MilestoneKind::RollingBack, view.now, Some(&failure));
    (Vec::new(), recorded(BACKWARD, view, status))
}

/// Whether anything of this release may run.
fn runs(view: &View) -> bool {
    view.snapshot.components.iter().any(|component| {
        view.deployment(&component.name, view.release().spec.revision)
            .is_some_and(|deployment| crate::readings::replicas_of(deployment) > 0)
    })
}

/// Why this release went back, from its milestones.
fn cause(status: &ReleaseStatus) -> Failure {
    let milestone = happened(status, MilestoneKind::RollingBack);
    let reason = milestone
        .and_then(|milestone| milestone.reason.as_deref()?.parse().ok())
        .unwrap_or(Reason::RolledBack);
    let message = milestone
        .and_then(|milestone| milestone.message.clone())
        .unwrap_or_default();
    let outcome = match reason {
        _ if happened(status, MilestoneKind::TrafficMoved).is_some() => ReleaseOutcome::RolledBack,
        Reason::Aborted | Reason::RollbackRequested => ReleaseOutcome::Aborted,
        Reason::Superseded => ReleaseOutcome::Superseded,
        _ => ReleaseOutcome::Failed,
    };
    Failure {
        reason,
        message,
        outcome,
    }
}

/// A release that has ended keeps what serves as the App wants it today, and answers what is asked of it.
fn after_the_end(view: &View, status: &mut ReleaseStatus) -> (Vec<Step>, Position) {
    if let Some(failure) = verbs::after_the_end(view, status) {
        status.outcome = None;
        record(status, MilestoneKind::RollingBack, view.now, Some(&failure));
        return (Vec::new(), recorded(BACKWARD, view, status));
    }
    let mut steps = leftovers::leftovers(view);
    steps.extend(kept(view, status));
    (steps, Position::Unchanged)
}

/// Deployments, replicas and selectors of the release that serves, while no other one looks after them.
fn kept(view: &View, status: &ReleaseStatus) -> Vec<Step> {
    let busy = view
        .observed
        .siblings
        .iter()
        .any(|sibling| !history::has_ended(sibling) && history::previous_is_known(sibling));
    let serves = history::serves(view.observed) && view.is_of_this_app(view.release());
    if !serves || busy || view.today().is_none() {
        return Vec::new();
    }
    let components = view.snapshot.components.iter();
    let mut steps: Vec<_> = components
        .filter_map(|component| workloads::kept(view, status, component))
        .collect();
    if let Some(Verdict::Act(switched, _)) = traffic::direct(view, view.snapshot, view.name()) {
        steps.extend(switched);
    }
    // What another release has begun is its own, also before it says whom it follows.
    if view
        .observed
        .siblings
        .iter()
        .all(|sibling| history::has_ended(sibling))
    {
        steps.extend(stopping::retirements(view));
    }
    steps
}

/// What the apiserver refuses is left until that answer is forgotten, and a release that waits says so. One that has
/// just succeeded leaves what it would have tidied up to the next.
fn without_refused(view: &View, steps: Vec<Step>, position: Position) -> (Vec<Step>, Position) {
    if !matches!(position, Position::Waiting { .. } | Position::Succeeded) {
        return (steps, position);
    }
    // Its rung tells of a Service, and insists where it must.
    let is_service = |step: &Step| matches!(step, Step::Apply(object) | Step::DryRun(object) if object.kind() == Kind::Service);
    let (refused, steps): (Vec<_>, Vec<_>) = steps
        .into_iter()
        .partition(|step| !is_service(step) && view.refused(step).is_some());
    let told = refused.first().and_then(|step| {
        let be = match step {
            Step::Delete(_) => "deleted",
            Step::Scale(..) => "scaled",
            _ => "made",
        };
        let why = view.refused(step)?.message.trim_end_matches('.');
        let object = step.id().replace('/', " ");
        Some(format!(
            "{object} cannot be {be}: {why}; it is tried again by itself"
        ))
    });
    let position = match (position, told) {
        // Another thing that a person has to see to comes first.
        (Position::Waiting { rung, wait }, Some(told)) if wait.on != WaitOn::Person => {
            let refused = Wait::person(Reason::WriteRefused, told);
            // A moment that has come is answered already: by the write that is refused.
            let until = wait.until.filter(|until| *until > view.now);
            let wait = Wait { until, ..refused };
            Position::Waiting { rung, wait }
        }
        (position, _) => position,
    };
    (steps, position)
}

fn decided(
    view: &View,
    mut status: ReleaseStatus,
    steps: Vec<Step>,
    position: Position,
) -> Decision<ReleaseStatus> {
    let (steps, position) = without_refused(view, steps, position);
    let wake = match &position {
        Position::Waiting {
            wait: Wait {
                until: Some(until), ..
            },
            ..
        } => Wake::At(*until),
        _ => Wake::OnChange,
    };
    if position.is_brief() {
        // Whatever the rungs found is found again by the next pass, and worth a write only then.
        let observed = view.release().status.clone().unwrap_or_default();
        return Decision {
            steps,
            status: observed,
            wake,
        };
    }
    status::write(view, &mut status, &position);
    Decision { steps, status, wake }
}

/// A release that the App holds.
fn held(rung: &str) -> Wait {
    Wait::person(
        Reason::Suspended,
        format!("spec.suspend of the App is true, so it holds {rung}; set it to false to go on"),
    )
}
