//! The ladder of a release.
//!
//! [`FORWARD`] is read from the top on every pass; the first rung that is not met says what to do, what is
//! waited for, or why the release cannot go on. [`BACKWARD`] takes its place once the milestone `RollingBack`
//! is on record, and nothing turns that around. A rung reads what is observed and the milestones, never a
//! stored phase.

pub mod accept;
mod attempts;
mod backward;
pub mod claims;
mod data;
mod patience;
mod probing;
mod report;
mod rollout;
pub mod traffic;
mod verbs;
pub mod verdict;
pub mod world;

pub use probing::probe_targets;

use crate::object::Kind;
use crate::observed::{ReleaseObserved, Settings};
use crate::{Decision, Step, Wake};
use fairway_crds::Reason;
use fairway_crds::release::{Milestone, MilestoneKind, ReleaseOutcome, ReleaseStatus};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use report::Stand;
use verdict::{Failure, Verdict, Wait, WaitOn};
use world::{World, happened};

/// One rung: its name, and the question whether it is met.
pub struct Rung {
    /// As in the documentation.
    pub name: &'static str,
    climb: fn(&World, &mut ReleaseStatus) -> Verdict,
}

/// From an edited App to a version that serves.
pub const FORWARD: &[Rung] = &[
    Rung {
        name: "Accepted",
        climb: accept::accepted,
    },
    Rung {
        name: "Pinned",
        climb: accept::pinned,
    },
    Rung {
        name: "Preflighted",
        climb: accept::preflighted,
    },
    Rung {
        name: "BackedUp",
        climb: data::backed_up,
    },
    Rung {
        name: "Migrated",
        climb: data::migrated,
    },
    Rung {
        name: "RolledOut",
        climb: rollout::rolled_out,
    },
    Rung {
        name: "Healthy",
        climb: rollout::healthy,
    },
    Rung {
        name: "HandedOver",
        climb: rollout::handed_over,
    },
    Rung {
        name: "TrafficMoved",
        climb: traffic::traffic_moved,
    },
    Rung {
        name: "Baked",
        climb: traffic::baked,
    },
    Rung {
        name: "Retired",
        climb: traffic::retired,
    },
];

/// From a version that cannot stay to the one before it. The database keeps its schema: the old image runs
/// on what the migration made (`SchemaAhead`).
pub const BACKWARD: &[Rung] = &[
    Rung {
        name: "TrafficReturned",
        climb: backward::traffic_returned,
    },
    Rung {
        name: "HandedBack",
        climb: backward::handed_back,
    },
    Rung {
        name: "Withdrawn",
        climb: backward::withdrawn,
    },
];

/// Decides the next pass of a release.
pub fn plan(observed: &ReleaseObserved, settings: &Settings, now: Timestamp) -> Decision<ReleaseStatus> {
    let mut status = observed.release.status.clone().unwrap_or_default();
    let empty = crate::snapshot::Snapshot::default();
    let Some(snapshot) = observed.snapshots.get(&observed.release.name_any()) else {
        let world = World {
            observed,
            settings,
            now,
            snapshot: &empty,
        };
        let stand = not_taken_up(&world, &mut status);
        return decided(&world, status, Vec::new(), stand);
    };
    let world = World {
        observed,
        settings,
        now,
        snapshot,
    };
    let (steps, stand) = if status.outcome.is_some() {
        after_the_end(&world, &mut status)
    } else if happened(&status, MilestoneKind::RollingBack).is_some() {
        go_back(&world, &mut status)
    } else {
        go_forward(&world, &mut status)
    };
    decided(&world, status, steps, stand)
}

/// Where a Release stands that has no snapshot: the App makes that when it takes the Release up, and it takes up
/// only what is newer than what it has.
fn not_taken_up(world: &World, status: &mut ReleaseStatus) -> Stand {
    if status.outcome.is_some() {
        return Stand::Unchanged;
    }
    let app = world.app_name();
    let revision = world
        .observed
        .app
        .as_ref()
        .and_then(|app| app.status.as_ref()?.revision);
    let failure = match revision {
        _ if !status.milestones.is_empty() => None,
        Some(revision) if revision > world.release().spec.revision => Some(Failure {
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
        _ => verbs::give_up(world, status),
    };
    if let Some(failure) = failure {
        status.outcome = Some(failure.outcome);
        return Stand::Ended(failure);
    }
    let wait = Wait::machine(
        Reason::WaitingForApp,
        format!("waiting for App {app} to take this Release up"),
    );
    Stand::Waiting {
        rung: "Accepted",
        wait,
    }
}

fn go_forward(world: &World, status: &mut ReleaseStatus) -> (Vec<Step>, Stand) {
    if let Some(failure) = verbs::give_up(world, status) {
        return fail(world, status, failure);
    }
    if let Some(token) = verbs::pending_resolve(world, status) {
        verbs::answer_resolve(world, status, &token);
    }
    match climb(FORWARD, world, status) {
        Climbed::Top => {
            status.outcome = Some(ReleaseOutcome::Succeeded);
            // Should one of these writes fail, the whole pass is repeated.
            (traffic::pruned(world, status), Stand::Succeeded)
        }
        Climbed::Waiting(mut steps, stand) => {
            if stand.rung() != Some("Retired") && !matches!(stand, Stand::Recorded { .. }) {
                steps.extend(rollout::both_sides(world, status));
            }
            (steps, stand)
        }
        Climbed::Failed(failure) => fail(world, status, failure),
    }
}

/// How long the old version may take to be ready for its traffic before a newer version may take its place.
const RETURN_DEADLINE: SignedDuration = SignedDuration::from_mins(10);

fn go_back(world: &World, status: &mut ReleaseStatus) -> (Vec<Step>, Stand) {
    verbs::already_going_back(world, status);
    match climb(BACKWARD, world, status) {
        Climbed::Waiting(
            _,
            Stand::Waiting {
                rung: rung @ ("TrafficReturned" | "HandedBack"),
                wait,
            },
        ) if is_stuck(world, status)
            && accept::newer(world).is_some()
            && (rung == "TrafficReturned" || wait.reason == Reason::RestoringPrevious) =>
        {
            let newer = accept::newer(world).unwrap_or_default();
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
            (Vec::new(), Stand::Ended(Failure { message, ..failure }))
        }
        Climbed::Waiting(
            steps,
            Stand::Waiting {
                rung: rung @ ("TrafficReturned" | "HandedBack"),
                wait,
            },
        ) if wait.reason == Reason::RestoringPrevious => {
            let wait = match stuck_at(status) {
                Some(stuck) if world.now < stuck => wait.until(stuck),
                _ => Wait::person(
                    Reason::RestoringPrevious,
                    format!(
                        "{}; to go forward instead, edit the App to a version that works",
                        wait.message
                    ),
                ),
            };
            (steps, Stand::Waiting { rung, wait })
        }
        Climbed::Top => {
            let failure = cause(status);
            status.outcome = Some(failure.outcome);
            (Vec::new(), Stand::Ended(failure))
        }
        Climbed::Waiting(steps, stand) => (steps, stand),
        Climbed::Failed(failure) => (Vec::new(), Stand::Ended(failure)),
    }
}

/// When a release that has waited for its predecessor since it turned back counts as stuck.
fn stuck_at(status: &ReleaseStatus) -> Option<Timestamp> {
    let back = happened(status, MilestoneKind::RollingBack)?;
    back.at.checked_add(RETURN_DEADLINE).ok()
}

fn is_stuck(world: &World, status: &ReleaseStatus) -> bool {
    stuck_at(status).is_some_and(|stuck| world.now >= stuck)
}

enum Climbed {
    Top,
    Waiting(Vec<Step>, Stand),
    Failed(Failure),
}

fn climb(ladder: &[Rung], world: &World, status: &mut ReleaseStatus) -> Climbed {
    for rung in ladder {
        return match (rung.climb)(world, status) {
            Verdict::Met => continue,
            Verdict::Act(steps, wait) => Climbed::Waiting(
                steps,
                Stand::Waiting {
                    rung: rung.name,
                    wait,
                },
            ),
            Verdict::Wait(wait) => Climbed::Waiting(
                Vec::new(),
                Stand::Waiting {
                    rung: rung.name,
                    wait,
                },
            ),
            Verdict::Commit(kind) => {
                record(status, kind, world.now, None);
                Climbed::Waiting(Vec::new(), recorded(ladder, world, status))
            }
            Verdict::Fail(failure) => Climbed::Failed(failure),
        };
    }
    Climbed::Top
}

/// What is told while a milestone is put on record: what the next pass will wait for, so that the next pass
/// has nothing new to write.
fn recorded(ladder: &[Rung], world: &World, status: &ReleaseStatus) -> Stand {
    let next = climb(ladder, world, &mut status.clone());
    match next {
        Climbed::Waiting(_, Stand::Waiting { rung, wait }) => Stand::Recorded {
            rung,
            wait: Some(wait),
        },
        Climbed::Waiting(_, recorded) => recorded,
        Climbed::Top | Climbed::Failed(_) => Stand::Recorded {
            rung: "Retired",
            wait: None,
        },
    }
}

fn record(status: &mut ReleaseStatus, kind: MilestoneKind, at: Timestamp, failure: Option<&Failure>) {
    status.milestones.push(Milestone {
        kind,
        at: report::to_milliseconds(at),
        reason: failure.map(|failure| failure.reason.into()),
        message: failure.map(|failure| crate::conditions::shorten(&failure.message)),
    });
}

/// A release that cannot go on: ends where nothing has to be undone, goes on serving where there is nothing to
/// go back to, and goes back otherwise.
fn fail(world: &World, status: &mut ReleaseStatus, failure: Failure) -> (Vec<Step>, Stand) {
    let moved = happened(status, MilestoneKind::TrafficMoved).is_some();
    if moved && world.previous(status).is_none() {
        let message = format!(
            "{}; nothing served before {}, so it goes on serving",
            failure.message,
            world.name()
        );
        status.outcome = Some(ReleaseOutcome::Failed);
        return (Vec::new(), Stand::Ended(Failure { message, ..failure }));
    }
    let handed = happened(status, MilestoneKind::HandingOver).is_some();
    if !moved && !handed && !runs(world) {
        status.outcome = Some(failure.outcome);
        return (Vec::new(), Stand::Ended(failure));
    }
    record(status, MilestoneKind::RollingBack, world.now, Some(&failure));
    (Vec::new(), recorded(BACKWARD, world, status))
}

/// Whether anything of this release may run.
fn runs(world: &World) -> bool {
    world.snapshot.components.iter().any(|component| {
        world
            .deployment(&component.name, world.release().spec.revision)
            .is_some_and(|deployment| world::replicas_of(deployment) > 0)
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
fn after_the_end(world: &World, status: &mut ReleaseStatus) -> (Vec<Step>, Stand) {
    if let Some(failure) = verbs::after_the_end(world, status) {
        status.outcome = None;
        record(status, MilestoneKind::RollingBack, world.now, Some(&failure));
        return (Vec::new(), recorded(BACKWARD, world, status));
    }
    let mut steps = traffic::leftovers(world);
    steps.extend(kept(world, status));
    (steps, Stand::Unchanged)
}

/// Deployments, replicas and selectors of the release that serves, while no other one looks after them.
fn kept(world: &World, status: &ReleaseStatus) -> Vec<Step> {
    let busy = world
        .observed
        .siblings
        .iter()
        .any(|sibling| !world::has_ended(sibling) && world::previous_is_known(sibling));
    let serves = world::serves(world.observed) && world.is_of_this_app(world.release());
    if !serves || busy || world.today().is_none() {
        return Vec::new();
    }
    let components = world.snapshot.components.iter();
    let mut steps: Vec<_> = components
        .filter_map(|component| rollout::kept(world, status, component))
        .collect();
    if let Some(Verdict::Act(switched, _)) = traffic::direct(world, world.snapshot, world.name()) {
        steps.extend(switched);
    }
    // What another release has begun is its own, also before it says whom it follows.
    if world
        .observed
        .siblings
        .iter()
        .all(|sibling| world::has_ended(sibling))
    {
        steps.extend(traffic::retirements(world));
    }
    steps
}

/// What the apiserver refuses is left until that answer is forgotten, and a release that waits says so. One that has
/// just succeeded leaves what it would have tidied up to the next.
fn without_refused(world: &World, steps: Vec<Step>, stand: Stand) -> (Vec<Step>, Stand) {
    if !matches!(stand, Stand::Waiting { .. } | Stand::Succeeded) {
        return (steps, stand);
    }
    // Its rung tells of a Service, and insists where it must.
    let is_service = |step: &Step| matches!(step, Step::Apply(object) | Step::DryRun(object) if object.kind() == Kind::Service);
    let (refused, steps): (Vec<_>, Vec<_>) = steps
        .into_iter()
        .partition(|step| !is_service(step) && world.refused(step).is_some());
    let told = refused.first().and_then(|step| {
        let be = match step {
            Step::Delete(_) => "deleted",
            Step::Scale(..) => "scaled",
            _ => "made",
        };
        let why = world.refused(step)?.message.trim_end_matches('.');
        let object = step.id().replace('/', " ");
        Some(format!(
            "{object} cannot be {be}: {why}; it is tried again by itself"
        ))
    });
    let stand = match (stand, told) {
        // Another thing that a person has to see to comes first.
        (Stand::Waiting { rung, wait }, Some(told)) if wait.on != WaitOn::Person => {
            let refused = Wait::person(Reason::WriteRefused, told);
            // A moment that has come is answered already: by the write that is refused.
            let until = wait.until.filter(|until| *until > world.now);
            let wait = Wait { until, ..refused };
            Stand::Waiting { rung, wait }
        }
        (stand, _) => stand,
    };
    (steps, stand)
}

fn decided(
    world: &World,
    mut status: ReleaseStatus,
    steps: Vec<Step>,
    stand: Stand,
) -> Decision<ReleaseStatus> {
    let (steps, stand) = without_refused(world, steps, stand);
    let wake = match &stand {
        Stand::Waiting {
            wait: Wait {
                until: Some(until), ..
            },
            ..
        } => Wake::At(*until),
        _ => Wake::OnChange,
    };
    if stand.is_brief() {
        // Whatever the rungs found is found again by the next pass, and worth a write only then.
        let observed = world.release().status.clone().unwrap_or_default();
        return Decision {
            steps,
            status: observed,
            wake,
        };
    }
    report::tell(world, &mut status, &stand);
    Decision { steps, status, wake }
}

/// A release that the App holds.
fn held(rung: &str) -> Wait {
    Wait::person(
        Reason::Suspended,
        format!("spec.suspend of the App is true, so it holds {rung}; set it to false to go on"),
    )
}
