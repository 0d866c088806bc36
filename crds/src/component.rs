//! The components of an App.

use crate::health::Health;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One workload of an App, released together with the others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("!has(self.serves) || has(self.health)").message("a component with serves requires health, so that traffic moves only to pods that answer; add health.http with at least one path").field_path(".serves"))]
#[x_kube(validation = Rule::new("!has(self.serves) || self.replicas > 0").message("a component with serves requires at least one pod; set replicas to 1 or more, or remove serves").field_path(".replicas"))]
#[x_kube(validation = Rule::new("!has(self.health) || has(self.serves) || self.health.http.all(request, has(request.port))").message("each health request of a component without serves requires a port; add one, such as port: 3000").field_path(".health"))]
#[x_kube(validation = Rule::new("!has(self.template.spec.hostNetwork) || !self.template.spec.hostNetwork").message("hostNetwork is not allowed, because two versions could not run on one node; remove it and use serves").field_path(".template.spec.hostNetwork"))]
#[x_kube(validation = Rule::new("self.template.spec.containers.all(container, !has(container.ports) || container.ports.all(port, !has(port.hostPort) || port.hostPort == 0))").message("hostPort is not allowed, because two versions could not run on one node; remove it and use serves").field_path(".template.spec.containers"))]
#[x_kube(validation = Rule::new("!has(self.template.spec.initContainers) || self.template.spec.initContainers.all(container, !has(container.ports) || container.ports.all(port, !has(port.hostPort) || port.hostPort == 0))").message("hostPort is not allowed, because two versions could not run on one node; remove it").field_path(".template.spec.initContainers"))]
#[x_kube(validation = Rule::new("!has(self.template.metadata) || !has(self.template.metadata.labels) || self.template.metadata.labels.all(key, !key.startsWith('fairway.dev/'))").message("labels with the prefix fairway.dev/ are reserved, because Services select pods by them; remove them").field_path(".template.metadata.labels"))]
pub struct Component {
    /// Name of the component, a DNS label of at most 16 characters.
    #[schemars(schema_with = "crate::text::component_name")]
    pub name: String,
    /// Number of pods, 0 to 1000. Editing it takes effect at once, without a Release. Defaults to 1.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: i32,
    /// The Service whose traffic this component receives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serves: Option<Serves>,
    /// When the pods of this component count as healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// `BlueGreen`: the previous and the new pods run side by side until traffic has moved. `Recreate`: the previous
    /// pods are gone before the new ones start, for queue consumers and ReadWriteOncePod claims, which a `BlueGreen`
    /// component may not mount. A `Recreate` component with serves is down in between. Pods of a `BlueGreen` component
    /// that mounts a ReadWriteOnce claim all run on one node. Defaults to BlueGreen.
    #[serde(default)]
    pub strategy: Strategy,
    /// The pod template, as in a Deployment's `spec.template`. If a container has no image, the App waits for a
    /// Release that names one.
    #[schemars(schema_with = "crate::schema::pod_template")]
    pub template: serde_json::Value,
}

/// How the pods of a component are replaced by those of the next version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Strategy {
    /// The previous and the new pods run side by side until traffic has moved.
    #[default]
    BlueGreen,
    /// The previous pods are gone before the new ones start: never two versions at once.
    Recreate,
}

/// A Service and the port behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Serves {
    /// Name of the Service. Fairway creates it, or takes over the selector of one whose manifest has none.
    #[schemars(schema_with = "crate::text::service_name")]
    pub service: String,
    /// Port of the Service.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// Port of the pods to which the Service sends traffic.
    #[schemars(range(min = 1, max = 65535))]
    pub target_port: u16,
}

fn one() -> i32 {
    1
}
