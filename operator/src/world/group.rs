//! What is cached of one App: everything that its planners look at, found without a scan.

use super::cached::Frozen;
use super::shelf::Shelf;
use crate::key::{Key, Reconciled, Watched, Work};
use fairway_crds::{App, Backup, Migration, Release};
use fairway_plan::ObjectRef;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::sync::Arc;

/// An App's objects. The App itself may be gone: backups outlive it.
#[derive(Debug, Default)]
pub(crate) struct Group {
    /// The App: none or one.
    pub(crate) apps: Shelf<App>,
    /// Names of the Releases that serve and that the spec asks for.
    pub(crate) current: [Option<Arc<str>>; 2],
    /// Its Releases.
    pub(crate) releases: Shelf<Release>,
    /// Its Migrations.
    pub(crate) migrations: Shelf<Migration>,
    /// Its Backups.
    pub(crate) backups: Shelf<Backup>,
    /// The snapshots of its Releases.
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
    pub(crate) fn app(&self) -> Option<Arc<App>> {
        self.apps.all().next()
    }

    /// Runs of migrations that have ended and whose Migration is gone: nobody owns them.
    pub(crate) fn orphans(&self) -> Vec<ObjectRef> {
        let (jobs, pods): (Vec<_>, Vec<_>) = (self.jobs.all().collect(), self.pods.all().collect());
        fairway_plan::migration::orphans(&jobs, &pods, |_, name| self.migrations.version(name).is_some())
    }

    /// Whether nothing is left of it.
    pub(crate) fn is_empty(&self) -> bool {
        let Self {
            apps,
            current: _,
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

    /// Whether a Release is under way: then each pass needs all objects parsed.
    pub(crate) fn is_active(&self) -> bool {
        self.releases.names().any(|(_, open)| open)
    }

    /// Keeps the objects as it suits: parsed during a release, compact otherwise.
    pub(crate) fn arrange(&mut self) {
        let active = self.is_active();
        macro_rules! arrange {
            ($($shelf:ident),*) => {
                $(if active { self.$shelf.unpack() } else { self.$shelf.pack() })*
            };
        }
        arrange!(
            apps,
            releases,
            migrations,
            backups,
            revisions,
            deployments,
            pods,
            jobs,
            services,
            endpoint_slices
        );
    }

    /// Who has to look at a change. Releases that have ended look at their App's changes and their own, and the
    /// one that serves or is desired at all of them; so an old one costs nothing while pods come and go.
    pub(crate) fn touched(&self, app: &Key, change: Change<'_>) -> Vec<Work> {
        let mut work = Vec::new();
        let mut add = |kind, name: &str| work.push(Work::new(kind, app.sibling(name)));
        // An App that is gone may have left a migration behind, which ends on its own.
        let ending = matches!(
            change.kind,
            Watched::App | Watched::Migration | Watched::Job | Watched::Pod
        );
        if ending || !self.apps.is_empty() {
            add(Reconciled::App, &app.name);
        }
        let current = |name: &str| self.current.iter().flatten().any(|current| **current == *name);
        let own = |kind, name: &str| change.kind == kind && change.name == name;
        for (name, open) in self.releases.names() {
            if open || current(name) || change.kind == Watched::App || own(Watched::Release, name) {
                add(Reconciled::Release, name);
            }
        }
        let frames = matches!(
            change.kind,
            Watched::App | Watched::Release | Watched::ControllerRevision
        );
        for (name, open) in self.migrations.names() {
            // A person resolves a migration by an annotation on its Release, which has the same name.
            let asked = own(Watched::Release, name);
            if own(Watched::Migration, name) || change.work_for == Some(name) || asked || frames && open {
                add(Reconciled::Migration, name);
            }
        }
        for (name, open) in self.backups.names() {
            if own(Watched::Backup, name) || change.work_for == Some(name) || frames && open {
                add(Reconciled::Backup, name);
            }
        }
        work
    }

    /// Migrations and backups that have not ended.
    pub(crate) fn open_work(&self, app: &Key) -> Vec<Work> {
        fn open<'a>(names: impl Iterator<Item = (&'a str, bool)>) -> impl Iterator<Item = &'a str> {
            names.filter_map(|(name, open)| open.then_some(name))
        }
        let migrations =
            open(self.migrations.names()).map(|name| Work::new(Reconciled::Migration, app.sibling(name)));
        let backups = open(self.backups.names()).map(|name| Work::new(Reconciled::Backup, app.sibling(name)));
        migrations.chain(backups).collect()
    }
}

/// Whether a Release has an outcome.
pub(crate) fn ended(release: &Release) -> bool {
    release
        .status
        .as_ref()
        .is_some_and(|status| status.outcome.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairway_crds::release::{ReleaseOutcome, ReleaseStatus};
    use fairway_crds::{AppSpec, BackupSpec, MigrationSpec, ReleaseSpec};
    use serde_json::json;

    fn group() -> Group {
        let mut group = Group::default();
        let spec: AppSpec = serde_json::from_value(json!({"components": []})).unwrap();
        let app = App::new("crm", spec);
        group.current = [Some("crm-2".into()), Some("crm-3".into())];
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
    fn a_verdict_on_a_release_concerns_its_migration_although_that_has_an_outcome() {
        let mut group = group();
        let mut migration = Migration::clone(&group.migrations.get("crm-3").unwrap());
        migration.status = Some(fairway_crds::MigrationStatus {
            outcome: Some(fairway_crds::migration::MigrationOutcome::Unknown),
            ..Default::default()
        });
        group.migrations.put("crm-3".into(), 2, Arc::new(migration));
        let change = Change {
            kind: Watched::Release,
            name: "crm-3",
            work_for: None,
        };
        let app = Key::new("shop", "crm");
        let migration = Work::new(Reconciled::Migration, app.sibling("crm-3"));
        assert!(group.touched(&app, change).contains(&migration));
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
        let of_a_migration = Change {
            kind: Watched::Pod,
            name: "x",
            work_for: Some("crm-1"),
        };
        assert_eq!(
            group.touched(&Key::new("shop", "crm"), of_a_migration).len(),
            1,
            "it may have to be removed"
        );
        let other = Change {
            kind: Watched::Service,
            name: "x",
            work_for: None,
        };
        assert!(group.touched(&Key::new("shop", "crm"), other).is_empty());
    }
}
