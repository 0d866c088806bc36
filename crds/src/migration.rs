//! One run of a database migration.

use crate::database::{MigrationCheck, OnStart};
use crate::duration::Duration;
use crate::release::Attempts;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One run of a database migration, executed at most once: fenced by a Job of a fixed name, a row in the
/// database's ledger and a session lock. Immutable.
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
    doc = "One run of a database migration, executed at most once. Fairway makes it for a Release; its spec is immutable.",
    printcolumn(name = "App", type_ = "string", json_path = ".spec.app"),
    printcolumn(name = "Succeeded", type_ = "string", json_path = r#".status.conditions[?(@.type=="Succeeded")].status"#),
    printcolumn(name = "Status", type_ = "string", json_path = r#".status.conditions[?(@.type=="Succeeded")].reason"#),
    printcolumn(name = "Seconds", type_ = "number", json_path = ".status.seconds", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Message", type_ = "string", json_path = r#".status.conditions[?(@.type=="Succeeded")].message"#),
    selectable = ".spec.app",
    validation = Rule::new("size(self.metadata.name) <= 52 && self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')").message("metadata.name is not a DNS label of at most 52 characters, from which the names of pods are made; write it with a-z, 0-9 and -")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("self == oldSelf").message("a Migration cannot be changed, because it may have run; make a new one under another name"))]
#[x_kube(validation = Rule::new("has(self.command) != has(self.onStart)").message("a Migration has exactly one of command and onStart; give one"))]
pub struct MigrationSpec {
    /// Name of the App whose database is migrated.
    #[schemars(schema_with = "crate::text::app_name")]
    pub app: String,
    /// Name of the Release for which it runs. Without one the App's spec of the moment gives the environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub release: Option<String>,
    /// The image that migrates, with its digest: `repository@sha256:…`.
    #[schemars(schema_with = "crate::text::image_with_digest")]
    pub image: String,
    /// The component whose pods it resembles: environment, volumes, service account.
    #[schemars(schema_with = "crate::text::component_name")]
    pub component: String,
    /// The command that migrates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), inner(length(max = 8192)))]
    pub command: Option<Vec<String>>,
    /// The image migrates itself when it starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_start: Option<OnStart>,
    /// Time after which it is ended.
    #[schemars(schema_with = "crate::database::timeout")]
    pub timeout: Duration,
    /// Statements that must hold afterwards.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub checks: Vec<MigrationCheck>,
}

/// What Fairway knows of a Migration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MigrationStatus {
    /// The generation of the spec that this status speaks of; -1 until a controller has seen the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Succeeded`, `Ready`, `Reconciling`, `Stalled`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// How it ended; absent until then. `Unknown` and `Partial` end the run but block every further migration
    /// of the database until a person resolves them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<MigrationOutcome>,
    /// Set before the run is started: from here on it is never started anew, only settled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// Schema fingerprints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprints: Option<Fingerprints>,
    /// How long it ran, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Exit code of the command; 128 + signal when it was killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The last SQLSTATE in its last lines of output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sqlstate: Option<String>,
    /// Its last error line, with every value of its environment redacted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// The check that did not hold after the migration was applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_check: Option<String>,
    /// The schema is newer than this image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_ahead: Option<bool>,
    /// Tries to start it, which go on while the environment keep it from starting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<Attempts>,
    /// The run's pod ended without an answer: a settling Job finds out in the ledger how the run ended.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub settling: bool,
    /// Settling Jobs that have been started, counted from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settle_attempt: Option<u32>,
    /// Token of the last resolve annotation that was acted upon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_resolve: Option<String>,
}

/// Schema fingerprints before and after a migration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Fingerprints {
    /// Before it started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// After it ended and its sessions were gone; for `onStart` when its application was healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// How a Migration ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MigrationOutcome {
    /// It ran and committed.
    Applied,
    /// The ledger already had this image digest and command: nothing was run.
    AlreadyApplied,
    /// It failed; the schema is what it was before.
    Failed,
    /// It failed and the schema changed.
    Partial,
    /// It was cut off and what it did cannot be decided.
    Unknown,
    /// It was not started: another run is not settled, or the database could not be had.
    NotStarted,
}
