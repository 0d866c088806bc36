//! What a migration reads from its App, beside its image and command: SQL may stand in a ConfigMap or in a variable.
//!
//! The ledger's identity of a run is image digest, command, and a hash of these inputs: the literal variables of the
//! container as its template has them, and the contents of the ConfigMaps in its variables and volumes, which the agent
//! reads in the pod, since the operator has no right to. Values from Secrets are no part of it, neither are names of
//! ConfigMaps, so that a new password or a renamed ConfigMap runs no migration again.

use super::paths::is_in;
use super::pod::{Access, mount};
use crate::json::json_text;
use crate::names::sha256_hex;
use crate::protocol::INPUTS_DIRECTORY;
use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, Container, EnvVar, KeyToPath, PodSpec, Volume, VolumeMount,
};

/// Start of the names of the volumes with ConfigMaps.
const VOLUME: &str = "fairway-input";

/// The inputs of a container.
pub(super) struct Inputs {
    /// SHA-256 (hex) of the literal variables, and of where each ConfigMap is read.
    pub(super) hash: String,
    /// ConfigMaps, in the order of `hash`.
    sources: Vec<ConfigMapVolumeSource>,
}

/// The inputs of a container of a pod.
pub(super) fn of(pod: &PodSpec, container: &Container) -> Inputs {
    let variables = container.env.iter().flatten();
    let mut literals: Vec<(&str, &str)> = variables
        .filter(|variable| variable.value_from.is_none())
        .map(|variable| {
            (
                variable.name.as_str(),
                variable.value.as_deref().unwrap_or_default(),
            )
        })
        .collect();
    literals.sort_unstable();
    let mut read = of_variables(container);
    read.extend(of_volumes(pod, container));
    read.sort_by(|one, other| one.0.cmp(&other.0));
    let (places, sources): (Vec<_>, Vec<_>) = read.into_iter().unzip();
    Inputs {
        hash: sha256_hex(json_text(&(literals, places))),
        sources,
    }
}

impl Inputs {
    /// Mounts the ConfigMaps, each in a folder of its own, where the agent reads them.
    pub(super) fn mount_into(self, volumes: &mut Vec<Volume>, mounts: &mut Vec<VolumeMount>) {
        mounts.retain(|mounted| !is_in(&mounted.mount_path, INPUTS_DIRECTORY));
        for (index, source) in self.sources.into_iter().enumerate() {
            let name = format!("{VOLUME}-{index}");
            mounts.push(mount(
                &name,
                &format!("{INPUTS_DIRECTORY}/{index}"),
                Access::ReadOnly,
            ));
            volumes.push(Volume {
                name,
                config_map: Some(source),
                ..Volume::default()
            });
        }
    }
}

/// A ConfigMap, by where the container reads it.
type Read = (String, ConfigMapVolumeSource);

fn of_variables(container: &Container) -> Vec<Read> {
    let of_key = |variable: &EnvVar| {
        let selector = variable.value_from.as_ref()?.config_map_key_ref.as_ref()?;
        let item = KeyToPath {
            key: selector.key.clone(),
            // The key is no part of what is read.
            path: "value".to_owned(),
            mode: None,
        };
        let source = optional(&selector.name, Some(vec![item]));
        Some((format!("variable {}", variable.name), source))
    };
    let of_all = container.env_from.iter().flatten().filter_map(|from| {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let source = optional(&from.config_map_ref.as_ref()?.name, None);
        Some((format!("variables {prefix}"), source))
    });
    let of_keys = container.env.iter().flatten().filter_map(of_key);
    of_keys.chain(of_all).collect()
}

fn of_volumes(pod: &PodSpec, container: &Container) -> Vec<Read> {
    let mounts = container.volume_mounts.iter().flatten();
    let read = mounts.flat_map(|mounted| {
        let volume = pod
            .volumes
            .iter()
            .flatten()
            .find(|volume| volume.name == mounted.name);
        let own = volume.and_then(|volume| volume.config_map.as_ref());
        let own = own.map(|map| optional(&map.name, map.items.clone()));
        let projected = volume.and_then(|volume| volume.projected.as_ref());
        let sources = projected
            .into_iter()
            .flat_map(|projected| projected.sources.iter().flatten());
        let projected = sources.filter_map(|source| {
            let map = source.config_map.as_ref()?;
            Some(optional(&map.name, map.items.clone()))
        });
        let sub_path = mounted.sub_path.as_ref().or(mounted.sub_path_expr.as_ref());
        let place = match sub_path {
            Some(sub_path) => format!("path {} of {sub_path}", mounted.mount_path),
            None => format!("path {}", mounted.mount_path),
        };
        let sources: Vec<_> = own.into_iter().chain(projected).collect();
        sources.into_iter().map(move |source| (place.clone(), source))
    });
    read.collect()
}

/// A ConfigMap as a volume. One that is missing is the concern of the container that reads it.
fn optional(name: &str, items: Option<Vec<KeyToPath>>) -> ConfigMapVolumeSource {
    ConfigMapVolumeSource {
        name: name.to_owned(),
        items,
        optional: Some(true),
        ..ConfigMapVolumeSource::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(container: Value) -> Inputs {
        let pod: PodSpec = serde_json::from_value(json!({
            "containers": [],
            "volumes": [
                {"name": "sql", "configMap": {"name": "crm-sql", "items": [{"key": "2.sql", "path": "2.sql"}]}},
                {"name": "all", "projected": {"sources": [{"configMap": {"name": "crm-more"}}, {"secret": {"name": "crm"}}]}},
                {"name": "keys", "secret": {"secretName": "crm-keys"}}
            ]
        }))
        .unwrap();
        of(&pod, &serde_json::from_value(container).unwrap())
    }

    fn container(sql: &str, secret: &str) -> Value {
        json!({
            "name": "web",
            "env": [
                {"name": "SQL", "value": sql},
                {"name": "LEVEL", "valueFrom": {"configMapKeyRef": {"name": "crm", "key": "level"}}},
                {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": secret, "key": "password"}}},
                {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
            ],
            "envFrom": [{"configMapRef": {"name": "crm-env"}}, {"secretRef": {"name": secret}}],
            "volumeMounts": [
                {"name": "sql", "mountPath": "/sql"}, {"name": "all", "mountPath": "/all"}, {"name": "keys", "mountPath": "/keys"}
            ]
        })
    }

    #[test]
    fn f5_literals_and_config_maps_are_read_and_no_secrets() {
        let inputs = read(container("select 1", "crm"));
        let names: Vec<_> = inputs.sources.iter().map(|source| source.name.as_str()).collect();
        assert_eq!(names, ["crm-more", "crm-sql", "crm", "crm-env"]);
        assert_ne!(inputs.hash, read(container("select 2", "crm")).hash);
        assert_eq!(inputs.hash, read(container("select 1", "crm-2")).hash);

        let (mut volumes, mut mounts) = (Vec::new(), Vec::new());
        inputs.mount_into(&mut volumes, &mut mounts);
        assert_eq!(mounts[1].mount_path, "/fairway-inputs/1");
        assert_eq!(
            serde_json::to_value(&volumes[1]).unwrap(),
            json!({"name": "fairway-input-1", "configMap": {
                "name": "crm-sql", "items": [{"key": "2.sql", "path": "2.sql"}], "optional": true
            }})
        );
    }
}
