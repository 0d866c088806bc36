//! What caches keep of each kind.

use crate::answer::without_values;
use crate::kinds::{ControllerRevision, Deployment, Job, Pod};
use fairway_plan::snapshot::Snapshot;
use k8s_openapi::api::core::v1::{Container, PodSpec};
use kube::core::ObjectMeta;
use kube::{Resource, ResourceExt};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What is kept of a ControllerRevision.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeptSnapshot {
    /// UID of the ControllerRevision.
    pub uid: String,
    /// What the Release of the same name releases.
    pub snapshot: Arc<Snapshot>,
}

/// Keeps an object but for the metadata that only the API server and kubectl use.
pub(super) fn whole<K: Resource>(mut object: K) -> Option<Arc<K>> {
    slim(object.meta_mut());
    Some(Arc::new(object))
}

/// Keeps a Deployment with a slim pod template.
pub(super) fn deployment(mut deployment: Deployment) -> Option<Arc<Deployment>> {
    if let Some(spec) = &mut deployment.spec {
        spec.template.spec.as_mut().map(slim_pod).unwrap_or_default();
    }
    whole(deployment)
}

/// Keeps a slim pod.
pub(super) fn pod(mut pod: Pod) -> Option<Arc<Pod>> {
    pod.spec.as_mut().map(slim_pod).unwrap_or_default();
    whole(pod)
}

/// Keeps a Job with a slim pod template.
pub(super) fn job(mut job: Job) -> Option<Arc<Job>> {
    if let Some(spec) = &mut job.spec {
        spec.template.spec.as_mut().map(slim_pod).unwrap_or_default();
    }
    whole(job)
}

/// Keeps the snapshot in a ControllerRevision.
pub(super) fn snapshot(revision: ControllerRevision) -> Option<Arc<KeptSnapshot>> {
    match fairway_plan::build::control::snapshot_of(&revision) {
        Ok(snapshot) => Some(Arc::new(KeptSnapshot {
            uid: revision.uid().unwrap_or_default(),
            snapshot: Arc::new(snapshot),
        })),
        Err(error) => {
            let message = without_values(&error.to_string());
            tracing::warn!(release = revision.name_any(), %message, "the snapshot of a release cannot be read");
            None
        }
    }
}

fn slim(meta: &mut ObjectMeta) {
    meta.managed_fields = None;
    meta.generate_name = None;
    meta.self_link = None;
    if let Some(annotations) = &mut meta.annotations {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        annotations.remove("deployment.kubernetes.io/revision");
    }
}

/// Of a pod, planners look at its containers' names and images; the rest is most of its size, and the values
/// of its environment are nobody's business here.
fn slim_pod(spec: &mut PodSpec) {
    let containers = spec
        .containers
        .iter_mut()
        .chain(spec.init_containers.iter_mut().flatten());
    for container in containers {
        *container = Container {
            name: std::mem::take(&mut container.name),
            image: container.image.take(),
            restart_policy: container.restart_policy.take(),
            ..Container::default()
        };
    }
    *spec = PodSpec {
        containers: std::mem::take(&mut spec.containers),
        init_containers: spec.init_containers.take(),
        node_name: spec.node_name.take(),
        restart_policy: spec.restart_policy.take(),
        ..PodSpec::default()
    };
}
