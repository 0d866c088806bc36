//! The store of backups in a pod: what the agent needs of the pod to reach it. The agent has the store's options in its
//! task.

use super::pod::{Access, from_secrets, mount_everywhere};
use crate::protocol;
use fairway_crds::store::{CertificateSource, S3Credentials, S3Store, Store, VolumeStore, WebdavStore};
use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, EnvVar, KeyToPath, PersistentVolumeClaimVolumeSource, PodSpec, SecretVolumeSource,
    Volume,
};

/// What a pod does with a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It keeps a backup there.
    Keeps,
    /// It reads a backup there, to copy it.
    Reads,
    /// It keeps the copy of a backup there.
    Copies,
}

impl Role {
    /// Name of the volume of a store that is one.
    const fn volume(self) -> &'static str {
        match self {
            Self::Keeps | Self::Reads => "store",
            Self::Copies => "copy",
        }
    }

    /// Name of the volume with the certificate authorities of a store's server.
    const fn ca_volume(self) -> &'static str {
        match self {
            Self::Keeps | Self::Reads => "store-ca",
            Self::Copies => "copy-ca",
        }
    }

    /// Where a store that is a volume is mounted.
    const fn directory(self) -> &'static str {
        match self {
            Self::Keeps | Self::Reads => protocol::STORE_DIRECTORY,
            Self::Copies => protocol::COPY_DIRECTORY,
        }
    }

    /// Where the certificate authorities of a store's server are mounted.
    const fn ca_directory(self) -> &'static str {
        match self {
            Self::Keeps | Self::Reads => protocol::STORE_CA_DIRECTORY,
            Self::Copies => protocol::COPY_CA_DIRECTORY,
        }
    }

    const fn access(self) -> Access {
        match self {
            Self::Keeps | Self::Copies => Access::ReadWrite,
            Self::Reads => Access::ReadOnly,
        }
    }

    /// The name under which the agent looks for a variable of a store.
    fn variable(self, name: &'static str) -> &'static str {
        let copied = protocol::COPY_VARIABLES
            .iter()
            .find(|(of_store, _)| *of_store == name);
        match (self, copied) {
            (Self::Copies, Some(&(_, of_copy))) => of_copy,
            _ => name,
        }
    }
}

/// Gives the containers of a pod what they need to reach a store.
pub(super) fn attach(pod: &mut PodSpec, store: &Store, role: Role) {
    match store {
        Store::Volume(VolumeStore { claim_name }) => {
            pod.volumes.get_or_insert_default().push(Volume {
                name: role.volume().to_owned(),
                persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                    claim_name: claim_name.clone(),
                    read_only: None,
                }),
                ..Volume::default()
            });
            mount_everywhere(pod, role.volume(), role.directory(), role.access());
        }
        Store::S3(S3Store {
            credentials_from,
            ca_from,
            ..
        }) => {
            let key = credentials_from.iter().flat_map(|key| access_key(key, role));
            add_variables(pod, key.collect());
            mount_authorities(pod, ca_from.as_ref(), role);
        }
        Store::Webdav(WebdavStore {
            user_from,
            password_from,
            ca_from,
            ..
        }) => {
            let secrets = [
                (role.variable(protocol::STORE_USER_VARIABLE), user_from.as_ref()),
                (
                    role.variable(protocol::STORE_PASSWORD_VARIABLE),
                    password_from.as_ref(),
                ),
            ];
            add_variables(pod, from_secrets(secrets));
            mount_authorities(pod, ca_from.as_ref(), role);
        }
    }
}

fn access_key(credentials: &S3Credentials, role: Role) -> Vec<EnvVar> {
    let S3Credentials {
        access_key_id,
        secret_access_key,
        session_token,
    } = credentials;
    let secrets = [
        (
            role.variable(protocol::STORE_ACCESS_KEY_ID_VARIABLE),
            Some(access_key_id),
        ),
        (
            role.variable(protocol::STORE_SECRET_ACCESS_KEY_VARIABLE),
            Some(secret_access_key),
        ),
        (
            role.variable(protocol::STORE_SESSION_TOKEN_VARIABLE),
            session_token.as_ref(),
        ),
    ];
    from_secrets(secrets)
}

fn add_variables(pod: &mut PodSpec, variables: Vec<EnvVar>) {
    for container in &mut pod.containers {
        container.env.get_or_insert_default().extend(variables.clone());
    }
}

fn mount_authorities(pod: &mut PodSpec, source: Option<&CertificateSource>, role: Role) {
    let file = |key: &str| {
        Some(vec![KeyToPath {
            key: key.to_owned(),
            path: protocol::STORE_CA_FILE.to_owned(),
            mode: None,
        }])
    };
    let Some(CertificateSource {
        config_map_key_ref,
        secret_key_ref,
    }) = source
    else {
        return;
    };
    pod.volumes.get_or_insert_default().push(Volume {
        name: role.ca_volume().to_owned(),
        config_map: config_map_key_ref.as_ref().map(|selector| ConfigMapVolumeSource {
            name: selector.name.clone(),
            items: file(&selector.key),
            ..ConfigMapVolumeSource::default()
        }),
        secret: secret_key_ref.as_ref().map(|selector| SecretVolumeSource {
            secret_name: Some(selector.name.clone()),
            items: file(&selector.key),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    });
    mount_everywhere(pod, role.ca_volume(), role.ca_directory(), Access::ReadOnly);
}
