//! One proven copy of a database.

use crate::attempts::Attempts;
use crate::encryption::Encryption;
use crate::store::Store;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One proven copy of an App's database. It outlives the App. Immutable; created for each Release, or applied by
/// hand for a one-off.
#[derive(Clone, Debug, PartialEq, Eq, CustomResource, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "fairway.dev",
    version = "v1alpha1",
    kind = "Backup",
    namespaced,
    status = "BackupStatus",
    derive = "PartialEq",
    category = "fairway",
    shortname = "fbak",
    doc = "One proven copy of an App's database. It outlives the App. Fairway creates one for each Release; apply one by hand for a one-off backup.",
    printcolumn(name = "App", type_ = "string", json_path = ".spec.app"),
    printcolumn(name = "Succeeded", type_ = "string", json_path = r#".status.conditions[?(@.type=="Succeeded")].status"#),
    printcolumn(name = "Status", type_ = "string", json_path = r#".status.conditions[?(@.type=="Succeeded")].reason"#),
    printcolumn(name = "Level", type_ = "string", json_path = ".status.level", description = "How far the copy was proven"),
    printcolumn(name = "Bytes", type_ = "integer", json_path = ".status.bytes"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Message", type_ = "string", json_path = r#".status.conditions[?(@.type=="Succeeded")].message"#, priority = 1),
    selectable = ".spec.app",
    validation = Rule::new("size(self.metadata.name) <= 52 && self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')").message("metadata.name must be a DNS label of at most 52 characters, because names of pods are derived from it; use a-z, 0-9 and -")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("self == oldSelf").message("a Backup cannot be changed, because it may have run; create a new one with another name"))]
pub struct BackupSpec {
    /// Name of the App whose database is backed up.
    #[schemars(schema_with = "crate::text::app_name")]
    pub app: String,
    /// Name of the Release for which the backup is taken. Without one, the database is taken from the App's
    /// current spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub release: Option<String>,
    /// Why the backup is taken; for human readers.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256))]
    pub reason: String,
}

/// The observed state of a Backup.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupStatus {
    /// The generation of the spec that this status describes; -1 until a controller has seen the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Succeeded` and `Ready` are always present. `Reconciling`, `Stalled` and `CopyMissing` are present only while they are
    /// true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// How the backup ended; absent until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<BackupOutcome>,
    /// How far the copy was proven. `Decoded`: pg_restore read all of it, and the store returns what was written to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// Where the backup is stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<BackupSet>,
    /// Size in the store, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<i64>,
    /// SHA-256 (hex) of the stored dump, computed while it was written and again when it was read back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// When the dump began, by the clock of the database server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken_at: Option<String>,
    /// Version of the database server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_version: Option<String>,
    /// Schema fingerprint at the time of the dump.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// Copies in the further stores that the App named when the backup was proven.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub copies: Vec<BackupCopy>,
    /// What is missing from the backup, such as roles that the connection's role may not read, and what was found
    /// beside it in the store.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Attempts to take the backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<Attempts>,
}

/// Where a backup is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupSet {
    /// To whom the backup is encrypted, as the App named them when the backup began. Absent if it is not encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
    /// The store, as the App named it when the backup began.
    pub store: Store,
    /// Path of the set's folder in the store, relative.
    pub path: String,
}

/// A copy of a backup in a further store, at the same path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupCopy {
    /// Name of the copy in the App.
    pub name: String,
    /// The store, as the App named it when the last attempt began.
    pub store: Store,
    /// How far the copy is.
    pub state: CopyState,
    /// Why it is so, in CamelCase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why it is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When the copy was found verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified_at: Option<String>,
    /// Attempts to make the copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<Attempts>,
}

/// How far a copy is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CopyState {
    /// It is being made, or will be attempted again.
    #[default]
    Pending,
    /// It is complete, and its store returned what was written to it.
    Verified,
    /// It was not made within a week, or the App names it no more.
    Failed,
}

/// How the Backup ended; absent until then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BackupOutcome {
    /// The backup is complete and proven to the level in status.
    Succeeded,
    /// The backup was not complete within its deadline.
    Failed,
}
