//! Health requests, and what the probe agent is asked and answers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The body of `POST /probe` to the probe agent; the answer is a [`ProbeVerdict`]. The operator's token comes
/// as `Authorization: Bearer …`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbeCall {
    /// Index into [`ProbeTask::requests`](crate::ProbeTask::requests).
    pub index: usize,
    /// The address of the pod to ask.
    pub address: String,
}

/// One health request to one port of one pod, and what its answer must be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpRequest {
    /// `HTTP` or `HTTPS`; certificates of pods are not verified, as with a kubelet probe.
    pub scheme: Scheme,
    /// Path and query, starting with `/`.
    pub path: String,
    /// `Host` header; the pod's address when absent.
    pub host: Option<String>,
    /// Further headers.
    pub headers: Vec<Header>,
    /// Expected status code.
    pub status: u16,
    /// Members that the JSON answer must have: from a JSON pointer (RFC 6901) to the text of a scalar. None: the body
    /// is not looked at.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub json: BTreeMap<String, String>,
}

/// Scheme of a health request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Scheme {
    /// Plain HTTP/1.1.
    Http,
    /// HTTP/1.1 over TLS.
    Https,
}

/// A request header: a literal, or the name of a variable that the kubelet filled from a Secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    /// Header name.
    pub name: String,
    /// Literal value.
    pub value: Option<String>,
    /// Name of the environment variable that holds the value.
    pub value_from_variable: Option<String>,
}

/// The verdict on one health request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ProbeVerdict {
    /// The answer was as expected.
    Passed,
    /// The pod answered something else, or did not answer in time. The text says what, as one sentence.
    Failed(String),
    /// The connection was refused: a closed port, or the network. A pod that has answered before has closed it.
    Refused(String),
    /// No connection could be made to the pod's address: the network.
    Unreachable(String),
}
