//! One attempt to bring an App's spec to production.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A person's verbs are annotations whose value is any new token; `status.lastHandled…` answers with it.
pub mod annotation {
    /// Give the release up: before the migration nothing remains of it, after it the release rolls back.
    pub const ABORT: &str = "fairway.dev/abort";
    /// Take traffic back to the previous release, during the bake or after.
    pub const ROLLBACK: &str = "fairway.dev/rollback";
    /// Try a failed release again, as a new Release of the same content.
    pub const RETRY: &str = "fairway.dev/retry";
    /// Settle a migration whose outcome is unknown: `applied:<token>` or `not-applied:<token>`.
    pub const RESOLVE: &str = "fairway.dev/resolve";
}

/// One attempt to bring an App to production, made by Fairway when an App is edited. Its spec is immutable.
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
    doc = "One attempt to bring an App's spec to production. Fairway makes it when the App is edited; its spec is immutable.",
    printcolumn(name = "App", type_ = "string", json_path = ".spec.app"),
    printcolumn(name = "Succeeded", type_ = "string", json_path = r#".status.conditions[?(@.type=="Succeeded")].status"#, description = "Unknown while it runs, then True or False"),
    printcolumn(name = "Status", type_ = "string", json_path = r#".status.conditions[?(@.type=="Succeeded")].reason"#, description = "The rung that is not met, or how it ended"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Message", type_ = "string", json_path = r#".status.conditions[?(@.type=="Succeeded")].message"#),
    selectable = ".spec.app",
    // Not `name == app + '-' + string(revision)`: the cost of a string made from a number cannot be estimated.
    validation = Rule::new("self.metadata.name.startsWith(self.spec.app + '-') && self.metadata.name.substring(size(self.spec.app) + 1) == string(self.spec.revision)").message("metadata.name is not spec.app, - and spec.revision; for app crm and revision 42 write crm-42")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("self == oldSelf").message("a Release cannot be changed; edit the App instead, which makes a new one"))]
pub struct ReleaseSpec {
    /// Name of the App in this namespace.
    #[schemars(schema_with = "crate::text::app_name")]
    pub app: String,
    /// Revision of the App, counted from 1. A Release applied by hand takes the next free one.
    #[schemars(range(min = 1, max = 999_999))]
    pub revision: i64,
    /// Image references by container name, or by `component/container` where two components use one
    /// container name. At most 64.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::text::images")]
    pub images: BTreeMap<String, String>,
    /// A name for people, such as a tag of the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub version: Option<String>,
    /// What caused it: `AppEdited`, `Retry`, or what a person or CI writes here. Shown, not interpreted.
    #[serde(default = "by_hand")]
    #[schemars(length(min = 1, max = 64))]
    pub trigger: String,
}

/// What Fairway knows of a Release.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseStatus {
    /// The generation of the spec that this status speaks of; -1 until a controller has seen the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Succeeded`, `Ready`, `Reconciling`, `Stalled`, `Baking`, `SchemaAhead`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// How it ended; absent until then, so that `kubectl wait --for=jsonpath='{.status.outcome}'` returns on
    /// every end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<ReleaseOutcome>,
    /// Image references with digests by `component/container`: what really runs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub digests: BTreeMap<String, String>,
    /// Name of the Release that served when this one began, to which it would roll back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
    /// What cannot be observed again, in the order in which it happened. Only ever appended to, and committed
    /// before the next effect.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub milestones: Vec<Milestone>,
    /// What the rungs proved.
    #[serde(default, skip_serializing_if = "Evidence::is_empty")]
    pub evidence: Evidence,
    /// Tries of a rung that waits for its environment, by rung: Pinned, Preflighted. Those of a backup or
    /// migration are in its own status.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attempts: BTreeMap<String, Attempts>,
    /// Token of the last abort annotation that was acted upon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_abort: Option<String>,
    /// Token of the last rollback annotation that was acted upon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_rollback: Option<String>,
    /// Token of the last retry annotation that was acted upon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_retry: Option<String>,
    /// Token of the last resolve annotation that was acted upon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_resolve: Option<String>,
}

/// How a Release ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ReleaseOutcome {
    /// It serves, and the old side is retired.
    Succeeded,
    /// It was stopped before traffic moved; the previous release never stopped serving.
    Failed,
    /// Traffic had moved and was taken back.
    RolledBack,
    /// A newer Release took its place before it had changed anything.
    Superseded,
    /// A person gave it up.
    Aborted,
}

/// Something that happened and cannot be observed again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Milestone {
    /// What.
    #[serde(rename = "type")]
    pub kind: MilestoneKind,
    /// When, by the operator's clock, with milliseconds.
    #[schemars(with = "String")]
    pub at: jiff::Timestamp,
    /// Why, where there is a why: CamelCase, for machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why, for users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Of `RollingBack`: the outcome with which the Release ends when the rollback is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<ReleaseOutcome>,
}

/// What a milestone says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MilestoneKind {
    /// The migration is about to start: from here on the release finishes or rolls back.
    Migrating,
    /// The ledger says that the migration is committed.
    Migrated,
    /// Components with strategy `Recreate` are about to be handed over.
    HandingOver,
    /// The Service selects the candidate and its endpoints show only it.
    TrafficMoved,
    /// The watch is over and nothing tripped.
    Baked,
    /// The release goes back; never undone by recovered health.
    RollingBack,
    /// The old version serves again.
    TrafficReturned,
}

/// What the rungs proved.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    /// Checks of the environment: name and verdict.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub preflight: Vec<CheckVerdict>,
    /// The Backup made for this release, with the level that it reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupEvidence>,
    /// How the migration went.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration: Option<MigrationEvidence>,
    /// Rounds of health requests that passed since traffic moved, and that failed, when the bake ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probes: Option<ProbeCounts>,
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
    /// Whether it held.
    pub passed: bool,
}

/// The backup of a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupEvidence {
    /// Name of the Backup object.
    pub name: String,
    /// Level of proof: `Decoded`.
    pub level: String,
    /// Bytes in the store.
    pub bytes: i64,
    /// SHA-256 of the stored dump, hex.
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
    /// How long it ran, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// The schema fingerprint did not change: either there was nothing to do, or the migration did not do it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unchanged: bool,
    /// The schema was already newer than this image when its migration ran.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub schema_ahead: bool,
}

/// Rounds of health requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProbeCounts {
    /// Rounds in which everything passed.
    pub passed: i64,
    /// Rounds in which something failed.
    pub failed: i64,
}

/// Tries of a rung that depends on the environment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Attempts {
    /// Number of the current try, counted from 1.
    pub current: u32,
    /// When the first began; the deadline counts from here.
    #[schemars(with = "String")]
    pub since: jiff::Timestamp,
    /// When the next may begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub next: Option<jiff::Timestamp>,
    /// Why the last one failed: stable reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why the last one failed: one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
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
