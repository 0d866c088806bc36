//! Whole releases, played in the simulated cluster: each story as it was reviewed, and each again under every fault.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "the stories are files, and an environment variable asks for them to be rewritten"
)]

mod crash;
mod fields;
mod fixed_point;
mod history;
mod hostile;
mod interleaved;
mod interrupted;
mod lost_answer;
mod play;
mod random;
mod retention;
mod schedule;
mod stale;
mod steps;
mod stories;
mod twice;
mod two_operators;
mod writes;
