//! The store of backups in a pod: what the agent needs of the pod to reach it. The agent has the store's options in its
//! task.

use super::pod::{Access, from_secrets, mount_everywhere};
use crate::protocol;
use fairway_crds::store::{CertificateSource, S3Credentials, S3Store, Store, VolumeStore, WebdavStore};
use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, EnvVar, KeyToPath, PersistentVolumeClaimVolumeSource, PodSpec, SecretVolumeSource,
    Volume,
};

const STORE_VOLUME: &str = "store";
const CA_VOLUME: &str = "store-ca";

/// Gives the containers of a pod what they need to reach a store.
pub(super) fn attach(pod: &mut PodSpec, store: &Store) {
    match store {
        Store::Volume(VolumeStore { claim_name }) => {
            pod.volumes.get_or_insert_default().push(Volume {
                name: STORE_VOLUME.to_owned(),
                persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                    claim_name: claim_name.clone(),
                    read_only: None,
                }),
                ..Volume::default()
            });
            mount_everywhere(pod, STORE_VOLUME, protocol::STORE_DIRECTORY, Access::ReadWrite);
        }
        Store::S3(S3Store {
            credentials_from,
            ca_from,
            ..
        }) => {
            add_variables(pod, credentials_from.iter().flat_map(access_key).collect());
            mount_authorities(pod, ca_from.as_ref());
        }
        Store::Webdav(WebdavStore {
            user_from,
            password_from,
            ca_from,
            ..
        }) => {
            let secrets = [
                (protocol::STORE_USER_VARIABLE, user_from.as_ref()),
                (protocol::STORE_PASSWORD_VARIABLE, password_from.as_ref()),
            ];
            add_variables(pod, from_secrets(secrets));
            mount_authorities(pod, ca_from.as_ref());
        }
    }
}

fn access_key(credentials: &S3Credentials) -> Vec<EnvVar> {
    let S3Credentials {
        access_key_id,
        secret_access_key,
        session_token,
    } = credentials;
    let secrets = [
        (protocol::STORE_ACCESS_KEY_ID_VARIABLE, Some(access_key_id)),
        (
            protocol::STORE_SECRET_ACCESS_KEY_VARIABLE,
            Some(secret_access_key),
        ),
        (protocol::STORE_SESSION_TOKEN_VARIABLE, session_token.as_ref()),
    ];
    from_secrets(secrets)
}

fn add_variables(pod: &mut PodSpec, variables: Vec<EnvVar>) {
    for container in &mut pod.containers {
        container.env.get_or_insert_default().extend(variables.clone());
    }
}

fn mount_authorities(pod: &mut PodSpec, source: Option<&CertificateSource>) {
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
        name: CA_VOLUME.to_owned(),
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
    mount_everywhere(pod, CA_VOLUME, protocol::STORE_CA_DIRECTORY, Access::ReadOnly);
}
