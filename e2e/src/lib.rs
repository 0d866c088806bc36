//! The embedded cluster and what tests, demo and benchmark share: images, a namespace for each test,
//! waits that report what they last saw, volumes that misbehave, a client that counts failures, and the
//! applications that Fairway releases.

pub mod admission;
pub mod apps;
pub mod bench;
pub mod cluster;
mod context;
pub mod dump;
pub mod fuzz;
pub mod hex;
pub mod images;
pub mod install;
pub mod load;
pub mod manifest;
pub mod ns;
pub mod once;
pub mod operator;
pub mod provisioner;
pub mod rbac;
pub mod reach;
mod registry;
pub mod runner;
pub mod seen;
pub mod story;
pub mod target;
pub mod timeline;
pub mod volumes;
pub mod wait;

pub use fairway_tools::{build as tools, command, paths, progress};
