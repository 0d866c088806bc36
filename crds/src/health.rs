//! When a component counts as healthy.

use crate::database::SecretKeySelector;
use crate::duration::{self, Duration};
use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The requests that every ready pod of a component must answer. They are sent to the address of each pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("!self.period.matches('^([0-9]{1,6}(ms|s|m|h))+$') || !self.deadline.matches('^([0-9]{1,6}(ms|s|m|h))+$') || duration(self.deadline).getMilliseconds() >= duration(self.period).getMilliseconds() * self.successThreshold").message("health.deadline is too short for any pod to pass; set it to more than period times successThreshold").field_path(".deadline"))]
pub struct Health {
    /// The requests, 1 to 8. All of them must pass. Request a health page and a data page: a health page often
    /// does not notice that the schema does not fit.
    #[schemars(length(min = 1, max = 8))]
    pub http: Vec<HttpGet>,
    /// Number of rounds in a row that every request must pass on a pod for the pod to be healthy. 1 to 100; defaults
    /// to 3.
    #[serde(default = "three")]
    #[schemars(range(min = 1, max = 100))]
    pub success_threshold: u32,
    /// Number of failed rounds in a row on one ready pod that end the bake and roll the release back. 1 to 100;
    /// defaults to 3.
    #[serde(default = "three")]
    #[schemars(range(min = 1, max = 100))]
    pub failure_threshold: u32,
    /// Time between two rounds on one pod. 100ms to 5m; defaults to 1s.
    #[serde(default = "one_second")]
    #[schemars(schema_with = "period")]
    pub period: Duration,
    /// Time that the candidate's pods have to become ready and healthy, from their creation. 1s to 24h; defaults to
    /// 5m.
    #[serde(default = "five_minutes")]
    #[schemars(schema_with = "deadline")]
    pub deadline: Duration,
}

/// One GET request to a port of each pod, and the response that it must receive within 5 seconds. A response of
/// more than 1 MiB fails. Redirects are not followed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpGet {
    /// Path and query, starting with a slash. Not a URL: requests go only to the component's own pods.
    #[schemars(schema_with = "crate::text::http_path")]
    pub path: String,
    /// Container port. Defaults to the targetPort of `serves`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// Status code that the response must have. Defaults to 200.
    #[serde(default = "ok")]
    #[schemars(range(min = 100, max = 599))]
    pub status: u16,
    /// Members that the JSON response must have, at most 16, from a JSON pointer (RFC 6901) to the text of the value:
    /// `{"/database": "connected", "/pool/idle": "3"}`. A value is a string, a number, `"true"`, `"false"` or `"null"`;
    /// other members are ignored.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::text::members")]
    pub json: BTreeMap<String, String>,
    /// Scheme of the request. As with a kubelet's probe, certificates are not verified. Defaults to HTTP.
    #[serde(default)]
    pub scheme: Scheme,
    /// Host header of the request. Defaults to the pod's address and port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::text::http_host")]
    pub host: Option<String>,
    /// More headers of the request, at most 16.
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
#[x_kube(validation = Rule::new("has(self.value) != has(self.valueFrom)").message("a header requires exactly one of value and valueFrom; set one"))]
pub struct HttpHeader {
    /// Name of the header.
    #[schemars(schema_with = "crate::text::header_name")]
    pub name: String,
    /// Literal value. Whoever can read the App can read it; use valueFrom for secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::text::header_value")]
    pub value: Option<String>,
    /// Source of the value. The kubelet passes it to a pod in this namespace that sends the request; the operator
    /// never sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<HeaderSource>,
}

/// Source of a header's value.
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
