//! Writes that bring the Deployments of a release and of its predecessor to where they should be.

use super::history::happened;
use super::pods::deployment_of;
use super::readiness::unready;
use super::verdict::{Failure, Verdict, Wait};
use super::view::View;
use crate::build::InvalidTemplate;
use crate::build::deployment::{self, DeploymentInput};
use crate::build::nodes::Nodes;
use crate::message::{quoting, sentence};
use crate::observed::Refusal;
use crate::readings::replicas_of;
use crate::{Object, ObjectRef, Step, object::Kind};
use fairway_crds::Reason;
use fairway_crds::component::Component;
use fairway_crds::release::{MilestoneKind, ReleaseStatus};
use k8s_openapi::api::apps::v1::Deployment;

/// Applies the Deployments of these components and waits until their pods are ready; `None` when they are.
pub(super) fn start(view: &View, status: &ReleaseStatus, components: &[&Component]) -> Option<Verdict> {
    let mut steps = Vec::new();
    for component in components {
        match candidate(view, status, component) {
            Ok(candidate_steps) => steps.extend(candidate_steps),
            Err(verdict) => return Some(verdict),
        }
    }
    let Some(unready) = components.iter().find_map(|component| unready(view, component)) else {
        return (!steps.is_empty()).then(|| Verdict::Act(steps, starting(components).brief()));
    };
    if let Some(deadline) = unready.deadline.filter(|deadline| view.now >= *deadline) {
        return Some(Failure::new(Reason::PodsNotReady, unready.message_after(deadline)).verdict());
    }
    let wait = match unready.trouble {
        Some(_) => Wait::machine(Reason::PodsNotReady, unready.message()),
        // Without pods there is only the Deployment to apply, and nothing to show of that.
        None if components.iter().all(|component| view.replicas(component) == 0) => {
            starting(components).brief()
        }
        None => starting(components),
    };
    Some(Verdict::Act(steps, wait.until(unready.deadline)))
}

/// The wait from the first apply until the last probe has passed: one write of the status, not one for each pod.
pub(super) fn starting(components: &[&Component]) -> Wait {
    let names: Vec<_> = components
        .iter()
        .map(|component| component.name.as_str())
        .collect();
    Wait::machine(
        Reason::StartingPods,
        format!(
            "Waiting until the new pods of {} are ready and healthy.",
            names.join(", ")
        ),
    )
}

/// What brings a component's candidate to where it should be. Of one that no pod is desired of, the API server is only
/// asked whether it would take it: there is nothing to run, and an object that does nothing costs every watch.
pub(super) fn candidate(
    view: &View,
    status: &ReleaseStatus,
    component: &Component,
) -> Result<Vec<Step>, Verdict> {
    let existing = view.deployment(&component.name, view.release().spec.revision);
    let desired = desired(view, status, component)
        .map_err(|error| Failure::new(Reason::TemplateRefused, sentence(&error.to_string())).verdict())?;
    if let Some(verdict) = refused(view, component, &desired) {
        return Err(verdict);
    }
    if existing.is_none() && view.replicas(component) == 0 {
        let ask = view.answers().dry_run(Object::Deployment(desired));
        return Ok(ask.into_iter().collect());
    }
    Ok(update(desired, existing.map(AsRef::as_ref)))
}

fn desired(
    view: &View,
    status: &ReleaseStatus,
    component: &Component,
) -> Result<Deployment, InvalidTemplate> {
    deployment::deployment(&DeploymentInput {
        name: &view.deployment_name(&component.name, view.release().spec.revision),
        app: view.app_name(),
        namespace: view.namespace(),
        release: view.release(),
        revision: view.revision_of(view.name()),
        component,
        images: &status.digests,
        nodes: Nodes::of(component, status),
        replicas: view.replicas(component),
        drain: view.snapshot.traffic.drain.get(),
    })
}

/// What brings a component of the release that served before to as many pods as it should have: its Deployment is
/// scaled, put right when another field manager has changed it, or created when none of its pods was desired so far.
pub(super) fn predecessor(view: &View, status: &ReleaseStatus, component: &Component) -> Option<Step> {
    let name = status.previous.as_deref()?;
    let existing = deployment_of(view, &component.name, name);
    let replicas = view.replicas_before(component, existing);
    let desired = || {
        let release = view.previous(status)?;
        if release.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let desired = deployment::deployment(&DeploymentInput {
            name: &view.deployment_name(&component.name, release.spec.revision),
            app: view.app_name(),
            namespace: view.namespace(),
            release,
            revision: view.revision_of(name),
            component,
            images: &release.status.as_ref()?.digests,
            nodes: Nodes::of(component, release.status.as_ref()?),
            replicas,
            drain: view.snapshot_of(name)?.traffic.drain.get(),
        });
        desired.ok()
    };
    match existing {
        Some(existing) => corrected(existing, desired).or_else(|| scale(existing, replicas)),
        None if replicas == 0 => None,
        None => Some(Step::Apply(Box::new(Object::Deployment(desired()?)))),
    }
}

/// What puts a Deployment right that other field managers have changed. Its pods are replaced for it, as they were by the
/// change. `desired` is asked only then.
fn corrected(existing: &Deployment, desired: impl FnOnce() -> Option<Deployment>) -> Option<Step> {
    let managers = deployment::changed_by(existing);
    if managers.is_empty() {
        return None;
    }
    let mut desired = desired()?;
    desired.metadata.uid.clone_from(&existing.metadata.uid);
    desired
        .metadata
        .resource_version
        .clone_from(&existing.metadata.resource_version);
    Some(Step::Replace(Box::new(Object::Deployment(desired)), managers))
}

/// What the API server's refusal of this very Deployment means.
pub(super) fn refused(view: &View, component: &Component, desired: &Deployment) -> Option<Verdict> {
    let refused = view.answers().refusal_of(Kind::Deployment, &desired.metadata)?;
    Some(refusal(component, refused))
}

/// What it means that the API server refuses the pods of a component, or the Deployment that creates them.
pub(super) fn refusal(component: &Component, refusal: &Refusal) -> Verdict {
    let what = format!("The API server refuses the pods of component {}", component.name);
    let what = quoting(&what, Some(&refusal.message));
    if refusal.may_pass {
        let reason = if refusal.exceeds_quota() {
            Reason::QuotaExceeded
        } else {
            Reason::TemplateRefused
        };
        Verdict::Wait(Wait::user(
            reason,
            format!("{what} Fix what that answer names; Fairway retries automatically."),
        ))
    } else {
        Failure::new(
            Reason::TemplateRefused,
            format!("{what} Correct the template of that component in the App."),
        )
        .verdict()
    }
}

/// Apply what is missing or was changed by another client; otherwise set the replicas where they differ.
fn update(mut desired: Deployment, existing: Option<&Deployment>) -> Vec<Step> {
    if let Some(step) = existing.and_then(|existing| corrected(existing, || Some(desired.clone()))) {
        return vec![step];
    }
    if deployment::needs_apply(&desired, existing) {
        desired.metadata.resource_version =
            existing.and_then(|existing| existing.metadata.resource_version.clone());
        return vec![Step::Apply(Box::new(Object::Deployment(desired)))];
    }
    let desired = replicas_of(&desired);
    existing
        .and_then(|existing| scale(existing, desired))
        .into_iter()
        .collect()
}

/// Sets a Deployment's replicas where they differ.
pub(super) fn scale(deployment: &Deployment, replicas: i32) -> Option<Step> {
    let current = replicas_of(deployment);
    let target = ObjectRef::of(Kind::Deployment, &deployment.metadata)?;
    (current != replicas).then_some(Step::Scale(target, replicas))
}

/// Today's replicas for both sides while a release is under way: the candidate once it has the traffic, and
/// its predecessor as long as it may have to take the traffic back.
pub(super) fn both_sides(view: &View, status: &ReleaseStatus) -> Vec<Step> {
    let Some(today) = view.today() else {
        return Vec::new();
    };
    let moved = happened(status, MilestoneKind::TrafficMoved).is_some();
    let handing = happened(status, MilestoneKind::HandingOver).is_some();
    let stopping: Vec<_> = view
        .stopping(status)
        .into_iter()
        .map(|component| component.name.as_str())
        .chain(dropped(view, status))
        .collect();
    let candidate = view
        .snapshot
        .components
        .iter()
        .filter(|_| moved)
        .filter_map(|component| kept(view, status, component));
    let previous = status.previous.as_deref().and_then(|name| view.snapshot_of(name));
    let old = previous.iter().flat_map(|snapshot| &snapshot.components);
    let old = old
        .filter(|component| today.replicas.contains_key(&component.name))
        .filter(|component| !(handing && stopping.contains(&component.name.as_str())))
        // The Release that served may be deleted, and its pods still there; and one that is taken over may have asked for
        // pods of an earlier version, which have not come yet.
        .filter(|component| {
            let previous = status.previous.as_deref().unwrap_or_default();
            let is_alone = || {
                view.pods_of_others(&component.name, previous).is_empty()
                    && !view.desires_pods_of_others(&component.name, previous)
            };
            !stopping.contains(&component.name.as_str()) || is_alone()
        })
        .filter_map(|component| predecessor(view, status, component));
    candidate.chain(old).collect()
}

/// What keeps a component that has been released as it should be: scaled, put right when another field manager has changed
/// it, or created when it is not there and should be.
pub(super) fn kept(view: &View, status: &ReleaseStatus, component: &Component) -> Option<Step> {
    let replicas = view.replicas(component);
    match view.deployment(&component.name, view.release().spec.revision) {
        Some(existing) => {
            let desired = || desired(view, status, component).ok();
            corrected(existing, desired).or_else(|| scale(existing, replicas))
        }
        None if replicas == 0 => None,
        None => {
            let desired = desired(view, status, component).ok()?;
            Some(Step::Apply(Box::new(Object::Deployment(desired))))
        }
    }
}

/// Components with strategy `Recreate` that the candidate no longer has.
pub(super) fn dropped<'a>(view: &View<'a>, status: &ReleaseStatus) -> Vec<&'a str> {
    let Some(previous) = status.previous.as_deref().and_then(|name| view.snapshot_of(name)) else {
        return Vec::new();
    };
    previous
        .components
        .iter()
        .filter(|component| component.strategy == fairway_crds::component::Strategy::Recreate)
        .filter(|component| view.snapshot.component(&component.name).is_none())
        .map(|component| component.name.as_str())
        .collect()
}
