//! The agent against a real PostgreSQL.

mod backup;
mod guard;
mod harness;
mod migrate;
#[path = "../postgres/mod.rs"]
mod postgres;
mod preflight;
mod probe;
mod settle;
