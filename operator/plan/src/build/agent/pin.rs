//! Learning the digests of images that are given by tag: a pod pulls them, as the App's own pods would.

use super::pod::{AGENT_VOLUME, Errand, install, mount, own_pod, restricted, small, with_pull_secrets};
use super::report::Outcome;
use crate::build::template::{self, repository};
use crate::observed::Settings;
use crate::protocol;
use crate::snapshot::Snapshot;
use crate::tasks::PIN;
use fairway_crds::Reason;
use fairway_crds::Release;
use k8s_openapi::api::core::v1::{Affinity, Container, ContainerStatus, Pod, PodSpec};
use kube::{Resource, ResourceExt};
use std::collections::{BTreeMap, BTreeSet};

/// The pod that pulls a release's images: one container for each, in which the agent exits at once.
///
/// It has the pull secrets of all components, and the service account and the node choice of the first that has
/// such an image, so that pull secrets and platform are proven as well.
pub fn pin_pod(
    settings: &Settings,
    release: &Release,
    snapshot: &Snapshot,
    images: &BTreeMap<String, String>,
    attempt: u32,
) -> Pod {
    let release_name = release.name_any();
    let errand = Errand {
        task: &PIN,
        name: &PIN.child(&release_name, attempt),
        namespace: release.metadata.namespace.as_ref(),
        app: &release.spec.app,
        release: Some(&release_name),
        work_for: &release_name,
        owner: release.controller_owner_ref(&()),
    };
    let mut pod = own_pod(settings, &[]);
    pod.volumes = None;
    pod.image_pull_secrets = with_pull_secrets(settings, &super::pod::pull_secrets(snapshot));
    if let Some(team) = template_of_first(snapshot, images) {
        pod.service_account_name = team.service_account_name;
        pod.node_selector = team.node_selector;
        pod.tolerations = team.tolerations;
        pod.affinity = node_affinity(team.affinity);
        pod.runtime_class_name = team.runtime_class_name;
    }
    pod.containers = containers(images)
        .map(|(name, image)| container(name, image))
        .collect();
    install(&mut pod, settings);
    Pod {
        metadata: errand.metadata(),
        spec: Some(pod),
        status: None,
    }
}

fn template_of_first(snapshot: &Snapshot, images: &BTreeMap<String, String>) -> Option<PodSpec> {
    let component = snapshot.components.iter().find(|component| {
        images.keys().any(|key| {
            key.split_once('/')
                .is_some_and(|(name, _)| name == component.name)
        })
    })?;
    template::read(component).ok().map(|(_, spec)| spec)
}

/// What ties a pod to nodes; what ties it to other pods is for the pods that stay.
pub(super) fn node_affinity(affinity: Option<Affinity>) -> Option<Affinity> {
    let node_affinity = affinity?.node_affinity?;
    Some(Affinity {
        node_affinity: Some(node_affinity),
        ..Affinity::default()
    })
}

/// The distinct images with the names of their containers.
fn containers(images: &BTreeMap<String, String>) -> impl Iterator<Item = (String, &String)> {
    let distinct: BTreeSet<_> = images.values().collect();
    distinct
        .into_iter()
        .enumerate()
        .map(|(index, image)| (format!("i{index}"), image))
}

fn container(name: String, image: &str) -> Container {
    Container {
        name,
        image: Some(image.to_owned()),
        image_pull_policy: Some("Always".to_owned()),
        command: Some(vec![protocol::AGENT_BINARY.to_owned(), "pin".to_owned()]),
        security_context: Some(restricted()),
        volume_mounts: Some(vec![mount(AGENT_VOLUME, protocol::AGENT_DIRECTORY, true)]),
        resources: Some(small()),
        ..Container::default()
    }
}

/// What a pin pod has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pinned {
    /// Pinned references of all images by `component/container`.
    All(BTreeMap<String, String>),
    /// An image whose digest no retry can learn.
    Never {
        /// Why, as far as it matters to a user.
        reason: Reason,
        /// Whole sentences, with the kubelet's words quoted.
        message: String,
    },
}

/// Reads the digests off a pin pod. `images` are those for which the pod was created.
pub fn pinned(pod: &Pod, images: &BTreeMap<String, String>) -> Outcome<Pinned> {
    let status = pod.status.as_ref();
    let statuses: Vec<&ContainerStatus> = status
        .into_iter()
        .flat_map(|status| status.container_statuses.iter().flatten())
        .collect();
    let mut references = BTreeMap::new();
    for (name, image) in containers(images) {
        let Some(found) = statuses.iter().find(|status| status.name == name) else {
            continue;
        };
        if let Some(digest) = digest(&found.image_id) {
            references.insert(image, format!("{}@{digest}", repository(image)));
        } else if ran(found) {
            return Outcome::Reported(Pinned::Never {
                reason: Reason::ImageWithoutDigest,
                message: format!(
                    "The node knows no registry digest for {image}. Push the image to a registry, or name it by digest."
                ),
            });
        }
    }
    let pinned: BTreeMap<String, String> = images
        .iter()
        .filter_map(|(container, image)| Some((container.clone(), references.get(image)?.clone())))
        .collect();
    if pinned.len() == images.len() {
        return Outcome::Reported(Pinned::All(pinned));
    }
    if matches!(
        status.and_then(|status| status.phase.as_deref()),
        Some("Succeeded" | "Failed")
    ) {
        let reason = super::report::exited(pod).unwrap_or_else(|| "Kubernetes gives no reason".to_owned());
        return Outcome::Lost { reason };
    }
    match super::report::waiting(pod) {
        Some((kubernetes, message)) if kubernetes == "InvalidImageName" => Outcome::Reported(Pinned::Never {
            reason: Reason::InvalidImageName,
            message,
        }),
        waiting => Outcome::Running {
            waiting: waiting.map(|(_, message)| message),
        },
    }
}

/// Whether a container got so far that its image was there.
fn ran(status: &ContainerStatus) -> bool {
    let started = |state: &k8s_openapi::api::core::v1::ContainerState| {
        state.running.is_some()
            || state
                .terminated
                .as_ref()
                .is_some_and(|ended| ended.started_at.is_some())
    };
    status.state.as_ref().is_some_and(started) && !status.image_id.is_empty()
}

/// The manifest's digest in an image ID such as `docker.io/library/nginx@sha256:…`; a bare `sha256:…` names the
/// image's configuration, which no registry can be asked for.
fn digest(image_id: &str) -> Option<&str> {
    let (_, digest) = image_id.rsplit_once('@')?;
    let hex = digest.strip_prefix("sha256:")?;
    (hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(digest)
}
