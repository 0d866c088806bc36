//! Encryption of backups.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Encryption of backups with age (<https://age-encryption.org>).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Encryption {
    /// Recipients of age (`age1…`, which `age-keygen` prints), 1 to 8. The identity of any one of them opens a backup, and
    /// nothing else does: keep the identities outside the cluster, and more than one. Neither Fairway nor who may read
    /// the store can open what was encrypted.
    #[schemars(schema_with = "crate::text::recipients")]
    pub recipients: Vec<String>,
}
