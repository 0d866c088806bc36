//! Where backups are stored.

use crate::database::{SecretKeySelector, ValueSource};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A place that stores backups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "StoreForm", into = "StoreForm")]
pub enum Store {
    /// A PersistentVolumeClaim.
    Volume(VolumeStore),
    /// A bucket.
    S3(S3Store),
    /// A folder of a WebDAV server.
    Webdav(WebdavStore),
}

impl fmt::Display for Store {
    /// Names the store for a reader, such as `bucket acme-backups of https://minio.example.com`.
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Volume(VolumeStore { claim_name }) => write!(to, "claim {claim_name}"),
            Self::S3(S3Store {
                bucket,
                endpoint,
                region,
                ..
            }) => match (endpoint, region) {
                (Some(endpoint), _) => write!(to, "bucket {bucket} of {endpoint}"),
                (None, Some(region)) => write!(to, "bucket {bucket} of Amazon S3 in {region}"),
                (None, None) => write!(to, "bucket {bucket}"),
            },
            Self::Webdav(WebdavStore { endpoint, .. }) => write!(to, "WebDAV share {endpoint}"),
        }
    }
}

impl Store {
    /// Whether both are the same place, whatever the credentials with which it is reached.
    pub fn is_same_place(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Volume(one), Self::Volume(other)) => one == other,
            (Self::S3(one), Self::S3(other)) => {
                let place = |store: &S3Store| {
                    let S3Store {
                        bucket,
                        prefix,
                        endpoint,
                        region,
                        addressing: _,
                        credentials_from: _,
                        ca_from: _,
                    } = store.clone();
                    (bucket, prefix, endpoint, region)
                };
                place(one) == place(other)
            }
            (Self::Webdav(one), Self::Webdav(other)) => {
                (&one.endpoint, &one.prefix) == (&other.endpoint, &other.prefix)
            }
            _ => false,
        }
    }
}

/// The serialized form of [`Store`]: exactly one field is set.
#[derive(Clone, Debug, Default, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("(has(self.volume) ? 1 : 0) + (has(self.s3) ? 1 : 0) + (has(self.webdav) ? 1 : 0) == 1").message("a store requires exactly one of volume, s3 and webdav; set one"))]
struct StoreForm {
    /// A PersistentVolumeClaim in this namespace. It should not be on the same disk as the database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    volume: Option<VolumeStore>,
    /// A bucket of Amazon S3, or of any server that speaks its protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    s3: Option<S3Store>,
    /// A folder of a WebDAV server, such as a Hetzner Storage Box or Nextcloud.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    webdav: Option<WebdavStore>,
}

/// A store with none of its forms, or with several.
#[derive(Debug, thiserror::Error)]
#[error("a store requires exactly one of volume, s3 and webdav")]
struct NotOneStore;

impl TryFrom<StoreForm> for Store {
    type Error = NotOneStore;

    fn try_from(form: StoreForm) -> Result<Self, NotOneStore> {
        match form {
            StoreForm {
                volume: Some(volume),
                s3: None,
                webdav: None,
            } => Ok(Self::Volume(volume)),
            StoreForm {
                volume: None,
                s3: Some(s3),
                webdav: None,
            } => Ok(Self::S3(s3)),
            StoreForm {
                volume: None,
                s3: None,
                webdav: Some(webdav),
            } => Ok(Self::Webdav(webdav)),
            _ => Err(NotOneStore),
        }
    }
}

impl From<Store> for StoreForm {
    fn from(store: Store) -> Self {
        match store {
            Store::Volume(volume) => Self {
                volume: Some(volume),
                ..Self::default()
            },
            Store::S3(s3) => Self {
                s3: Some(s3),
                ..Self::default()
            },
            Store::Webdav(webdav) => Self {
                webdav: Some(webdav),
                ..Self::default()
            },
        }
    }
}

/// A PersistentVolumeClaim that stores backups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VolumeStore {
    /// Name of the PersistentVolumeClaim.
    #[schemars(schema_with = "crate::text::object_name")]
    pub claim_name: String,
}

/// A bucket that stores backups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("has(self.endpoint) || has(self.region)").message("s3 requires an endpoint, or the region of Amazon S3; set one of them"))]
pub struct S3Store {
    /// Name of the bucket, which must exist.
    #[schemars(schema_with = "crate::text::bucket")]
    pub bucket: String,
    /// Folder in the bucket, such as `fairway/production`. Several clusters may share a bucket if each has a folder of its
    /// own. Defaults to the top of the bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::text::store_prefix")]
    pub prefix: Option<String>,
    /// URL of the server, such as `https://minio.example.com:9000`. Defaults to Amazon S3 in `region`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::text::server_url")]
    pub endpoint: Option<String>,
    /// Region that requests are signed for. Defaults to `us-east-1`, which most other servers accept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::text::region")]
    pub region: Option<String>,
    /// Where the bucket name appears in a request. Defaults to `Path`, which most S3-compatible servers accept.
    #[serde(default)]
    pub addressing: Addressing,
    /// The access key. Defaults to the identity of the pod's service account (IRSA or EKS Pod Identity).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_from: Option<S3Credentials>,
    /// PEM certificate authorities that verify the server's certificate, instead of the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_from: Option<CertificateSource>,
}

/// Where the bucket name appears in a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, strum::EnumIter)]
pub enum Addressing {
    /// In the path: `https://server/bucket/object`.
    #[default]
    Path,
    /// In the host: `https://bucket.server/object`.
    VirtualHosted,
}

/// An access key, by keys of Secrets in this namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct S3Credentials {
    /// The ID of the access key.
    pub access_key_id: ValueSource,
    /// The secret part of the access key.
    pub secret_access_key: ValueSource,
    /// The session token, of an access key that expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_token: Option<ValueSource>,
}

/// A folder of a WebDAV server that stores backups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("has(self.userFrom) == has(self.passwordFrom)").message("webdav requires userFrom and passwordFrom together; set both, or neither if the server requires no login"))]
pub struct WebdavStore {
    /// URL of the server with the path of the share, such as `https://u123456.your-storagebox.de` or
    /// `https://cloud.example.com/remote.php/dav/files/backup`.
    #[schemars(schema_with = "crate::text::webdav_url")]
    pub endpoint: String,
    /// Folder in the share, such as `fairway/production`, created if missing. Defaults to the share itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::text::store_prefix")]
    pub prefix: Option<String>,
    /// Name of the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_from: Option<ValueSource>,
    /// Password of the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_from: Option<ValueSource>,
    /// PEM certificate authorities that verify the server's certificate, instead of the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_from: Option<CertificateSource>,
}

/// Source of certificates in PEM: exactly one of the fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("has(self.configMapKeyRef) != has(self.secretKeyRef)").message("caFrom requires exactly one of configMapKeyRef and secretKeyRef; set one"))]
pub struct CertificateSource {
    /// Key of a ConfigMap in this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<ConfigMapKeySelector>,
    /// Key of a Secret in this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<SecretKeySelector>,
}

/// One key of a ConfigMap in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConfigMapKeySelector {
    /// Name of the ConfigMap.
    #[schemars(schema_with = "crate::text::object_name")]
    pub name: String,
    /// Key in the ConfigMap.
    #[schemars(schema_with = "crate::text::secret_key")]
    pub key: String,
}
