//! The client, cluster and namespace of a test, of the demo or of the benchmark.

use k8s_openapi::NamespaceResourceScope;
use kube::api::Api;
use kube::{Client, Resource};

use crate::target::Target;

/// What a test works with.
#[derive(Clone)]
pub struct Context {
    /// A client with the administrator's rights.
    pub client: Client,
    /// The cluster on which the test runs.
    pub target: Target,
    /// The test's own namespace.
    pub namespace: String,
}

impl Context {
    /// Objects of one kind in the test's namespace.
    #[must_use]
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}
