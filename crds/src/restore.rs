//! One return of an App's database to what a backup holds.

use crate::attempts::Attempts;
use crate::backup::BackupSet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One return of an App's database to what a Backup holds. The backup is restored beside the database in use and proven; what
/// would be lost is counted; and after the user's agreement the two change places. Immutable; applied by hand.
#[derive(Clone, Debug, PartialEq, Eq, CustomResource, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "fairway.dev",
    version = "v1alpha1",
    kind = "Restore",
    namespaced,
    status = "RestoreStatus",
    derive = "PartialEq",
    category = "fairway",
    shortname = "frst",
    doc = "One return of an App's database to what a Backup holds. The backup is restored beside the database in use and proven; what would be lost is counted; and after the user's agreement the two change places.",
    printcolumn(name = "App", type_ = "string", json_path = ".spec.app"),
    printcolumn(name = "Backup", type_ = "string", json_path = ".spec.from.backup"),
    printcolumn(name = "Succeeded", type_ = "string", json_path = r#".status.conditions[?(@.type=="Succeeded")].status"#),
    printcolumn(name = "Status", type_ = "string", json_path = r#".status.conditions[?(@.type=="Succeeded")].reason"#, description = "What the restore waits for, or how it ended"),
    printcolumn(name = "Loses", type_ = "integer", json_path = ".status.loss.rows", description = "Row changes since the backup, at least"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Message", type_ = "string", json_path = r#".status.conditions[?(@.type=="Succeeded")].message"#, priority = 1),
    selectable = ".spec.app",
    validation = Rule::new("size(self.metadata.name) <= 50 && self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')").message("metadata.name must be a DNS label of at most 50 characters, because names of pods are derived from it; use a-z, 0-9 and -")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("self == oldSelf").message("a Restore cannot be changed, because it may have run; create a new one with another name"))]
pub struct RestoreSpec {
    /// Name of the App whose database is restored.
    #[schemars(schema_with = "crate::text::app_name")]
    pub app: String,
    /// What is restored.
    pub from: RestoreSource,
    /// Where it is restored to.
    pub into: RestoreTarget,
}

/// What is restored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RestoreSource {
    /// Name of a Backup of the same App, which has succeeded.
    #[schemars(schema_with = "crate::text::object_name")]
    pub backup: String,
}

/// Where a backup is restored to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RestoreTarget {
    /// Into a database beside the one in use, which then takes its place. The replaced database is renamed and kept.
    InPlace,
}

/// The observed state of a Restore.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestoreStatus {
    /// The generation of the spec that this status describes; -1 until a controller has seen the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Succeeded` and `Ready` are always present. `Reconciling` and `Stalled` are present only while they are true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// How the restore ended; absent until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<RestoreOutcome>,
    /// The set that is restored, as the Backup named it when the restore began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<BackupSet>,
    /// UID of the Backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_uid: Option<String>,
    /// The restored database beside the one in use, once it was proven.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prepared: Option<RestoredDatabase>,
    /// What the restore takes away, as it was counted last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<RestoreLoss>,
    /// What the user has agreed to lose. Recorded before the restored database is put in place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agreed: Option<RestoreAgreement>,
    /// Why the restored database is being removed; absent unless it is. Recorded before it is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discarding: Option<RestoreEnd>,
    /// The database that was replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced: Option<ReplacedDatabase>,
    /// Attempts at the step that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<Attempts>,
    /// The last value of the annotation `fairway.dev/restore` that was handled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_restore: Option<String>,
    /// The last value of the annotation `fairway.dev/abort` that was handled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_abort: Option<String>,
}

/// A restored database beside the one in use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestoredDatabase {
    /// Name of the database on the server.
    pub name: String,
    /// The moment whose state it has, by the clock of the database server.
    pub taken_at: String,
    /// Size in bytes.
    pub bytes: i64,
    /// Seconds that restoring and proving it took; 0 when an attempt before the last one has done it.
    pub seconds: f64,
    /// When it was proven.
    #[schemars(with = "String")]
    pub at: jiff::Timestamp,
}

/// What a restore takes away: row changes since the backup, by the server's own counters. They also count work that was rolled
/// back, and know nothing of sequences and large objects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestoreLoss {
    /// Row changes, at least.
    pub rows: i64,
    /// Tables in which they were made.
    pub tables: i64,
    /// The tables with most of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub largest: Vec<TableLoss>,
    /// Why more may be lost than was counted; absent when the counters are whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uncounted: Option<String>,
}

/// Row changes in one table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TableLoss {
    /// Schema and name of the table.
    pub table: String,
    /// Row changes.
    pub rows: i64,
}

/// What a user has agreed to lose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestoreAgreement {
    /// Most row changes that may be lost; absent when any number may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<i64>,
    /// Who has agreed, where the annotation named a user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// How a restore will end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestoreEnd {
    /// The outcome.
    pub outcome: RestoreOutcome,
    /// Why, in CamelCase.
    pub reason: String,
    /// Why, in whole sentences.
    pub message: String,
}

/// A database that a restored one has replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplacedDatabase {
    /// Name under which it is kept. It accepts no connections.
    pub name: String,
    /// When it was replaced, by the clock of the database server.
    pub at: String,
    /// Milliseconds for which connections were refused; absent when that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused_milliseconds: Option<i64>,
}

/// How the Restore ended; absent until then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RestoreOutcome {
    /// The restored database is in use.
    Succeeded,
    /// The restored database was not put in place.
    Failed,
    /// The user aborted the restore before its database was put in place.
    Aborted,
}
