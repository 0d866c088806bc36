//! The agent against a real PostgreSQL.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on must stop"
)]

mod backup;
mod complaints;
mod databases;
mod dumps;
mod guard;
mod harness;
mod hostile;
mod migrate;
#[path = "../postgres/mod.rs"]
mod postgres;
mod preflight;
mod probe;
mod proxy;
mod prune;
mod restore;
mod settle;
mod strings;
mod tls;
mod versions;
