//! The ladder of a release.
//!
//! [`FORWARD`] is read from the top on every pass; the first rung that is not met says what to do, what is waited for,
//! or why the release cannot go on. [`BACKWARD`] takes its place once the milestone `RollingBack` is recorded, and
//! a rollback cannot be undone. A rung reads what is observed and the milestones, never a stored phase. Each rung is a
//! file in `release/rung`.

mod acceptance;
mod advice;
mod attempted;
mod before_migration;
mod children;
pub mod claims;
mod ended;
mod followed_migration;
mod health;
pub mod history;
mod images;
mod leftovers;
mod legacy;
mod pending;
mod pods;
mod position;
mod quotas;
mod readiness;
mod refusals;
pub(crate) mod request;
mod rollback;
mod rung;
mod snapshot_deleted;
mod status;
mod stopping;
pub mod traffic;
mod unserved;
mod verbs;
pub mod verdict;
pub mod view;
mod workloads;

pub use health::targets::probe_targets;
pub use status::IS_RETIRED;

use crate::observed::{ReleaseObserved, Settings};
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
use std::borrow::Cow;
use verdict::{Failure, Previous, Verdict, Wait};
use view::View;

/// One rung of a ladder.
pub struct Rung {
    /// Name of the rung, as in the documentation.
    pub name: &'static str,
    /// When it is met, for users.
    pub met_when: &'static str,
    /// Fields of the Release's status that record what the rung proved.
    pub evidence: &'static str,
    climb: fn(&View, &mut ReleaseStatus) -> Verdict,
}

/// The release of a candidate, from an edited App until it is the only version that serves.
#[rustfmt::skip]
pub const FORWARD: &[Rung] = &[
    Rung { name: "Accepted",     climb: accepted::climb,      evidence: "`previous`",           met_when: "no older release of this App is in progress, no migration of it is unresolved, every container has an image, no `BlueGreen` component mounts a claim that two versions cannot share, and, if there is a migration or a component is recreated, the API server would accept the new pods and the switch of each Service (dry runs)" },
    Rung { name: "Pinned",       climb: pin_and_preflight,    evidence: "`digests`",            met_when: "the digest of every image is known. A pod pulls the images that are named by tag, and all of them if there is a migration: that proves pull secrets and platform. The checks of Preflighted run meanwhile" },
    Rung { name: "Preflighted",  climb: preflighted::climb,   evidence: "`evidence.preflight`", met_when: "the database is reachable and suitable, and the backup store is writable" },
    Rung { name: "BackedUp",     climb: backed_up::climb,     evidence: "`evidence.backup`",    met_when: "a Backup for this release was taken and proven to the level of `backup.verify` (only with `spec.backup`)" },
    Rung { name: "Migrated",     climb: migrated::climb,      evidence: "`evidence.migration`", met_when: "the ledger in the database says that the migration is committed (only with `spec.migration`). Previous pods beside which the migration's pod must not run are gone before it starts: those of a `Recreate` component that migrates when it starts, or that mounts a claim of the migration's pod which two pods cannot share" },
    Rung { name: "RolledOut",    climb: rolled_out::climb,    evidence: "",                     met_when: "the candidate's pods of `BlueGreen` components are ready, as many as the App asks for" },
    Rung { name: "Healthy",      climb: healthy::climb,       evidence: "",                     met_when: "every health request passed `successThreshold` times in a row on each of these pods" },
    Rung { name: "HandedOver",   climb: handed_over::climb,   evidence: "",                     met_when: "the previous pods of every `Recreate` component are gone, and the candidate's are ready and healthy" },
    Rung { name: "TrafficMoved", climb: traffic_moved::climb, evidence: "",                     met_when: "every Service selects the candidate, and its EndpointSlices contain only the candidate's pods" },
    Rung { name: "Baked",        climb: baked::climb,         evidence: "`evidence.probes`",    met_when: "the candidate stayed healthy for `policy.bake.for`" },
    Rung { name: "Retired",      climb: retired::climb,       evidence: "`outcome`",            met_when: "the previous pods have drained and are gone, and then the Services that Fairway created and no component serves any more; old Releases beyond the history limit are removed" },
];

/// The rollback, from the candidate to the previous version. The schema is not rolled back: the previous image runs on
/// the migrated database (condition `SchemaAhead`).
#[rustfmt::skip]
pub const BACKWARD: &[Rung] = &[
    Rung { name: "TrafficReturned", climb: traffic_returned::climb, evidence: "",          met_when: "the previous version is ready **now**, at the App's current replica count, and receives the traffic" },
    Rung { name: "HandedBack",      climb: handed_back::climb,      evidence: "",          met_when: "every `Recreate` component runs the previous version again, and so does everything that retirement had already stopped" },
    Rung { name: "Withdrawn",       climb: withdrawn::climb,        evidence: "`outcome`", met_when: "the candidate's pods are gone, except those that still receive traffic, and then the Services that Fairway created and the previous version does not serve" },
];

/// The rungs that remain for a release whose snapshot was deleted after its App had accepted it.
const WITHOUT_SNAPSHOT: &[Rung] = &[
    Rung {
        name: "SnapshotNotNeeded",
        climb: snapshot_deleted::climb,
        evidence: "",
        met_when: "the bake is over, so nothing needs the deleted snapshot any more",
    },
    Rung {
        name: "Retired",
        climb: retired::climb,
        evidence: "`outcome`",
        met_when: "the previous pods have drained and are gone",
    },
];

/// Plans the next pass of a release.
pub fn plan(observed: &ReleaseObserved, settings: &Settings, now: Timestamp) -> Decision<ReleaseStatus> {
    let settings = &*settings.of_app(observed.app.as_deref());
    let mut status = observed.release.status.clone().unwrap_or_default();
    let kept = observed.snapshots.get(&observed.release.name_any());
    let snapshot = kept.map_or_else(
        || Cow::Owned(snapshot_deleted::what_runs(observed)),
        |kept| Cow::Borrowed(kept.as_ref()),
    );
    let view = View::new(observed, settings, now, &snapshot);
    let is_known = status.outcome.is_some() || history::is_accepted(&status) || kept.is_some();
    let (steps, position) = if view.is_being_deleted() {
        // What it owns goes with it; a migration that runs is ended by its own planner.
        (Vec::new(), Position::Unchanged)
    } else if is_known && observed.app.is_none() {
        (Vec::new(), pending::without_app(&view, &status))
    } else if status.outcome.is_some() {
        after_the_end(&view, &mut status)
    } else if happened(&status, MilestoneKind::RollingBack).is_some() {
        continue_rollback(&view, &mut status)
    } else if kept.is_some() {
        advance(FORWARD, &view, &mut status)
    } else if history::is_accepted(&status) {
        advance(WITHOUT_SNAPSHOT, &view, &mut status)
    } else {
        (Vec::new(), pending::position(&view, &mut status))
    };
    status::decision(&view, status, steps, position)
}

fn advance(ladder: &[Rung], view: &View, status: &mut ReleaseStatus) -> (Vec<Step>, Position) {
    if let Some(failure) = verbs::request_to_undo(view, status) {
        return fail(view, status, failure);
    }
    verbs::answer_resolve(view, status);
    match climb(ladder, view, status) {
        Climbed::Top => {
            status.outcome = Some(ReleaseOutcome::Succeeded);
            // Should one of these writes fail, the whole pass is repeated.
            (history::pruned(view, status), Position::Succeeded)
        }
        Climbed::Waiting(steps, wait) => {
            // First what serves: a step of the rung that cannot be made now ends the pass.
            let mut all = traffic::corrections(view, status, &steps);
            if wait.previous == Previous::Kept {
                all.extend(workloads::both_sides(view, status));
            }
            all.extend(steps);
            (all, Position::Waiting(wait))
        }
        Climbed::Recorded(next) => (Vec::new(), Position::Recorded(next)),
        Climbed::Failed(failure) => fail(view, status, failure),
    }
}

fn continue_rollback(view: &View, status: &mut ReleaseStatus) -> (Vec<Step>, Position) {
    verbs::already_rolling_back(view, status);
    match climb(BACKWARD, view, status) {
        Climbed::Top => end(status, rollback::cause(status)),
        Climbed::Waiting(steps, wait) => {
            let mut all = traffic::corrections(view, status, &steps);
            all.extend(steps);
            (all, Position::Waiting(wait))
        }
        Climbed::Recorded(next) => (Vec::new(), Position::Recorded(next)),
        Climbed::Failed(failure) => end(status, failure),
    }
}

/// Keeps what an ended release serves in line with its App's spec, and handles requests to roll it back.
fn after_the_end(view: &View, status: &mut ReleaseStatus) -> (Vec<Step>, Position) {
    if let Some(failure) = verbs::request_after_the_end(view, status) {
        status.outcome = None;
        return begin_rollback(view, status, &failure);
    }
    (ended::keep(view, status), Position::Unchanged)
}

/// Ends a release that cannot continue where nothing has to be undone, and begins its rollback otherwise.
fn fail(view: &View, status: &mut ReleaseStatus, failure: Failure) -> (Vec<Step>, Position) {
    match rollback::consequence(view, status, failure) {
        Consequence::Ends(failure) => end(status, failure),
        Consequence::RollsBack(failure) => begin_rollback(view, status, &failure),
    }
}

fn begin_rollback(view: &View, status: &mut ReleaseStatus, failure: &Failure) -> (Vec<Step>, Position) {
    rollback::begin(view, status, failure);
    (Vec::new(), Position::Recorded(next(BACKWARD, view, status)))
}

fn end(status: &mut ReleaseStatus, failure: Failure) -> (Vec<Step>, Position) {
    status.outcome = Some(failure.outcome);
    (Vec::new(), Position::Ended(failure))
}

/// Checks the database and the store while images are pulled: neither needs what the other proves, and each takes a pod's
/// start.
fn pin_and_preflight(view: &View, status: &mut ReleaseStatus) -> Verdict {
    pinned::climb(view, status).beside(|| preflighted::climb(view, status))
}

/// How far a release got up a ladder.
enum Climbed {
    /// Every rung is met.
    Top,
    /// A rung is not met: what to do, then what is waited for.
    Waiting(Vec<Step>, Wait),
    /// A milestone is recorded; what the next pass will wait for.
    Recorded(Option<Wait>),
    /// A rung can never be met.
    Failed(Failure),
}

fn climb(ladder: &[Rung], view: &View, status: &mut ReleaseStatus) -> Climbed {
    for rung in ladder {
        return match (rung.climb)(view, status) {
            Verdict::Met => continue,
            Verdict::Act(steps, wait) => Climbed::Waiting(steps, wait.of_rung(rung.name)),
            Verdict::Wait(wait) => Climbed::Waiting(Vec::new(), wait.of_rung(rung.name)),
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
