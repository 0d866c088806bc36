//! The App: turns edits into Releases and sums up what serves.
//!
//! Revision and spec hash are on record in the App's status before the Release exists, so a crash between the
//! two finds the Release missing and makes it, and no revision is ever used twice.

mod summary;

use crate::build::control;
use crate::observed::{AppObserved, Settings};
use crate::release::history::has_ended;
use crate::snapshot::Snapshot;
use crate::{Decision, Object, Step, Wake, labels, names};
use fairway_crds::app::AppStatus;
use fairway_crds::release::{ReleaseOutcome, annotation};
use fairway_crds::{App, Release};
use jiff::Timestamp;
use kube::{Resource, ResourceExt};
use std::sync::Arc;
use summary::Standing;

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
        };
    }
    let snapshot = Snapshot::of(&app.spec);
    let hash = snapshot.hash();
    let mut steps = Vec::new();
    let standing = match next(observed, &status, &snapshot, &hash) {
        Next::Record { revision, hash } => {
            status.revision = Some(revision);
            status.spec_hash = Some(hash);
            status.desired = Some(names::release(&app.name_any(), revision));
            Standing::Recorded
        }
        Next::Make(made) => {
            steps = made;
            Standing::Recorded
        }
        Next::Nothing => Standing::Settled,
        Next::Held => Standing::Held,
        Next::AwaitRelease(containers) => Standing::AwaitingRelease(containers),
    };
    summary::tell(observed, &mut status, &standing, now);
    Decision {
        steps,
        status,
        wake: Wake::OnChange,
    }
}

/// What an App needs next.
enum Next {
    /// Put revision and hash on record.
    Record { revision: i64, hash: String },
    /// Make the Release of the revision on record, or its snapshot.
    Make(Vec<Step>),
    /// The spec is released or being released.
    Nothing,
    /// `suspend` keeps an edit from being released.
    Held,
    /// These containers name no image: a Release applied by hand must.
    AwaitRelease(Vec<String>),
}

fn next(observed: &AppObserved, status: &AppStatus, snapshot: &Snapshot, hash: &str) -> Next {
    let newest = observed.releases.last();
    let on_record = status.revision.unwrap_or_default();
    if let Some(given) = newest.filter(|release| release.spec.revision > on_record) {
        return adopt(observed, given, hash);
    }
    // What was frozen is what is released, also when the App was edited before this process knew of it.
    let frozen = observed
        .snapshots
        .get(&names::release(&observed.app.name_any(), on_record));
    let frozen = frozen.map(|frozen| frozen.hash());
    if let Some(frozen) = &frozen
        && status.spec_hash.as_ref() != Some(frozen)
    {
        return Next::Record {
            revision: on_record,
            hash: frozen.clone(),
        };
    }
    let open = snapshot.without_image();
    let edited = status.spec_hash.as_deref() != Some(hash);
    // Once the next revision is on record, the request has been heeded.
    let retry = newest.is_some_and(|release| release.spec.revision == on_record && wants_retry(release));
    // A retry of the same content brings the images that the failed Release named.
    if open.is_empty() && edited || retry && (open.is_empty() || !edited) {
        return if observed.app.spec.suspend {
            Next::Held
        } else {
            Next::Record {
                revision: on_record + 1,
                hash: hash.to_owned(),
            }
        };
    }
    if edited {
        // One applied by hand that is on record and not frozen yet releases what the App says now.
        let is_open = newest.is_some_and(|release| release.spec.revision == on_record && !has_ended(release));
        return if is_open && frozen.is_none() {
            Next::Record {
                revision: on_record,
                hash: hash.to_owned(),
            }
        } else {
            Next::AwaitRelease(open)
        };
    }
    let missing = missing(observed, on_record, snapshot, hash);
    if missing.is_empty() {
        Next::Nothing
    } else {
        Next::Make(missing)
    }
}

/// A Release beyond the revision on record was applied by hand or by CI, or is one of ours whose record was
/// lost (the App was restored without its status): take it up instead of minting another.
fn adopt(observed: &AppObserved, given: &Arc<Release>, hash: &str) -> Next {
    let frozen = observed
        .snapshots
        .get(&given.name_any())
        .map(|snapshot| snapshot.hash());
    Next::Record {
        revision: given.spec.revision,
        // A snapshot that differs from today's is an edit that is yet to be released.
        hash: frozen.unwrap_or_else(|| hash.to_owned()),
    }
}

/// Whether a person asked for another try of a release that failed.
fn wants_retry(release: &Release) -> bool {
    let status = release.status.clone().unwrap_or_default();
    let asked = release.annotations().get(annotation::RETRY);
    asked.is_some()
        && asked != status.last_handled_retry.as_ref()
        && has_ended(release)
        && status.outcome != Some(ReleaseOutcome::Succeeded)
}

/// What is missing of the revision on record: snapshot first, so that the Release finds it.
fn missing(observed: &AppObserved, revision: i64, snapshot: &Snapshot, hash: &str) -> Vec<Step> {
    if revision == 0 {
        return Vec::new();
    }
    let app: &App = &observed.app;
    let name = names::release(&app.name_any(), revision);
    let mut steps = Vec::new();
    if !observed.snapshots.contains_key(&name) {
        let frozen = control::controller_revision(app, &name, revision, snapshot);
        steps.push(Step::Create(Box::new(Object::ControllerRevision(frozen))));
    }
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
            let frozen = observed.snapshots.get(&release.name_any());
            frozen.is_some_and(|frozen| frozen.hash() == hash)
        });
        let images = same.map_or_else(|| snapshot.images(), |release| release.spec.images.clone());
        let mut release = control::release(app, revision, hash, images, trigger, name_of_retried.as_deref());
        release.spec.version = same.and_then(|release| release.spec.version.clone());
        steps.push(Step::Create(Box::new(Object::Release(release))));
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
    release.metadata.owner_references = Some(vec![owner]);
    Some(Step::Apply(Box::new(Object::Release(release))))
}

/// The Release that tries another one again says so.
pub fn retries(release: &Release) -> Option<&str> {
    release.annotations().get(labels::RETRY_OF).map(String::as_str)
}
