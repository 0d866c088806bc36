//! Names of owned objects: all deterministic, so that an object created twice is the same object. Those of the agent's
//! Jobs and pods follow from [`crate::tasks`].
//!
//! Lengths: an App has at most 30 characters, a component 16, a revision 6 digits. A Deployment's name is at
//! most 54, which leaves room for the suffix of its ReplicaSets within the 63 of a label value.

use fairway_crds::{Migration, Release};
use sha2::{Digest, Sha256};

/// A Release, its ControllerRevision and Migration: `crm-42`.
pub fn release(app: &str, revision: i64) -> String {
    format!("{app}-{revision}")
}

/// The revision in the name of a Release or ControllerRevision of an App.
pub fn revision(app: &str, release: &str) -> Option<i64> {
    release.strip_prefix(app)?.strip_prefix('-')?.parse().ok()
}

/// The Backup of a release: with a part of the Release's UID, because backups outlive their App and another App
/// of the same name counts its revisions from 1 again. A release that is held for long takes more than one.
pub fn backup(release: &str, release_uid: &str, number: u32) -> String {
    let first = format!("{release}-{}", &release_uid[..release_uid.len().min(8)]);
    match number {
        0 | 1 => first,
        _ => format!("{first}-{number}"),
    }
}

/// The Deployment of one component of one release: `crm-web-42`.
pub fn deployment(app: &str, component: &str, revision: i64) -> String {
    format!("{app}-{component}-{revision}")
}

/// The pod that asks health requests with headers from Secrets, for one operator process.
pub fn probe_pod(release: &str, token_sha256: &str) -> String {
    format!("{release}-probe-{}", &token_sha256[..token_sha256.len().min(8)])
}

/// Key of a run's row in the ledger: the same for every pass and every pod that may attempt the run, another one for
/// each Release, and for a Migration applied by hand for each object.
pub fn run_id(migration: &Migration, release: Option<&Release>) -> String {
    let requester = match (&migration.spec.release, release) {
        (Some(_), Some(release)) => release.metadata.uid.as_deref(),
        _ => migration.metadata.uid.as_deref(),
    };
    let spec = &migration.spec;
    let key = serde_json::json!([
        migration.metadata.namespace,
        spec.app,
        requester,
        spec.image,
        spec.command
    ]);
    short_hash(key.to_string())
}

/// SHA-256 as 64 hex digits.
pub fn sha256_hex(bytes: impl AsRef<[u8]>) -> String {
    Sha256::digest(bytes.as_ref())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The first 16 hex digits of a SHA-256: enough to tell two specs of one App apart.
pub fn short_hash(bytes: impl AsRef<[u8]>) -> String {
    let mut hash = sha256_hex(bytes);
    hash.truncate(16);
    hash
}
