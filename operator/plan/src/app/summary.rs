//! What an App's status says: what serves, whether it is healthy, and which release is under way.

use super::backups::Backups;
use super::final_backup::FinalBackup;
use crate::Step;
use crate::conditions::{self, Desired, Progress, State, Status, reason_of};
use crate::kubectl::{self, Resource};
use crate::labels;
use crate::message;
use crate::names;
use crate::observed::{AppObserved, Refusal};
use crate::readings::{is_ready, replicas_of};
use crate::release::history::{self, happened, has_begun, has_ended, live};
use fairway_crds::Reason;
use fairway_crds::Release;
use fairway_crds::app::{AppStatus, Live};
use fairway_crds::condition::{
    BACKUP_OVERDUE, BAKING, DIVERGED_FROM_SPEC, FINAL_BACKUP_TAKEN, READY, RECONCILING, SCHEMA_AHEAD,
    STALLED, SUCCEEDED,
};
use fairway_crds::migration::MigrationOutcome;
use fairway_crds::release::{MilestoneKind, ReleaseOutcome};
use jiff::Timestamp;
use kube::ResourceExt;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What this pass found about the spec.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Finding {
    /// A release of the spec is about to exist.
    Recorded,
    /// The spec has a Release.
    Settled,
    /// The spec had a Release, which was deleted.
    Deleted,
    /// The spec has been edited, or is to be retried, and `suspend` holds it.
    Held,
    /// These containers name no image.
    AwaitingRelease(Vec<String>),
    /// The API server refuses the Release or its snapshot: what it said.
    Refused(String),
}

impl Finding {
    /// The API server refused to create a Release or its snapshot, or to take over a Release.
    pub(super) fn refused(step: &Step, refusal: &Refusal) -> Self {
        Self::Refused(refusal.retried(step))
    }
}

/// How far the desired release is, as coarsely as the App says it.
enum Phase {
    Releasing,
    RollingBack,
    Baking,
    Live,
    /// It waits for a user, or for a release in progress that does.
    Stalled(String, StatusSummary),
    /// It has ended otherwise than well.
    Failed(ReleaseOutcome, StatusSummary),
    Held,
    AwaitingRelease(String),
    /// Its Release was deleted.
    Deleted,
    Refused(String),
}

/// What the Release itself says.
struct StatusSummary {
    reason: Reason,
    message: String,
}

/// Writes the status.
pub(super) fn write(
    observed: &AppObserved,
    status: &mut AppStatus,
    finding: &Finding,
    backups: (&Backups, &FinalBackup),
    now: Timestamp,
) {
    let app = &observed.app;
    let desired = status.desired.clone();
    let desired_release = observed
        .releases
        .iter()
        .find(|release| Some(release.name_any()) == desired);
    let serving = live(&observed.releases);
    let own = phase(observed, finding, desired_release);
    let waiting = waiting_for_user(observed, &own);
    let phase = waiting.as_ref().unwrap_or(&own);
    status.observed_generation = app.metadata.generation;
    status.live = serving_still(observed).or_else(|| {
        serving.map(|release| Live {
            release: release.name_any(),
            revision: release.spec.revision,
            images: release.status.clone().unwrap_or_default().digests,
        })
    });
    let mut conditions = conditions(observed, serving, &own, phase, desired.as_deref());
    conditions.extend(of_backups(backups, &conditions));
    status.conditions = conditions::set(&status.conditions, conditions, app.metadata.generation, now);
}

/// What goes on serving although its Release was deleted, until a newer one serves.
fn serving_still(observed: &AppObserved) -> Option<Live> {
    let live = observed.app.status.as_ref()?.live.clone()?;
    let exists = observed
        .releases
        .iter()
        .any(|release| release.name_any() == live.release);
    let newer = history::live(&observed.releases);
    let is_followed = newer.is_some_and(|newer| newer.spec.revision > live.revision);
    let runs = observed.snapshots.contains_key(&live.release)
        && observed.deployments.iter().any(|deployment| {
            deployment.labels().get(labels::RELEASE) == Some(&live.release) && replicas_of(deployment) > 0
        });
    (!exists && !is_followed && runs).then_some(live)
}

/// The release in progress that waits for a user: it keeps the App saying so, whatever is edited meanwhile.
fn waiting_for_user(observed: &AppObserved, own: &Phase) -> Option<Phase> {
    if matches!(own, Phase::Stalled(..) | Phase::Refused(_)) {
        return None;
    }
    let mut in_progress = observed.releases.iter().filter(|release| {
        release.metadata.deletion_timestamp.is_none() && has_begun(release) && !has_ended(release)
    });
    in_progress.find_map(|release| {
        Some(Phase::Stalled(
            release.name_any(),
            said(release, STALLED, "True")?,
        ))
    })
}

/// What a condition of a Release says, if it has that value.
fn said(release: &Release, kind: &str, value: &str) -> Option<StatusSummary> {
    let conditions = &release.status.as_ref()?.conditions;
    let condition = conditions
        .iter()
        .find(|condition| condition.type_ == kind && condition.status == value)?;
    Some(StatusSummary {
        reason: reason_of(condition).unwrap_or(Reason::ReleaseFailed),
        message: condition.message.clone(),
    })
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
        Finding::Refused(message) => return Phase::Refused(message.clone()),
        Finding::Recorded => return Phase::Releasing,
        Finding::Deleted => return Phase::Deleted,
        Finding::Settled => {}
    }
    let Some(release) = desired else {
        return Phase::Releasing;
    };
    let status = release.status.clone().unwrap_or_default();
    match status.outcome {
        Some(ReleaseOutcome::Succeeded) => Phase::Live,
        Some(outcome) => Phase::Failed(
            outcome,
            said(release, SUCCEEDED, "False").unwrap_or(StatusSummary {
                reason: Reason::ReleaseFailed,
                message: String::new(),
            }),
        ),
        None => match said(release, STALLED, "True") {
            Some(summary) => Phase::Stalled(release.name_any(), summary),
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
    let details = |release: &str| {
        let command = kubectl::describe(namespace, Resource::Release(release));
        format!("For details: {command}")
    };
    let more = desired.map_or_else(String::new, details);
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
        Phase::Stalled(release, summary) => (
            State::Stalled,
            Reason::ActionRequired,
            message::sentences([
                serves,
                &format!("Release {release} requires action ({}).", summary.reason),
                &details(release),
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
        Phase::Deleted => (
            State::Waiting,
            Reason::ReleaseDeleted,
            message::sentences([
                serves,
                &format!("{release} of the current spec was deleted, and is not created again."),
                &to_release_again(observed),
            ]),
        ),
        Phase::Held => (
            State::Waiting,
            Reason::Suspended,
            format!("{serves} spec.suspend is true. Set it to false to release the current spec."),
        ),
        Phase::Refused(message) => (
            State::Stalled,
            Reason::WriteRefused,
            message::sentences([serves, message]),
        ),
        Phase::AwaitingRelease(message) => (
            State::Waiting,
            Reason::AwaitingRelease,
            message::sentences([serves, message]),
        ),
    };
    Progress::new(state, reason, message)
}

/// How a user releases a spec whose Release was deleted.
fn to_release_again(observed: &AppObserved) -> String {
    let app = observed.app.name_any();
    let status = observed.app.status.as_ref();
    let recorded = status.and_then(|status| status.revision).unwrap_or_default();
    let revision = history::free_revision(recorded, &observed.releases);
    format!(
        "To release the spec again, edit it, or apply Release {} with spec.app {app} and spec.revision {revision}.",
        names::release(&app, revision)
    )
}

fn conditions(
    observed: &AppObserved,
    serving: Option<&Arc<Release>>,
    own: &Phase,
    phase: &Phase,
    desired: Option<&str>,
) -> Vec<Desired> {
    let still = serving_still(observed);
    let serves = match (&still, serving) {
        (Some(live), _) => format!("What Release {} started still runs.", live.release),
        (None, Some(release)) => format!("Release {} serves.", release.name_any()),
        (None, None) => "No release serves yet.".to_owned(),
    };
    let Progress {
        state,
        reason,
        message,
    } = progress(observed, &serves, phase, desired);
    let live = still
        .map(|live| live.release)
        .or(serving.map(|release| release.name_any()));
    let (ready, ready_reason, ready_message) = match (&live, phase) {
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
    let serves_desired = live.as_deref().is_some_and(|release| Some(release) == desired);
    if matches!(own, Phase::Failed(..) | Phase::Deleted) && !serves_desired {
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

/// What is to be said of backups beside those of releases. What keeps them from being taken is for a user to fix, and is said
/// when no release is under way or needs that user.
fn of_backups((backups, last): (&Backups, &FinalBackup), others: &[Desired]) -> Vec<Desired> {
    let is_told = |desired: &Desired| [RECONCILING, STALLED].contains(&desired.type_);
    let trouble = last.trouble.as_ref().or(backups.trouble.as_ref());
    let trouble = trouble.filter(|_| !others.iter().any(is_told));
    let stalled = trouble.map(|(reason, message)| Desired::new(STALLED, Status::True, *reason, message));
    let said = [
        (BACKUP_OVERDUE, Reason::BackupOverdue, &backups.overdue),
        (FINAL_BACKUP_TAKEN, Reason::FinalBackupTaken, &last.taken),
    ];
    let said = said.into_iter().filter_map(|(type_, reason, message)| {
        let message = message.as_ref()?;
        Some(Desired::new(type_, Status::True, reason, message))
    });
    stalled.into_iter().chain(said).collect()
}

/// The one condition that repeats all that the Release says: tools that wait for an App show it.
fn stalled(phase: &Phase, reason: Reason, desired: Option<&str>) -> Option<Desired> {
    let (reason, statement, summary) = match phase {
        Phase::Failed(_, summary) => {
            let statement = format!("Release {} did not succeed.", desired.unwrap_or_default());
            (summary.reason, statement, summary)
        }
        Phase::Stalled(release, summary) => (reason, format!("Release {release} requires action."), summary),
        _ => return None,
    };
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
fn unready(observed: &AppObserved, serving: &str) -> Option<String> {
    let spec = &observed.app.spec;
    let name = serving.to_owned();
    spec.components
        .iter()
        .filter(|component| component.replicas > 0)
        .find_map(|component| {
            let is_part = |found: &BTreeMap<String, String>| {
                found.get(labels::COMPONENT) == Some(&component.name)
                    && found.get(labels::RELEASE) == Some(&name)
            };
            let exists = match observed.snapshots.get(&name) {
                Some(snapshot) => snapshot.component(&component.name).is_some(),
                // Its ControllerRevision was deleted: its Deployments say what it runs.
                None => observed
                    .deployments
                    .iter()
                    .any(|deployment| is_part(deployment.labels())),
            };
            let ready = observed
                .pods
                .iter()
                .any(|pod| is_part(pod.labels()) && is_ready(pod));
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
