//! The agent against a real PostgreSQL.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on must stop"
)]

mod backup;
mod guard;
mod harness;
mod migrate;
#[path = "../postgres/mod.rs"]
mod postgres;
mod preflight;
mod probe;
mod settle;
