//! Pods and Jobs of the agent: how they are built, and how their reports are read.
//!
//! The agent is one static binary. Where the work needs another image's tools (`pg_dump`, the application), an
//! init container copies the binary into a shared folder and that image's container runs it from there; where it
//! needs none, the agent's own image runs it. Every container that works is called [`CONTAINER`], and its
//! report is its termination message.

mod database;
mod files;
mod inputs;
mod migrate;
mod paths;
mod pin;
mod place;
mod pod;
mod pod_status;
mod probe;
mod report;
mod sidecars;
mod store;

pub use database::{RestoreInput, backup_job, preflight_job, prune_job, restore_job, set_path, settle_job};
pub use migrate::{identity, migration_job, migration_pod};
pub use pin::{Pinned, Pull, pin_pod, pinned, with_digest};
pub use pod::{CONTAINER, pod_of};
pub use pod_status::{
    Initializing, application_end, ended_at, exited, has_application_begun, has_ended, initializing, trouble,
    waiting, waits_for_image,
};
pub use probe::{can_ask, http_request, probe_pod, probe_requests};
pub use report::{Outcome, begun, has_job_ended, job_report, pods_of, report, started_at};
