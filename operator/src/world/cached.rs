//! How each watched kind is cached: to which App it belongs, what of it is kept, and where.

use super::group::{Group, ended};
use super::shelf::{Kept, Shelf};
use crate::key::Watched;
use fairway_crds::{App, Backup, Migration, Release};
use fairway_plan::labels;
use fairway_plan::snapshot::Snapshot;
use k8s_openapi::api::apps::v1::{ControllerRevision, Deployment};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, PodSpec, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::core::ObjectMeta;
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fmt::Debug;
use std::sync::Arc;

/// A kind that is watched and cached.
pub(crate) trait Cached:
    Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
    + Clone
    + Debug
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    /// What is kept of it.
    type Kept: Kept + Send + Sync + 'static;

    /// Which kind it is.
    const KIND: Watched;

    /// The App to which it belongs.
    fn app(&self) -> Option<&str>;

    /// Its place in the App's cache.
    fn shelf(group: &mut Group) -> &mut Shelf<Self::Kept>;

    /// Drops what no planner looks at and keeps the rest; nothing of what cannot be understood.
    fn keep(self) -> Option<Arc<Self::Kept>>;

    /// Notes in the group what must be known of it without parsing it.
    fn note(&self, _group: &mut Group) {}
}

/// The label selector with which a kind is watched.
pub(crate) const fn selector(kind: Watched) -> Option<&'static str> {
    match kind {
        Watched::App | Watched::Release | Watched::Migration | Watched::Backup => None,
        _ => Some(labels::APP),
    }
}

/// The App that the label names.
pub(crate) fn labelled(meta: &ObjectMeta) -> Option<&str> {
    meta.labels.as_ref()?.get(labels::APP).map(String::as_str)
}

/// Drops the metadata that only the apiserver and kubectl use.
fn slim(meta: &mut ObjectMeta) {
    meta.managed_fields = None;
    meta.generate_name = None;
    meta.self_link = None;
    if let Some(annotations) = &mut meta.annotations {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        annotations.remove("deployment.kubernetes.io/revision");
    }
}

macro_rules! cached {
    ($kind:ident, $shelf:ident, $app:expr, $slim:expr $(, $note:item)?) => {
        impl Cached for $kind {
            type Kept = Self;
            const KIND: Watched = Watched::$kind;

            fn app(&self) -> Option<&str> {
                let app: fn(&Self) -> Option<&str> = $app;
                app(self)
            }

            fn shelf(group: &mut Group) -> &mut Shelf<Self> {
                &mut group.$shelf
            }

            fn keep(mut self) -> Option<Arc<Self>> {
                slim(self.meta_mut());
                let slim: fn(&mut Self) = $slim;
                slim(&mut self);
                Some(Arc::new(self))
            }

            $($note)?
        }
    };
}

cached!(
    App,
    apps,
    |app| app.metadata.name.as_deref(),
    |_| (),
    fn note(&self, group: &mut Group) {
        let live = self
            .status
            .as_ref()
            .and_then(|status| Some(status.live.as_ref()?.release.as_str()));
        let desired = self.status.as_ref().and_then(|status| status.desired.as_deref());
        group.current = [live.map(Arc::from), desired.map(Arc::from)];
    }
);
cached!(Release, releases, |release| Some(&release.spec.app), |_| ());
cached!(
    Migration,
    migrations,
    |migration| Some(&migration.spec.app),
    |_| ()
);
cached!(Backup, backups, |backup| Some(&backup.spec.app), |_| ());
cached!(
    Deployment,
    deployments,
    |object| labelled(object.meta()),
    |deployment| {
        if let Some(spec) = &mut deployment.spec {
            spec.template.spec.as_mut().map(slim_pod).unwrap_or_default();
        }
    }
);
cached!(Pod, pods, |object| labelled(object.meta()), |pod| {
    pod.spec.as_mut().map(slim_pod).unwrap_or_default();
});
cached!(Job, jobs, |object| labelled(object.meta()), |job| {
    if let Some(spec) = &mut job.spec {
        spec.template.spec.as_mut().map(slim_pod).unwrap_or_default();
    }
});
cached!(Service, services, |object| labelled(object.meta()), |_| ());
cached!(
    EndpointSlice,
    endpoint_slices,
    |object| labelled(object.meta()),
    |_| ()
);

/// What is kept of a ControllerRevision.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Frozen {
    /// Its UID.
    pub(crate) uid: String,
    /// What a Release of the same name releases.
    pub(crate) spec: Arc<Snapshot>,
}

impl Cached for ControllerRevision {
    type Kept = Frozen;
    const KIND: Watched = Watched::ControllerRevision;

    fn app(&self) -> Option<&str> {
        labelled(self.meta())
    }

    fn shelf(group: &mut Group) -> &mut Shelf<Frozen> {
        &mut group.revisions
    }

    fn keep(self) -> Option<Arc<Frozen>> {
        match fairway_plan::build::control::snapshot_of(&self) {
            Ok(snapshot) => Some(Arc::new(Frozen {
                uid: self.uid().unwrap_or_default(),
                spec: Arc::new(snapshot),
            })),
            Err(error) => {
                let message = crate::execute::refusal::without_values(&error.to_string());
                tracing::warn!(release = %key_of(&self), %message, "the snapshot of a release cannot be read");
                None
            }
        }
    }
}

impl Kept for App {}
impl Kept for Frozen {}
impl Kept for Deployment {}
impl Kept for Pod {}
impl Kept for Job {}
impl Kept for Service {}
impl Kept for EndpointSlice {}

impl Kept for Release {
    fn is_open(&self) -> bool {
        !ended(self)
    }
}

impl Kept for Migration {
    fn is_open(&self) -> bool {
        self.status.as_ref().is_none_or(|status| status.outcome.is_none())
    }
}

impl Kept for Backup {
    fn is_open(&self) -> bool {
        self.status.as_ref().is_none_or(|status| status.outcome.is_none())
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
        let (name, image) = (std::mem::take(&mut container.name), container.image.take());
        let restart_policy = container.restart_policy.take();
        *container = k8s_openapi::api::core::v1::Container {
            name,
            image,
            restart_policy,
            ..Default::default()
        };
    }
    *spec = PodSpec {
        containers: std::mem::take(&mut spec.containers),
        init_containers: spec.init_containers.take(),
        node_name: spec.node_name.take(),
        restart_policy: spec.restart_policy.take(),
        ..Default::default()
    };
}

/// An object's namespace and name, which everything that was stored has.
pub(crate) fn key_of(object: &impl Resource<DynamicType = ()>) -> crate::key::Key {
    crate::key::Key::new(
        object.meta().namespace.as_deref().unwrap_or_default(),
        &object.name_any(),
    )
}

/// A resource version as a number: the apiserver counts them up, and says so since Kubernetes 1.35.
pub(crate) fn version_of(meta: &ObjectMeta) -> u64 {
    meta.resource_version
        .as_deref()
        .and_then(|version| version.parse().ok())
        .unwrap_or_default()
}
