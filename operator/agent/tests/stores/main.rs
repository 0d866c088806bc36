//! Backups in stores over the network: real servers, on loopback, with TLS of their own authority.
//!
//! `make test` runs these tests: they need versitygw, which is built from its Go module, and Debian's Apache.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on must stop"
)]
#![allow(dead_code, reason = "shared with the agent's other tests, which use the rest")]

mod backup;
mod failures;
#[path = "../agent/harness.rs"]
mod harness;
#[path = "../postgres/mod.rs"]
mod postgres;
mod prune;
mod servers;
