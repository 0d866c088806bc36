//! Pinned: the digest of every image is known.

use crate::build::agent::{self, Pinning};
use crate::release::attempts::{self, Retry};
use crate::release::images::images;
use crate::release::verdict::{Failure, Verdict, Wait};
use crate::release::view::View;
use crate::{Object, ObjectRef, names, object::Kind};
use fairway_crds::Reason;
use fairway_crds::release::ReleaseStatus;
use jiff::SignedDuration;
use kube::ResourceExt;
use std::collections::BTreeMap;

/// Time that pulling the images may take altogether.
const PIN_DEADLINE: SignedDuration = SignedDuration::from_hours(1);

/// Met when every image's digest is known: given, or pulled by a pod, which proves pull secrets and platform
/// as well.
pub(in crate::release) fn climb(view: &View, status: &mut ReleaseStatus) -> Verdict {
    let images = images(view);
    if images
        .keys()
        .all(|container| status.digests.contains_key(container))
    {
        return Verdict::Met;
    }
    let (by_digest, by_tag): (BTreeMap<_, _>, BTreeMap<_, _>) = images
        .into_iter()
        .partition(|(_, image)| image.contains("@sha256:"));
    if by_tag.is_empty() {
        status.digests = by_digest;
        return Verdict::Met;
    }
    let attempt = match attempts::current(status, "Pinned", PIN_DEADLINE, view.now) {
        Ok(attempt) => attempt,
        Err(verdict) => return verdict,
    };
    let desired = agent::pin_pod(view.settings, view.release(), view.snapshot, &by_tag, attempt);
    let existing = view.observed.pods.iter().find(|pod| {
        pod.name_any() == names::pin_pod(view.name(), attempt) && view.owns(pod.owner_references())
    });
    let waiting = Wait::machine(
        Reason::PullingImages,
        format!("pulling {} to learn the digests", list(by_tag.values())),
    );
    let retry = Retry {
        name: "Pinned",
        deadline: PIN_DEADLINE,
        now: view.now,
    };
    let Some(pod) = existing else {
        return attempts::create(view, status, &retry, Object::Pod(desired), waiting);
    };
    match agent::pinned(pod, &by_tag) {
        Pinning::Pinned(pinned) => {
            status.digests = by_digest.into_iter().chain(pinned).collect();
            attempts::forget(status, "Pinned");
            Verdict::Met
        }
        Pinning::Waiting {
            reason,
            message,
            is_final: true,
        } => Failure::new(reason, message).verdict(),
        Pinning::Waiting {
            reason,
            message,
            is_final: false,
        } => {
            attempts::note(status, "Pinned", reason, &message);
            // The kubelet tries again by itself, with a backoff of its own.
            match attempts::deadline(status, "Pinned", PIN_DEADLINE) {
                Some(deadline) if view.now >= deadline => Failure::new(
                    Reason::ImagePullFailed,
                    format!(
                        "{message}; not pulled within {}",
                        crate::conditions::duration(PIN_DEADLINE)
                    ),
                )
                .verdict(),
                deadline => {
                    let wait = Wait::machine(Reason::ImagePullFailed, message);
                    Verdict::Wait(Wait {
                        until: deadline,
                        ..wait
                    })
                }
            }
        }
        Pinning::Lost { message } => attempts::failed(
            status,
            &retry,
            Reason::PodLost,
            &message,
            ObjectRef::of(Kind::Pod, &pod.metadata),
        ),
        Pinning::Pulling => attempts::overdue(status, &retry).unwrap_or_else(|| {
            let until = attempts::deadline(status, "Pinned", PIN_DEADLINE);
            Verdict::Wait(Wait { until, ..waiting })
        }),
    }
}

fn list<'a>(images: impl Iterator<Item = &'a String>) -> String {
    let mut images: Vec<_> = images.map(String::as_str).collect();
    images.sort_unstable();
    images.dedup();
    images.join(", ")
}
