//! The manifest: what a backup holds and what was proven about it. It is written last.

use std::collections::BTreeMap;

use fairway_protocol::{BackupEvidence, Requester};
use serde::{Deserialize, Serialize};

/// Version of the folder's layout.
pub(crate) const FORMAT_VERSION: u32 = 1;

/// The content of `manifest.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    /// Version of this layout.
    pub(crate) format_version: u32,
    /// Who asked for it.
    pub(crate) requester: Requester,
    /// Image references by container.
    pub(crate) images: BTreeMap<String, String>,
    /// `Decoded`: `pg_restore` read all of the stored dump.
    pub(crate) level: String,
    /// Start of the dump by the server's clock, RFC 3339; the dump shows the database at this moment.
    pub(crate) taken_at: String,
    /// Version of the server.
    pub(crate) server_version: String,
    /// Version of `pg_dump`.
    pub(crate) tool_version: String,
    /// Fingerprint of the schema under the dump's own snapshot.
    pub(crate) fingerprint: String,
    /// The database.
    pub(crate) database: StoredFile,
    /// `custom` (one `pg_dump -Fc` stream) or `directory` (a tar archive of `pg_dump -Fd`).
    pub(crate) database_format: String,
    /// Roles and tablespaces without passwords, where the role may read them.
    pub(crate) globals: Option<StoredFile>,
    /// Why they are missing.
    pub(crate) globals_note: Option<String>,
    /// Seconds from start to manifest.
    pub(crate) seconds: f64,
    /// Where an earlier copy is kept that proved corrupt.
    #[serde(default)]
    pub(crate) corrupt_note: Option<String>,
}

/// One zstd-compressed file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StoredFile {
    /// Name in the folder.
    pub(crate) name: String,
    /// Size as stored.
    pub(crate) bytes: u64,
    /// SHA-256 as stored, hex.
    pub(crate) sha256: String,
    /// Size before compression.
    pub(crate) plain_bytes: u64,
    /// SHA-256 before compression, hex.
    pub(crate) plain_sha256: String,
}

impl Manifest {
    /// What the operator keeps of it.
    pub(crate) fn evidence(&self) -> BackupEvidence {
        BackupEvidence {
            level: self.level.clone(),
            bytes: self.database.bytes + self.globals.as_ref().map_or(0, |globals| globals.bytes),
            sha256: self.database.sha256.clone(),
            taken_at: self.taken_at.clone(),
            server_version: self.server_version.clone(),
            fingerprint: self.fingerprint.clone(),
            seconds: self.seconds,
            notes: self
                .globals_note
                .iter()
                .chain(&self.corrupt_note)
                .cloned()
                .collect(),
        }
    }
}
