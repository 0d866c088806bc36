//! Which Release gets the traffic of a Service, as the planners' traffic port says.

use fairway_plan::traffic::{Objects, service_targets};
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Name of the Release to which a Service sends traffic; `None` when it sends none to pods of Fairway.
pub fn destination(service: &Arc<Service>) -> Option<String> {
    let services = BTreeMap::from([(service.name_any(), service.clone())]);
    let found = service_targets(Objects { services: &services });
    let mut targets = found.iter().flat_map(|service| &service.targets);
    targets.next().map(|target| target.release.to_owned())
}
