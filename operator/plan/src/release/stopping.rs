//! Ending pods, and waiting until they are gone.

use super::legacy;
use super::traffic::is_reached;
use super::verdict::{Verdict, Wait};
use super::view::View;
use crate::kubectl;
use crate::message::moment;
use crate::readings::is_legacy;
use crate::retry::NODE_LOST;
use crate::traffic::Leftover;
use crate::{Step, labels};
use fairway_crds::Reason;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

/// Who runs a component when the pods of all others have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Successor<'a> {
    /// This release.
    Release(&'a str),
    /// The team's own Deployments from which the component had taken over.
    Legacy,
}

/// Pods of the team are not watched: while one is left, they are looked for again after this time.
const LOOKED_FOR_AGAIN: SignedDuration = SignedDuration::from_secs(1);

/// Ends the pods of these components but those of the successor, and waits until they are gone; `None` when
/// they are. A pod counts until the API server has removed it: one that is still terminating may still work. So does the
/// pod of a migration on start, of whatever release: it runs the application of its component.
pub(super) fn stopped(view: &View, components: &[&str], successor: Successor) -> Option<Verdict> {
    let others = view.observed.deployments.iter().filter(|deployment| {
        let of = |key: &str| deployment.labels().get(key).map(String::as_str);
        let is_other = match successor {
            Successor::Release(keep) => of(labels::RELEASE) != Some(keep),
            Successor::Legacy => !is_legacy(&deployment.metadata),
        };
        of(labels::COMPONENT).is_some_and(|name| components.contains(&name)) && is_other
    });
    let others: Vec<_> = others.collect();
    let steps: Vec<_> = others
        .iter()
        .filter_map(|deployment| legacy::end(deployment))
        .collect();
    let (keep, of_team) = match successor {
        Successor::Release(keep) => (keep, legacy::pod(view, components)),
        Successor::Legacy => ("", None),
    };
    let left = components
        .iter()
        .flat_map(|component| view.pods_of_others(component, keep))
        .chain(view.migrating_pods(components))
        .map(AsRef::as_ref)
        .next();
    let unseen = others
        .iter()
        .find(|deployment| !has_settled_at_zero(deployment))
        .map(|deployment| deployment.name_any());
    let reason = Reason::StoppingPrevious;
    let wait = match (left.or(of_team), unseen) {
        (Some(pod), _) => {
            let message = format!("Pod {} must be gone before its successor starts.", pod.name_any());
            let wait = ending(view, pod, Wait::machine(reason, message));
            match of_team.and(view.now.checked_add(LOOKED_FOR_AGAIN).ok()) {
                Some(again) => wait.until(again),
                None => wait,
            }
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
        return abandoned(view, pod, wait);
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

/// The wait for a pod that nothing ends: its Deployment was deleted without what it owns. A user has to delete what keeps
/// the pod, unless the garbage collector does so within minutes.
fn abandoned(view: &View, pod: &Pod, wait: Wait) -> Wait {
    let of = |key: &str| pod.labels().get(key).map(String::as_str);
    if of(labels::RELEASE).is_none() {
        // One of the team's, whose Deployment is there: it was found by its selector.
        return wait;
    }
    let same = |deployment: &Deployment| {
        let has = |key: &str| deployment.labels().get(key).map(String::as_str) == of(key);
        has(labels::COMPONENT) && has(labels::RELEASE)
    };
    let status = view.release().status.as_ref();
    let last = status.and_then(|status| status.milestones.last());
    let (Some(last), false) = (last, view.observed.deployments.iter().any(|found| same(found))) else {
        return wait;
    };
    let lost = last.at.saturating_add(NODE_LOST).unwrap_or(Timestamp::MAX);
    if view.now < lost {
        return wait.until(lost);
    }
    let (component, release) = (of(labels::COMPONENT), of(labels::RELEASE));
    let message = format!(
        "{} Nothing ends pod {}, because its Deployment was deleted without it. Delete what is left: {}",
        wait.message,
        pod.name_any(),
        kubectl::delete_pods_of(
            view.namespace(),
            view.app_name(),
            component.unwrap_or_default(),
            release.unwrap_or_default()
        ),
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

/// What ends the pods of every other release and of the team's own Deployments from which a component takes over, except those
/// that traffic still reaches by a Service that this one serves.
pub(super) fn retirements(view: &View, left: &[Leftover]) -> Vec<Step> {
    let others = view.observed.deployments.iter().filter(|deployment| {
        let release = deployment.labels().get(labels::RELEASE);
        release.is_some_and(|release| release != view.name()) || is_legacy(&deployment.metadata)
    });
    let others = others.filter(|deployment| !is_reached(view, deployment.labels(), left));
    others.filter_map(|deployment| legacy::end(deployment)).collect()
}
