//! The vocabulary of status: condition types and the outcomes of bounded work.
//!
//! Conditions are `metav1.Condition`, all present from the first write, each with `observedGeneration`.
//! `Reconciling` and `Stalled` are never true together (kstatus would take the first in the list).

/// What is live is healthy (App); the work has succeeded (Release, Migration, Backup).
pub const READY: &str = "Ready";
/// Machine-driven work is under way. Waiting for a bake is not, so that a Flux or Helm wait does not hang.
pub const RECONCILING: &str = "Reconciling";
/// Nothing will happen until a person does something; the message says what.
pub const STALLED: &str = "Stalled";
/// Bounded work: Unknown while it runs, then True or False for good.
pub const SUCCEEDED: &str = "Succeeded";
/// Traffic has moved and is being watched.
pub const BAKING: &str = "Baking";
/// What is live is not what the spec asks for, and Fairway will not try again by itself.
pub const DIVERGED_FROM_SPEC: &str = "DivergedFromSpec";
/// The database's schema is newer than the image that runs on it.
pub const SCHEMA_AHEAD: &str = "SchemaAhead";
