//! Condition types in the status of Fairway's kinds.
//!
//! Conditions are `metav1.Condition`, each with `observedGeneration`. `Ready` and, except on an App, `Succeeded`
//! are always present; the others are present only while they are true. `Reconciling` and `Stalled` are never
//! true together (kstatus would take the first in the list).

/// The live version is healthy (App); the work has succeeded (Release, Migration, Backup, Restore). Always
/// present.
pub const READY: &str = "Ready";
/// Fairway or Kubernetes is working on the object. Not true during a bake, so that Flux and Helm do not wait for
/// its end.
pub const RECONCILING: &str = "Reconciling";
/// Nothing will happen until the user acts; the message says what to do.
pub const STALLED: &str = "Stalled";
/// The work is complete (Release, Migration, Backup, Restore): Unknown while it runs, then True or False for good.
/// Always present.
pub const SUCCEEDED: &str = "Succeeded";
/// Traffic has moved and the candidate is watched.
pub const BAKING: &str = "Baking";
/// The live version is not what the spec asks for, and Fairway will not retry by itself.
pub const DIVERGED_FROM_SPEC: &str = "DivergedFromSpec";
/// The database schema is newer than the image that runs on it.
pub const SCHEMA_AHEAD: &str = "SchemaAhead";
/// The API server warned of the pods of a release. It is advice: no release fails because of it.
pub const WARNED: &str = "Warned";
/// No backup of the App was verified in the time that the schedule allows.
pub const BACKUP_OVERDUE: &str = "BackupOverdue";
/// The final backup of the App that a user has asked for is verified: the App may be deleted.
pub const FINAL_BACKUP_TAKEN: &str = "FinalBackupTaken";
