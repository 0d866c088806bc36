//! The ladder of a release.
//!
//! [`FORWARD`] is read from the top on every pass; the first rung that is not met says what to do, what is waited for,
//! or why the release cannot go on. [`BACKWARD`] takes its place once the milestone `RollingBack` is recorded, and
//! nothing turns that around. A rung reads what is observed and the milestones, never a stored phase. Each rung is a
//! file in `release/rung`.

mod attempted;
mod children;
pub mod claims;
mod ended;
mod health;
pub mod history;
mod images;
mod leftovers;
mod pending;
mod pods;
mod position;
mod readiness;
mod refusals;
mod rollback;
mod rung;
mod status;
mod stopping;
pub mod traffic;
mod verbs;
pub mod verdict;
pub mod view;
mod workloads;

pub use health::targets::probe_targets;

use crate::observed::{ReleaseObserved, Settings};
use crate::snapshot::Snapshot;
use crate::{Decision, Step};
use fairway_crds::release::{MilestoneKind, ReleaseOutcome, ReleaseStatus};
use history::happened;
use jiff::Timestamp;
use kube::ResourceExt;
use position::Position;
use rollback::Consequence;
use rung::{
    accepted, backed_up, baked, handed_back, handed_over, healthy, migrated, pinned, preflighted, retired,
    rolled_out, traffic_moved, traffic_returned, withdrawn,
};
use verdict::{Failure, Previous, Verdict, Wait};
use view::View;

/// One rung of a ladder.
pub struct Rung {
    /// Name of the rung, as in the documentation.
    pub name: &'static str,
    /// When it is met, for users.
    pub met_when: &'static str,
    /// Members of the Release's status that keep what it proved.
    pub evidence: &'static str,
    climb: fn(&View, &mut ReleaseStatus) -> Verdict,
}

/// The release of a candidate, from an edited App until it is the only version that serves.
#[rustfmt::skip]
pub const FORWARD: &[Rung] = &[
    Rung { name: "Accepted",     climb: accepted::climb,      evidence: "`previous`",           met_when: "no older release of this App is in progress, no migration of it is unresolved, every container has an image, no `BlueGreen` component mounts a claim that two versions cannot share, and, if there is a migration, the API server would accept the new pods (a dry run)" },
    Rung { name: "Pinned",       climb: pinned::climb,        evidence: "`digests`",            met_when: "the digest of every image is known: given, or resolved by a pod that pulls the image, which also proves pull secrets and platform" },
    Rung { name: "Preflighted",  climb: preflighted::climb,   evidence: "`evidence.preflight`", met_when: "the database is reachable and suitable, and the backup store is writable" },
    Rung { name: "BackedUp",     climb: backed_up::climb,     evidence: "`evidence.backup`",    met_when: "a Backup for this release was taken and read back (only with `spec.backup`)" },
    Rung { name: "Migrated",     climb: migrated::climb,      evidence: "`evidence.migration`", met_when: "the ledger in the database says that the migration is committed (only with `spec.migration`)" },
    Rung { name: "RolledOut",    climb: rolled_out::climb,    evidence: "",                     met_when: "the candidate's pods of `BlueGreen` components are ready, as many as the App asks for" },
    Rung { name: "Healthy",      climb: healthy::climb,       evidence: "",                     met_when: "every health request passed `successThreshold` times in a row on each of these pods" },
    Rung { name: "HandedOver",   climb: handed_over::climb,   evidence: "",                     met_when: "the previous pods of every `Recreate` component are gone, and the candidate's are ready and healthy" },
    Rung { name: "TrafficMoved", climb: traffic_moved::climb, evidence: "",                     met_when: "every Service selects the candidate, and its EndpointSlices contain only the candidate's pods" },
    Rung { name: "Baked",        climb: baked::climb,         evidence: "`evidence.probes`",    met_when: "the candidate stayed healthy for `policy.bake.for`" },
    Rung { name: "Retired",      climb: retired::climb,       evidence: "`outcome`",            met_when: "the previous pods have drained and are gone; old Releases beyond the history limit are removed" },
];

/// The rollback, from the candidate to the previous version. The schema is not rolled back: the previous image runs on
/// the migrated database (condition `SchemaAhead`).
#[rustfmt::skip]
pub const BACKWARD: &[Rung] = &[
    Rung { name: "TrafficReturned", climb: traffic_returned::climb, evidence: "",          met_when: "the previous version is ready **now**, at the App's current replica count, and receives the traffic" },
    Rung { name: "HandedBack",      climb: handed_back::climb,      evidence: "",          met_when: "every `Recreate` component runs the previous version again, and so does everything that retirement had already stopped" },
    Rung { name: "Withdrawn",       climb: withdrawn::climb,        evidence: "`outcome`", met_when: "the candidate's pods are gone" },
];

/// Plans the next pass of a release.
pub fn plan(observed: &ReleaseObserved, settings: &Settings, now: Timestamp) -> Decision<ReleaseStatus> {
    let mut status = observed.release.status.clone().unwrap_or_default();
    let nothing = Snapshot::default();
    let taken_up = observed.snapshots.get(&observed.release.name_any());
    let snapshot = taken_up.map_or(&nothing, AsRef::as_ref);
    let view = View::new(observed, settings, now, snapshot);
    let (steps, position) = if taken_up.is_none() {
        (Vec::new(), pending::position(&view, &mut status))
    } else if status.outcome.is_some() {
        after_the_end(&view, &mut status)
    } else if happened(&status, MilestoneKind::RollingBack).is_some() {
        go_back(&view, &mut status)
    } else {
        go_forward(&view, &mut status)
    };
    status::decision(&view, status, steps, position)
}

fn go_forward(view: &View, status: &mut ReleaseStatus) -> (Vec<Step>, Position) {
    if let Some(failure) = verbs::request_to_undo(view, status) {
        return fail(view, status, failure);
    }
    verbs::answer_resolve(view, status);
    match climb(FORWARD, view, status) {
        Climbed::Top => {
            status.outcome = Some(ReleaseOutcome::Succeeded);
            // Should one of these writes fail, the whole pass is repeated.
            (history::pruned(view, status), Position::Succeeded)
        }
        Climbed::Waiting(mut steps, wait) => {
            if wait.previous == Previous::Kept {
                steps.extend(workloads::both_sides(view, status));
            }
            (steps, Position::Waiting(wait))
        }
        Climbed::Recorded(next) => (Vec::new(), Position::Recorded(next)),
        Climbed::Failed(failure) => fail(view, status, failure),
    }
}

fn go_back(view: &View, status: &mut ReleaseStatus) -> (Vec<Step>, Position) {
    verbs::already_rolling_back(view, status);
    match climb(BACKWARD, view, status) {
        Climbed::Top => end(status, rollback::cause(status)),
        Climbed::Waiting(steps, wait) => (steps, Position::Waiting(wait)),
        Climbed::Recorded(next) => (Vec::new(), Position::Recorded(next)),
        Climbed::Failed(failure) => end(status, failure),
    }
}

/// A release that has ended keeps what serves as the App says today, and answers what is asked of it.
fn after_the_end(view: &View, status: &mut ReleaseStatus) -> (Vec<Step>, Position) {
    if let Some(failure) = verbs::request_after_the_end(view, status) {
        status.outcome = None;
        return roll_back(view, status, &failure);
    }
    (ended::keep(view, status), Position::Unchanged)
}

/// A release that cannot go on ends where nothing has to be undone, and rolls back otherwise.
fn fail(view: &View, status: &mut ReleaseStatus, failure: Failure) -> (Vec<Step>, Position) {
    match rollback::consequence(view, status, failure) {
        Consequence::Ends(failure) => end(status, failure),
        Consequence::RollsBack(failure) => roll_back(view, status, &failure),
    }
}

fn roll_back(view: &View, status: &mut ReleaseStatus, failure: &Failure) -> (Vec<Step>, Position) {
    rollback::begin(view, status, failure);
    (Vec::new(), Position::Recorded(next(BACKWARD, view, status)))
}

fn end(status: &mut ReleaseStatus, failure: Failure) -> (Vec<Step>, Position) {
    status.outcome = Some(failure.outcome);
    (Vec::new(), Position::Ended(failure))
}

/// How far a release came on a ladder.
enum Climbed {
    /// Every rung is met.
    Top,
    /// A rung is not met: what to do, then what is waited for.
    Waiting(Vec<Step>, Wait),
    /// A milestone is recorded, and the next pass will wait for this.
    Recorded(Option<Wait>),
    /// A rung can never be met.
    Failed(Failure),
}

fn climb(ladder: &[Rung], view: &View, status: &mut ReleaseStatus) -> Climbed {
    for rung in ladder {
        return match (rung.climb)(view, status) {
            Verdict::Met => continue,
            Verdict::Act(steps, wait) => Climbed::Waiting(steps, wait),
            Verdict::Wait(wait) => Climbed::Waiting(Vec::new(), wait),
            Verdict::Commit(kind) => {
                status.milestones.push(history::milestone(kind, view.now));
                Climbed::Recorded(next(ladder, view, status))
            }
            Verdict::Fail(failure) => Climbed::Failed(failure),
        };
    }
    Climbed::Top
}

/// What the next pass will wait for. The pass that records a milestone says so already, so that the next one has
/// nothing new to write.
fn next(ladder: &[Rung], view: &View, status: &ReleaseStatus) -> Option<Wait> {
    match climb(ladder, view, &mut status.clone()) {
        Climbed::Waiting(_, wait) => Some(wait),
        Climbed::Recorded(next) => next,
        Climbed::Top | Climbed::Failed(_) => None,
    }
}
