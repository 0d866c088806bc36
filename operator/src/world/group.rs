//! What is cached of one App: everything that its planners look at, found without a scan.

use super::shelf::Shelf;
use crate::key::{Key, Reconciled, Watched, Work};
use fairway_crds::{App, Backup, Migration, Release};
use fairway_plan::snapshot::Snapshot;
use k8s_openapi::api::apps::v1::{ControllerRevision, Deployment};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::sync::{Arc, Mutex, PoisonError};

/// An App's objects. The App itself may be gone: backups outlive it.
#[derive(Debug, Default)]
pub(crate) struct Group {
    /// The App: none or one.
    pub(crate) apps: Shelf<App>,
    /// Its Releases.
    pub(crate) releases: Shelf<Release>,
    /// Its Migrations.
    pub(crate) migrations: Shelf<Migration>,
    /// Its Backups.
    pub(crate) backups: Shelf<Backup>,
    /// The frozen specs of its Releases.
    pub(crate) revisions: Shelf<Frozen>,
    /// Its Deployments.
    pub(crate) deployments: Shelf<Deployment>,
    /// Its pods, the agent's included.
    pub(crate) pods: Shelf<Pod>,
    /// The agent's Jobs.
    pub(crate) jobs: Shelf<Job>,
    /// The Services that Fairway has applied for it.
    pub(crate) services: Shelf<Service>,
    /// Their EndpointSlices.
    pub(crate) endpoint_slices: Shelf<EndpointSlice>,
}

/// What has changed, as far as it decides who is to look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change<'a> {
    /// The kind.
    pub(crate) kind: Watched,
    /// The name.
    pub(crate) name: &'a str,
    /// The Migration or Backup that a Job or pod works for.
    pub(crate) work_for: Option<&'a str>,
}

impl Group {
    /// The App.
    pub(crate) fn app(&self) -> Option<&Arc<App>> {
        self.apps.all().next()
    }

    /// Whether nothing is left of it.
    pub(crate) fn is_empty(&self) -> bool {
        let Self {
            apps,
            releases,
            migrations,
            backups,
            revisions,
            deployments,
            pods,
            jobs,
            services,
            endpoint_slices,
        } = self;
        apps.is_empty()
            && releases.is_empty()
            && migrations.is_empty()
            && backups.is_empty()
            && revisions.is_empty()
            && deployments.is_empty()
            && pods.is_empty()
            && jobs.is_empty()
            && services.is_empty()
            && endpoint_slices.is_empty()
    }

    /// Whether a Release is under way.
    pub(crate) fn is_active(&self) -> bool {
        self.releases.all().any(|release| !ended(release))
    }

    /// Who has to look at a change. Releases that have ended look at their App's changes and their own, and the
    /// one that serves or is wanted at all of them; so an old one costs nothing while pods come and go.
    pub(crate) fn touched(&self, app: &Key, change: Change<'_>) -> Vec<Work> {
        let mut work = Vec::new();
        let mut add = |kind, name: &str| work.push(Work::new(kind, app.sibling(name)));
        if change.kind == Watched::App || !self.apps.is_empty() {
            add(Reconciled::App, &app.name);
        }
        let status = self.app().and_then(|app| app.status.as_ref());
        let live = status.and_then(|status| Some(status.live.as_ref()?.release.as_str()));
        let wanted = status.and_then(|status| status.wanted.as_deref());
        let own = |kind, name: &str| change.kind == kind && change.name == name;
        for release in self.releases.all() {
            let name = name_of(&**release);
            if !ended(release)
                || live == Some(name)
                || wanted == Some(name)
                || change.kind == Watched::App
                || own(Watched::Release, name)
            {
                add(Reconciled::Release, name);
            }
        }
        let frames = matches!(
            change.kind,
            Watched::App | Watched::Release | Watched::ControllerRevision
        );
        for migration in self.migrations.all() {
            let name = name_of(&**migration);
            let open = migration
                .status
                .as_ref()
                .is_none_or(|status| status.outcome.is_none());
            if own(Watched::Migration, name) || change.work_for == Some(name) || frames && open {
                add(Reconciled::Migration, name);
            }
        }
        for backup in self.backups.all() {
            let name = name_of(&**backup);
            let open = backup
                .status
                .as_ref()
                .is_none_or(|status| status.outcome.is_none());
            if own(Watched::Backup, name) || change.work_for == Some(name) || frames && open {
                add(Reconciled::Backup, name);
            }
        }
        work
    }
}

/// Whether a Release has an outcome.
pub(crate) fn ended(release: &Release) -> bool {
    release
        .status
        .as_ref()
        .is_some_and(|status| status.outcome.is_some())
}

/// An object's name; everything that was stored has one.
pub(crate) fn name_of(object: &impl kube::Resource) -> &str {
    object.meta().name.as_deref().unwrap_or_default()
}

/// A ControllerRevision, kept as compact JSON: nothing reads the frozen spec of an App at rest, and a parsed
/// one takes ten times the room.
#[derive(Debug)]
pub(crate) struct Frozen {
    json: Box<[u8]>,
    parsed: Mutex<Option<Arc<Snapshot>>>,
}

/// Whether a parsed snapshot is worth keeping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// The App is being released: the next pass needs it again.
    Parsed,
    /// It is at rest.
    Compact,
}

impl Frozen {
    /// Keeps a ControllerRevision.
    pub(crate) fn new(revision: &ControllerRevision) -> Self {
        let json = serde_json::to_vec(revision)
            .unwrap_or_default()
            .into_boxed_slice();
        Self {
            json,
            parsed: Mutex::new(None),
        }
    }

    /// The frozen spec.
    ///
    /// # Errors
    /// When it was not written by a version of Fairway that this one understands.
    pub(crate) fn snapshot(&self, keep: Keep) -> Result<Arc<Snapshot>, serde_json::Error> {
        let mut parsed = self.parsed.lock().unwrap_or_else(PoisonError::into_inner);
        let snapshot = match parsed.as_ref() {
            Some(snapshot) => snapshot.clone(),
            None => {
                let revision: ControllerRevision = serde_json::from_slice(&self.json)?;
                Arc::new(fairway_plan::build::control::snapshot_of(&revision)?)
            }
        };
        *parsed = (keep == Keep::Parsed).then(|| snapshot.clone());
        Ok(snapshot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairway_crds::app::{AppStatus, Live};
    use fairway_crds::release::{ReleaseOutcome, ReleaseStatus};
    use fairway_crds::{AppSpec, BackupSpec, MigrationSpec, ReleaseSpec};
    use serde_json::json;

    fn group() -> Group {
        let mut group = Group::default();
        let spec: AppSpec = serde_json::from_value(json!({"components": []})).unwrap();
        let mut app = App::new("crm", spec);
        app.status = Some(AppStatus {
            live: Some(Live {
                release: "crm-2".into(),
                revision: 2,
                images: Default::default(),
            }),
            wanted: Some("crm-3".into()),
            ..Default::default()
        });
        group.apps.put("crm".into(), 1, Arc::new(app));
        for (revision, outcome) in [
            (1, Some(ReleaseOutcome::Succeeded)),
            (2, Some(ReleaseOutcome::Succeeded)),
            (3, None),
        ] {
            let name = format!("crm-{revision}");
            let spec: ReleaseSpec =
                serde_json::from_value(json!({"app": "crm", "revision": revision})).unwrap();
            let mut release = Release::new(&name, spec);
            release.status = Some(ReleaseStatus {
                outcome,
                ..Default::default()
            });
            group.releases.put(name.into(), 1, Arc::new(release));
        }
        let spec: MigrationSpec = serde_json::from_value(json!({
            "app": "crm", "image": "x", "component": "web", "command": ["migrate"], "timeout": "1m",
        }))
        .unwrap();
        group
            .migrations
            .put("crm-3".into(), 1, Arc::new(Migration::new("crm-3", spec)));
        let spec: BackupSpec = serde_json::from_value(json!({"app": "crm"})).unwrap();
        group.backups.put(
            "crm-3-0a1b2c3d".into(),
            1,
            Arc::new(Backup::new("crm-3-0a1b2c3d", spec)),
        );
        group
    }

    fn touched(kind: Watched, name: &str, work_for: Option<&str>) -> Vec<String> {
        group()
            .touched(&Key::new("shop", "crm"), Change { kind, name, work_for })
            .iter()
            .map(|work| format!("{} {}", work.kind.controller(), work.key))
            .collect()
    }

    #[test]
    fn a_pod_concerns_its_app_and_the_releases_that_run_serve_or_are_wanted() {
        assert_eq!(
            touched(Watched::Pod, "crm-web-3-x", None),
            ["app shop/crm", "release shop/crm-2", "release shop/crm-3"]
        );
    }

    #[test]
    fn an_old_release_is_looked_at_when_it_or_its_app_changes() {
        assert!(touched(Watched::Release, "crm-1", None).contains(&"release shop/crm-1".into()));
        assert!(touched(Watched::App, "crm", None).contains(&"release shop/crm-1".into()));
    }

    #[test]
    fn an_agents_job_concerns_what_it_works_for() {
        let work = touched(Watched::Job, "crm-3-0a1b2c3d-backup-1", Some("crm-3-0a1b2c3d"));
        assert!(work.contains(&"backup shop/crm-3-0a1b2c3d".into()), "{work:?}");
        assert!(!work.contains(&"migration shop/crm-3".into()), "{work:?}");
    }

    #[test]
    fn a_frozen_spec_that_appears_concerns_work_that_has_not_ended() {
        let work = touched(Watched::ControllerRevision, "crm-3", None);
        assert!(work.contains(&"migration shop/crm-3".into()), "{work:?}");
        assert!(work.contains(&"backup shop/crm-3-0a1b2c3d".into()), "{work:?}");
    }

    #[test]
    fn deleting_the_app_is_still_told_to_its_controller() {
        let group = Group::default();
        let change = Change {
            kind: Watched::App,
            name: "crm",
            work_for: None,
        };
        assert_eq!(group.touched(&Key::new("shop", "crm"), change).len(), 1);
        let change = Change {
            kind: Watched::Pod,
            name: "x",
            work_for: None,
        };
        assert!(group.touched(&Key::new("shop", "crm"), change).is_empty());
    }
}
