//! Pinned: the digest of every image is known.

use crate::Object;
use crate::attempt::{Failed, Found};
use crate::build::agent::{self, Outcome, Pinned};
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
    let work = Work {
        rung: "Pinned",
        task: &PIN,
        deadline: DEADLINE,
        working: Reason::PullingImages,
        doing: &format!("Pulling {} to learn the digests.", list(by_tag.values())),
        // The kubelet retries by itself, with a backoff of its own.
        not_starting: Reason::ImagePullFailed,
        slow_start: None,
    };
    let pulled = attempted::advance(
        view,
        status,
        &work,
        |child| match child.found {
            Found::Pod(pod) => agent::pinned(pod, &by_tag),
            _ => Outcome::NotThere,
        },
        |attempt| {
            let release = view.release();
            Object::Pod(agent::pin_pod(
                view.settings,
                release,
                view.snapshot,
                &by_tag,
                attempt,
            ))
        },
        |pinned| match pinned {
            Pinned::All(digests) => Ok(digests),
            Pinned::Never { reason, message } => Err(Failed {
                cause: Cause::Version,
                reason,
                message,
            }),
        },
    );
    match pulled {
        Attempted::NotYet(verdict) => verdict,
        Attempted::Done(digests) => {
            status.digests = by_digest.into_iter().chain(digests).collect();
            Verdict::Met
        }
    }
}

fn list<'a>(images: impl Iterator<Item = &'a String>) -> String {
    let mut images: Vec<_> = images.map(String::as_str).collect();
    images.sort_unstable();
    images.dedup();
    images.join(", ")
}
