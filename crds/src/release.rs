//! One attempt to bring an App's spec to production.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub use crate::attempts::Attempts;

/// The verbs of the user, as annotations. The value is any new token, or `<user>/<token>` with the name of who asks;
/// `status.lastHandled…` repeats it when the verb has been handled.
pub mod annotation {
    /// Abort the release: before its migration, everything that it started is removed; after it, the release is
    /// rolled back.
    pub const ABORT: &str = "fairway.dev/abort";
    /// Return traffic to the previous release, during the bake or after it.
    pub const ROLLBACK: &str = "fairway.dev/rollback";
    /// Retry a failed release, as a new Release of the App's current spec.
    pub const RETRY: &str = "fairway.dev/retry";
    /// Resolve a migration whose outcome is unknown: `applied:<token>` or `not-applied:<token>`.
    pub const RESOLVE: &str = "fairway.dev/resolve";
    /// Put a restored database in place: `<rows>:<token>` with the most row changes that may be lost, or `any:<token>`. On a
    /// Restore.
    pub const RESTORE: &str = "fairway.dev/restore";
}

/// One attempt to bring an App's spec to production. Fairway creates it when the App is edited; its spec is
/// immutable.
#[derive(Clone, Debug, PartialEq, Eq, CustomResource, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "fairway.dev",
    version = "v1alpha1",
    kind = "Release",
    namespaced,
    status = "ReleaseStatus",
    derive = "PartialEq",
    category = "fairway",
    shortname = "frel",
    doc = "One attempt to bring an App's spec to production. Fairway creates it when the App is edited; its spec is immutable.",
    printcolumn(name = "App", type_ = "string", json_path = ".spec.app"),
    printcolumn(name = "Succeeded", type_ = "string", json_path = r#".status.conditions[?(@.type=="Succeeded")].status"#, description = "Unknown while it runs, then True or False"),
    printcolumn(name = "Status", type_ = "string", json_path = r#".status.conditions[?(@.type=="Succeeded")].reason"#, description = "What the release waits for, or how it ended"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Message", type_ = "string", json_path = r#".status.conditions[?(@.type=="Succeeded")].message"#),
    selectable = ".spec.app",
    // Not `name == app + '-' + string(revision)`: the cost of a string made from a number cannot be estimated.
    validation = Rule::new("self.metadata.name.startsWith(self.spec.app + '-') && self.metadata.name.substring(size(self.spec.app) + 1) == string(self.spec.revision)").message("metadata.name must be spec.app and spec.revision, joined by -; for app crm and revision 42 use crm-42")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("self == oldSelf").message("a Release cannot be changed; edit the App instead, which creates a new Release"))]
pub struct ReleaseSpec {
    /// Name of the App in this namespace.
    #[schemars(schema_with = "crate::text::app_name")]
    pub app: String,
    /// Revision of the App, counted from 1. A Release applied by hand uses the next free one.
    #[schemars(range(min = 1, max = 999_999))]
    pub revision: i64,
    /// Image references by container name, or by `component/container` if two components have a container of the
    /// same name. At most 640, as many as an App can have containers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::text::images")]
    pub images: BTreeMap<String, String>,
    /// Version for human readers, such as a tag of the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub version: Option<String>,
    /// What caused the release: `AppEdited`, `Retry`, or a text of the user or CI. Shown, not interpreted. Defaults to
    /// ByHand.
    #[serde(default = "by_hand")]
    #[schemars(length(min = 1, max = 64))]
    pub trigger: String,
}

/// The observed state of a Release.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseStatus {
    /// The generation of the spec that this status describes; -1 until a controller has seen the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Succeeded` and `Ready` are always present. `Reconciling`, `Stalled`, `Baking`, `SchemaAhead` and `Warned` are
    /// present only while they are true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// How the release ended; absent until then, so that `kubectl wait --for=jsonpath='{.status.outcome}'` returns
    /// however it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<ReleaseOutcome>,
    /// Image references with digests by `component/container`: the images that run.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub digests: BTreeMap<String, String>,
    /// Components whose pods all run on one node, because they mount a ReadWriteOnce claim and have strategy
    /// `BlueGreen`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on_one_node: Vec<String>,
    /// Name of the Release that served when this one began, and to which this one would be rolled back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
    /// Name of the newer Release that takes over, because this one could not be rolled back within ten minutes. While
    /// that Release is in progress, this one changes nothing; if it ends without serving, the rollback continues.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken_over_by: Option<String>,
    /// Events that cannot be observed again, in the order in which they happened. Only ever appended to, and
    /// recorded before the next effect.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub milestones: Vec<Milestone>,
    /// Evidence from the rungs.
    #[serde(default, skip_serializing_if = "Evidence::is_empty")]
    pub evidence: Evidence,
    /// Attempts of the rungs that depend on the environment, by rung: Pinned, Preflighted, and TrafficReturned when the
    /// user has requested a rollback again. Those of a Backup or a Migration are in its own status.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attempts: BTreeMap<String, Attempts>,
    /// Token of the last abort annotation that was handled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_abort: Option<String>,
    /// Token of the last rollback annotation that was handled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_rollback: Option<String>,
    /// Token of the last retry annotation that was handled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_retry: Option<String>,
    /// Token of the last resolve annotation that was handled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_resolve: Option<String>,
}

/// How the Release ended; absent until then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ReleaseOutcome {
    /// The release serves, and the previous version is retired.
    Succeeded,
    /// The release failed before traffic moved, and the previous release kept serving; or there was none to roll back
    /// to.
    Failed,
    /// Traffic had moved and was returned to the previous release.
    RolledBack,
    /// A newer Release took its place before it had changed anything.
    Superseded,
    /// The user aborted it.
    Aborted,
}

/// Something that happened and cannot be observed again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Milestone {
    /// Type of the milestone.
    #[serde(rename = "type")]
    pub kind: MilestoneKind,
    /// When it happened, by the clock of the operator, with milliseconds.
    #[schemars(with = "String")]
    pub at: jiff::Timestamp,
    /// Reason in CamelCase, for programs, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Message for human readers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Of `RollingBack`: the outcome with which the Release ends when the rollback is complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<ReleaseOutcome>,
}

/// Type of the milestone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MilestoneKind {
    /// The migration is about to start: from here on the release finishes or rolls back.
    Migrating,
    /// The ledger says that the migration is committed.
    Migrated,
    /// Components with strategy `Recreate` are about to be replaced.
    HandingOver,
    /// The Service selects the candidate, and its endpoints contain only the candidate's pods.
    TrafficMoved,
    /// The bake is over, and the candidate stayed healthy.
    Baked,
    /// The release is being rolled back; a candidate that becomes healthy again does not stop this.
    RollingBack,
    /// The previous version serves again.
    TrafficReturned,
}

/// Evidence from the rungs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    /// Checks of the environment, with their results.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub preflight: Vec<CheckVerdict>,
    /// The Backup of this release, with the level that it reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupEvidence>,
    /// Result of the migration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration: Option<MigrationEvidence>,
    /// Rounds of health requests that passed and failed between the switch of traffic and the end of the bake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probes: Option<ProbeCounts>,
    /// Warnings that the API server gave when Fairway asked, in dry runs, for Deployments and pods of this release; the
    /// condition `Warned` repeats them. No release fails because of one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub warnings: Vec<ApiServerWarning>,
}

impl Evidence {
    /// Whether nothing is proven yet.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// One check of the environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckVerdict {
    /// Name of the check.
    pub name: String,
    /// Whether the check passed.
    pub passed: bool,
}

/// A warning that the API server gave of the pods of a component.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiServerWarning {
    /// Name of the component.
    pub component: String,
    /// The API server's words, shortened.
    pub message: String,
}

/// The backup of a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupEvidence {
    /// Name of the Backup object.
    pub name: String,
    /// How far the backup was proven: `Decoded`.
    pub level: String,
    /// Size in the store, in bytes.
    pub bytes: i64,
    /// SHA-256 (hex) of the stored dump.
    pub sha256: String,
}

/// The migration of a release.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MigrationEvidence {
    /// Key of the row in the ledger.
    pub run_id: String,
    /// `Applied` or `AlreadyApplied`.
    pub outcome: crate::migration::MigrationOutcome,
    /// Duration of the run, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Whether the schema fingerprint is unchanged: there was nothing to do, or the migration did not do its work.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unchanged: bool,
    /// Whether the schema was already newer than this image when its migration ran.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub schema_ahead: bool,
}

/// Rounds of health requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProbeCounts {
    /// Number of rounds in which every request passed.
    pub passed: i64,
    /// Number of rounds in which a request failed.
    pub failed: i64,
}

/// The moment at which a milestone happened, as Kubernetes writes times.
impl From<&Milestone> for Time {
    fn from(milestone: &Milestone) -> Self {
        Time(milestone.at)
    }
}

fn by_hand() -> String {
    "ByHand".to_owned()
}
