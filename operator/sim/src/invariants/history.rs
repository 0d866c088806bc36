//! What is for good: which objects are there, their specs, and what is recorded of them.

use super::{Checker, Observations, changed, same_in};
use crate::cluster::Cluster;
use crate::database::Database;
use crate::store::Objects;
use fairway_crds::backup::{BackupOutcome, RemovalState};
use fairway_crds::migration::{MigrationOutcome, MigrationStatus};
use fairway_crds::release::{Milestone, MilestoneKind, ReleaseOutcome};
use fairway_crds::{Backup, Reason, Release, ReleaseStatus};
use fairway_engine::kinds::Kind;
use fairway_plan::release::history::{happened, has_begun, has_ended};
use kube::ResourceExt;
use kube::core::ObjectMeta;
use std::collections::{BTreeMap, BTreeSet};

impl Checker {
    pub(super) fn releases(&mut self, before: &Objects, after: &Objects) {
        for (name, release) in changed(&before.releases, &after.releases) {
            match same_in(&before.releases, release) {
                Some(old) => self.history(name, old, release),
                None => {
                    // Without its snapshot, nothing says that the Release was there: a user deleted both.
                    let is_known = before.revisions.contains_key(name);
                    self.created(after, name, release, is_known);
                }
            }
        }
        let mut begun: BTreeMap<&str, Vec<&String>> = BTreeMap::new();
        for (name, release) in &after.releases {
            let is_taken_over = release
                .status
                .as_ref()
                .is_some_and(|status| status.taken_over_by.is_some());
            // One that is being deleted does nothing any more.
            let stays = release.metadata.deletion_timestamp.is_none();
            if has_begun(release) && !has_ended(release) && !is_taken_over && stays {
                begun.entry(&release.spec.app).or_default().push(name);
            }
        }
        let twice: Vec<_> = begun
            .into_values()
            .filter(|names| names.len() > 1)
            .map(|names| format!("{names:?}"))
            .collect();
        for names in twice {
            self.violated(format!("{names} are past the point of no return at once"));
        }
    }

    /// No revision of an App is created twice.
    fn created(&mut self, after: &Objects, name: &str, release: &Release, is_known: bool) {
        let app = after
            .apps
            .get(&release.spec.app)
            .and_then(|app| app.uid())
            .unwrap_or_default();
        if !self.created.insert((app, release.spec.revision)) && is_known {
            self.violated(format!("{name} was created twice"));
        }
    }

    /// Milestones are only appended to, and an outcome is for good, but that a user may take a success back.
    fn history(&mut self, name: &str, old: &Release, new: &Release) {
        let empty = ReleaseStatus::default();
        let (before, after) = (
            old.status.as_ref().unwrap_or(&empty),
            new.status.as_ref().unwrap_or(&empty),
        );
        if !after.milestones.starts_with(&before.milestones) {
            self.violated(format!("milestones of {name} were rewritten"));
        }
        let kinds: Vec<_> = after.milestones.iter().map(|milestone| milestone.kind).collect();
        if kinds
            .iter()
            .enumerate()
            .any(|(index, kind)| kinds[..index].contains(kind))
        {
            self.violated(format!("{name} reached a milestone twice: {kinds:?}"));
        }
        let is_requested = |milestone: &Milestone| {
            let reason = milestone.reason.as_deref();
            reason.and_then(|reason| reason.parse::<Reason>().ok()) == Some(Reason::RollbackRequested)
        };
        let by_user = happened(before, MilestoneKind::RollingBack).is_none()
            && happened(after, MilestoneKind::RollingBack).is_some_and(is_requested);
        match (before.outcome, after.outcome) {
            (Some(ReleaseOutcome::Succeeded), None) if by_user => {}
            (Some(old), new) if new != Some(old) => {
                self.violated(format!("the outcome of {name} changed from {old:?} to {new:?}"));
            }
            _ => {}
        }
    }

    /// How a Migration, a Backup or a Restore ended is for good, but that a user resolves a migration; and an App's revision never
    /// goes back.
    pub(super) fn ended(&mut self, before: &Objects, cluster: &Cluster) {
        use MigrationOutcome::{Applied, Failed, Partial, Unknown};
        let after = cluster.objects();
        for (name, migration) in changed(&before.migrations, &after.migrations) {
            let old = same_in(&before.migrations, migration).and_then(|old| old.status.as_ref());
            let new = migration.status.as_ref();
            let outcome = |status: Option<&MigrationStatus>| status.and_then(|status| status.outcome);
            let is_by_user = || {
                old.zip(new)
                    .is_some_and(|(old, new)| is_resolved(old, new, &cluster.database))
            };
            match (outcome(old), outcome(new)) {
                (Some(Unknown | Partial), Some(Unknown | Partial)) => {}
                (Some(Unknown | Partial), Some(Applied | Failed)) if is_by_user() => {}
                (Some(old), new) if new != Some(old) => {
                    self.violated(format!(
                        "the outcome of Migration {name} changed from {old:?} to {new:?}"
                    ));
                }
                _ => {}
            }
        }
        for (name, backup) in changed(&before.backups, &after.backups) {
            let old = same_in(&before.backups, backup).and_then(|old| old.status.as_ref()?.outcome);
            let new = backup.status.as_ref().and_then(|status| status.outcome);
            if let (Some(BackupOutcome::Succeeded), Some(release)) = (new, &backup.spec.release) {
                let release = self.release_of(release);
                self.proven.insert(release);
            }
            if old.is_some() && new != old {
                self.violated(format!(
                    "the outcome of Backup {name} changed from {old:?} to {new:?}"
                ));
            }
        }
        for (name, restore) in changed(&before.restores, &after.restores) {
            let old = same_in(&before.restores, restore).and_then(|old| old.status.as_ref()?.outcome);
            let new = restore.status.as_ref().and_then(|status| status.outcome);
            if old.is_some() && new != old {
                self.violated(format!(
                    "the outcome of Restore {name} changed from {old:?} to {new:?}"
                ));
            }
        }
        for (name, app) in changed(&before.apps, &after.apps) {
            let old = same_in(&before.apps, app).and_then(|old| old.status.as_ref()?.revision);
            let new = app.status.as_ref().and_then(|status| status.revision);
            if old > new {
                self.violated(format!(
                    "the revision of App {name} went back from {old:?} to {new:?}"
                ));
            }
        }
    }

    /// Nothing is created for an App that is being deleted.
    pub(super) fn ending(&mut self, before: &Objects, after: &Objects) {
        let is_ending = |meta: &ObjectMeta| meta.deletion_timestamp.is_some();
        let Some(app) = after.apps.values().find(|app| is_ending(&app.metadata)) else {
            return;
        };
        if self.observations == Observations::Stale {
            return;
        }
        let created = [
            Kind::Release,
            Kind::Migration,
            Kind::Backup,
            Kind::ControllerRevision,
            Kind::Deployment,
            Kind::Service,
        ];
        let known: BTreeSet<_> = before
            .all()
            .into_iter()
            .map(|(_, meta)| meta.uid.clone())
            .collect();
        let new: Vec<_> = after
            .all()
            .into_iter()
            .filter(|(kind, meta)| created.contains(kind) && !known.contains(&meta.uid))
            .map(|(kind, meta)| format!("{} {}", kind.as_str(), meta.name.clone().unwrap_or_default()))
            .collect();
        for what in new {
            self.violated(format!(
                "{what} was created although App {} is being deleted",
                app.name_any()
            ));
        }
    }

    /// Backups are not deleted but when their sets are removed, and what a revision releases does not change.
    pub(super) fn kept(&mut self, before: &Objects, after: &Objects) {
        let gone: Vec<_> = before
            .backups
            .keys()
            .filter(|name| !after.backups.contains_key(*name))
            // What a user deletes goes later.
            .filter(|name| before.backups[*name].metadata.deletion_timestamp.is_none())
            .filter(|name| !is_removed(&before.backups[*name]))
            .cloned()
            .collect();
        for name in gone {
            self.violated(format!("Backup {name} was deleted"));
        }
        for (name, revision) in changed(&before.revisions, &after.revisions) {
            if same_in(&before.revisions, revision).is_some_and(|old| old.data != revision.data) {
                self.violated(format!("the snapshot of {name} changed"));
            }
        }
        for (name, release) in changed(&before.releases, &after.releases) {
            if same_in(&before.releases, release).is_some_and(|old| old.spec != release.spec) {
                self.violated(format!("the spec of {name} changed"));
            }
        }
        for (name, migration) in changed(&before.migrations, &after.migrations) {
            if same_in(&before.migrations, migration).is_some_and(|old| old.spec != migration.spec) {
                self.violated(format!("the spec of migration {name} changed"));
            }
        }
    }
}

/// Whether the status of a Backup says that its set is removed.
fn is_removed(backup: &Backup) -> bool {
    let status = backup.status.as_ref();
    let removal = status.and_then(|status| status.removal.as_ref());
    removal.is_some_and(|removal| matches!(removal.state, RemovalState::Removed | RemovalState::Hidden))
}

/// Whether a user has said how a migration ended: in the annotation that the Migration answers with this write, or before.
/// Then the ledger has the verdict, also when the annotation that gave it is gone.
fn is_resolved(old: &MigrationStatus, new: &MigrationStatus, database: &Database) -> bool {
    let answered = &new.last_handled_resolve;
    let row = new.run_id.as_deref().and_then(|run_id| database.row(run_id));
    answered.is_some() && *answered != old.last_handled_resolve
        || row.is_some_and(|row| row.resolution.is_some())
}
