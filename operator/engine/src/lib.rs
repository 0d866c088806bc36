//! The operator without its I/O: what it knows, what it does next, and what each answer means.
//!
//! An [`Engine`] holds caches by App, expectations, answers, probes, queue, timers and backoff. A [`Pass`] observes one
//! object, has its planner asked, executes the steps and commits the status; it *asks* for requests and *is given*
//! answers. The binary drives it with kube, the simulator with an in-memory store; neither decides anything.
//!
//! No client, no clock, no environment, no randomness, no threads: clippy.toml bans them. Time comes in as [`Now`].
//!
//! Start with [`kinds`]: one row for each kind, from which most of the rest follows.

mod adoption;
mod announcement;
mod answer;
mod answers;
mod backoff;
mod caches;
mod clock;
mod creations;
mod engine;
mod expectations;
mod foreign;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod key;
pub mod kinds;
mod lookups;
mod observe;
mod own;
mod pass;
mod planned;
mod probe_pods;
mod probes;
mod queue;
mod read;
mod request;
mod state;
mod warnings;
mod watched;

pub use announcement::{Announcement, Severity};
pub use answer::{shorten, without_values};
pub use caches::{Backups, Cached, ForKind, Group, Kept, KeptSnapshot, Store, for_each, version_of};
pub use clock::{Instant, Now};
pub use engine::{Engine, Failing};
pub use key::{NamespacedName, ObjectKey};
pub use own::{Decided, Own, Planning};
pub use pass::{Action, Ended, Pass, PassError, PassResult, ReleaseStep};
pub use probes::{Probe, Probing, verdict_of_round};
pub use queue::Load;
pub use read::mask::Mask;
pub use read::split::{Malformed, Part, Splitter};
pub use read::{Reading, read, read_answer, read_found, read_list};
pub use request::{Answer, FIELD_MANAGER, Ownership, Request, Resource};
pub use warnings::read_warnings;
pub use watched::Watched;
