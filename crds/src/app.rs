//! What runs and how it is released: the only object that you must write.

use crate::agent::AgentPods;
use crate::backup::Level;
use crate::component::Component;
use crate::database::{Database, MigrationTemplate};
use crate::duration::{self, Duration};
use crate::store::Store;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

/// Annotations on an App by which users ask for something. The value is any text; another one asks again.
pub mod annotation {
    /// Take a final backup, before the App is deleted.
    pub const FINAL_BACKUP: &str = "fairway.dev/final-backup";
}

/// A web application: its components, its database, and the rules by which a change reaches production.
/// Editing it releases it: each change of components, database, migration or traffic becomes a Release.
#[derive(Clone, Debug, PartialEq, CustomResource, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "fairway.dev",
    version = "v1alpha1",
    kind = "App",
    namespaced,
    status = "AppStatus",
    derive = "PartialEq",
    category = "fairway",
    shortname = "fapp",
    doc = "What runs and how it is released. Editing an App releases it: Fairway turns the change into a Release and brings it to production.",
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#, description = "Whether the live version is healthy"),
    printcolumn(name = "Status", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#, description = "The reason of the condition Ready"),
    printcolumn(name = "Live", type_ = "string", json_path = ".status.live.release", description = "The Release that serves"),
    printcolumn(name = "Desired", type_ = "string", json_path = ".status.desired", description = "The Release that the spec asks for"),
    printcolumn(name = "Backup", type_ = "date", json_path = ".status.backup.lastVerified.takenAt", description = "Time since the newest verified backup, of an App with backup.schedule"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Message", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].message"#, priority = 1),
    validation = Rule::new("size(self.metadata.name) <= 30 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("metadata.name must be a DNS label of at most 30 characters, because names of pods are derived from it; use a-z, 0-9 and -, starting with a letter"),
    validation = Rule::new("!self.metadata.name.contains('--')").message("metadata.name contains two hyphens in a row, which separate App and component in derived names; use one")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("self.components.all(a, self.components.exists_one(b, b.name == a.name))").message("two components have the same name; give each a name of its own").field_path(".components"))]
#[x_kube(validation = Rule::new("self.components.all(a, !has(a.serves) || self.components.exists_one(b, has(b.serves) && b.serves.service == a.serves.service))").message("two components serve the same Service; give each its own serves.service, or merge them into one component").field_path(".components"))]
#[x_kube(validation = Rule::new("!has(self.migration) || self.components.exists(c, c.name == self.migration.component)").message("migration.component does not exist; set it to the name of a component in spec.components").field_path(".migration.component"))]
#[x_kube(validation = Rule::new("!has(self.migration) || !has(self.migration.container) || self.components.all(c, c.name != self.migration.component || c.template.spec.containers.exists(container, container.name == self.migration.container))").message("migration.container does not exist; set it to the name of a container in the template of migration.component").field_path(".migration.container"))]
#[x_kube(validation = Rule::new("!has(self.migration) || !has(self.migration.onStart) || self.components.all(c, c.name != self.migration.component || has(c.health))").message("migration.onStart requires health on its component, because passing health requests mark the end of the migration; add health.http to that component").field_path(".migration.onStart"))]
#[x_kube(validation = Rule::new("!has(self.migration) || has(self.database)").message("migration requires spec.database; add it with image and connection").field_path(".migration"))]
#[x_kube(validation = Rule::new("!has(self.migration) || has(self.backup)").message("migration requires spec.backup.store, because Fairway migrates nothing that it has not backed up; add it").field_path(".migration"))]
#[x_kube(validation = Rule::new("!has(self.backup) || has(self.database) || has(self.migration)").message("backup requires spec.database; add it with image and connection").field_path(".backup"))]
pub struct AppSpec {
    /// If true, no release starts, and a release in progress holds before its next irreversible step. A running
    /// migration is not interrupted, and a candidate that has the traffic is still watched. Scheduled backups are
    /// skipped meanwhile. Defaults to false.
    #[serde(default)]
    pub suspend: bool,
    /// The components, at most 16. All are released together.
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub components: Vec<Component>,
    /// The PostgreSQL database. Without it a release takes no backup and runs no migration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<Database>,
    /// How the database schema is migrated for a release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration: Option<MigrationTemplate>,
    /// How traffic moves to the candidate.
    #[serde(default)]
    pub traffic: Traffic,
    /// Where backups are stored. If set, every release backs up the database before it changes anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupSettings>,
    /// How the pods of Fairway's agent run. Editing it takes effect with the next pod, without a Release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentPods>,
    /// The rules of a release. Editing them takes effect at once, without a Release.
    #[serde(default)]
    pub policy: Policy,
}

/// How traffic moves from one version to the next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Traffic {
    /// `Service`: the selector of each component's Service is switched. Defaults to Service.
    #[serde(default)]
    pub driver: TrafficDriver,
    /// How long a pod that ends keeps serving (a preStop sleep), because other nodes and open connections learn
    /// of its end a little later. Containers with a preStop hook of their own keep it. At most 10m; defaults to
    /// 10s.
    #[serde(default = "ten_seconds")]
    #[schemars(schema_with = "drain")]
    pub drain: Duration,
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            driver: TrafficDriver::default(),
            drain: ten_seconds(),
        }
    }
}

/// The mechanism that moves traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, strum::EnumIter)]
pub enum TrafficDriver {
    /// The selector of a Service.
    #[default]
    Service,
}

/// Where backups are stored and how they are taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("!has(self.verify) || self.verify != 'Restored' || has(self.scratch)").message("backup.verify: Restored requires backup.scratch, because the dump is restored from there; add it, or set verify to Decoded").field_path(".verify"))]
pub struct BackupSettings {
    /// When backups are taken beside those of releases. Editing it takes effect at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<BackupSchedule>,
    /// Which verified backups are kept; `status.keptBecause` of each says why. The others are removed, one after the other, with
    /// their sets in the store. Without it nothing is ever removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<Keep>,
    /// Scratch volume for `pg_dump -Fd -j`, which dumps large databases with several connections, and from which the
    /// dump is restored. Without it the dump is streamed over one connection, and decoded only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scratch: Option<Scratch>,
    /// Where backups are stored.
    pub store: Store,
    /// How far a backup is proven before it counts: no migration begins on a backup below this level. `Decoded`: it is
    /// read back and decoded. `Restored`: it is also restored into a throwaway server of `database.image` in the
    /// backup's pod, which takes about as long as `pg_restore -j2` and a second volume of `scratch.size`. Defaults to
    /// Restored where `scratch` is set, else to Decoded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<Level>,
}

impl BackupSettings {
    /// How far a backup is proven before it counts.
    pub fn level(&self) -> Level {
        let default = match self.scratch {
            Some(_) => Level::Restored,
            None => Level::Decoded,
        };
        self.verify.unwrap_or(default)
    }
}

/// When backups are taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackupSchedule {
    /// Five fields of cron: minute, hour, day of month, month and day of week, such as `15 2 * * *` for 02:15 every
    /// day. A backup begins a little later, by the same part of the interval each time: at most a tenth of it, and ten
    /// minutes. Where the clock is set forward, a time that is left out is the first moment after that; where it is set
    /// back, a time that comes twice counts once. At least five minutes lie between two backups.
    #[schemars(schema_with = "crate::text::cron")]
    pub cron: String,
    /// Time zone of `cron`, by its name in the IANA database, such as `Europe/Warsaw`. Defaults to `UTC`.
    #[serde(default = "utc")]
    #[schemars(schema_with = "crate::text::time_zone")]
    pub time_zone: String,
}

/// How many verified backups are kept. One that failed goes after 7 days, when there is a newer verified one. Of each day, week, month and year the newest one is, by the clock of
/// `backup.schedule.timeZone`; one without a backup is not counted. What a release in progress or the live one refers to is
/// kept beside these, and so is what has a `keepUntil`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Keep {
    /// How many of the newest backups. Defaults to 3.
    #[serde(default = "three")]
    #[schemars(range(min = 1, max = 1000))]
    pub last: u16,
    /// Of how many days. Defaults to 0.
    #[serde(default)]
    #[schemars(range(max = 1000))]
    pub daily: u16,
    /// Of how many weeks, which begin on Monday. Defaults to 0.
    #[serde(default)]
    #[schemars(range(max = 1000))]
    pub weekly: u16,
    /// Of how many months. Defaults to 0.
    #[serde(default)]
    #[schemars(range(max = 1000))]
    pub monthly: u16,
    /// Of how many years. Defaults to 0.
    #[serde(default)]
    #[schemars(range(max = 100))]
    pub yearly: u16,
}

/// A scratch volume on the node for a dump in several files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Scratch {
    /// Size as a Kubernetes quantity, such as `20Gi`: one to two times the size of the database. The pod is
    /// evicted if it uses more. A backup that is proven to the level Restored has a second volume of this size, for the
    /// restored copy.
    #[schemars(schema_with = "crate::text::size")]
    pub size: String,
}

/// The rules of a release. Editing them takes effect at once, without a Release.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    /// How the candidate is watched after traffic has moved to it.
    #[serde(default)]
    pub bake: Bake,
}

/// The time after the switch in which the candidate is watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Bake {
    /// How long the candidate is watched, and the previous version stays ready to take the traffic back. At most
    /// 168h; defaults to 10m.
    #[serde(rename = "for", default = "ten_minutes")]
    #[schemars(schema_with = "bake")]
    pub duration: Duration,
}

impl Default for Bake {
    fn default() -> Self {
        Self {
            duration: ten_minutes(),
        }
    }
}

/// The observed state of an App.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AppStatus {
    /// The generation of the spec that this status describes; -1 until a controller has seen the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready` (the live version is healthy) is always present. `Reconciling`, `Stalled`, `Baking`,
    /// `DivergedFromSpec`, `SchemaAhead`, `BackupOverdue` and `FinalBackupTaken` are present only while they are true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Revision of the newest Release; the next one is one higher. Written before the Release is created, so
    /// that no revision is ever used twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<i64>,
    /// SHA-256 (hex) of the snapshot of the newest Release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec_hash: Option<String>,
    /// Name of the Release that the spec asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired: Option<String>,
    /// The Release that serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<Live>,
    /// Name of the Backup that the annotation `fairway.dev/final-backup` asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub final_backup: Option<String>,
    /// Scheduled backups; absent without `backup.schedule`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupState>,
}

/// Scheduled backups of an App, and what they have come to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupState {
    /// When the next three scheduled backups begin. None while `spec.suspend` is true, or the schedule is not valid.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub next_runs: Vec<jiff::Timestamp>,
    /// The run of the schedule for which a Backup was created last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run: Option<ScheduledRun>,
    /// The newest verified backup, scheduled or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_verified: Option<VerifiedBackup>,
    /// The schedule by which runs are counted, and since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<CountedSchedule>,
}

/// A run of the schedule of backups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScheduledRun {
    /// The time that `cron` names.
    #[schemars(with = "String")]
    pub at: jiff::Timestamp,
    /// Name of the Backup.
    pub backup: String,
}

/// A verified backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VerifiedBackup {
    /// Name of the Backup.
    pub name: String,
    /// When the dump began.
    #[schemars(with = "String")]
    pub taken_at: jiff::Timestamp,
    /// How far the copy was proven.
    pub level: String,
}

/// A schedule, and since when its runs count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CountedSchedule {
    /// `backup.schedule.cron` as it was seen.
    pub cron: String,
    /// `backup.schedule.timeZone` as it was seen.
    pub time_zone: String,
    /// When it was seen first. No backup is taken for an earlier run.
    #[schemars(with = "String")]
    pub since: jiff::Timestamp,
}

/// The Release that serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Live {
    /// Name of the Release.
    pub release: String,
    /// Revision of the Release.
    pub revision: i64,
    /// Images of the Release by `component/container`, with digests.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub images: std::collections::BTreeMap<String, String>,
}

fn drain(_: &mut SchemaGenerator) -> Schema {
    duration::between("0s", "10m", "10s")
}
fn bake(_: &mut SchemaGenerator) -> Schema {
    duration::between("0s", "168h", "10m")
}
fn three() -> u16 {
    3
}
fn utc() -> String {
    "UTC".to_owned()
}
fn ten_seconds() -> Duration {
    Duration::from_seconds(10)
}
fn ten_minutes() -> Duration {
    Duration::from_seconds(600)
}
