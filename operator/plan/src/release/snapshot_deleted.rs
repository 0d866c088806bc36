//! A release in progress whose snapshot was deleted: it cannot continue, but it can be rolled back.

use super::followed_migration;
use super::history::{happened, superseded};
use super::verbs;
use super::verdict::{Failure, Verdict, Wait};
use super::view::View;
use crate::conditions::reason_of;
use crate::observed::ReleaseObserved;
use crate::snapshot::Snapshot;
use crate::{kubectl, labels};
use fairway_crds::component::{Component, Strategy};
use fairway_crds::condition::STALLED;
use fairway_crds::release::{MilestoneKind, ReleaseStatus};
use fairway_crds::{Migration, Reason};
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt;

/// Met when nothing that is left to do needs the snapshot. A migration that has started is followed to its end, because
/// no request is heard before.
pub(super) fn climb(view: &View, status: &mut ReleaseStatus) -> Verdict {
    if verbs::stays(view, status) {
        return Verdict::Met;
    }
    if let Some(failure) = superseded(view) {
        return failure.verdict();
    }
    if will_be_created_again(view) {
        let message = format!(
            "Waiting for App {} to create ControllerRevision {} again, which was deleted.",
            view.app_name(),
            view.name()
        );
        return Verdict::Wait(Wait::machine(Reason::WaitingForApp, message));
    }
    let started = happened(status, MilestoneKind::Migrating).is_some();
    if started && happened(status, MilestoneKind::Migrated).is_none() {
        return match view.migration() {
            Some(migration) => {
                stalled(migration).unwrap_or_else(|| followed_migration::outcome(migration, status))
            }
            None => Failure::new(Reason::SnapshotMissing, deleted(view)).verdict(),
        };
    }
    Verdict::Wait(Wait::user(
        Reason::SnapshotMissing,
        format!(
            "{} Restore it from a backup of the cluster, or abort the release: {}",
            deleted(view),
            kubectl::abort(view.namespace(), view.name())
        ),
    ))
}

/// The wait for a migration that lacks the snapshot too.
fn stalled(migration: &Migration) -> Option<Verdict> {
    let conditions = &migration.status.as_ref()?.conditions;
    let stalled = conditions.iter().find(|condition| {
        condition.type_ == STALLED && reason_of(condition) == Some(Reason::SnapshotMissing)
    })?;
    Some(Verdict::Wait(Wait::user(
        Reason::SnapshotMissing,
        &stalled.message,
    )))
}

fn deleted(view: &View) -> String {
    let name = view.name();
    format!("ControllerRevision {name} of Release {name} was deleted, so the release cannot continue.")
}

/// Whether the App creates the snapshot again: it does for its newest revision, unless it has been edited since.
fn will_be_created_again(view: &View) -> bool {
    let Some(app) = view.observed.app.as_deref() else {
        return false;
    };
    let recorded = app.status.as_ref();
    let revision = recorded.and_then(|status| status.revision);
    let hash = recorded.and_then(|status| status.spec_hash.as_ref());
    revision == Some(view.release().spec.revision) && hash == Some(&Snapshot::of(&app.spec).hash())
}

/// What the Deployments of a release show of its snapshot: names and strategies of components. That is all that a
/// rollback has to know of the candidate.
pub(super) fn what_runs(observed: &ReleaseObserved) -> Snapshot {
    let release = observed.release.name_any();
    let deployments = observed.deployments.iter();
    let own = deployments.filter(|deployment| deployment.labels().get(labels::RELEASE) == Some(&release));
    Snapshot {
        components: own.filter_map(|deployment| component(deployment)).collect(),
        ..Snapshot::default()
    }
}

fn component(deployment: &Deployment) -> Option<Component> {
    let strategy = deployment.spec.as_ref().and_then(|spec| spec.strategy.as_ref());
    let recreates = strategy.is_some_and(|strategy| strategy.type_.as_deref() == Some("Recreate"));
    Some(Component {
        name: deployment.labels().get(labels::COMPONENT)?.clone(),
        replicas: 1,
        serves: None,
        health: None,
        strategy: if recreates {
            Strategy::Recreate
        } else {
            Strategy::BlueGreen
        },
        template: serde_json::Value::Null,
    })
}
