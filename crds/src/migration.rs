//! One run of a database migration.

use crate::attempts::Attempts;
use crate::database::{MigrationCheck, OnStart};
use crate::duration::Duration;
use crate::reason::Reason;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One run of a database migration, executed at most once: fenced by a Job with a fixed name, a row in the
/// ledger in the database, and a session lock. Immutable.
#[derive(Clone, Debug, PartialEq, Eq, CustomResource, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "fairway.dev",
    version = "v1alpha1",
    kind = "Migration",
    namespaced,
    status = "MigrationStatus",
    derive = "PartialEq",
    category = "fairway",
    shortname = "fmig",
    doc = "One run of a database migration, executed at most once. Fairway creates it for a Release; its spec is immutable.",
    printcolumn(name = "App", type_ = "string", json_path = ".spec.app"),
    printcolumn(name = "Succeeded", type_ = "string", json_path = r#".status.conditions[?(@.type=="Succeeded")].status"#),
    printcolumn(name = "Status", type_ = "string", json_path = r#".status.conditions[?(@.type=="Succeeded")].reason"#),
    printcolumn(name = "Seconds", type_ = "number", json_path = ".status.seconds", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Message", type_ = "string", json_path = r#".status.conditions[?(@.type=="Succeeded")].message"#),
    selectable = ".spec.app",
    validation = Rule::new("size(self.metadata.name) <= 52 && self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')").message("metadata.name must be a DNS label of at most 52 characters, because names of pods are derived from it; use a-z, 0-9 and -")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("self == oldSelf").message("a Migration cannot be changed, because it may have run; create a new one with another name"))]
#[x_kube(validation = Rule::new("has(self.command) != has(self.onStart)").message("a Migration requires exactly one of command and onStart; set one"))]
pub struct MigrationSpec {
    /// Name of the App whose database is migrated.
    #[schemars(schema_with = "crate::text::app_name")]
    pub app: String,
    /// Name of the Release for which it runs. Without one, the environment comes from the App's current spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub release: Option<String>,
    /// The image that runs the migration, with its digest: `repository@sha256:…`.
    #[schemars(schema_with = "crate::text::image_with_digest")]
    pub image: String,
    /// The component whose pod template the migration uses: environment, volumes, service account.
    #[schemars(schema_with = "crate::text::component_name")]
    pub component: String,
    /// The container of that component whose environment the migration uses. Without one, it is the first whose image comes
    /// from the same repository as `image`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::text::container_name")]
    pub container: Option<String>,
    /// The command that migrates the database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), inner(length(max = 8192)))]
    pub command: Option<Vec<String>>,
    /// The image migrates the database when it starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_start: Option<OnStart>,
    /// Time after which the migration is ended.
    #[schemars(schema_with = "crate::database::timeout")]
    pub timeout: Duration,
    /// Checks of the database after the migration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub checks: Vec<MigrationCheck>,
}

/// The observed state of a Migration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MigrationStatus {
    /// The generation of the spec that this status describes; -1 until a controller has seen the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Succeeded` and `Ready` are always present. `Reconciling` and `Stalled` are present only while they are true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// How the migration ended; absent until then. `Unknown` and `Partial` end the run, but block every further
    /// migration of the database until the user resolves them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<MigrationOutcome>,
    /// Key of the run in the ledger. Set before the run is started: from then on it is never started again, and its
    /// outcome is read from the ledger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// What is known of the run's row in the ledger, once a report says that the run began: from then on the migration is
    /// never started again, also if the row is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger_row: Option<LedgerRow>,
    /// Schema fingerprints before and after the migration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprints: Option<Fingerprints>,
    /// Duration of the run, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Exit code of the command; 128 + signal if it was killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The last SQLSTATE in the last lines of output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sqlstate: Option<String>,
    /// The last error line of the output, with every value of the environment redacted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// What the agent found of a run whose outcome it could not decide: whole sentences.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finding: Option<String>,
    /// The check that failed after the migration was applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_check: Option<String>,
    /// Whether the schema is newer than this image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_ahead: Option<bool>,
    /// Attempts to start the migration, which are repeated while the environment prevents it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<Attempts>,
    /// Whether the agent in the run's pod was seen to start. From then on only a report or the ledger says whether the
    /// migration began.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pod_started: bool,
    /// Whether the run's pod ended without a report, so that a Job reads from the ledger how the run ended.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub settling: bool,
    /// How the run's pod ended, or what kept it from starting, while the ledger is asked: more than the ledger may know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_end: Option<RunEnd>,
    /// Number of such Jobs that have been started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settle_attempt: Option<u32>,
    /// Token of the last resolve annotation that was handled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_resolve: Option<String>,
}

/// The row of a run that began, in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LedgerRow {
    /// The agent wrote it.
    Written,
    /// The agent wrote it, and it is gone: the database failed over to a replica that lacks it, was restored, or the
    /// schema `fairway` was dropped.
    Missing,
}

/// How the pod of a run ended, or what kept it from starting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunEnd {
    /// Why, as a reason of a condition.
    pub reason: String,
    /// Why, in whole sentences.
    pub message: String,
}

impl RunEnd {
    /// An end for that reason.
    pub fn new(reason: Reason, message: String) -> Self {
        Self {
            reason: reason.into(),
            message,
        }
    }
}

/// Schema fingerprints before and after a migration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Fingerprints {
    /// Fingerprint before the migration started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// Fingerprint after the migration ended and its sessions were gone; for `onStart`, when its application was
    /// healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// How the Migration ended; absent until then. `Partial` and `Unknown` block every further migration of the database
/// until the user resolves them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MigrationOutcome {
    /// The migration ran and was committed.
    Applied,
    /// The ledger already had this image digest, command and inputs: nothing was run. Inputs are the literal variables of the
    /// container, and the contents of the ConfigMaps that it reads.
    AlreadyApplied,
    /// The migration failed; the schema is unchanged.
    Failed,
    /// The migration failed, and the schema changed.
    Partial,
    /// The migration was interrupted, and what it did is unknown.
    Unknown,
    /// The migration was not started: another run is unresolved, or the database could not be used.
    NotStarted,
}

impl MigrationOutcome {
    /// Whether nothing is to be done any more; after another one a user says how the migration ended.
    pub const fn is_final(self) -> bool {
        match self {
            Self::Applied | Self::AlreadyApplied | Self::Failed | Self::NotStarted => true,
            Self::Partial | Self::Unknown => false,
        }
    }
}
