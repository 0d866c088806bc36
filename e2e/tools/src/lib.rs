//! What a new machine needs first: the programs of the embedded cluster, built from Go modules. Apart from the other
//! tools of the tests, so that the longest build begins after a few seconds of compiling Rust.

pub mod build;
pub mod command;
pub mod paths;
pub mod progress;

pub use paths::Paths;
