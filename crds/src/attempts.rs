//! Attempts at work that depends on the environment.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Attempts at work that depends on the environment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Attempts {
    /// Number of the current attempt, counted from 1.
    pub current: u32,
    /// When the first attempt began; the deadline counts from then.
    #[schemars(with = "String")]
    pub since: jiff::Timestamp,
    /// When the next attempt may begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub next: Option<jiff::Timestamp>,
    /// Reason of the last failure, in CamelCase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Message of the last failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}
