//! Where traffic goes, and when it may move.

use super::{Checker, Observations, changed};
use crate::store::Objects;
use crate::traffic::destination;
use fairway_crds::release::MilestoneKind;
use fairway_plan::labels;
use fairway_plan::readings::{has_finished, is_ready};
use fairway_plan::release::history::happened;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use std::collections::BTreeMap;
use std::sync::Arc;

impl Checker {
    /// A selector is never empty, and only ever moves to a release whose pods are ready and, forward, healthy. A Service
    /// is only deleted when Fairway created it, the release that serves does not serve it, and no pod is behind it.
    pub(super) fn services(&mut self, before: &Objects, after: &Objects) {
        let removed = before.services.iter();
        let removed: Vec<_> = removed
            .filter(|(name, _)| !after.services.contains_key(*name))
            // What a user deletes in the foreground goes later.
            .filter(|(_, service)| service.metadata.deletion_timestamp.is_none())
            .collect();
        for (name, service) in removed {
            if service.owner_references().is_empty() {
                self.violated(format!(
                    "Service {name}, which Fairway did not create, was deleted"
                ));
            }
            // The garbage collector deletes what belonged to an App that is gone or going.
            let app_stays = after.apps.values().any(|app| {
                let owns = |owner: &OwnerReference| Some(&owner.uid) == app.metadata.uid.as_ref();
                app.metadata.deletion_timestamp.is_none() && service.owner_references().iter().any(owns)
            });
            if self.observations == Observations::Current && app_stays && !self.is_left(after, name) {
                self.violated(format!("Service {name} was deleted although it is served"));
            }
        }
        for (name, service) in changed(&before.services, &after.services) {
            let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
            let old = before
                .services
                .get(name)
                .and_then(|service| service.spec.as_ref());
            // What a user emptied may be touched by others.
            let was_empty = old.is_some_and(|spec| spec.selector.as_ref().is_none_or(BTreeMap::is_empty));
            if selector.is_none_or(BTreeMap::is_empty) && !was_empty {
                self.violated(format!("Service {name} selects nothing"));
            }
            let old = before.services.get(name).and_then(destination);
            let Some(new) = destination(service) else {
                continue;
            };
            if old.as_ref() != Some(&new)
                && !goes_on_serving(after, &new)
                && self.observations == Observations::Current
            {
                self.switched(after, service, &new);
            }
        }
    }

    fn switched(&mut self, after: &Objects, service: &Service, release: &str) {
        let Some(component) = self.serving_component(release, &service.name_any()) else {
            self.violated(format!(
                "Service {} selects {release}, which does not serve it",
                service.name_any()
            ));
            return;
        };
        let ready: Vec<_> = pods_of(after, &component.name, release)
            .filter(|pod| is_ready(pod))
            .collect();
        let unproven = ready.iter().find(|pod| {
            let passes = pod
                .uid()
                .and_then(|uid| self.passes.get(&uid))
                .copied()
                .unwrap_or_default();
            component
                .health
                .as_ref()
                .is_some_and(|health| passes < health.success_threshold)
        });
        let goes_back = after
            .releases
            .values()
            .filter_map(|found| found.status.as_ref())
            .any(|status| {
                happened(status, MilestoneKind::RollingBack).is_some()
                    && status.previous.as_deref() == Some(release)
            });
        if ready.is_empty() {
            self.violated(format!("traffic moved to {release}, which has no ready pod"));
        } else if let (Some(pod), false) = (unproven, goes_back) {
            self.violated(format!(
                "traffic moved to {release} before pod {} was healthy",
                pod.name_any()
            ));
        }
    }
}

/// Whether a release had the traffic already and never gave it back: pointing a Service at it again sets right
/// what another client has done.
fn goes_on_serving(after: &Objects, release: &str) -> bool {
    let status = after
        .releases
        .get(release)
        .and_then(|release| release.status.as_ref());
    status.is_some_and(|status| {
        happened(status, MilestoneKind::TrafficMoved).is_some()
            && happened(status, MilestoneKind::RollingBack).is_none()
    })
}

fn pods_of<'a>(objects: &'a Objects, component: &str, release: &str) -> impl Iterator<Item = &'a Arc<Pod>> {
    objects.pods.values().filter(move |pod| {
        let of = |key: &str| pod.labels().get(key).map(String::as_str);
        of(labels::COMPONENT) == Some(component) && of(labels::RELEASE) == Some(release) && !has_finished(pod)
    })
}
