//! The embedded cluster and what tests, demo and benchmark share: images, a namespace for each test,
//! waits that tell what they last saw, volumes that misbehave, and a client that counts failures.

pub mod cluster;
pub mod command;
pub mod images;
pub mod progress;
pub mod target;
pub mod tools;
