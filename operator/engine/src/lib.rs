//! The operator without its I/O: what it knows, what it does next, and what each answer means.
//!
//! An [`Engine`] holds caches by App, expectations, refusals, probes, queue, timers and backoff. A [`Pass`] observes one
//! object, has its planner asked, executes the steps and commits the status; it *asks* for requests and *is given*
//! answers. The binary drives it with kube, the simulator with an in-memory store; neither decides anything.
//!
//! No client, no clock, no environment, no randomness, no threads: clippy.toml bans them. Time comes in as [`Now`].
//!
//! Start with [`kinds`]: one row for each kind, from which most of the rest follows.

mod adoption;
mod announcement;
mod answer;
mod backoff;
mod caches;
mod clock;
mod engine;
mod expectations;
mod key;
pub mod kinds;
mod lookups;
mod observe;
mod own;
mod pass;
mod planned;
mod probes;
mod queue;
mod refusals;
mod request;
mod state;

pub use announcement::{Announcement, Severity};
pub use answer::{shorten, without_values};
pub use caches::{Cached, ForKind, Group, Kept, KeptSnapshot, Store, for_each, version_of};
pub use clock::{Instant, Now};
pub use engine::Engine;
pub use key::{Key, Work};
pub use own::{Decided, Own, Planning};
pub use pass::{Action, Ended, Pass, PassError, PassResult};
pub use probes::{Probe, Probing, verdict_of_round};
pub use queue::Load;
pub use request::{Answer, FIELD_MANAGER, Ownership, Request, Resource};
