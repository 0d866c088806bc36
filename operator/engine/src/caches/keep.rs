//! What caches keep of each kind.

use crate::answer::without_values;
use crate::kinds::{ControllerRevision, Deployment, EndpointSlice, ForeignSlice, Job, Pod, Service};
use fairway_plan::labels::{FAIRWAY, LONGEST_ANNOTATION, READ_ANNOTATIONS};
use fairway_plan::readings::{MANAGED_BY, SERVICE_NAME, is_legacy};
use fairway_plan::snapshot::Snapshot;
use k8s_openapi::api::apps::v1::DeploymentSpec;
use k8s_openapi::api::batch::v1::JobSpec;
use k8s_openapi::api::core::v1::{Container, PodSpec, PodTemplateSpec};
use k8s_openapi::api::discovery::v1::Endpoint;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::core::ObjectMeta;
use kube::{Resource, ResourceExt};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The manager that the API server names for the fields of an object of which it has not tracked who wrote them.
const UNTRACKED: &str = "before-first-apply";
/// Endpoints of a slice made by hand that are kept, for messages.
const NAMED_ENDPOINTS: usize = 3;
/// What `kubectl rollout restart` sets.
const RESTARTED_AT: &str = "f:kubectl.kubernetes.io/restartedAt";

/// What is kept of a ControllerRevision.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeptSnapshot {
    /// UID of the ControllerRevision.
    pub uid: String,
    /// What the Release of the same name releases.
    pub snapshot: Arc<Snapshot>,
}

// What is kept here is what is read at all: `read::mask`. Whoever feeds the engine otherwise (the simulator) must not see
// more than that.

/// Keeps an object but for the metadata that only the API server and kubectl use.
pub(super) fn whole<K: Resource>(mut object: K) -> Option<Arc<K>> {
    slim(object.meta_mut());
    Some(Arc::new(object))
}

/// Keeps a Deployment with a slim pod template, and who has changed its spec.
pub(super) fn deployment(mut deployment: Deployment) -> Option<Arc<Deployment>> {
    let managers = deployment.metadata.managed_fields.take().unwrap_or_default();
    let is_legacy = is_legacy(&deployment.metadata);
    // What the team says of its own Deployment is its own affair.
    let changed_by = if is_legacy {
        Vec::new()
    } else {
        who_changed_the_spec(managers)
    };
    slim(&mut deployment.metadata);
    deployment.metadata.managed_fields = (!changed_by.is_empty()).then_some(changed_by);
    deployment.spec = deployment.spec.map(|mut spec| {
        slim_template(&mut spec.template);
        if is_legacy {
            spec.template = PodTemplateSpec::default();
        }
        DeploymentSpec {
            replicas: spec.replicas,
            selector: spec.selector,
            template: spec.template,
            paused: spec.paused,
            strategy: spec.strategy,
            ..DeploymentSpec::default()
        }
    });
    Some(Arc::new(deployment))
}

/// Keeps a slim pod.
pub(super) fn pod(mut pod: Pod) -> Option<Arc<Pod>> {
    pod.spec.as_mut().map(slim_pod).unwrap_or_default();
    whole(pod)
}

/// Keeps a Job with a slim pod template.
pub(super) fn job(mut job: Job) -> Option<Arc<Job>> {
    job.spec = job.spec.map(|mut spec| {
        slim_template(&mut spec.template);
        JobSpec {
            parallelism: spec.parallelism,
            completions: spec.completions,
            backoff_limit: spec.backoff_limit,
            active_deadline_seconds: spec.active_deadline_seconds,
            suspend: spec.suspend,
            selector: spec.selector,
            template: spec.template,
            ..JobSpec::default()
        }
    });
    whole(job)
}

/// Keeps a Service without its status.
pub(super) fn service(mut service: Service) -> Option<Arc<Service>> {
    service.status = None;
    whole(service)
}

/// Keeps an EndpointSlice with the addresses, conditions and targets of its endpoints.
pub(super) fn endpoint_slice(mut slice: EndpointSlice) -> Option<Arc<EndpointSlice>> {
    for endpoint in &mut slice.endpoints {
        let whole = std::mem::take(endpoint);
        *endpoint = Endpoint {
            addresses: whole.addresses,
            conditions: whole.conditions,
            node_name: whole.node_name,
            target_ref: whole.target_ref,
            ..Endpoint::default()
        };
    }
    self::whole(slice)
}

/// Keeps of an EndpointSlice that anybody may have made for whom it serves, who says to manage it, and its first endpoints.
pub(super) fn foreign_slice(mut slice: ForeignSlice) -> Option<Arc<ForeignSlice>> {
    let is_ready = |endpoint: &Endpoint| {
        let conditions = endpoint.conditions.as_ref();
        conditions.and_then(|conditions| conditions.ready).unwrap_or(true)
    };
    slice.endpoints.retain(is_ready);
    slice.endpoints.truncate(NAMED_ENDPOINTS);
    slice.ports = None;
    for endpoint in &mut slice.endpoints {
        endpoint.addresses.truncate(NAMED_ENDPOINTS);
        endpoint.target_ref = None;
    }
    if let Some(labels) = &mut slice.metadata.labels {
        labels.retain(|key, _| key == SERVICE_NAME || key == MANAGED_BY);
    }
    slice.metadata.annotations = None;
    slice.metadata.owner_references = None;
    let slice = endpoint_slice(Arc::unwrap_or_clone(slice.0))?;
    Some(Arc::new(ForeignSlice(slice)))
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
    let whole = std::mem::take(meta);
    *meta = ObjectMeta {
        name: whole.name,
        namespace: whole.namespace,
        uid: whole.uid,
        resource_version: whole.resource_version,
        generation: whole.generation,
        creation_timestamp: whole.creation_timestamp,
        deletion_timestamp: whole.deletion_timestamp,
        deletion_grace_period_seconds: whole.deletion_grace_period_seconds,
        labels: whole.labels,
        annotations: read_annotations(whole.annotations),
        owner_references: whole.owner_references,
        ..ObjectMeta::default()
    };
}

/// The other managers that own a part of the spec of what Fairway made. That of `kubectl rollout restart` does not count,
/// since an annotation with the time of a restart is what it is for.
fn who_changed_the_spec(managers: Vec<ManagedFieldsEntry>) -> Vec<ManagedFieldsEntry> {
    let others = managers.into_iter().filter(|entry| {
        let is_other = entry
            .manager
            .as_deref()
            .is_some_and(|manager| manager != FAIRWAY && manager != UNTRACKED);
        let fields = entry.fields_v1.as_ref();
        is_other && fields.is_some_and(|fields| owns_what_counts(&fields.0["f:spec"]))
    });
    let named = others.map(|entry| ManagedFieldsEntry {
        manager: entry.manager,
        ..ManagedFieldsEntry::default()
    });
    named.collect()
}

/// Whether a manager owns anything of a spec, as its mask shows it, but the time of a restart.
fn owns_what_counts(spec: &Value) -> bool {
    let members = |value: &'_ Value| value.as_object().cloned().unwrap_or_default();
    let template = &spec["f:template"];
    let annotations = members(&template["f:metadata"]["f:annotations"]);
    members(spec).keys().any(|field| field != "f:template")
        || template["f:spec"].is_object()
        || template["f:metadata"]["f:labels"].is_object()
        || annotations.keys().any(|key| key != "." && key != RESTARTED_AT)
}

fn read_annotations(annotations: Option<BTreeMap<String, String>>) -> Option<BTreeMap<String, String>> {
    annotations.map(|mut annotations| {
        annotations.retain(|name, value| {
            let is_read = READ_ANNOTATIONS.contains(&name.as_str());
            is_read && (1..=LONGEST_ANNOTATION).contains(&value.len())
        });
        annotations
    })
}

fn slim_template(template: &mut PodTemplateSpec) {
    template.metadata = template.metadata.take().map(|whole| ObjectMeta {
        labels: whole.labels,
        annotations: read_annotations(whole.annotations),
        ..ObjectMeta::default()
    });
    template.spec.as_mut().map(slim_pod).unwrap_or_default();
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
