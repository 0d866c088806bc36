//! The database of an App and how its migration runs.

use crate::agent::Resources;
use crate::duration::{self, Duration};
use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The App's PostgreSQL database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Database {
    /// The image that the server runs, or one with the same major version of pg_dump and pg_restore. Backups are
    /// taken and verified with the tools in it.
    #[schemars(schema_with = "crate::text::image")]
    pub image: String,
    /// How to connect to the server: directly, not through a transaction pooler, which breaks session locks.
    pub connection: Connection,
    /// The throwaway server into which a backup is restored to prove it. Editing it takes effect with the next backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clone: Option<CloneSettings>,
}

/// The throwaway PostgreSQL server into which a backup is restored to prove it. It runs in the backup's pod, in a container
/// with `database.image` and without a Secret, and listens on a socket alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CloneSettings {
    /// Settings of the server as in `postgresql.conf`, such as `shared_preload_libraries: timescaledb`. Those by which it
    /// listens, and by which it need not survive a crash, are Fairway's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "server_settings")]
    pub settings: BTreeMap<String, String>,
    /// CPU and memory of the server's container. Defaults to those of Fairway's other containers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Extensions that are left out of the restored copy, because the image does not have them or only a superuser can
    /// restore what needs them. The backup itself is complete, and its notes name them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "extensions")]
    pub without_extensions: Vec<String>,
}

/// A connection string, or its parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("has(self.urlFrom) != has(self.host)").message("database.connection requires exactly one of urlFrom and host; set urlFrom alone, or host with name, userFrom and passwordFrom"))]
#[x_kube(validation = Rule::new("!has(self.urlFrom) || has(self.host) || !(has(self.port) || has(self.name) || has(self.userFrom) || has(self.passwordFrom))").message("the URL already contains port, name, user and password; remove those fields, or urlFrom").field_path(".urlFrom"))]
#[x_kube(validation = Rule::new("!has(self.host) || has(self.urlFrom) || (has(self.name) && has(self.userFrom) && has(self.passwordFrom))").message("a connection with host also requires name, userFrom and passwordFrom; add the missing fields").field_path(".host"))]
pub struct Connection {
    /// A connection string as applications use it: a `postgres://` or `postgresql://` URL, or `key=value` pairs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_from: Option<ValueSource>,
    /// Host name of the server, such as the name of a Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::text::database_host")]
    pub host: Option<String>,
    /// Port of the server. Defaults to 5432.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// Name of the database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub name: Option<String>,
    /// The role that owns the schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_from: Option<ValueSource>,
    /// Password of the role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_from: Option<ValueSource>,
}

/// Source of a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ValueSource {
    /// Key of a Secret in this namespace. The kubelet passes it to pods; the operator cannot read it.
    pub secret_key_ref: SecretKeySelector,
}

/// One key of a Secret in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretKeySelector {
    /// Name of the Secret.
    #[schemars(schema_with = "crate::text::object_name")]
    pub name: String,
    /// Key in the Secret.
    #[schemars(schema_with = "crate::text::secret_key")]
    pub key: String,
}

/// How the database schema is migrated: by a command, or by the image itself when it starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("has(self.command) != has(self.onStart)").message("migration requires exactly one of command (run once, on its own) and onStart (the image migrates the database when it starts); set one"))]
pub struct MigrationTemplate {
    /// The component whose image and environment run the migration.
    #[schemars(length(min = 1, max = 16))]
    pub component: String,
    /// The container of that component whose image and environment run the migration. Defaults to the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::text::container_name")]
    pub container: Option<String>,
    /// The command that migrates the database and exits with 0 when it is done. It is run as it is, without a
    /// shell; for shell syntax use `["sh", "-c", "…"]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), inner(length(max = 8192)))]
    pub command: Option<Vec<String>>,
    /// The image migrates the database when it starts: one pod of the candidate is started alone, outside every
    /// Service, until its health requests pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_start: Option<OnStart>,
    /// Time after which the migration is ended, and its database sessions with it. 10s to 24h; defaults to 30m.
    #[serde(default = "thirty_minutes")]
    #[schemars(schema_with = "timeout")]
    pub timeout: Duration,
    /// Checks of the database after the migration, at most 32. Together they have what is left of `timeout`, and
    /// at least a minute.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub checks: Vec<MigrationCheck>,
}

/// Has no fields: its presence says that the image migrates the database when it starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OnStart {}

/// An SQL statement and the value that it must return.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MigrationCheck {
    /// Name of the check, shown in status.
    #[schemars(schema_with = "crate::text::check_name")]
    pub name: String,
    /// The SQL statement, run in a read-only transaction.
    #[schemars(length(min = 1, max = 8192))]
    pub sql: String,
    /// Expected value of the first column of the first row. It is read as the type of that column reads it: `true` and
    /// `t` are the same boolean, `1.0` and `1` the same numeric.
    #[schemars(length(max = 1024))]
    pub expect: String,
}

pub(crate) fn timeout(_: &mut SchemaGenerator) -> Schema {
    duration::between("10s", "24h", "30m")
}
fn thirty_minutes() -> Duration {
    Duration::from_seconds(1800)
}

fn server_settings(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": crate::text::setting(generator),
        "x-kubernetes-validations": [{
            "rule": "self.all(name, size(name) <= 128)",
            "message": "must be a map from names of PostgreSQL's settings, of at most 128 characters, to values; use a name such as shared_preload_libraries",
        }],
    })
}

fn extensions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 64,
        "items": {"type": "string", "minLength": 1, "maxLength": 63},
    })
}
