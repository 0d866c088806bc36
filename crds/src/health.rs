//! When a component counts as healthy.

use crate::database::SecretKeySelector;
use crate::duration::{self, Duration};
use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

/// The requests that a component's pods must answer, asked of every ready pod by its own address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("!self.period.matches('^([0-9]{1,6}(ms|s|m|h))+$') || !self.deadline.matches('^([0-9]{1,6}(ms|s|m|h))+$') || duration(self.deadline).getMilliseconds() >= duration(self.period).getMilliseconds() * self.successThreshold").message("health.deadline is over before any pod could pass; set it to more than period times successThreshold").field_path(".deadline"))]
pub struct Health {
    /// Requests, all of which must pass. Ask a health page and a data page: a health page is often blind to
    /// a schema that does not fit. At least one, at most 8.
    #[schemars(length(min = 1, max = 8))]
    pub http: Vec<HttpGet>,
    /// Rounds in a row, per pod, that every request must pass for the pod to be healthy. 1 to 100, 3 unless set.
    #[serde(default = "three")]
    #[schemars(range(min = 1, max = 100))]
    pub success_threshold: u32,
    /// Failures in a row on one ready pod that end the bake and roll the release back. 1 to 100, 3 unless set.
    #[serde(default = "three")]
    #[schemars(range(min = 1, max = 100))]
    pub failure_threshold: u32,
    /// Time between two rounds on one pod. 100ms to 5m, 1s unless set.
    #[serde(default = "one_second")]
    #[schemars(schema_with = "period")]
    pub period: Duration,
    /// Time that the candidates have to become available and healthy, from their creation. 1s to 24h, 5m unless set.
    #[serde(default = "five_minutes")]
    #[schemars(schema_with = "deadline")]
    pub deadline: Duration,
}

/// One GET request to a port of each pod, and the answer it must give within 5 seconds and within 1 MiB; a
/// larger one fails. Redirects are not followed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpGet {
    /// Path and query, starting with a slash. Never a URL: only the component's own pods are asked.
    #[schemars(schema_with = "crate::text::http_path")]
    pub path: String,
    /// Container port. The targetPort of `serves` unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// Status code that the answer must have. 200 unless set.
    #[serde(default = "ok")]
    #[schemars(range(min = 100, max = 599))]
    pub status: u16,
    /// Members that the JSON answer must have with these values; other members are not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::any_object")]
    pub json: Option<serde_json::Value>,
    /// Scheme of the request. Certificates are not verified, as with a kubelet's probe. HTTP unless set.
    #[serde(default)]
    pub scheme: Scheme,
    /// Host header of the request. The pod's address and port unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::text::http_host")]
    pub host: Option<String>,
    /// Further headers of the request, at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub headers: Vec<HttpHeader>,
}

/// Scheme of a health request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Scheme {
    /// Plain HTTP.
    #[default]
    Http,
    /// HTTP over TLS.
    Https,
}

/// A header with a literal value or one from a Secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("has(self.value) != has(self.valueFrom)").message("a header has exactly one of value and valueFrom; give one"))]
pub struct HttpHeader {
    /// Header name.
    #[schemars(schema_with = "crate::text::header_name")]
    pub name: String,
    /// Literal value; it can be read by whoever reads the App. Use valueFrom for what is secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::text::header_value")]
    pub value: Option<String>,
    /// Where the value comes from. The kubelet gives it to a small pod in this namespace that makes the
    /// request; the operator never sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<HeaderSource>,
}

/// Where a header's value comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeaderSource {
    /// Key of a Secret in this namespace.
    pub secret_key_ref: SecretKeySelector,
}

fn period(_: &mut SchemaGenerator) -> Schema {
    duration::between("100ms", "5m", "1s")
}
fn deadline(_: &mut SchemaGenerator) -> Schema {
    duration::between("1s", "24h", "5m")
}
fn three() -> u32 {
    3
}
fn ok() -> u16 {
    200
}
fn one_second() -> Duration {
    Duration::from_seconds(1)
}
fn five_minutes() -> Duration {
    Duration::from_seconds(300)
}
