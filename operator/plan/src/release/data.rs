//! The rungs that touch the database: BackedUp, Migrated.

use super::verdict::{Failure, Verdict, Wait};
use super::world::{World, happened};
use crate::{Object, Step, labels, names};
use fairway_crds::Reason;
use fairway_crds::backup::{BackupOutcome, BackupSpec};
use fairway_crds::condition::SUCCEEDED;
use fairway_crds::migration::{MigrationOutcome, MigrationSpec};
use fairway_crds::release::{BackupEvidence, MigrationEvidence, MilestoneKind, ReleaseStatus};
use fairway_crds::{Backup, Migration};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{Resource, ResourceExt};

/// A migration begins at once after its backup is proven. One that was held for longer than this would put at stake
/// what was written meanwhile, so it is backed up again.
const FRESH: SignedDuration = SignedDuration::from_mins(10);

/// Met when a Backup of this release is proven, and still fresh when a migration is about to begin.
pub(super) fn backed_up(world: &World, status: &mut ReleaseStatus) -> Verdict {
    let begins = world.snapshot.migration.is_some() && !world.suspended();
    let settled =
        happened(status, MilestoneKind::Migrating).is_some() || status.evidence.backup.is_some() && !begins;
    if settled || world.snapshot.database.is_none() {
        return Verdict::Met;
    }
    if world.today().is_none_or(|today| today.backup.is_none()) {
        let message = format!(
            "App {} does not say any more where its backup goes, and nothing migrates without one",
            world.app_name()
        );
        return match world.snapshot.migration {
            Some(_) => Verdict::Wait(Wait::machine(Reason::WaitingForApp, message)),
            None => Verdict::Met,
        };
    }
    let waiting = "backing the database up and reading the backup back";
    let take = |number: u32| {
        let step = Step::Create(Box::new(Object::Backup(backup_of(world, number))));
        Verdict::Act(vec![step], Wait::machine(Reason::BackingUp, waiting))
    };
    let Some((number, backup)) = world.backup() else {
        return take(1);
    };
    let found = backup.status.clone().unwrap_or_default();
    match found.outcome {
        Some(BackupOutcome::Succeeded) if begins && is_stale(&found.conditions, world.now) => {
            take(number + 1)
        }
        Some(BackupOutcome::Succeeded) => {
            status.evidence.backup = Some(BackupEvidence {
                name: backup.name_any(),
                level: found.level.unwrap_or_default(),
                bytes: found.bytes.unwrap_or_default(),
                sha256: found.sha256.unwrap_or_default(),
            });
            Verdict::Met
        }
        Some(BackupOutcome::Failed) => {
            let message =
                said(&found.conditions).unwrap_or_else(|| "the backup could not be made".to_owned());
            Failure::new(
                Reason::BackupFailed,
                format!("backup {}: {message}", backup.name_any()),
            )
            .verdict()
        }
        None => {
            let message = said(&found.conditions).unwrap_or_else(|| waiting.to_owned());
            Verdict::Wait(Wait::machine(Reason::BackingUp, message))
        }
    }
}

/// Whether a backup was proven too long ago.
fn is_stale(conditions: &[Condition], now: Timestamp) -> bool {
    let proven = conditions.iter().find(|condition| condition.type_ == SUCCEEDED);
    proven.is_none_or(|proven| now.duration_since(proven.last_transition_time.0) > FRESH)
}

fn backup_of(world: &World, number: u32) -> Backup {
    let mut backup = Backup::new(
        &names::backup(world.name(), world.uid(), number),
        BackupSpec {
            app: world.app_name().to_owned(),
            release: Some(world.name().to_owned()),
            reason: format!("before {} changes anything", world.name()),
        },
    );
    backup.metadata.namespace = Some(world.namespace().to_owned());
    backup.metadata.labels = Some(common_labels(world));
    backup
}

fn common_labels(world: &World) -> std::collections::BTreeMap<String, String> {
    [
        (labels::APP, world.app_name()),
        (labels::RELEASE, world.name()),
        (labels::MANAGED_BY, labels::FAIRWAY),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect()
}

fn said(conditions: &[Condition]) -> Option<String> {
    let condition = conditions.iter().find(|condition| condition.type_ == SUCCEEDED)?;
    (!condition.message.is_empty()).then(|| condition.message.clone())
}

/// Met when the ledger says that the migration is committed.
///
/// The milestone `Migrating` is on record before the Migration exists: from there on this release finishes or
/// rolls back, whatever the App says meanwhile.
pub(super) fn migrated(world: &World, status: &mut ReleaseStatus) -> Verdict {
    let Some(template) = &world.snapshot.migration else {
        return Verdict::Met;
    };
    if happened(status, MilestoneKind::Migrated).is_some() {
        return failed_check(world).map_or(Verdict::Met, Failure::verdict);
    }
    if happened(status, MilestoneKind::Migrating).is_none() {
        if world.suspended() {
            return Verdict::Wait(super::held("before its migration"));
        }
        return Verdict::Commit(MilestoneKind::Migrating);
    }
    let Some(migration) = world.migration() else {
        return match migration_of(world, status) {
            Some(migration) => Verdict::Act(
                vec![Step::Create(Box::new(Object::Migration(migration)))],
                Wait::machine(Reason::Migrating, "starting the migration"),
            ),
            None => Failure::new(
                Reason::MigrationImageMissing,
                format!(
                    "component {} has no container whose image could migrate",
                    template.component
                ),
            )
            .verdict(),
        };
    };
    let found = migration.status.clone().unwrap_or_default();
    let message = said(&found.conditions);
    match found.outcome {
        None => {
            let message = message.unwrap_or_else(|| "the migration is about to start".to_owned());
            Verdict::Wait(Wait::machine(Reason::Migrating, message))
        }
        Some(outcome @ (MigrationOutcome::Applied | MigrationOutcome::AlreadyApplied)) => {
            let fingerprints = found.fingerprints.unwrap_or_default();
            status.evidence.migration = Some(MigrationEvidence {
                run_id: found.run_id.unwrap_or_default(),
                outcome,
                seconds: found.seconds,
                unchanged: outcome == MigrationOutcome::Applied
                    && fingerprints.before.is_some()
                    && fingerprints.before == fingerprints.after,
                schema_ahead: found.schema_ahead.unwrap_or_default(),
            });
            Verdict::Commit(MilestoneKind::Migrated)
        }
        Some(MigrationOutcome::Partial | MigrationOutcome::Unknown) if found.settling => {
            // A person has said how it ended, and the ledger takes note.
            let message = message.unwrap_or_else(|| "settling what the migration did".to_owned());
            Verdict::Wait(Wait::machine(Reason::Migrating, message))
        }
        Some(MigrationOutcome::Partial | MigrationOutcome::Unknown) => Verdict::Wait(Wait::person(
            Reason::MigrationUnresolved,
            message.unwrap_or_else(|| "what the migration did to the database is not settled".to_owned()),
        )),
        Some(MigrationOutcome::Failed | MigrationOutcome::NotStarted) => {
            let message = message.unwrap_or_else(|| "the migration failed".to_owned());
            Failure::new(Reason::MigrationFailed, message).verdict()
        }
    }
}

fn failed_check(world: &World) -> Option<Failure> {
    let check = world.migration()?.status.as_ref()?.failed_check.clone()?;
    Some(Failure::new(
        Reason::MigrationCheckFailed,
        format!(
            "the migration was applied but its check did not hold: {check}; the old version goes on serving on the new schema"
        ),
    ))
}

fn migration_of(world: &World, status: &ReleaseStatus) -> Option<Migration> {
    let template = world.snapshot.migration.as_ref()?;
    let component = world.snapshot.component(&template.component)?;
    let container = component.template["spec"]["containers"][0]["name"].as_str()?;
    let image = status.digests.get(&format!("{}/{container}", component.name))?;
    let mut migration = Migration::new(
        world.name(),
        MigrationSpec {
            app: world.app_name().to_owned(),
            release: Some(world.name().to_owned()),
            image: image.clone(),
            component: component.name.clone(),
            command: template.command.clone(),
            on_start: template.on_start,
            timeout: template.timeout,
            checks: template.checks.clone(),
        },
    );
    migration.metadata.namespace = Some(world.namespace().to_owned());
    migration.metadata.labels = Some(common_labels(world));
    migration.metadata.owner_references = world.release().controller_owner_ref(&()).map(|owner| vec![owner]);
    Some(migration)
}
