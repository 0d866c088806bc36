//! BackedUp: a Backup of this release is proven.

use crate::conditions::succeeded_message;
use crate::message::sentence;
use crate::release::children::child_labels;
use crate::release::history::happened;
use crate::release::verdict::{Failure, Verdict, Wait};
use crate::release::view::View;
use crate::{Object, Step, kubectl, names};
use fairway_crds::Backup;
use fairway_crds::Reason;
use fairway_crds::backup::{BackupOutcome, BackupSpec, Level};
use fairway_crds::condition::SUCCEEDED;
use fairway_crds::release::{BackupEvidence, MilestoneKind, ReleaseStatus};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;

/// A migration begins at once after its backup is proven. One that was held for longer than this would put at stake
/// what was written meanwhile, so it is backed up again.
const FRESH: SignedDuration = SignedDuration::from_mins(10);

/// Met when a Backup of this release is proven as far as the App asks, and still fresh when a migration is about to begin.
pub(in crate::release) fn climb(view: &View, status: &mut ReleaseStatus) -> Verdict {
    let holds = view.suspended() && happened(status, MilestoneKind::HandingOver).is_none();
    let begins = view.snapshot.migration.is_some() && !holds;
    let settled =
        happened(status, MilestoneKind::Migrating).is_some() || status.evidence.backup.is_some() && !begins;
    if settled || view.snapshot.database.is_none() {
        return Verdict::Met;
    }
    let Some(settings) = view.today().and_then(|today| today.backup) else {
        let message = format!(
            "App {} has no spec.backup any more, and no migration runs without a backup. Set spec.backup of the App, or abort \
             the release: {}",
            view.app_name(),
            kubectl::abort(view.namespace(), view.name())
        );
        return match view.snapshot.migration {
            Some(_) => Verdict::Wait(Wait::user(Reason::WaitingForApp, message)),
            None => Verdict::Met,
        };
    };
    let waiting = match settings.level() {
        Level::Decoded => "Backing up the database and reading the backup back.",
        Level::Restored => "Backing up the database and restoring the backup to prove it.",
    };
    let take = |number: u32| {
        let step = Step::Create(Box::new(Object::Backup(backup_of(view, number))));
        Verdict::Act(vec![step], Wait::machine(Reason::BackingUp, waiting))
    };
    let Some((number, backup)) = view.backup() else {
        return take(1);
    };
    let found = backup.status.clone().unwrap_or_default();
    match found.outcome {
        Some(BackupOutcome::Succeeded)
            if begins && is_stale(&found.conditions, view.now) || found.removal.is_some() =>
        {
            take(number + 1)
        }
        // The App asks for more than when this one was taken.
        Some(BackupOutcome::Succeeded)
            if begins && Level::of(found.level.as_deref().unwrap_or_default()) < Some(settings.level()) =>
        {
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
            let failed = format!("Backup {} failed.", backup.name_any());
            let message = match succeeded_message(&found.conditions) {
                Some(message) => format!("{failed} {}", sentence(message)),
                None => failed,
            };
            Failure::new(Reason::BackupFailed, message).verdict()
        }
        None => {
            let message = succeeded_message(&found.conditions).unwrap_or(waiting);
            Verdict::Wait(Wait::machine(Reason::BackingUp, message))
        }
    }
}

/// Whether a backup was proven too long ago.
fn is_stale(conditions: &[Condition], now: Timestamp) -> bool {
    let proven = conditions.iter().find(|condition| condition.type_ == SUCCEEDED);
    proven.is_none_or(|proven| now.duration_since(proven.last_transition_time.0) > FRESH)
}

fn backup_of(view: &View, number: u32) -> Backup {
    let mut backup = Backup::new(
        &names::backup(view.name(), view.uid(), number),
        BackupSpec {
            app: view.app_name().to_owned(),
            release: Some(view.name().to_owned()),
            reason: format!("before {} changes anything", view.name()),
            keep_until: None,
        },
    );
    backup.metadata.namespace = Some(view.namespace().to_owned());
    backup.metadata.labels = Some(child_labels(view));
    backup
}
