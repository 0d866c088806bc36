//! The App: turns edits into Releases, has backups taken by its schedule, and sums up what serves.
//!
//! Revision and spec hash are recorded in the App's status before the Release exists, so a crash between the two finds
//! the Release missing and creates it, and no revision is ever used twice.

mod backups;
mod final_backup;
mod summary;

use crate::build::control;
use crate::observed::{AppObserved, Settings, refusal};
use crate::release::history::{self, has_ended};
use crate::release::request::Request;
use crate::snapshot::Snapshot;
use crate::{Decision, Object, Step, Wake, labels, names};
use fairway_crds::app::AppStatus;
use fairway_crds::release::ReleaseOutcome;
use fairway_crds::{App, Release};
use jiff::Timestamp;
use kube::{Resource, ResourceExt};
use std::sync::Arc;
use summary::Finding;

/// Decides the next pass of an App.
pub fn plan(observed: &AppObserved, _: &Settings, now: Timestamp) -> Decision<AppStatus> {
    let app = &observed.app;
    let mut status = app.status.clone().unwrap_or_default();
    if app.metadata.deletion_timestamp.is_some() {
        // What it owns goes with it; nothing of it is left to decide.
        return Decision {
            steps: Vec::new(),
            status,
            wake: Wake::OnChange,
            rung: None,
        };
    }
    let snapshot = Snapshot::of(&app.spec);
    let hash = snapshot.hash();
    let mut steps = Vec::new();
    let finding = match next(observed, &status, &snapshot, &hash) {
        Next::Record { revision, hash } => {
            status.revision = Some(revision);
            status.spec_hash = Some(hash);
            status.desired = Some(names::release(&app.name_any(), revision));
            Finding::Recorded
        }
        Next::Create(missing) => {
            let mut finding = Finding::Recorded;
            for step in missing {
                if let Some(refusal) = refusal(&observed.refused, &step) {
                    finding = Finding::refused(&step, refusal);
                    break;
                }
                steps.push(step);
            }
            finding
        }
        Next::Nothing => Finding::Settled,
        Next::Deleted => Finding::Deleted,
        Next::Held => Finding::Held,
        Next::AwaitRelease(containers) => Finding::AwaitingRelease(containers),
    };
    let backups = backups::plan(observed, &mut status, now);
    let final_backup = final_backup::plan(observed, &mut status, now);
    summary::write(observed, &mut status, &finding, (&backups, &final_backup), now);
    steps.extend(backups.steps);
    steps.extend(final_backup.step);
    Decision {
        steps,
        status,
        wake: backups.wake,
        rung: None,
    }
}

/// What an App needs next.
enum Next {
    /// Record revision and hash.
    Record { revision: i64, hash: String },
    /// Create the Release of the recorded revision, or its snapshot.
    Create(Vec<Step>),
    /// The spec is released or being released.
    Nothing,
    /// The Release of the spec was deleted. It is not created again: it may have failed.
    Deleted,
    /// `suspend` keeps an edit from being released.
    Held,
    /// These containers name no image: a Release applied by hand must.
    AwaitRelease(Vec<String>),
}

fn next(observed: &AppObserved, status: &AppStatus, snapshot: &Snapshot, hash: &str) -> Next {
    let recorded = status.revision.unwrap_or_default();
    if let Some(given) = following(observed, status) {
        return adopt(observed, given, hash);
    }
    // One beyond a gap is not the App's.
    let newest = observed
        .releases
        .iter()
        .rfind(|release| release.spec.revision <= recorded);
    // The snapshot is what is released, also when the App was edited before this process knew of it.
    let released = observed
        .snapshots
        .get(&names::release(&observed.app.name_any(), recorded));
    let released = released.map(|released| released.hash());
    if let Some(released) = &released
        && status.spec_hash.as_ref() != Some(released)
    {
        return Next::Record {
            revision: recorded,
            hash: released.clone(),
        };
    }
    let open = snapshot.without_image();
    let edited = status.spec_hash.as_deref() != Some(hash);
    // Once the next revision is recorded, the request is handled. A snapshot says that the Release of the recorded one was
    // there, and was deleted.
    let retry = newest.is_some_and(|release| {
        (release.spec.revision == recorded || released.is_some()) && wants_retry(release)
    });
    // A retry of the same content brings the images that the failed Release named.
    if open.is_empty() && edited || retry && (open.is_empty() || !edited) {
        return if observed.app.spec.suspend {
            Next::Held
        } else {
            Next::Record {
                revision: history::free_revision(recorded, &observed.releases),
                hash: hash.to_owned(),
            }
        };
    }
    if edited {
        // One applied by hand that is recorded and has no snapshot yet releases what the App says now.
        let is_open = newest.is_some_and(|release| release.spec.revision == recorded && !has_ended(release));
        return if is_open && released.is_none() {
            Next::Record {
                revision: recorded,
                hash: hash.to_owned(),
            }
        } else {
            Next::AwaitRelease(open)
        };
    }
    let exists = observed
        .releases
        .iter()
        .any(|release| release.spec.revision == recorded);
    // A Release is created before its snapshot: where there is a snapshot, there was a Release.
    if released.is_some() && !exists {
        return Next::Deleted;
    }
    let missing = missing(observed, recorded, snapshot, hash);
    if missing.is_empty() {
        Next::Nothing
    } else {
        Next::Create(missing)
    }
}

/// The Release that follows the recorded revision and is to be taken up, the newest of several that follow each other.
/// One beyond a gap is not: it would use up the revisions in between. An App that was restored without its status takes
/// up the newest Release that has a snapshot, since that was taken up before.
fn following<'a>(observed: &'a AppObserved, status: &AppStatus) -> Option<&'a Arc<Release>> {
    let Some(recorded) = status.revision else {
        let restored = observed
            .releases
            .iter()
            .rfind(|release| observed.snapshots.contains_key(&release.name_any()));
        return restored.or_else(|| history::following(0, &observed.releases).last());
    };
    history::following(recorded, &observed.releases).last()
}

/// A Release beyond the recorded revision was applied by hand or by CI, or is one of ours whose record was lost (the
/// App was restored without its status): it is taken up instead of another being created.
fn adopt(observed: &AppObserved, given: &Arc<Release>, hash: &str) -> Next {
    let released = observed
        .snapshots
        .get(&given.name_any())
        .map(|snapshot| snapshot.hash());
    Next::Record {
        revision: given.spec.revision,
        // A snapshot that differs from today's is an edit that is yet to be released.
        hash: released.unwrap_or_else(|| hash.to_owned()),
    }
}

/// Whether a user asked for a retry of a release that failed.
fn wants_retry(release: &Release) -> bool {
    let status = release.status.clone().unwrap_or_default();
    Request::Retry.pending(release, &status).is_some()
        && has_ended(release)
        && status.outcome != Some(ReleaseOutcome::Succeeded)
}

/// What is missing of the recorded revision: the Release first, so that a snapshot says that there was one.
fn missing(observed: &AppObserved, revision: i64, snapshot: &Snapshot, hash: &str) -> Vec<Step> {
    if revision == 0 {
        return Vec::new();
    }
    let app: &App = &observed.app;
    let name = names::release(&app.name_any(), revision);
    let mut steps = Vec::new();
    if let Some(given) = observed
        .releases
        .iter()
        .find(|release| release.spec.revision == revision)
    {
        steps.extend(owned(app, given));
    } else {
        let before = observed
            .releases
            .iter()
            .rfind(|release| release.spec.revision < revision);
        let retried = before.filter(|release| wants_retry(release));
        let trigger = if retried.is_some() { "Retry" } else { "AppEdited" };
        let name_of_retried = retried.map(|release| release.name_any());
        // Of the same content: a Release applied by hand named its images and its version itself.
        let same = retried.filter(|release| {
            let released = observed.snapshots.get(&release.name_any());
            released.is_some_and(|released| released.hash() == hash)
        });
        let images = same.map_or_else(|| snapshot.images(), |release| release.spec.images.clone());
        let mut release = control::release(app, revision, hash, images, trigger, name_of_retried.as_deref());
        release.spec.version = same.and_then(|release| release.spec.version.clone());
        steps.push(Step::Create(Box::new(Object::Release(release))));
    }
    if !observed.snapshots.contains_key(&name) {
        let revision = control::controller_revision(app, &name, revision, snapshot);
        steps.push(Step::Create(Box::new(Object::ControllerRevision(revision))));
    }
    steps
}

/// A Release applied by hand becomes the App's, so that it goes with it.
fn owned(app: &App, given: &Release) -> Option<Step> {
    let owner = app.controller_owner_ref(&())?;
    if given
        .owner_references()
        .iter()
        .any(|reference| reference.uid == owner.uid)
    {
        return None;
    }
    let mut release = Release::new(&given.name_any(), given.spec.clone());
    release.metadata.namespace = given.metadata.namespace.clone();
    // One that was deleted meanwhile is not created again.
    release.metadata.uid.clone_from(&given.metadata.uid);
    release.metadata.owner_references = Some(vec![owner]);
    Some(Step::Apply(Box::new(Object::Release(release))))
}

/// Name of the Release that a Release retries.
pub fn retries(release: &Release) -> Option<&str> {
    release.annotations().get(labels::RETRY_OF).map(String::as_str)
}
