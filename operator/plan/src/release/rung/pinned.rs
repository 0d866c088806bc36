//! Pinned: the digest of every image is known.

use crate::Object;
use crate::attempt::{Child, Failed, Found};
use crate::build::agent::{self, Outcome, Pinned, Pull};
use crate::protocol::Cause;
use crate::release::attempted::{self, Attempted, Work};
use crate::release::images::images;
use crate::release::verdict::Verdict;
use crate::release::view::View;
use crate::tasks::PIN;
use fairway_crds::Reason;
use fairway_crds::release::ReleaseStatus;
use jiff::SignedDuration;
use std::collections::BTreeMap;

/// Time that pulling the images may take altogether.
const DEADLINE: SignedDuration = SignedDuration::from_hours(1);

/// Met when every image's digest is known: given, or pulled by a pod, which proves pull secrets and platform as well.
/// Before a migration an image with a digest is pulled too, so that nothing is migrated for what cannot run.
///
/// Components whose pods have different places are pulled one after the other: an image that one of them has pinned
/// keeps its digest, so that a tag that moves in between does not bring two versions into one release.
pub(in crate::release) fn climb(view: &View, status: &mut ReleaseStatus) -> Verdict {
    let images = images(view);
    let is_known = |status: &ReleaseStatus, container: &String| status.digests.contains_key(container);
    if images.keys().all(|container| is_known(status, container)) {
        return Verdict::Met;
    }
    let has_migration = view.snapshot.migration.is_some();
    let (pulled, given): (BTreeMap<_, _>, BTreeMap<_, _>) = images
        .into_iter()
        .partition(|(_, image)| has_migration || !image.contains("@sha256:"));
    for mut pull in Pull::all(view.snapshot, &pulled) {
        if pull.images.keys().all(|container| is_known(status, container)) {
            continue;
        }
        for image in pull.images.values_mut() {
            let mut alike = pulled.iter().filter(|(_, other)| *other == image);
            if let Some(digest) = alike.find_map(|(container, _)| status.digests.get(container)) {
                *image = digest.clone();
            }
        }
        match pull_images(view, status, &pull) {
            Attempted::Done(digests) => status.digests.extend(digests),
            Attempted::NotYet(verdict) => return verdict,
        }
    }
    status.digests.extend(given);
    Verdict::Met
}

/// The digests of the images of one place. Where a node knows an image from another repository, a second pod pulls it by
/// digest: what the image's own repository does not have is found before anything is changed.
fn pull_images(view: &View, status: &mut ReleaseStatus, pull: &Pull) -> Attempted<BTreeMap<String, String>> {
    match advance(view, status, pull) {
        Attempted::Done(Pulled::Proven(digests)) => Attempted::Done(digests),
        Attempted::Done(Pulled::Unproven(digests)) => match advance(view, status, &pull.by_digest(digests)) {
            Attempted::Done(Pulled::Proven(digests) | Pulled::Unproven(digests)) => Attempted::Done(digests),
            Attempted::NotYet(verdict) => Attempted::NotYet(verdict),
        },
        Attempted::NotYet(verdict) => Attempted::NotYet(verdict),
    }
}

enum Pulled {
    Proven(BTreeMap<String, String>),
    Unproven(BTreeMap<String, String>),
}

fn advance(view: &View, status: &mut ReleaseStatus, pull: &Pull) -> Attempted<Pulled> {
    let work = Work {
        rung: "Pinned",
        task: &PIN,
        part: &pull.part(),
        deadline: DEADLINE,
        working_reason: Reason::PullingImages,
        working_message: &format!("Pulling {} to learn the digests.", list(pull.images.values())),
        blocked_reason,
        slow_start: None,
    };
    attempted::advance(
        view,
        status,
        &work,
        |child| match child.found {
            Found::Pod(pod) => agent::pinned(pod, &pull.images),
            _ => Outcome::NotThere,
        },
        |attempt| Object::Pod(agent::pin_pod(view.settings, view.release(), pull, attempt)),
        |pinned| match pinned {
            Pinned::All(digests) => Ok(Pulled::Proven(digests)),
            Pinned::Unproven(digests) => Ok(Pulled::Unproven(digests)),
            Pinned::Never { reason, message } => Err(Failed {
                cause: Cause::Version,
                reason,
                message,
            }),
        },
    )
}

/// Only what the kubelet says of an image is about the image: a pod without a node has pulled nothing.
fn blocked_reason(child: &Child) -> Reason {
    match child.found {
        Found::Pod(pod) if agent::waits_for_image(pod) => Reason::ImagePullFailed,
        _ => Reason::PodNotStarting,
    }
}

fn list<'a>(images: impl Iterator<Item = &'a String>) -> String {
    let mut images: Vec<_> = images.map(String::as_str).collect();
    images.sort_unstable();
    images.dedup();
    images.join(", ")
}
