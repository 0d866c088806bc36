//! Values of this crate as JSON.

use serde::Serialize;
use serde_json::Value;

/// A value as JSON, with members in the order of their keys (`serde_json` without `preserve_order`).
#[allow(
    clippy::expect_used,
    reason = "only a map whose keys are not strings cannot be written, and no type here has one"
)]
pub(crate) fn json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).expect("no map whose keys are not strings")
}

/// A value as the text of JSON, with members in the order of their declaration.
#[allow(
    clippy::expect_used,
    reason = "only a map whose keys are not strings cannot be written, and no type here has one"
)]
pub(crate) fn json_text(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("no map whose keys are not strings")
}
