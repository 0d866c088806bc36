//! EndpointSlices that no controller of Kubernetes made: what is watched besides the objects with Fairway's labels.

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Resource;
use kube::core::ObjectMeta;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// An EndpointSlice that somebody else than Kubernetes made: it sends requests to its addresses whatever the Service selects
/// ([`fairway_plan::traffic`]). A kind of its own here, as it has a watch of its own: such slices are few and carry no label of
/// Fairway's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ForeignSlice(pub Arc<EndpointSlice>);

impl Deref for ForeignSlice {
    type Target = EndpointSlice;

    fn deref(&self) -> &EndpointSlice {
        &self.0
    }
}

impl DerefMut for ForeignSlice {
    fn deref_mut(&mut self) -> &mut EndpointSlice {
        Arc::make_mut(&mut self.0)
    }
}

impl Resource for ForeignSlice {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        EndpointSlice::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        EndpointSlice::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        EndpointSlice::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        EndpointSlice::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.meta()
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        Arc::make_mut(&mut self.0).meta_mut()
    }
}
