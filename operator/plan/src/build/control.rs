//! Releases and the snapshots behind them, and the Backups of a schedule.

use super::labels_of;
use crate::json::json;
use crate::message::moment;
use crate::snapshot::Snapshot;
use crate::{labels, names};
use fairway_crds::{App, Backup, BackupSpec, Release, ReleaseSpec};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::core::ObjectMeta;
use kube::{Resource, ResourceExt};
use std::collections::BTreeMap;

/// The snapshot of a Release, by the same name.
pub fn controller_revision(
    app: &App,
    release: &str,
    revision: i64,
    snapshot: &Snapshot,
) -> ControllerRevision {
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(release.to_owned()),
            namespace: app.metadata.namespace.clone(),
            labels: Some(labels_of([
                (labels::APP, &*app.name_any()),
                (labels::RELEASE, release),
                (labels::SPEC_HASH, &*snapshot.hash()),
            ])),
            owner_references: app.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(json(snapshot))),
        revision,
    }
}

/// What a ControllerRevision holds.
///
/// # Errors
/// When it was not written by Fairway, or by one whose API this one does not read.
pub fn snapshot_of(revision: &ControllerRevision) -> Result<Snapshot, serde_json::Error> {
    let data = revision.data.as_ref().map(|RawExtension(value)| value.clone());
    serde_json::from_value(data.unwrap_or_default())
}

/// The Release of a revision.
pub fn release(
    app: &App,
    revision: i64,
    spec_hash: &str,
    images: BTreeMap<String, String>,
    trigger: &str,
    retry_of: Option<&str>,
) -> Release {
    let name = app.name_any();
    let mut release = Release::new(
        &names::release(&name, revision),
        ReleaseSpec {
            app: name.clone(),
            revision,
            images,
            version: None,
            trigger: trigger.to_owned(),
        },
    );
    release.metadata.namespace = app.metadata.namespace.clone();
    release.metadata.labels = Some(labels_of([(labels::APP, &*name), (labels::SPEC_HASH, spec_hash)]));
    release.metadata.owner_references = app.controller_owner_ref(&()).map(|owner| vec![owner]);
    if let Some(retried) = retry_of {
        super::annotate(&mut release.metadata, labels::RETRY_OF, retried.to_owned());
    }
    release
}

/// The Backup of a run of the App's schedule. Nobody owns it: backups outlive their App.
pub fn scheduled_backup(app: &App, run: Timestamp) -> Backup {
    let name = names::scheduled_backup(&app.name_any(), run);
    backup(app, &name, format!("scheduled for {}", moment(run)))
}

/// The final Backup of an App, of that name.
pub fn final_backup(app: &App, name: &str, keep_until: Timestamp) -> Backup {
    let mut backup = backup(app, name, "final, before the App is deleted".to_owned());
    backup.spec.keep_until = Some(keep_until);
    backup
}

fn backup(app: &App, name: &str, reason: String) -> Backup {
    let spec = BackupSpec {
        app: app.name_any(),
        release: None,
        reason,
        keep_until: None,
    };
    let mut backup = Backup::new(name, spec);
    backup.metadata.namespace = app.metadata.namespace.clone();
    backup.metadata.labels = Some(labels_of([(labels::APP, &*app.name_any())]));
    backup
}
