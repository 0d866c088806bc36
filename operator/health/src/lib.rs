//! One health request to one pod, as the operator's prober, the guard and the probe agent all make it.
//!
//! A crate of its own, because the operator has no PostgreSQL client and the agent no Kubernetes client, and a
//! pod's answer must mean the same to both.

#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod members;
mod request;
pub mod tls;

pub use request::{BODY_LIMIT, TIMEOUT, request, request_within};
