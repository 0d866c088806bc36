//! How many pods run: enough behind a Service, and of a `Recreate` component never those of two versions.

use super::{Checker, Observations, changed};
use crate::pod_run::task_of;
use crate::store::Objects;
use fairway_crds::component::Strategy;
use fairway_crds::condition::SUCCEEDED;
use fairway_plan::labels;
use fairway_plan::protocol::Task;
use fairway_plan::readings::{has_finished, is_legacy, owned_by, replicas_of};
use fairway_plan::release::history::{has_begun, has_ended};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use std::collections::{BTreeMap, BTreeSet};

impl Checker {
    /// What a Service selects is not scaled below what the App wants today. A component that never runs twice
    /// has to be: its successor cannot be ready before.
    pub(super) fn scaling(&mut self, before: &Objects, after: &Objects) {
        for (name, deployment) in changed(&before.deployments, &after.deployments) {
            let Some(old) = before.deployments.get(name) else {
                continue;
            };
            if replicas_of(deployment) >= replicas_of(old) || self.observations == Observations::Stale {
                continue;
            }
            let labels = deployment.labels();
            let of = |key: &str| labels.get(key).map(String::as_str).unwrap_or_default();
            let (component, release) = (of(labels::COMPONENT), of(labels::RELEASE));
            let served = |name: Option<&String>| name.is_some_and(|name| !self.is_left(after, name));
            let is_selected = after.services.iter().any(|(name, service)| {
                let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
                selector.is_some_and(|selector| {
                    !selector.is_empty() && selector.iter().all(|(key, value)| labels.get(key) == Some(value))
                }) && served(Some(name))
            });
            let is_shown = after
                .endpoint_slices
                .values()
                .filter(|slice| {
                    // Slices without their Service bring nobody to its pods.
                    let service = slice.labels().get("kubernetes.io/service-name");
                    served(service) && service.is_some_and(|name| after.services.contains_key(name))
                })
                .flat_map(|slice| &slice.endpoints)
                .any(|endpoint| {
                    let pod = endpoint
                        .target_ref
                        .as_ref()
                        .and_then(|target| after.pods.get(target.name.as_ref()?));
                    pod.is_some_and(|pod| {
                        let same = |key: &str| pod.labels().get(key) == labels.get(key);
                        same(labels::RELEASE) && same(labels::COMPONENT)
                    })
                });
            let desired = after.apps.get(of(labels::APP)).and_then(|app| {
                app.spec
                    .components
                    .iter()
                    .find(|found| found.name == component)
                    .map(|found| found.replicas)
            });
            let is_less = desired.is_some_and(|desired| replicas_of(deployment) < desired);
            // One that is BlueGreen stops too where the next release says that it is Recreate, or where it is rolled back
            // to one that is.
            let stops = self.stops(release, component)
                || after.releases.iter().any(|(name, open)| {
                    let previous = open.status.as_ref().and_then(|status| status.previous.as_deref());
                    let either_stops = || {
                        [Some(&**name), previous]
                            .into_iter()
                            .flatten()
                            .any(|side| self.stops(side, component))
                    };
                    has_begun(open) && !has_ended(open) && either_stops()
                });
            if is_less && !stops {
                if is_selected {
                    self.violated(format!("{name} was scaled down while a Service selects it"));
                } else if is_shown {
                    self.violated(format!("{name} was scaled down while endpoints show its pods"));
                }
            }
        }
    }

    fn stops(&self, release: &str, component: &str) -> bool {
        let snapshot = self.snapshots.get(release);
        snapshot
            .and_then(|snapshot| snapshot.component(component))
            .is_some_and(|component| component.strategy == Strategy::Recreate)
    }

    /// Pods of two releases of a component that never runs twice never exist at once, terminating ones included; those of
    /// the team's Deployment from which it takes over neither; and the application that migrates when it starts is one of
    /// them.
    pub(super) fn stopping(&mut self, after: &Objects) {
        let mut releases: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
        for deployment in after
            .deployments
            .values()
            .filter(|found| is_legacy(&found.metadata))
        {
            let uid = deployment.uid().unwrap_or_default();
            let mut pods = after.pods.values();
            let runs = pods.any(|pod| owned_by(pod.owner_references(), &uid) && !has_finished(pod));
            let of = |key: &str| {
                deployment
                    .labels()
                    .get(key)
                    .map(String::as_str)
                    .unwrap_or_default()
            };
            if runs {
                let component = (of(labels::APP), of(labels::COMPONENT));
                releases
                    .entry(component)
                    .or_default()
                    .insert("the team's Deployment");
            }
        }
        for pod in after.pods.values().filter(|pod| !has_finished(pod)) {
            let labels = pod.labels();
            let of = |key: &str| labels.get(key).map(String::as_str);
            let component = of(labels::COMPONENT).or_else(|| migrates_on_start(after, pod));
            if let (Some(app), Some(component), Some(release)) =
                (of(labels::APP), component, of(labels::RELEASE))
            {
                releases.entry((app, component)).or_default().insert(release);
            }
        }
        let twice: Vec<String> = releases
            .into_iter()
            .filter(|((_, component), releases)| {
                // Of one whose snapshot a user deleted, nobody knows the strategy any more.
                let stops =
                    |release: &&str| after.revisions.contains_key(*release) && self.stops(release, component);
                releases.len() > 1 && releases.iter().any(stops)
            })
            .map(|((_, component), releases)| format!("component {component} ran in {releases:?} at once"))
            .collect();
        for what in twice {
            self.violated(what);
        }
    }
}

/// The component whose application a pod runs for a migration on start.
fn migrates_on_start<'a>(objects: &'a Objects, pod: &Pod) -> Option<&'a str> {
    let Some(Task::Guard(_)) = task_of(pod) else {
        return None;
    };
    let migration = objects.migrations.get(pod.labels().get(labels::WORK_FOR)?)?;
    // A pod that an operator creates late, when the run has ended, never starts its application: its guard reads the ledger.
    let conditions = migration.status.iter().flat_map(|status| &status.conditions);
    let ended = conditions
        .filter(|condition| condition.type_ == SUCCEEDED && condition.status != "Unknown")
        .map(|condition| condition.last_transition_time.0)
        .next();
    let created = pod.metadata.creation_timestamp.as_ref().map(|created| created.0);
    let is_late = ended.is_some_and(|ended| created > Some(ended));
    (!is_late).then_some(&migration.spec.component)
}
