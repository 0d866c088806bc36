//! Snapshots: the release-relevant part of an App's spec, kept in a ControllerRevision.

use crate::json::json;
use crate::names;
use fairway_crds::app::{AppSpec, BackupSettings, Traffic};
use fairway_crds::component::{Component, Strategy};
use fairway_crds::database::{Database, MigrationTemplate};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The release-relevant part of an [`AppSpec`]: everything but `suspend`, `replicas`, `policy`, `backup`, `agent` and
/// `database.clone`, which take effect at once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// Components, their `replicas` set to 1 where they are not zero: the App says how many run today.
    pub components: Vec<Component>,
    /// The database of the App.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<Database>,
    /// How the database follows the application.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration: Option<MigrationTemplate>,
    /// How traffic moves.
    pub traffic: Traffic,
}

impl Snapshot {
    /// The snapshot of a spec.
    pub fn of(spec: &AppSpec) -> Self {
        let AppSpec {
            suspend: _,
            components,
            database,
            migration,
            traffic,
            backup: _,
            agent: _,
            policy: _,
        } = spec;
        let components = components
            .iter()
            .map(|component| Component {
                replicas: 1,
                ..component.clone()
            })
            .collect();
        Self {
            components,
            database: database.as_ref().map(|database| Database {
                clone: None,
                ..database.clone()
            }),
            migration: migration.clone(),
            traffic: traffic.clone(),
        }
    }

    /// Hash by which two specs are compared, 16 hex digits. Members are written in the order of their keys, so the hash
    /// does not depend on how the App was written.
    pub fn hash(&self) -> String {
        names::short_hash(json(self).to_string())
    }

    /// The component of that name.
    pub fn component(&self, name: &str) -> Option<&Component> {
        self.components.iter().find(|component| component.name == name)
    }

    /// Containers (init containers too) that name no image, as `component/container`.
    pub fn without_image(&self) -> Vec<String> {
        self.containers()
            .filter(|(_, image)| image.is_none())
            .map(|(name, _)| name)
            .collect()
    }

    /// Every container with the image that the App names, by `component/container`.
    pub fn images(&self) -> BTreeMap<String, String> {
        self.containers()
            .filter_map(|(name, image)| Some((name, image?)))
            .collect()
    }

    /// Every container (init containers too) with the image that the App names, in the order of the App.
    pub(crate) fn containers(&self) -> impl Iterator<Item = (String, Option<String>)> {
        self.components.iter().flat_map(|component| {
            ["initContainers", "containers"]
                .into_iter()
                .flat_map(move |list| {
                    let containers = component.template["spec"][list]
                        .as_array()
                        .map(Vec::as_slice)
                        .unwrap_or_default();
                    containers.iter().map(move |container| {
                        let name = container["name"].as_str().unwrap_or_default();
                        let image = container["image"].as_str().filter(|image| !image.is_empty());
                        (format!("{}/{name}", component.name), image.map(str::to_owned))
                    })
                })
        })
    }
}

/// A component's template as Kubernetes types it.
///
/// # Errors
/// What serde found, when the template is no PodTemplateSpec; the API server's dry run finds the rest.
pub fn pod_template(component: &Component) -> Result<PodTemplateSpec, serde_json::Error> {
    serde_json::from_value(component.template.clone())
}

/// Whether either side wants the component never to run twice.
pub fn stops(old: Option<&Component>, new: &Component) -> bool {
    new.strategy == Strategy::Recreate || old.is_some_and(|old| old.strategy == Strategy::Recreate)
}

/// The part of an App's spec that takes effect at once, as far as a planner needs it.
#[derive(Clone, Debug, PartialEq)]
pub struct Today {
    /// Replicas by component.
    pub replicas: BTreeMap<String, i32>,
    /// Where backups go.
    pub backup: Option<BackupSettings>,
    /// How long the new version is watched.
    pub bake: std::time::Duration,
    /// Whether releases hold.
    pub suspend: bool,
}

impl Today {
    /// What the spec says today.
    pub fn of(spec: &AppSpec) -> Self {
        Self {
            replicas: spec
                .components
                .iter()
                .map(|component| (component.name.clone(), component.replicas))
                .collect(),
            backup: spec.backup.clone(),
            bake: spec.policy.bake.duration.get(),
            suspend: spec.suspend,
        }
    }
}
