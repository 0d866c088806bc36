//! What an App's status says: what serves, whether it is healthy, and what is on its way.

use crate::conditions::{self, Status, Wanted};
use crate::labels;
use crate::observed::AppObserved;
use crate::release::world::{happened, has_ended, is_ready, live};
use fairway_crds::Release;
use fairway_crds::app::{AppStatus, Live};
use fairway_crds::condition::{
    BAKING, DIVERGED_FROM_SPEC, READY, RECONCILING, SCHEMA_AHEAD, STALLED, SUCCEEDED,
};
use fairway_crds::migration::MigrationOutcome;
use fairway_crds::release::{MilestoneKind, ReleaseOutcome};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use std::sync::Arc;

/// What this pass found about the spec.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Standing {
    /// A release of it is about to exist.
    Recorded,
    /// It has a Release.
    Settled,
    /// It has been edited, and `suspend` holds it.
    Held,
    /// These containers name no image.
    AwaitingRelease(Vec<String>),
}

/// Where the wanted release stands, as coarsely as the App tells it.
enum Course {
    Releasing,
    RollingBack,
    Baking,
    Done,
    Person(String),
    Failed { reason: String, message: String },
    Held,
    Awaiting(String),
}

/// Writes the status.
pub(super) fn tell(observed: &AppObserved, status: &mut AppStatus, standing: &Standing, now: Timestamp) {
    let app = &observed.app;
    let wanted = status.wanted.clone();
    let wanted_release = observed
        .releases
        .iter()
        .find(|release| Some(release.name_any()) == wanted);
    let serving = live(&observed.releases);
    let course = course(observed, standing, wanted_release);
    status.observed_generation = app.metadata.generation;
    status.live = serving.map(|release| Live {
        release: release.name_any(),
        revision: release.spec.revision,
        images: release.status.clone().unwrap_or_default().digests,
    });
    let wanted_name = wanted.unwrap_or_else(|| "a first release".to_owned());
    let conditions = conditions(observed, serving, &course, &wanted_name);
    status.conditions = conditions::set(&status.conditions, conditions, app.metadata.generation, now);
}

fn course(observed: &AppObserved, standing: &Standing, wanted: Option<&Arc<Release>>) -> Course {
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
    let Some(release) = wanted else {
        return Course::Releasing;
    };
    let status = release.status.clone().unwrap_or_default();
    let told = |kind: &str| {
        status
            .conditions
            .iter()
            .find(|condition| condition.type_ == kind)
            .cloned()
    };
    match status.outcome {
        Some(ReleaseOutcome::Succeeded) => Course::Done,
        Some(_) => {
            let told = told(SUCCEEDED);
            Course::Failed {
                reason: told
                    .as_ref()
                    .map_or_else(|| "Failed".to_owned(), |told: &Condition| told.reason.clone()),
                message: told.map(|told| told.message).unwrap_or_default(),
            }
        }
        None => match told(STALLED).filter(|told| told.status == "True") {
            Some(told) => Course::Person(told.message),
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
    wanted: &str,
) -> Vec<Wanted> {
    let truth = |condition: bool| if condition { Status::True } else { Status::False };
    let serves = serving.map_or_else(
        || "nothing serves yet".to_owned(),
        |release| format!("{} serves", release.name_any()),
    );
    let (reason, message) = match course {
        Course::Releasing => (
            "Releasing".to_owned(),
            format!("{serves}; {wanted} is on its way: kubectl describe release {wanted}"),
        ),
        Course::RollingBack => (
            "RollingBack".to_owned(),
            format!("{serves}; {wanted} is being taken back: kubectl describe release {wanted}"),
        ),
        Course::Baking => (
            "Baking".to_owned(),
            format!("{serves} and is watched: kubectl describe release {wanted}"),
        ),
        Course::Done => ("Live".to_owned(), serves.clone()),
        Course::Person(message) => (
            "WaitingForPerson".to_owned(),
            format!("{serves}; {wanted} waits for a person: {message}"),
        ),
        Course::Failed { reason, message } => (
            reason.clone(),
            format!("{serves}; the spec asks for {wanted}, which did not succeed: {message}"),
        ),
        Course::Held => (
            "Suspended".to_owned(),
            format!(
                "{serves}; the spec was edited, but spec.suspend is true: set it to false to release the edit"
            ),
        ),
        Course::Awaiting(message) => ("AwaitingRelease".to_owned(), format!("{serves}; {message}")),
    };
    let (ready, ready_reason, ready_message) = match (serving, course) {
        (None, Course::Failed { .. }) => (Status::False, reason.clone(), message.clone()),
        (None, _) => (Status::Unknown, reason.clone(), message.clone()),
        (Some(release), _) => match unready(observed, release) {
            None => (Status::True, reason.clone(), message.clone()),
            Some(unready) => (
                Status::False,
                "NotReady".to_owned(),
                format!("{message}; {unready}"),
            ),
        },
    };
    let reconciling = matches!(course, Course::Releasing | Course::RollingBack);
    let baking = matches!(course, Course::Baking);
    let stalled = matches!(course, Course::Failed { .. } | Course::Person(_));
    // A first release that failed in its bake goes on serving: it is what the spec asks for.
    let diverged =
        matches!(course, Course::Failed { .. }) && serving.is_none_or(|release| release.name_any() != wanted);
    let ahead = schema_ahead(observed, serving);
    let or = |condition: bool, otherwise: &str| {
        if condition {
            message.clone()
        } else {
            otherwise.to_owned()
        }
    };
    vec![
        Wanted::new(READY, ready, &ready_reason, ready_message),
        Wanted::new(
            RECONCILING,
            truth(reconciling),
            &reason,
            or(reconciling, "no release is on its way"),
        ),
        Wanted::new(
            STALLED,
            truth(stalled),
            &reason,
            or(stalled, "nothing waits for a person"),
        ),
        Wanted::new(
            BAKING,
            truth(baking),
            &reason,
            or(baking, "nothing is being watched"),
        ),
        Wanted::new(
            DIVERGED_FROM_SPEC,
            truth(diverged),
            &reason,
            or(diverged, "what serves is, or is becoming, what the spec asks for"),
        ),
        Wanted::new(
            SCHEMA_AHEAD,
            truth(ahead),
            if ahead { "MigrationKept" } else { "SchemaFits" },
            if ahead {
                "the database keeps the schema of a newer version than the one that serves"
            } else {
                "the schema is the one that the serving version asks for"
            },
        ),
    ]
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
