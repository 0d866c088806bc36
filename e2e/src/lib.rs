//! The embedded cluster and what tests, demo and benchmark share: images, a namespace for each test,
//! waits that tell what they last saw, volumes that misbehave, and a client that counts failures.

pub mod cluster;
pub mod command;
pub mod dump;
pub mod images;
pub mod install;
pub mod load;
pub mod ns;
pub mod progress;
mod registry;
pub mod target;
pub mod tools;
pub mod volumes;
pub mod wait;
