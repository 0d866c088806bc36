//! What runs and how it is released: the only object that a team must write.

use crate::component::Component;
use crate::database::{Database, MigrationTemplate};
use crate::duration::{self, Duration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

/// A web application: its components, its database, and the rules by which a change reaches production.
/// Editing it releases: each change of components, database or migration becomes a Release.
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
    doc = "What runs and how it is released. Editing an App releases it: Fairway turns the change into a Release and carries it to production.",
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#, description = "Whether what is live is healthy"),
    printcolumn(name = "Status", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#, description = "Why"),
    printcolumn(name = "Live", type_ = "string", json_path = ".status.live.release", description = "The Release that serves"),
    printcolumn(name = "Desired", type_ = "string", json_path = ".status.desired", description = "The Release that the spec asks for"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Message", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].message"#, priority = 1),
    validation = Rule::new("size(self.metadata.name) <= 30 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("metadata.name is not a DNS label of at most 30 characters, from which the names of pods are made; write it with a-z, 0-9 and -, starting with a letter")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("self.components.all(a, self.components.exists_one(b, b.name == a.name))").message("two components have the same name; give each its own").field_path(".components"))]
#[x_kube(validation = Rule::new("self.components.all(a, !has(a.serves) || self.components.exists_one(b, has(b.serves) && b.serves.service == a.serves.service))").message("two components serve the same Service; give each its own serves.service, or make them one component").field_path(".components"))]
#[x_kube(validation = Rule::new("!has(self.migration) || self.components.exists(c, c.name == self.migration.component)").message("migration.component names no component; set it to the name of one in spec.components").field_path(".migration.component"))]
#[x_kube(validation = Rule::new("!has(self.migration) || !has(self.migration.onStart) || self.components.all(c, c.name != self.migration.component || has(c.health))").message("migration.onStart needs health on its component, because passing health is how Fairway knows that the migration is done; add health.http there").field_path(".migration.onStart"))]
#[x_kube(validation = Rule::new("!has(self.migration) || has(self.database)").message("migration needs spec.database; add its image and connection").field_path(".migration"))]
#[x_kube(validation = Rule::new("!has(self.migration) || has(self.backup)").message("migration needs spec.backup.store, because Fairway migrates nothing that it has not backed up; add it").field_path(".migration"))]
#[x_kube(validation = Rule::new("!has(self.backup) || has(self.database) || has(self.migration)").message("backup needs spec.database; add its image and connection").field_path(".backup"))]
pub struct AppSpec {
    /// True: no release starts, and a running one holds at its next safe rung. A migration that runs is not
    /// interrupted, traffic that has moved is still watched.
    #[serde(default)]
    pub suspend: bool,
    /// What runs, at most 16; all are released together.
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub components: Vec<Component>,
    /// The PostgreSQL database. Without it the release has no data rungs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<Database>,
    /// How the database follows the application.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration: Option<MigrationTemplate>,
    /// How traffic moves.
    #[serde(default)]
    pub traffic: Traffic,
    /// Where backups go. With it, every release backs the database up before it changes anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupSettings>,
    /// The rules of a release.
    #[serde(default)]
    pub policy: Policy,
}

/// How traffic moves from one version to the next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Traffic {
    /// `Service`: the selector of each component's Service is switched. Service unless set.
    #[serde(default)]
    pub driver: TrafficDriver,
    /// How long an ending pod goes on serving (a preStop sleep), because other nodes' proxies and open
    /// connections hear of its end a little later. At most 10m, 10s unless set. Containers with a preStop
    /// hook of their own keep it.
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

/// What moves the traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, strum::EnumIter)]
pub enum TrafficDriver {
    /// The selector of a Service.
    #[default]
    Service,
}

/// Where backups go and how they are made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackupSettings {
    /// Room for `pg_dump -Fd -j`, which dumps large databases with several connections. Without it the dump
    /// is streamed by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scratch: Option<Scratch>,
    /// Where backups are kept.
    pub store: Store,
}

/// Room on the node for a dump in several files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Scratch {
    /// Size as Kubernetes writes quantities, e.g. `20Gi`: one to two times the database. The pod is evicted
    /// when it needs more.
    #[schemars(schema_with = "crate::text::size")]
    pub size: String,
}

/// Where backups are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Store {
    /// A PersistentVolumeClaim in this namespace. It should not be on the disk that holds the database.
    pub volume: VolumeStore,
}

/// A PersistentVolumeClaim that holds backups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VolumeStore {
    /// Name of the claim.
    #[schemars(schema_with = "crate::text::object_name")]
    pub claim_name: String,
}

/// The rules of a release. Editing them takes effect at once, without a Release.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    /// How long the new version is watched after traffic has moved to it.
    #[serde(default)]
    pub bake: Bake,
}

/// The watch after the switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Bake {
    /// How long the old version stays ready to take the traffic back. At most 168h, 10m unless set.
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

/// What Fairway knows of an App.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AppStatus {
    /// The generation of the spec that this status speaks of; -1 until a controller has seen the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready` (what is live is healthy), `Reconciling`, `Stalled`, `Baking`, `DivergedFromSpec`, `SchemaAhead`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Revision of the newest Release; the next one is greater by one. Written before the Release is made, so
    /// that no revision is ever used twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<i64>,
    /// SHA-256 (hex) of what that Release releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec_hash: Option<String>,
    /// Name of the Release that the spec asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired: Option<String>,
    /// What serves now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<Live>,
}

/// The Release that serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Live {
    /// Name of the Release.
    pub release: String,
    /// Its revision.
    pub revision: i64,
    /// Its images by `component/container`.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub images: std::collections::BTreeMap<String, String>,
}

fn drain(_: &mut SchemaGenerator) -> Schema {
    duration::between("0s", "10m", "10s")
}
fn bake(_: &mut SchemaGenerator) -> Schema {
    duration::between("0s", "168h", "10m")
}
fn ten_seconds() -> Duration {
    Duration::from_seconds(10)
}
fn ten_minutes() -> Duration {
    Duration::from_seconds(600)
}
