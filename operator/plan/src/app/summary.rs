//! What an App's status says: what serves, whether it is healthy, and which release is under way.

use crate::conditions::{self, Desired, Progress, State, Status};
use crate::kubectl::{self, Resource};
use crate::labels;
use crate::message;
use crate::observed::AppObserved;
use crate::readings::is_ready;
use crate::release::history::{happened, has_ended, live};
use fairway_crds::Reason;
use fairway_crds::Release;
use fairway_crds::app::{AppStatus, Live};
use fairway_crds::condition::{BAKING, DIVERGED_FROM_SPEC, READY, SCHEMA_AHEAD, STALLED, SUCCEEDED};
use fairway_crds::migration::MigrationOutcome;
use fairway_crds::release::{MilestoneKind, ReleaseOutcome};
use jiff::Timestamp;
use kube::ResourceExt;
use std::sync::Arc;

/// What this pass found about the spec.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Finding {
    /// A release of the spec is about to exist.
    Recorded,
    /// The spec has a Release.
    Settled,
    /// The spec has been edited, or is to be retried, and `suspend` holds it.
    Held,
    /// These containers name no image.
    AwaitingRelease(Vec<String>),
}

/// How far the desired release is, as coarsely as the App says it.
enum Phase {
    Releasing,
    RollingBack,
    Baking,
    Live,
    /// It waits for a user.
    Stalled(StatusSummary),
    /// It has ended otherwise than well.
    Failed(ReleaseOutcome, StatusSummary),
    Held,
    AwaitingRelease(String),
}

/// What the Release itself says.
struct StatusSummary {
    reason: Reason,
    message: String,
}

/// Writes the status.
pub(super) fn write(observed: &AppObserved, status: &mut AppStatus, finding: &Finding, now: Timestamp) {
    let app = &observed.app;
    let desired = status.desired.clone();
    let desired_release = observed
        .releases
        .iter()
        .find(|release| Some(release.name_any()) == desired);
    let serving = live(&observed.releases);
    let phase = phase(observed, finding, desired_release);
    status.observed_generation = app.metadata.generation;
    status.live = serving.map(|release| Live {
        release: release.name_any(),
        revision: release.spec.revision,
        images: release.status.clone().unwrap_or_default().digests,
    });
    let conditions = conditions(observed, serving, &phase, desired.as_deref());
    status.conditions = conditions::set(&status.conditions, conditions, app.metadata.generation, now);
}

fn phase(observed: &AppObserved, finding: &Finding, desired: Option<&Arc<Release>>) -> Phase {
    match finding {
        Finding::Held => return Phase::Held,
        Finding::AwaitingRelease(containers) => {
            return Phase::AwaitingRelease(format!(
                "No image is named for {}. Apply a Release that names it, or set it in the App.",
                containers.join(", ")
            ));
        }
        Finding::Recorded => return Phase::Releasing,
        Finding::Settled => {}
    }
    let Some(release) = desired else {
        return Phase::Releasing;
    };
    let status = release.status.clone().unwrap_or_default();
    let summary = |kind: &str, value: &str| {
        let condition = status
            .conditions
            .iter()
            .find(|condition| condition.type_ == kind && condition.status == value)?;
        Some(StatusSummary {
            reason: condition.reason.parse().unwrap_or(Reason::ReleaseFailed),
            message: condition.message.clone(),
        })
    };
    match status.outcome {
        Some(ReleaseOutcome::Succeeded) => Phase::Live,
        Some(outcome) => Phase::Failed(
            outcome,
            summary(SUCCEEDED, "False").unwrap_or(StatusSummary {
                reason: Reason::ReleaseFailed,
                message: String::new(),
            }),
        ),
        None => match summary(STALLED, "True") {
            Some(summary) => Phase::Stalled(summary),
            None if happened(&status, MilestoneKind::RollingBack).is_some() => Phase::RollingBack,
            None if happened(&status, MilestoneKind::TrafficMoved).is_none() => Phase::Releasing,
            None if happened(&status, MilestoneKind::Baked).is_none() && bakes(observed) => Phase::Baking,
            None => Phase::Live,
        },
    }
}

fn bakes(observed: &AppObserved) -> bool {
    !observed.app.spec.policy.bake.duration.get().is_zero()
}

/// What an App says of the release that it asks for: state, reason and message.
fn progress(observed: &AppObserved, serves: &str, phase: &Phase, desired: Option<&str>) -> Progress {
    let namespace = observed.app.metadata.namespace.as_deref().unwrap_or_default();
    let more = desired.map_or_else(String::new, |desired| {
        let command = kubectl::describe(namespace, Resource::Release(desired));
        format!("For details: {command}")
    });
    let release = match desired {
        Some(desired) => format!("Release {desired}"),
        None => "A first release".to_owned(),
    };
    let (state, reason, message) = match phase {
        Phase::Releasing => (
            State::Running,
            Reason::Releasing,
            message::sentences([serves, &format!("{release} is under way."), &more]),
        ),
        Phase::RollingBack => (
            State::Running,
            Reason::RollingBack,
            message::sentences([serves, &format!("{release} is being rolled back."), &more]),
        ),
        Phase::Baking => (
            State::Waiting,
            Reason::Baking,
            message::sentences([serves, "Its bake is under way.", &more]),
        ),
        Phase::Live => (State::Succeeded, Reason::Live, serves.to_owned()),
        Phase::Stalled(summary) => (
            State::Stalled,
            Reason::ActionRequired,
            message::sentences([
                serves,
                &format!("{release} requires action ({}).", summary.reason),
                &more,
            ]),
        ),
        Phase::Failed(outcome, summary) => (
            State::Failed,
            ended(*outcome),
            message::sentences([
                serves,
                &format!("{release} did not succeed ({}).", summary.reason),
                &more,
            ]),
        ),
        Phase::Held => (
            State::Waiting,
            Reason::Suspended,
            format!("{serves} spec.suspend is true. Set it to false to release the current spec."),
        ),
        Phase::AwaitingRelease(message) => (
            State::Waiting,
            Reason::AwaitingRelease,
            message::sentences([serves, message]),
        ),
    };
    Progress::new(state, reason, message)
}

fn conditions(
    observed: &AppObserved,
    serving: Option<&Arc<Release>>,
    phase: &Phase,
    desired: Option<&str>,
) -> Vec<Desired> {
    let serves = serving.map_or_else(
        || "No release serves yet.".to_owned(),
        |release| format!("Release {} serves.", release.name_any()),
    );
    let Progress {
        state,
        reason,
        message,
    } = progress(observed, &serves, phase, desired);
    let (ready, ready_reason, ready_message) = match (serving, phase) {
        (None, Phase::Failed(..)) => (Status::False, reason, message.clone()),
        (None, _) => (Status::Unknown, reason, message.clone()),
        (Some(release), _) => match unready(observed, release) {
            None => (Status::True, reason, message.clone()),
            Some(unready) => (
                Status::False,
                Reason::NotReady,
                message::sentences([unready.as_str(), &message]),
            ),
        },
    };
    let mut conditions = vec![Desired::new(READY, ready, ready_reason, ready_message)];
    conditions.extend(match stalled(phase, reason, desired) {
        Some(stalled) => Some(stalled),
        None => conditions::passing(state, reason, &message),
    });
    if matches!(phase, Phase::Baking) {
        conditions.push(Desired::new(BAKING, Status::True, reason, message));
    }
    // A first release that failed in its bake goes on serving: it is what the spec asks for.
    let serves_desired = serving.is_some_and(|release| Some(release.name_any().as_str()) == desired);
    if matches!(phase, Phase::Failed(..)) && !serves_desired {
        let asks = format!("The spec asks for release {}.", desired.unwrap_or_default());
        let message = message::sentences([&serves, &asks]);
        conditions.push(Desired::new(DIVERGED_FROM_SPEC, Status::True, reason, message));
    }
    if schema_ahead(observed, serving) {
        conditions.push(Desired::new(
            SCHEMA_AHEAD,
            Status::True,
            Reason::MigrationKept,
            "The database keeps the schema of a newer version than the one that serves.",
        ));
    }
    conditions
}

/// The one condition that repeats all that the Release says: tools that wait for an App show it.
fn stalled(phase: &Phase, reason: Reason, desired: Option<&str>) -> Option<Desired> {
    let desired = desired.unwrap_or_default();
    let (reason, statement, summary) = match phase {
        Phase::Failed(_, summary) => (summary.reason, "did not succeed", summary),
        Phase::Stalled(summary) => (reason, "requires action", summary),
        _ => return None,
    };
    let statement = format!("Release {desired} {statement}.");
    let message = message::sentences([&statement, &summary.message]);
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
            (exists && !ready).then(|| format!("No pod of component {} is ready.", component.name))
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
