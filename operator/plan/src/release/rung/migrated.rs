//! Migrated: the ledger in the database says that the migration is committed.

use crate::backup::is_under_way;
use crate::release::before_migration::handed_over;
use crate::release::children::child_labels;
use crate::release::followed_migration;
use crate::release::history::happened;
use crate::release::verdict::{Failure, Verdict, Wait};
use crate::release::view::View;
use crate::{Object, Step};
use fairway_crds::Migration;
use fairway_crds::Reason;
use fairway_crds::migration::MigrationSpec;
use fairway_crds::release::{MilestoneKind, ReleaseStatus};
use kube::{Resource, ResourceExt};

/// Met when the ledger says that the migration is committed.
///
/// Previous pods beside which the migration's pod must not run are ended first. The milestone `Migrating` is recorded
/// before the Migration exists: from there on this release finishes or rolls back, whatever the App says meanwhile.
pub(in crate::release) fn climb(view: &View, status: &mut ReleaseStatus) -> Verdict {
    let Some(template) = &view.snapshot.migration else {
        return Verdict::Met;
    };
    if happened(status, MilestoneKind::Migrated).is_some() {
        return failed_check(view).map_or(Verdict::Met, Failure::verdict);
    }
    if happened(status, MilestoneKind::Migrating).is_none() {
        // Before the previous pods are ended: a dump may take hours.
        if let Some(wait) = beside_backup(view) {
            return Verdict::Wait(wait);
        }
        if let Some(verdict) = handed_over(view, status) {
            return verdict;
        }
        if view.suspended() && happened(status, MilestoneKind::HandingOver).is_none() {
            return Verdict::Wait(view.held("its migration"));
        }
        return Verdict::Commit(MilestoneKind::Migrating);
    }
    let Some(migration) = view.migration() else {
        return match migration_of(view, status) {
            Some(migration) => Verdict::Act(
                vec![Step::Create(Box::new(Object::Migration(migration)))],
                Wait::machine(Reason::Migrating, "Starting the migration."),
            ),
            None => Failure::new(
                Reason::MigrationImageMissing,
                format!(
                    "The migration cannot run, because component {} has no container with an image. Add one to the App.",
                    template.component
                ),
            )
            .verdict(),
        };
    };
    followed_migration::outcome(migration, status)
}

/// The wait for a Backup whose dump is under way: its locks would hold the migration up, and the migration those who use the
/// tables. That of this Release has ended.
fn beside_backup(view: &View) -> Option<Wait> {
    let mut backups = view.observed.backups.iter();
    let backup = backups.find(|backup| is_under_way(backup))?;
    let message = format!(
        "Waiting for Backup {}: no migration begins beside a backup.",
        backup.name_any()
    );
    Some(Wait::machine(Reason::WaitingForBackup, message))
}

fn failed_check(view: &View) -> Option<Failure> {
    let check = view.migration()?.status.as_ref()?.failed_check.clone()?;
    Some(Failure::new(
        Reason::MigrationCheckFailed,
        format!("The migration was applied, but {check}. The database keeps the new schema."),
    ))
}

fn migration_of(view: &View, status: &ReleaseStatus) -> Option<Migration> {
    let template = view.snapshot.migration.as_ref()?;
    let component = view.snapshot.component(&template.component)?;
    let first = || component.template["spec"]["containers"][0]["name"].as_str();
    let container = template.container.as_deref().or_else(first)?;
    let image = status.digests.get(&format!("{}/{container}", component.name))?;
    let mut migration = Migration::new(
        view.name(),
        MigrationSpec {
            app: view.app_name().to_owned(),
            release: Some(view.name().to_owned()),
            image: image.clone(),
            component: component.name.clone(),
            container: template.container.clone(),
            command: template.command.clone(),
            on_start: template.on_start,
            timeout: template.timeout,
            checks: template.checks.clone(),
        },
    );
    migration.metadata.namespace = Some(view.namespace().to_owned());
    migration.metadata.labels = Some(child_labels(view));
    migration.metadata.owner_references = view.release().controller_owner_ref(&()).map(|owner| vec![owner]);
    Some(migration)
}
