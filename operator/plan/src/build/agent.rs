//! Pods and Jobs of the agent: how they are built, and how their reports are read.
//!
//! The agent is one static binary. Where the work needs another image's tools (`pg_dump`, the application), an
//! init container copies the binary into a shared folder and that image's container runs it from there; where it
//! needs none, the agent's own image runs it. Every container that works is called [`CONTAINER`], and its
//! report is its termination message.

mod database;
mod files;
mod migrate;
mod pin;
mod pod;
mod probe;
mod report;
mod store;

pub use database::{backup_job, preflight_job, set_path, settle_job};
pub use migrate::{identity, migration_job, migration_pod};
pub use pin::{Pinned, pin_pod, pinned};
pub use pod::CONTAINER;
pub use probe::{http_request, probe_pod, secret_requests};
pub use report::{Outcome, exited, job_report, pods_of, report, started_at, trouble, waiting};
