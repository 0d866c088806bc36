//! One proven copy of a database.

use crate::attempts::Attempts;
use crate::store::Store;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One proven copy of an App's database. It outlives the App. Immutable but for `keepUntil`; created for each Release and by
/// the App's schedule, or applied by hand for a one-off.
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
    doc = "One proven copy of an App's database. It outlives the App. Fairway creates one for each Release and by the App's schedule; apply one by hand for a one-off backup.",
    printcolumn(name = "App", type_ = "string", json_path = ".spec.app"),
    printcolumn(name = "Succeeded", type_ = "string", json_path = r#".status.conditions[?(@.type=="Succeeded")].status"#),
    printcolumn(name = "Status", type_ = "string", json_path = r#".status.conditions[?(@.type=="Succeeded")].reason"#),
    printcolumn(name = "Level", type_ = "string", json_path = ".status.level", description = "How far the copy was proven"),
    printcolumn(name = "Bytes", type_ = "integer", json_path = ".status.bytes"),
    printcolumn(name = "Kept", type_ = "string", json_path = ".status.keptBecause[0]", description = "The first reason for which backup.keep of the App keeps it"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Message", type_ = "string", json_path = r#".status.conditions[?(@.type=="Succeeded")].message"#, priority = 1),
    selectable = ".spec.app",
    validation = Rule::new("size(self.metadata.name) <= 52 && self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')").message("metadata.name must be a DNS label of at most 52 characters, because names of pods are derived from it; use a-z, 0-9 and -")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("self.app == oldSelf.app && has(self.release) == has(oldSelf.release) && (!has(self.release) || self.release == oldSelf.release) && has(self.reason) == has(oldSelf.reason) && (!has(self.reason) || self.reason == oldSelf.reason)").message("a Backup cannot be changed but for keepUntil, because it may have run; create a new one with another name"))]
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
    /// Until when it is kept, whatever `backup.keep` of the App says, such as `2027-01-31T00:00:00Z`. The only field that may
    /// be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::text::moment")]
    pub keep_until: Option<jiff::Timestamp>,
}

/// The observed state of a Backup.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupStatus {
    /// The generation of the spec that this status describes; -1 until a controller has seen the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Succeeded` and `Ready` are always present. `Reconciling`, `Stalled` and `Warned` are present only while they are
    /// true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// How the backup ended; absent until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<BackupOutcome>,
    /// How far the copy was to be proven: as the App asked when the first attempt began, or less if it asked for less when
    /// a later one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<Level>,
    /// How far the copy was proven. `Decoded`: pg_restore read everything that is in the store. `Restored`: it was restored
    /// into a throwaway server, with its roles, owners, extensions and privileges.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// What restoring the copy took and found; absent below the level `Restored`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<RestoreProof>,
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
    /// What is missing from the backup, such as roles that the connection's role may not read, and what was found
    /// beside it in the store.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Why `backup.keep` of the App keeps it: what refers to it, `keepUntil`, `last`, or the newest one of which day, week,
    /// month or year it is. Empty for one that is not kept. Of an App without `backup.keep`, or that is gone, only `keepUntil`
    /// is said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept_because: Vec<String>,
    /// Attempts to take the backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<Attempts>,
    /// Its removal, once retention has decided it. From then on the backup counts as proof for nothing, and nothing brings
    /// it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removal: Option<Removal>,
}

/// The removal of a backup that `backup.keep` of the App does not keep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Removal {
    /// When it was decided.
    #[schemars(with = "String")]
    pub since: jiff::Timestamp,
    /// How far it is.
    pub state: RemovalState,
    /// What is removed.
    pub set: BackupSet,
    /// Number of files or objects that were removed.
    #[serde(default)]
    pub objects: i64,
    /// Bytes of these files or objects.
    #[serde(default)]
    pub bytes: i64,
    /// Until when the store keeps the set, where it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub until: Option<jiff::Timestamp>,
    /// What is left in the store, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Attempts to remove the set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<Attempts>,
}

/// How far the removal of a backup is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RemovalState {
    /// The set is to be removed, or some of it is.
    Removing,
    /// Nothing of the set is left. The Backup is deleted next.
    Removed,
    /// Nothing of the set is listed any more, but the bucket keeps versions: a rule of its lifecycle removes the bytes. The
    /// Backup is deleted next.
    Hidden,
    /// The store refuses to remove the set, or the set is not the Backup's. The store is asked again.
    Retained,
}

/// How far a backup is proven. A higher level includes the lower ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Level {
    /// What is in the store was read back, has the hashes of what was written, and `pg_restore` decodes all of it.
    #[default]
    Decoded,
    /// What is in the store was restored into a throwaway PostgreSQL server in the backup's pod, with its roles, owners,
    /// extensions and privileges.
    Restored,
}

impl Level {
    /// The level as the API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Decoded => "Decoded",
            Self::Restored => "Restored",
        }
    }

    /// The level of that name; none where another version of Fairway knows it and this one does not.
    pub fn of(name: &str) -> Option<Self> {
        [Self::Decoded, Self::Restored]
            .into_iter()
            .find(|level| level.as_str() == name)
    }
}

/// What restoring a backup into a throwaway server took and found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestoreProof {
    /// Whole seconds from the start of the throwaway server to the end of the last check.
    pub seconds: i64,
    /// Tables in the restored database.
    pub tables: i64,
    /// Size of the restored database, in bytes.
    pub bytes: i64,
}

/// Where a backup is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupSet {
    /// The store, as the App named it when the backup began.
    pub store: Store,
    /// Path of the set's folder in the store, relative.
    pub path: String,
}

/// How the Backup ended; absent until then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BackupOutcome {
    /// The backup is complete and proven to the level in status.
    Succeeded,
    /// The backup was not complete within its deadline.
    Failed,
}
