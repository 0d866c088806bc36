//! The manifest of a backup: what it holds and what was proven about it. It is written last.

use std::collections::BTreeMap;

use fairway_protocol::{BackupEvidence, Failure, Reason, Requester};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use crate::{counters::Counters, failure::environment as environment_failure, text::hex};

/// Version of the manifest and of the files that it names.
pub(crate) const FORMAT_VERSION: u32 = 1;
/// The file with roles and tablespaces.
pub(crate) const GLOBALS_FILE: &str = "globals.sql.zst";
/// Names of the files that a backup may have. By these the removal of a set knows what an agent has written.
pub(crate) const FILES: &[&str] = &[
    DumpFormat::Custom.file(),
    DumpFormat::Directory.file(),
    GLOBALS_FILE,
];

/// The content of `manifest.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    /// Version of this format.
    pub(crate) format_version: u32,
    /// The App and Release for which the backup was taken.
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
    /// The dump of the database.
    pub(crate) database: StoredFile,
    /// Format of the dump.
    pub(crate) database_format: DumpFormat,
    /// Roles and tablespaces without passwords, where the role may read them.
    pub(crate) globals: Option<StoredFile>,
    /// Why roles and tablespaces are missing.
    pub(crate) globals_note: Option<String>,
    /// Seconds from start to manifest.
    pub(crate) seconds: f64,
    /// Where an earlier copy of the set is kept that proved corrupt.
    #[serde(default)]
    pub(crate) corrupt_note: Option<String>,
    /// What somebody who restores the set should know: one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) notes: Vec<String>,
    /// The server's counters of row changes when the dump began. None in a set of an earlier version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) counters: Option<Counters>,
    /// Proof that an agent of this very Backup wrote the manifest: an HMAC of all the rest but `seconds`, hex.
    #[serde(default)]
    pub(crate) seal: String,
}

/// Format of a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum DumpFormat {
    /// One stream of `pg_dump -Fc`.
    Custom,
    /// A tar archive of the folder of `pg_dump -Fd`.
    Directory,
}

impl DumpFormat {
    /// The format of a dump that is taken with or without a scratch volume.
    pub(crate) fn with_scratch(scratch: bool) -> Self {
        if scratch { Self::Directory } else { Self::Custom }
    }

    /// The file that holds a dump of this format.
    pub(crate) const fn file(self) -> &'static str {
        match self {
            Self::Custom => "database.dump.zst",
            Self::Directory => "database.tar.zst",
        }
    }
}

/// One zstd-compressed file of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StoredFile {
    /// Name of the file.
    pub(crate) name: String,
    /// Names of the objects in the store, relative to the set, that, joined in this order, are the file. None in a set from
    /// before there were several: then the file's name is that of its object.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) objects: Vec<String>,
    /// Size as stored.
    pub(crate) bytes: u64,
    /// SHA-256 as stored, hex.
    pub(crate) sha256: String,
    /// Size before compression.
    pub(crate) plain_bytes: u64,
    /// SHA-256 before compression, hex.
    pub(crate) plain_sha256: String,
}

impl StoredFile {
    /// Names of the objects in the store that, joined in this order, are the file.
    pub(crate) fn objects(&self) -> &[String] {
        match &*self.objects {
            [] => std::slice::from_ref(&self.name),
            objects => objects,
        }
    }
}

impl Manifest {
    /// Reads a manifest from a store.
    ///
    /// # Errors
    /// `StoreCorrupt` when it says nothing that this version understands.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, Failure> {
        let corrupt = |what: String| {
            environment_failure(
                Reason::StoreCorrupt,
                format!(
                    "The manifest of the stored backup cannot be read ({what}). Check the disk or service behind the \
                     store of spec.backup."
                ),
            )
        };
        let manifest: Self = serde_json::from_slice(text).map_err(|error| corrupt(error.to_string()))?;
        match manifest.format_version {
            FORMAT_VERSION => Ok(manifest),
            other => Err(corrupt(format!("it has format {other}, not {FORMAT_VERSION}"))),
        }
    }

    /// The manifest as it is stored.
    pub(crate) fn to_json(&self) -> Result<Vec<u8>, Failure> {
        serde_json::to_vec_pretty(self).map_err(|error| unwritable(&error.to_string()))
    }

    /// This manifest with the seal of the Backup whose UID is the key.
    pub(crate) fn sealed(self, key: &str) -> Result<Self, Failure> {
        let seal = hex(&self.authentication(key)?.finalize().into_bytes());
        Ok(Self { seal, ..self })
    }

    /// Proves that an agent of the Backup with this UID wrote the manifest.
    ///
    /// # Errors
    /// `StoreCorrupt` when somebody else did, or where there is no key.
    pub(crate) fn check_seal(&self, key: &str) -> Result<(), Failure> {
        let own = hex(&self.authentication(key)?.finalize().into_bytes());
        match !key.is_empty() && bool::from(own.as_bytes().ct_eq(self.seal.as_bytes())) {
            true => Ok(()),
            false => Err(environment_failure(
                Reason::StoreCorrupt,
                "The set in the backup's place was not written by this Backup. Check who may write to the store of \
                 spec.backup.",
            )),
        }
    }

    /// Whether what is in a store is a manifest that an agent of the Backup with this UID wrote.
    pub(crate) fn is_of(text: &[u8], key: &str) -> bool {
        Self::parse(text)
            .and_then(|manifest| manifest.check_seal(key))
            .is_ok()
    }

    fn authentication(&self, key: &str) -> Result<Hmac<Sha256>, Failure> {
        let unsealed = Self {
            seal: String::new(),
            // A number may be read back with another last digit.
            seconds: 0.0,
            ..self.clone()
        };
        let mut authentication =
            Hmac::<Sha256>::new_from_slice(key.as_bytes()).map_err(|error| unwritable(&error.to_string()))?;
        authentication.update(&unsealed.to_json()?);
        Ok(authentication)
    }

    /// Every file of the backup.
    pub(crate) fn files(&self) -> impl Iterator<Item = &StoredFile> {
        std::iter::once(&self.database).chain(&self.globals)
    }

    /// The evidence that the operator records.
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
                .chain(&self.notes)
                .cloned()
                .collect(),
        }
    }
}

fn unwritable(error: &str) -> Failure {
    environment_failure(
        Reason::AgentFailed,
        format!("The manifest of the backup cannot be written: {error}."),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_of_another_format_is_not_understood() {
        for text in ["", "{}", r#"{"formatVersion": 2}"#] {
            let failure = Manifest::parse(text.as_bytes()).unwrap_err();
            assert_eq!(failure.reason, Reason::StoreCorrupt);
        }
        let stored = serde_json::json!({
            "name": "", "bytes": 0, "sha256": "", "plainBytes": 0, "plainSha256": "",
        });
        let mut manifest = serde_json::json!({
            "formatVersion": 1, "requester": {"namespace": "", "app": "", "release": ""}, "images": {},
            "level": "Decoded", "takenAt": "", "serverVersion": "", "toolVersion": "", "fingerprint": "",
            "database": stored, "databaseFormat": "custom", "globals": null, "globalsNote": null, "seconds": 0.0,
        });
        assert!(Manifest::parse(manifest.to_string().as_bytes()).is_ok());
        manifest["formatVersion"] = 2.into();
        let failure = Manifest::parse(manifest.to_string().as_bytes()).unwrap_err();
        assert!(failure.message.contains("format 2"), "{}", failure.message);
    }
}
