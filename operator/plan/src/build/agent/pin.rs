//! Learning the digests of images that are given by tag: pods pull them, as the App's own pods would.

use super::place::{self, Place};
use super::pod::{AGENT_VOLUME, Access, TaskContext, agent_pod, agent_pod_spec, install, mount, restricted};
use super::report::Outcome;
use super::sidecars;
use crate::build::template::repository;
use crate::observed::Settings;
use crate::protocol::{self, PinReport};
use crate::readings::has_finished;
use crate::snapshot::Snapshot;
use crate::tasks::PIN;
use fairway_crds::Reason;
use fairway_crds::Release;
use k8s_openapi::api::core::v1::{Container, ContainerStateTerminated, ContainerStatus, Pod};
use kube::{Resource, ResourceExt};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// Images of components whose pods have the same place: one pod pulls them there, with their pull secrets and their
/// service account.
#[derive(Clone, Debug, PartialEq)]
pub struct Pull {
    place: Place,
    /// What is pulled, by `component/container`.
    pub images: BTreeMap<String, String>,
    number: usize,
    by_digest: bool,
}

impl Pull {
    /// The pulls of these images, by place.
    pub fn all(snapshot: &Snapshot, images: &BTreeMap<String, String>) -> Vec<Self> {
        let mut pulls: Vec<Self> = Vec::new();
        for component in &snapshot.components {
            let prefix = format!("{}/", component.name);
            let own = images
                .iter()
                .filter(|(container, _)| container.starts_with(&prefix));
            let mut own = own
                .map(|(container, image)| (container.clone(), image.clone()))
                .peekable();
            if own.peek().is_none() {
                continue;
            }
            let place = Place::of(component).beside_previous(component);
            match pulls.iter_mut().find(|pull| pull.place == place) {
                Some(pull) => pull.images.extend(own),
                None => pulls.push(Self {
                    place,
                    images: own.collect(),
                    number: pulls.len(),
                    by_digest: false,
                }),
            }
        }
        pulls
    }

    /// The pull of the same images by the digests that this one has found.
    #[must_use]
    pub fn by_digest(&self, references: BTreeMap<String, String>) -> Self {
        Self {
            images: references,
            by_digest: true,
            ..self.clone()
        }
    }

    /// What follows in the name of its pod: nothing for the first (`crm-42-pin-1`).
    pub fn part(&self) -> String {
        match (self.number, self.by_digest) {
            (0, false) => String::new(),
            (number, false) => format!("-{}", number + 1),
            (number, true) => format!("-{}-digest", number + 1),
        }
    }
}

/// The pod that pulls images: one container for each, in which the agent looks whether the node can run the image, and
/// exits.
pub fn pin_pod(settings: &Settings, release: &Release, pull: &Pull, attempt: u32) -> Pod {
    let release_name = release.name_any();
    let context = TaskContext {
        task: &PIN,
        name: &format!("{}{}", PIN.child(&release_name, attempt), pull.part()),
        namespace: release.metadata.namespace.as_ref(),
        app: &release.spec.app,
        release: Some(&release_name),
        work_for: &release_name,
        owner: release.controller_owner_ref(&()),
    };
    let mut pod = agent_pod_spec(settings, pull.place.clone());
    pod.volumes = None;
    pod.containers = containers(&pull.images)
        .map(|(name, image)| container(settings, name, image))
        .collect();
    install(&mut pod, settings);
    let mut metadata = context.metadata();
    sidecars::keep_out(&mut metadata);
    agent_pod(metadata, pod)
}

/// The distinct images with the names of their containers.
fn containers(images: &BTreeMap<String, String>) -> impl Iterator<Item = (String, &String)> {
    let distinct: BTreeSet<_> = images.values().collect();
    distinct
        .into_iter()
        .enumerate()
        .map(|(index, image)| (format!("i{index}"), image))
}

fn container(settings: &Settings, name: String, image: &str) -> Container {
    Container {
        name,
        image: Some(image.to_owned()),
        image_pull_policy: Some("Always".to_owned()),
        command: Some(vec![protocol::AGENT_BINARY.to_owned(), "pin".to_owned()]),
        security_context: Some(restricted()),
        volume_mounts: Some(vec![mount(
            AGENT_VOLUME,
            protocol::AGENT_DIRECTORY,
            Access::ReadOnly,
        )]),
        resources: Some(place::resources(settings)),
        ..Container::default()
    }
}

/// What a pin pod has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pinned {
    /// Pinned references of all images by `component/container`.
    All(BTreeMap<String, String>),
    /// The same, but the node knows the digest of at least one from another repository, which has the same image. That
    /// the image's own repository has it under this digest is to be proven by a pull.
    Unproven(BTreeMap<String, String>),
    /// An image that no retry can pin.
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
    let mut proven = true;
    for (name, image) in containers(images) {
        let found = statuses.iter().find(|status| status.name == name);
        let ran = found.and_then(|found| Some((*found, ended_by_itself(found)?)));
        let Some((found, ended)) = ran else {
            continue;
        };
        if let Some(report) = other_platform(ended) {
            return Outcome::Reported(Pinned::Never {
                reason: Reason::ImageForOtherPlatform,
                message: format!(
                    "{image} is built for {}, and the node that pulled it is {}: it cannot run {}. Build the image for that \
                     platform, or set template.spec.nodeSelector (kubernetes.io/arch) in the App.",
                    report.image, report.node, report.program
                ),
            });
        }
        let given = image.rsplit_once('@').map(|(_, digest)| digest);
        let Some(digest) = given.or_else(|| digest(&found.image_id)) else {
            return Outcome::Reported(Pinned::Never {
                reason: Reason::ImageWithoutDigest,
                message: format!(
                    "The node knows no registry digest for {image}. Push the image to a registry, or name it by digest."
                ),
            });
        };
        proven &= given.is_some() || canonical(&found.image_id) == canonical(image);
        references.insert(image, format!("{}@{digest}", repository(image)));
    }
    let pinned: BTreeMap<String, String> = images
        .iter()
        .filter_map(|(container, image)| Some((container.clone(), references.get(image)?.clone())))
        .collect();
    if pinned.len() == images.len() {
        return Outcome::Reported(match proven {
            true => Pinned::All(pinned),
            false => Pinned::Unproven(pinned),
        });
    }
    // A container that was injected beside them may go on for ever.
    let ours = containers(images).map(|(name, _)| statuses.iter().find(|status| status.name == name));
    let mut ended = ours.map(|found| found.is_some_and(|found| has_terminated(found)));
    if has_finished(pod) || ended.all(|ended| ended) {
        let reason =
            super::pod_status::exited(pod).unwrap_or_else(|| "Kubernetes gives no reason".to_owned());
        return Outcome::Lost { reason };
    }
    match super::pod_status::waiting(pod) {
        Some((kubernetes, message)) if kubernetes == "InvalidImageName" => Outcome::Reported(Pinned::Never {
            reason: Reason::InvalidImageName,
            message,
        }),
        waiting => Outcome::Running {
            waiting: waiting.map(|(_, message)| message),
        },
    }
}

/// The reference of an image by the digest in a container's image ID; `None` where that names no digest, or one of another
/// repository.
pub fn with_digest(image: &str, image_id: &str) -> Option<String> {
    let digest = digest(image_id)?;
    (canonical(image_id) == canonical(image)).then(|| format!("{}@{digest}", repository(image)))
}

fn has_terminated(status: &ContainerStatus) -> bool {
    let state = status.state.as_ref();
    state.is_some_and(|state| state.terminated.is_some())
}

/// How a container ended that got so far that its image was there.
fn ended_by_itself(status: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    let ended = status.state.as_ref()?.terminated.as_ref()?;
    (ended.started_at.is_some() && !status.image_id.is_empty()).then_some(ended)
}

/// What the agent found in an image that the node cannot run.
fn other_platform(ended: &ContainerStateTerminated) -> Option<PinReport> {
    if ended.exit_code != i32::from(protocol::EXIT_OTHER_PLATFORM) {
        return None;
    }
    serde_json::from_str(ended.message.as_deref()?).ok()
}

/// The repository of a reference or image ID with its registry: `nginx` is `docker.io/library/nginx`.
fn canonical(reference: &str) -> Cow<'_, str> {
    let reference = reference.rsplit_once("://").map_or(reference, |(_, named)| named);
    let repository = repository(reference);
    let is_registry = |host: &str| host.contains(['.', ':']) || host == "localhost";
    match repository.split_once('/') {
        None => format!("docker.io/library/{repository}").into(),
        Some(("index.docker.io" | "registry-1.docker.io", path)) => format!("docker.io/{path}").into(),
        Some((host, _)) if is_registry(host) => repository.into(),
        Some(_) => format!("docker.io/{repository}").into(),
    }
}

/// The manifest's digest in an image ID such as `docker.io/library/nginx@sha256:…`; a bare `sha256:…` names the
/// image's configuration, which no registry can be asked for.
fn digest(image_id: &str) -> Option<&str> {
    let (_, digest) = image_id.rsplit_once('@')?;
    let hex = digest.strip_prefix("sha256:")?;
    (hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(digest)
}
