//! The pod that makes health requests with headers from Secrets.

use crate::build::agent;
use crate::readings::{has_finished, is_ready};
use crate::release::view::View;
use crate::snapshot::Snapshot;
use crate::{Object, ObjectRef, Step, object::Kind};
use fairway_crds::component::Component;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

/// Whether a component has a request with a header from a Secret.
pub(super) fn needs_probe_pod(component: &Component) -> bool {
    let requests = component.health.iter().flat_map(|health| &health.http);
    requests
        .flat_map(|request| &request.headers)
        .any(|header| header.value_from.is_some())
}

/// The pod that asks for this process, where these components need it and there is none: a process that has just
/// started has none yet, also in the middle of a bake.
pub(in crate::release) fn probe_pod(view: &View, components: &[&Component]) -> Option<Step> {
    let needed = components.iter().any(|component| needs_probe_pod(component));
    let desired = needed
        .then(|| {
            let identity = &view.observed.probe_pod.identity;
            let previous = previous(view);
            agent::probe_pod(view.settings, view.release(), view.snapshot, previous, identity)
        })
        .flatten()?;
    match own_probe_pod(view) {
        None => Some(Step::Create(Box::new(Object::Pod(desired)))),
        // One that was evicted asks nobody any more.
        Some(pod) if has_finished(pod) && pod.metadata.deletion_timestamp.is_none() => {
            ObjectRef::of(Kind::Pod, &pod.metadata).map(Step::Delete)
        }
        Some(_) => None,
    }
}

/// The snapshot of the previous version, whose pods the probe pod can ask, too.
pub(super) fn previous<'a>(view: &View<'a>) -> Option<&'a Snapshot> {
    let status = view.release().status.as_ref()?;
    view.snapshot_of(status.previous.as_deref()?)
}

/// The pod that this process created for this very Release: not one that has its name, which a tenant can give to any.
pub(super) fn own_probe_pod<'a>(view: &View<'a>) -> Option<&'a Pod> {
    let uid = view.observed.probe_pod.uid.as_ref()?;
    let mut pods = view.observed.pods.iter().map(AsRef::as_ref);
    pods.find(|pod: &&Pod| pod.metadata.uid.as_ref() == Some(uid) && view.owns(pod.owner_references()))
}

/// Who makes the health requests of a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::release) enum Asker {
    /// The operator.
    Operator,
    /// A probe pod that is not ready yet, created then if it is there.
    Starting(Option<Timestamp>),
    /// A probe pod that is ready, created then.
    ProbePod(Option<Timestamp>),
}

/// Who makes the health requests of this component now.
pub(in crate::release) fn asker(view: &View, component: &Component) -> Asker {
    if !needs_probe_pod(component) {
        return Asker::Operator;
    }
    let pod = own_probe_pod(view);
    let created = pod.and_then(|pod| Some(pod.metadata.creation_timestamp.as_ref()?.0));
    match pod {
        Some(pod) if is_ready(pod) => Asker::ProbePod(created),
        _ => Asker::Starting(created),
    }
}
