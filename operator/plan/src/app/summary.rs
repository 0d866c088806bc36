//! What an App's status says: what serves, whether it is healthy, and what is on its way.

use crate::conditions::{self, Desired, Status};
use crate::labels;
use crate::observed::AppObserved;
use crate::release::world::{happened, has_ended, is_ready, live};
use fairway_crds::Reason;
use fairway_crds::Release;
use fairway_crds::app::{AppStatus, Live};
use fairway_crds::condition::{
    BAKING, DIVERGED_FROM_SPEC, READY, RECONCILING, SCHEMA_AHEAD, STALLED, SUCCEEDED,
};
use fairway_crds::migration::MigrationOutcome;
use fairway_crds::release::{MilestoneKind, ReleaseOutcome};
use jiff::Timestamp;
use kube::ResourceExt;
use std::sync::Arc;

/// What this pass found about the spec.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Standing {
    /// A release of it is about to exist.
    Recorded,
    /// It has a Release.
    Settled,
    /// It has been edited, or is to be tried again, and `suspend` holds it.
    Held,
    /// These containers name no image.
    AwaitingRelease(Vec<String>),
}

/// Where the desired release stands, as coarsely as the App tells it.
enum Course {
    Releasing,
    RollingBack,
    Baking,
    Done,
    Person(Told),
    /// It has ended otherwise than well.
    Failed(ReleaseOutcome, Told),
    Held,
    Awaiting(String),
}

/// What the Release itself says of it.
struct Told {
    reason: Reason,
    message: String,
}

/// Writes the status.
pub(super) fn tell(observed: &AppObserved, status: &mut AppStatus, standing: &Standing, now: Timestamp) {
    let app = &observed.app;
    let desired = status.desired.clone();
    let wanted_release = observed
        .releases
        .iter()
        .find(|release| Some(release.name_any()) == desired);
    let serving = live(&observed.releases);
    let course = course(observed, standing, wanted_release);
    status.observed_generation = app.metadata.generation;
    status.live = serving.map(|release| Live {
        release: release.name_any(),
        revision: release.spec.revision,
        images: release.status.clone().unwrap_or_default().digests,
    });
    let wanted_name = desired.unwrap_or_else(|| "a first release".to_owned());
    let conditions = conditions(observed, serving, &course, &wanted_name);
    status.conditions = conditions::set(&status.conditions, conditions, app.metadata.generation, now);
}

fn course(observed: &AppObserved, standing: &Standing, desired: Option<&Arc<Release>>) -> Course {
    match standing {
        Standing::Held => return Course::Held,
        Standing::AwaitingRelease(containers) => {
            return Course::Awaiting(format!(
                "no image is named for {}: apply a Release that names it, or set it in the App",
                containers.join(", ")
            ));
        }
        Standing::Recorded => return Course::Releasing,
        Standing::Settled => {}
    }
    let Some(release) = desired else {
        return Course::Releasing;
    };
    let status = release.status.clone().unwrap_or_default();
    let told = |kind: &str, value: &str| {
        let condition = status
            .conditions
            .iter()
            .find(|condition| condition.type_ == kind && condition.status == value)?;
        Some(Told {
            reason: condition.reason.parse().unwrap_or(Reason::ReleaseFailed),
            message: condition.message.clone(),
        })
    };
    match status.outcome {
        Some(ReleaseOutcome::Succeeded) => Course::Done,
        Some(outcome) => Course::Failed(
            outcome,
            told(SUCCEEDED, "False").unwrap_or(Told {
                reason: Reason::ReleaseFailed,
                message: String::new(),
            }),
        ),
        None => match told(STALLED, "True") {
            Some(told) => Course::Person(told),
            None if happened(&status, MilestoneKind::RollingBack).is_some() => Course::RollingBack,
            None if happened(&status, MilestoneKind::TrafficMoved).is_none() => Course::Releasing,
            None if happened(&status, MilestoneKind::Baked).is_none() && bakes(observed) => Course::Baking,
            None => Course::Done,
        },
    }
}

fn bakes(observed: &AppObserved) -> bool {
    !observed.app.spec.policy.bake.duration.get().is_zero()
}

fn conditions(
    observed: &AppObserved,
    serving: Option<&Arc<Release>>,
    course: &Course,
    desired: &str,
) -> Vec<Desired> {
    let serves = serving.map_or_else(
        || "nothing serves yet".to_owned(),
        |release| format!("{} serves", release.name_any()),
    );
    let (reason, message) = match course {
        Course::Releasing => (
            Reason::Releasing,
            format!("{serves}; {desired} is on its way: kubectl describe release {desired}"),
        ),
        Course::RollingBack => (
            Reason::RollingBack,
            format!("{serves}; {desired} is being taken back: kubectl describe release {desired}"),
        ),
        Course::Baking => (
            Reason::Baking,
            format!("{serves} and is watched: kubectl describe release {desired}"),
        ),
        Course::Done => (Reason::Live, serves.clone()),
        Course::Person(told) => (
            Reason::ActionRequired,
            format!(
                "{serves}; {desired} waits for a person ({}): kubectl describe release {desired}",
                told.reason
            ),
        ),
        Course::Failed(outcome, told) => (
            ended(*outcome),
            format!(
                "{serves}; {desired} did not succeed ({}): kubectl describe release {desired}",
                told.reason
            ),
        ),
        Course::Held => (
            Reason::Suspended,
            format!("{serves}; spec.suspend is true: set it to false to release what the spec asks for now"),
        ),
        Course::Awaiting(message) => (Reason::AwaitingRelease, format!("{serves}; {message}")),
    };
    let (ready, ready_reason, ready_message) = match (serving, course) {
        (None, Course::Failed(..)) => (Status::False, reason, message.clone()),
        (None, _) => (Status::Unknown, reason, message.clone()),
        (Some(release), _) => match unready(observed, release) {
            None => (Status::True, reason, message.clone()),
            Some(unready) => (Status::False, Reason::NotReady, format!("{message}; {unready}")),
        },
    };
    let reconciling = matches!(course, Course::Releasing | Course::RollingBack);
    let baking = matches!(course, Course::Baking);
    // A first release that failed in its bake goes on serving: it is what the spec asks for.
    let diverged =
        matches!(course, Course::Failed(..)) && serving.is_none_or(|release| release.name_any() != desired);
    let ahead = schema_ahead(observed, serving);
    let mut conditions = vec![Desired::new(READY, ready, ready_reason, ready_message)];
    if reconciling {
        conditions.push(Desired::new(RECONCILING, Status::True, reason, message.clone()));
    }
    conditions.extend(stalled(course, reason, desired));
    if baking {
        conditions.push(Desired::new(BAKING, Status::True, reason, message));
    }
    if diverged {
        let message = format!("{serves}; the spec asks for {desired}");
        conditions.push(Desired::new(DIVERGED_FROM_SPEC, Status::True, reason, message));
    }
    if ahead {
        conditions.push(Desired::new(
            SCHEMA_AHEAD,
            Status::True,
            Reason::MigrationKept,
            "the database keeps the schema of a newer version than the one that serves",
        ));
    }
    conditions
}

/// The one condition that repeats all that the Release says: tools that wait for an App show it.
fn stalled(course: &Course, reason: Reason, desired: &str) -> Option<Desired> {
    let (reason, message) = match course {
        Course::Failed(_, told) => (
            told.reason,
            format!("{desired} did not succeed: {}", told.message),
        ),
        Course::Person(told) => (reason, format!("{desired} waits for a person: {}", told.message)),
        _ => return None,
    };
    Some(Desired::new(STALLED, Status::True, reason, message))
}

/// How the App says in a word how the release that it asks for ended. Beside `Ready=True` the Release's own reason,
/// such as that health was lost, would read as if it were said of what serves.
const fn ended(outcome: ReleaseOutcome) -> Reason {
    match outcome {
        ReleaseOutcome::Succeeded => Reason::Live,
        ReleaseOutcome::Failed => Reason::ReleaseFailed,
        ReleaseOutcome::RolledBack => Reason::RolledBack,
        ReleaseOutcome::Aborted => Reason::Aborted,
        ReleaseOutcome::Superseded => Reason::Superseded,
    }
}

/// The first component of what serves that has no ready pod although it should.
fn unready(observed: &AppObserved, serving: &Release) -> Option<String> {
    let spec = &observed.app.spec;
    let name = serving.name_any();
    spec.components
        .iter()
        .filter(|component| component.replicas > 0)
        .find_map(|component| {
            let exists = observed
                .snapshots
                .get(&name)?
                .component(&component.name)
                .is_some();
            let ready = observed.pods.iter().any(|pod| {
                let of = |key: &str| pod.labels().get(key).map(String::as_str);
                of(labels::COMPONENT) == Some(&component.name)
                    && of(labels::RELEASE) == Some(&name)
                    && is_ready(pod)
            });
            (exists && !ready).then(|| format!("no pod of {} is ready", component.name))
        })
}

/// A newer release than the one that serves has migrated the database, or the one that serves found it so.
fn schema_ahead(observed: &AppObserved, serving: Option<&Arc<Release>>) -> bool {
    let Some(serving) = serving else { return false };
    let evidence = |release: &Release| release.status.clone().unwrap_or_default().evidence.migration;
    let found = evidence(serving).is_some_and(|migration| migration.schema_ahead);
    found
        || observed.releases.iter().any(|release| {
            release.spec.revision > serving.spec.revision
                && has_ended(release)
                && evidence(release).is_some_and(|migration| {
                    migration.outcome == MigrationOutcome::Applied && !migration.unchanged
                })
        })
}
