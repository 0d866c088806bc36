//! The manifest of a backup: what it holds and what was proven about it. It is written last.
//!
//! `docs/backup-format.md` documents every field for whoever restores a set without Fairway. A field is never removed and
//! never means something else within one version of the format.

use std::collections::BTreeMap;

use fairway_protocol::{BackupEvidence, Encryption, Failure, Reason, Requester};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use super::source::Source;
use crate::{failure::environment as environment_failure, text::hex};

/// Version of the manifest and of the files that it names.
pub(crate) const FORMAT_VERSION: u32 = 2;
/// The oldest version that is still read.
const FIRST_FORMAT_VERSION: u32 = 1;

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
    /// Proof that an agent of this very Backup wrote the manifest: an HMAC of all the rest but `seconds`, hex.
    #[serde(default)]
    pub(crate) seal: String,
    /// How each file is compressed; none in format 1, whose files are compressed alike.
    // What format 1 does not have is left out of its seal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) compression: Option<Compression>,
    /// How each file is encrypted, after it was compressed; none where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) encryption: Option<Encrypted>,
    /// What a server must have before the dump can be restored into it; none in format 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) source: Option<Source>,
}

/// How files are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Compression {
    /// Zstandard, RFC 8878.
    Zstd,
}

/// How files are encrypted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Encrypted {
    /// Format of an encrypted file.
    pub(crate) scheme: Scheme,
    /// Public keys of those who can decrypt the files.
    pub(crate) recipients: Vec<String>,
}

/// Format of an encrypted file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Scheme {
    /// <https://age-encryption.org/v1>.
    Age,
}

impl Encrypted {
    /// Encrypted to the recipients that the App names.
    pub(crate) fn to(encryption: &Encryption) -> Self {
        Self {
            scheme: Scheme::Age,
            recipients: encryption.recipients.clone(),
        }
    }
}

/// What of a manifest every version of the format has.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    format_version: u32,
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
    pub(crate) fn file(self) -> &'static str {
        match self {
            Self::Custom => "database.dump.zst",
            Self::Directory => "database.tar.zst",
        }
    }
}

/// One file of a backup: compressed, and encrypted where the manifest says so.
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
    /// `ManifestNewer` when a newer version of Fairway wrote it, `StoreCorrupt` when it says nothing that this version
    /// understands.
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
        let unreadable = |error: serde_json::Error| corrupt(error.to_string());
        let Head { format_version } = serde_json::from_slice(text).map_err(unreadable)?;
        match format_version {
            FIRST_FORMAT_VERSION..=FORMAT_VERSION => serde_json::from_slice(text).map_err(unreadable),
            newer if newer > FORMAT_VERSION => Err(environment_failure(
                Reason::ManifestNewer,
                format!(
                    "The set in the backup store has a manifest of format {newer}, and this Fairway reads formats up to \
                     {FORMAT_VERSION}: a newer Fairway wrote it. Upgrade Fairway in this cluster."
                ),
            )),
            other => Err(corrupt(format!("it has format {other}"))),
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
    use serde_json::{Value, json};

    use super::*;
    use crate::backup::source::{Collation, Extension};

    /// A manifest in which no field is absent.
    fn whole() -> Manifest {
        let stored = |name: &str| StoredFile {
            name: name.to_owned(),
            objects: vec![format!("pod-1-0a1b2c3d/{name}")],
            bytes: 1,
            sha256: "a".to_owned(),
            plain_bytes: 2,
            plain_sha256: "b".to_owned(),
        };
        Manifest {
            format_version: FORMAT_VERSION,
            requester: Requester {
                namespace: "shop".to_owned(),
                app: "crm".to_owned(),
                release: "crm-42".to_owned(),
            },
            images: [("web/web".to_owned(), "crm@sha256:a".to_owned())].into(),
            level: "Decoded".to_owned(),
            taken_at: "2026-01-01T00:00:00.000Z".to_owned(),
            server_version: "16.4".to_owned(),
            tool_version: "16.4".to_owned(),
            fingerprint: "f".to_owned(),
            database: stored("database.dump.zst"),
            database_format: DumpFormat::Custom,
            globals: Some(stored("globals.sql.zst")),
            globals_note: Some("Roles are missing.".to_owned()),
            seconds: 1.5,
            corrupt_note: Some("An earlier one is kept.".to_owned()),
            seal: String::new(),
            compression: Some(Compression::Zstd),
            encryption: Some(Encrypted {
                scheme: Scheme::Age,
                recipients: vec!["age1".to_owned()],
            }),
            source: Some(Source {
                name: "crm".to_owned(),
                owner: "crm".to_owned(),
                encoding: "UTF8".to_owned(),
                locale_provider: "icu".to_owned(),
                collate: "C".to_owned(),
                ctype: "C".to_owned(),
                locale: Some("en-US".to_owned()),
                collation_version: Some("153.14".to_owned()),
                extensions: vec![Extension {
                    name: "pg_trgm".to_owned(),
                    version: "1.6".to_owned(),
                    schema: "public".to_owned(),
                }],
                collations: vec![Collation {
                    schema: "public".to_owned(),
                    name: "german".to_owned(),
                    provider: "icu".to_owned(),
                    version: "153.14".to_owned(),
                }],
            }),
        }
    }

    /// A manifest as the first version wrote it, with its seal.
    fn first() -> Value {
        let stored = json!({"name": "database.dump.zst", "bytes": 1, "sha256": "a", "plainBytes": 2, "plainSha256": "b"});
        json!({
            "formatVersion": 1, "requester": {"namespace": "shop", "app": "crm", "release": "crm-1"}, "images": {},
            "level": "Decoded", "takenAt": "2026-01-01T00:00:00.000Z", "serverVersion": "16.4", "toolVersion": "16.4",
            "fingerprint": "f", "database": stored, "databaseFormat": "custom", "globals": null, "globalsNote": null,
            "seconds": 0.5, "corruptNote": null, "seal": FIRST_SEAL,
        })
    }

    /// The seal of [`first`] with the key `uid`, as the first version computed it: over this text.
    const FIRST_TEXT: &str = r#"{
  "formatVersion": 1,
  "requester": {
    "namespace": "shop",
    "app": "crm",
    "release": "crm-1"
  },
  "images": {},
  "level": "Decoded",
  "takenAt": "2026-01-01T00:00:00.000Z",
  "serverVersion": "16.4",
  "toolVersion": "16.4",
  "fingerprint": "f",
  "database": {
    "name": "database.dump.zst",
    "bytes": 1,
    "sha256": "a",
    "plainBytes": 2,
    "plainSha256": "b"
  },
  "databaseFormat": "custom",
  "globals": null,
  "globalsNote": null,
  "seconds": 0.0,
  "corruptNote": null,
  "seal": ""
}"#;
    const FIRST_SEAL: &str = "bcd9bbb2be260f403fa58bdf80a1eb04929abcdabfc36b05d0712f47712d46af";

    #[test]
    fn a_manifest_that_says_nothing_is_corrupt() {
        for text in [
            "",
            "{}",
            "[]",
            r#"{"formatVersion": 0}"#,
            r#"{"formatVersion": 2}"#,
        ] {
            let failure = Manifest::parse(text.as_bytes()).unwrap_err();
            assert_eq!(failure.reason, Reason::StoreCorrupt, "{text}");
        }
    }

    #[test]
    fn a_manifest_of_the_first_format_keeps_its_seal() {
        let mut key = Hmac::<Sha256>::new_from_slice(b"uid").unwrap();
        key.update(FIRST_TEXT.as_bytes());
        assert_eq!(hex(&key.finalize().into_bytes()), FIRST_SEAL);
        let manifest = Manifest::parse(first().to_string().as_bytes()).unwrap();
        assert_eq!(manifest.source, None);
        manifest.check_seal("uid").unwrap();
    }

    #[test]
    fn a_newer_manifest_is_refused_and_not_called_corrupt() {
        let mut manifest = first();
        manifest["formatVersion"] = (FORMAT_VERSION + 1).into();
        // What it has beside that may mean anything.
        manifest["database"] = "elsewhere".into();
        let failure = Manifest::parse(manifest.to_string().as_bytes()).unwrap_err();
        assert_eq!(failure.reason, Reason::ManifestNewer);
        assert_eq!(
            failure.message,
            "The set in the backup store has a manifest of format 3, and this Fairway reads formats up to 2: a newer Fairway \
             wrote it. Upgrade Fairway in this cluster."
        );
    }

    #[test]
    fn a_manifest_is_read_as_it_was_written() {
        let manifest = whole().sealed("uid").unwrap();
        let read = Manifest::parse(&manifest.to_json().unwrap()).unwrap();
        assert_eq!(read, manifest);
        read.check_seal("uid").unwrap();
    }

    #[test]
    fn every_field_is_on_the_page_of_the_format() {
        let page = include_str!("../../../../docs/backup-format.md");
        let mut fields = Vec::new();
        let manifest = serde_json::to_value(whole()).unwrap();
        collect("", &manifest, &mut fields);
        assert!(fields.len() > 30, "{fields:?}");
        let missing: Vec<_> = fields
            .iter()
            .filter(|field| !page.contains(&format!("| `{field}` |")))
            .collect();
        assert!(
            missing.is_empty(),
            "docs/backup-format.md has no row for {missing:?}"
        );
    }

    /// Paths of the fields below a value; a file's are written once, as those of `database`, and images are named by the App.
    fn collect(path: &str, value: &Value, fields: &mut Vec<String>) {
        let below = |name: &str| match path {
            "" => name.to_owned(),
            _ => format!("{path}.{name}"),
        };
        match value {
            Value::Object(members) if !matches!(path, "globals" | "images") => {
                for (name, value) in members {
                    fields.push(below(name));
                    collect(&below(name), value, fields);
                }
            }
            Value::Array(elements) => {
                let element = elements.first().unwrap_or(&Value::Null);
                collect(&format!("{path}[]"), element, fields);
            }
            _ => {}
        }
    }
}
