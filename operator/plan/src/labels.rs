//! Labels and annotations that Fairway sets and reads.

use fairway_crds::app::annotation::FINAL_BACKUP;
use fairway_crds::release::annotation;

/// Name of the App.
pub const APP: &str = "fairway.dev/app";
/// Name of the component.
pub const COMPONENT: &str = "fairway.dev/component";
/// Name of the Release.
pub const RELEASE: &str = "fairway.dev/release";
/// What an agent's pod or Job does: see [`Work`].
pub const WORK: &str = "fairway.dev/work";
/// Name of the Migration, Backup or Restore that an agent works for.
pub const WORK_FOR: &str = "fairway.dev/work-for";
/// Key of the ledger's row for which a migration's Job or pod runs: a Job that an earlier App of the same name left
/// behind is not taken for its own.
pub const RUN_ID: &str = "fairway.dev/run-id";
/// SHA-256 (hex, 16 digits) of what a Release releases.
pub const SPEC_HASH: &str = "fairway.dev/spec-hash";
/// Annotation on a Release: name of the Release that it retries.
pub const RETRY_OF: &str = "fairway.dev/retry-of";
/// Annotation: SHA-256 (hex, 16 digits) of the object as Fairway applied it; a difference means a new apply.
pub const APPLIED_HASH: &str = "fairway.dev/applied-hash";
/// Annotation on the pod of a migration on start: name of the container that migrates.
pub const APPLICATION: &str = "fairway.dev/application";
/// Annotation on a Service: when Fairway last pointed it somewhere else, RFC 3339 with milliseconds.
pub const SWITCHED_AT: &str = "fairway.dev/switched-at";
/// Annotation on a Deployment of the team from which a component has taken over: how many pods it had.
pub const REPLICAS: &str = "fairway.dev/replicas";
/// Annotation on a pod or Service of a dry run: before which step of the release it is asked for once more.
pub const ASKED_BEFORE: &str = "fairway.dev/asked-before";
/// Annotations that planners read on objects that are observed. No other is kept: whoever can label an object could fill the
/// memory with them.
pub const READ_ANNOTATIONS: [&str; 11] = [
    RETRY_OF,
    APPLIED_HASH,
    APPLICATION,
    SWITCHED_AT,
    REPLICAS,
    annotation::ABORT,
    annotation::ROLLBACK,
    annotation::RETRY,
    annotation::RESOLVE,
    FINAL_BACKUP,
    annotation::RESTORE,
];
/// Longest value of an annotation that is read, in bytes. A longer one counts as absent.
pub const LONGEST_ANNOTATION: usize = 1024;
/// Who created an object.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The value of [`MANAGED_BY`], and Fairway's field manager.
pub const FAIRWAY: &str = "fairway";

/// What an agent's pod or Job does; the value of label [`WORK`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    /// Pulls the images of a release.
    Pin,
    /// Checks the environment.
    Preflight,
    /// Makes a backup.
    Backup,
    /// Removes the set of a backup.
    Prune,
    /// Migrates.
    Migrate,
    /// Settles a migration that was cut off.
    Settle,
    /// Asks health requests that need a Secret.
    Probe,
    /// Restores a backup.
    Restore,
}

impl Work {
    /// The value of the label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pin => "pin",
            Self::Preflight => "preflight",
            Self::Backup => "backup",
            Self::Prune => "prune",
            Self::Migrate => "migrate",
            Self::Settle => "settle",
            Self::Probe => "probe",
            Self::Restore => "restore",
        }
    }
}
