//! Ending pods, and waiting until they are gone.

use super::traffic::is_reached;
use super::verdict::{Verdict, Wait};
use super::view::View;
use super::workloads::scale;
use crate::kubectl;
use crate::message::moment;
use crate::retry::NODE_LOST;
use crate::{Step, labels};
use fairway_crds::Reason;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

/// Ends the pods of these components of every release but `keep`, and waits until they are gone; `None` when
/// they are. A pod counts until the API server has removed it: one that is still terminating may still work.
pub(super) fn stopped(view: &View, components: &[&str], keep: &str) -> Option<Verdict> {
    let others = view.observed.deployments.iter().filter(|deployment| {
        let of = |key: &str| deployment.labels().get(key).map(String::as_str);
        of(labels::COMPONENT).is_some_and(|name| components.contains(&name))
            && of(labels::RELEASE) != Some(keep)
    });
    let others: Vec<_> = others.collect();
    let steps: Vec<_> = others
        .iter()
        .filter_map(|deployment| scale(deployment, 0))
        .collect();
    let left = components
        .iter()
        .flat_map(|component| view.pods_of_others(component, keep))
        .next();
    let unseen = others
        .iter()
        .find(|deployment| !has_settled_at_zero(deployment))
        .map(|deployment| deployment.name_any());
    let reason = Reason::StoppingPrevious;
    let wait = match (left, unseen) {
        (Some(pod), _) => {
            let message = format!("Pod {} must be gone before its successor starts.", pod.name_any());
            ending(view, pod, Wait::machine(reason, message))
        }
        (None, Some(unseen)) => Wait::machine(
            reason,
            format!("The pods of Deployment {unseen} must be gone before their successors start."),
        ),
        (None, None) if steps.is_empty() => return None,
        (None, None) => Wait::machine(reason, "Ending pods before their successors start."),
    };
    Some(Verdict::Act(steps, wait))
}

/// The wait for a pod to be gone. When it should have ended long ago, a user has to check its node.
pub(super) fn ending(view: &View, pod: &Pod, wait: Wait) -> Wait {
    let Some(end) = pod.metadata.deletion_timestamp.as_ref().map(|end| end.0) else {
        return wait;
    };
    let lost = end.saturating_add(NODE_LOST).unwrap_or(Timestamp::MAX);
    if view.now < lost {
        return wait.until(lost);
    }
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    let name = pod.name_any();
    let message = format!(
        "{} Pod {name} should have ended by {} and is still there. Check its node {}. Only if that machine is off for \
         good: {}",
        wait.message,
        moment(end),
        node.unwrap_or("(none)"),
        kubectl::delete_pod_by_force(view.namespace(), &name),
    );
    Wait {
        previous: wait.previous,
        ..Wait::user(wait.reason, message)
    }
}

/// Whether the Deployment controller has seen that nothing should run, and nothing does.
fn has_settled_at_zero(deployment: &Deployment) -> bool {
    let Some(status) = &deployment.status else {
        return false;
    };
    status.observed_generation >= deployment.metadata.generation && status.replicas.unwrap_or_default() == 0
}

/// What ends the pods of every other release, but for those that users reach all the same.
pub(super) fn retirements(view: &View) -> Vec<Step> {
    let others = view.observed.deployments.iter().filter(|deployment| {
        deployment
            .labels()
            .get(labels::RELEASE)
            .is_some_and(|release| release != view.name())
    });
    let others = others.filter(|deployment| !is_reached(view, deployment.labels()));
    others.filter_map(|deployment| scale(deployment, 0)).collect()
}
