//! The rungs that start the new version: RolledOut, Healthy, HandedOver.

use super::patience::unready_since;
use super::verdict::{Failure, Verdict, Wait};
use super::world::{World, happened, has_finished, is_ready, replicas_of};
use crate::build::deployment::{self, DeploymentInput};
use crate::build::{InvalidTemplate, agent};
use crate::observed::PodHealth;
use crate::retry::UNHEARD;
use crate::{Object, ObjectRef, Step, labels, names, object::Kind};
use fairway_crds::Reason;
use fairway_crds::component::Component;
use fairway_crds::release::{MilestoneKind, ReleaseStatus};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

/// Time to become available for a component that does not say.
const ROLLOUT_DEADLINE: SignedDuration = SignedDuration::from_mins(10);
const TEMPLATE_REFUSED: Reason = Reason::TemplateRefused;
const STARTING_PROBE_POD: Reason = Reason::StartingProbePod;

/// Met when the candidates of overlapping components have as many ready pods as the App wants.
pub(super) fn rolled_out(world: &World, status: &mut ReleaseStatus) -> Verdict {
    if happened(status, MilestoneKind::TrafficMoved).is_some() {
        return Verdict::Met;
    }
    let components = world.overlapping(status);
    start(world, status, &components).unwrap_or(Verdict::Met)
}

/// Applies the Deployments of these components and waits until their pods are ready; `None` when they are.
fn start(world: &World, status: &ReleaseStatus, components: &[&Component]) -> Option<Verdict> {
    let mut steps = Vec::new();
    for component in components {
        match candidate(world, status, component) {
            Ok(candidate_steps) => steps.extend(candidate_steps),
            Err(verdict) => return Some(verdict),
        }
    }
    let unready = components.iter().find_map(|component| unready(world, component));
    match unready {
        None if steps.is_empty() => None,
        None => Some(Verdict::Act(steps, starting(components).brief())),
        Some(Unready {
            message,
            deadline: Some(deadline),
            ..
        }) if world.now >= deadline => Some(
            Failure::new(
                Reason::PodsNotReady,
                format!("{message}; not ready by {}", crate::conditions::moment(deadline)),
            )
            .verdict(),
        ),
        Some(Unready {
            has_trouble: true,
            message,
            deadline,
        }) => Some(Verdict::Act(
            steps,
            Wait {
                until: deadline,
                ..Wait::machine(Reason::PodsNotReady, message)
            },
        )),
        Some(Unready { deadline, .. }) => {
            let wait = Wait {
                until: deadline,
                ..starting(components)
            };
            // Without pods there is only the Deployment to make, and nothing to tell of that.
            let none = components.iter().all(|component| world.replicas(component) == 0);
            Some(Verdict::Act(steps, if none { wait.brief() } else { wait }))
        }
    }
}

/// Told from the first apply until the last probe has passed: one write of the status, not one for each pod.
fn starting(components: &[&Component]) -> Wait {
    let names: Vec<_> = components
        .iter()
        .map(|component| component.name.as_str())
        .collect();
    Wait::machine(
        Reason::StartingPods,
        format!(
            "waiting until the new pods of {} are ready and healthy",
            names.join(", ")
        ),
    )
}

/// What brings a component's candidate to where it should be. Of one that no pod is desired of, the apiserver is only
/// asked whether it would take it: there is nothing to run, and an object that does nothing costs everybody who watches.
pub(super) fn candidate(
    world: &World,
    status: &ReleaseStatus,
    component: &Component,
) -> Result<Vec<Step>, Verdict> {
    let existing = world.deployment(&component.name, world.release().spec.revision);
    let desired = desired(world, status, component)
        .map_err(|error| Failure::new(TEMPLATE_REFUSED, error.to_string()).verdict())?;
    if let Some(verdict) = refused(world, component, &desired) {
        return Err(verdict);
    }
    if existing.is_none() && world.replicas(component) == 0 {
        let ask = world.rehearsal(Object::Deployment(desired));
        return Ok(ask.into_iter().collect());
    }
    Ok(bring(desired, existing.map(AsRef::as_ref)))
}

fn desired(
    world: &World,
    status: &ReleaseStatus,
    component: &Component,
) -> Result<Deployment, InvalidTemplate> {
    deployment::deployment(&DeploymentInput {
        app: world.app_name(),
        namespace: world.namespace(),
        release: world.release(),
        component,
        images: &status.digests,
        replicas: world.replicas(component),
        drain: world.snapshot.traffic.drain.get(),
    })
}

/// What brings a component of the release that served before to as many pods as it should have: its Deployment is
/// scaled, or made when none of its pods was desired so far.
pub(super) fn predecessor(world: &World, status: &ReleaseStatus, component: &Component) -> Option<Step> {
    let name = status.previous.as_deref()?;
    let existing = deployment_of(world, &component.name, name);
    let replicas = world.replicas_before(component, existing);
    if let Some(existing) = existing {
        return scale(existing, replicas);
    }
    let release = world.previous(status)?;
    if replicas == 0 || release.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let desired = deployment::deployment(&DeploymentInput {
        app: world.app_name(),
        namespace: world.namespace(),
        release,
        component,
        images: &release.status.as_ref()?.digests,
        replicas,
        drain: world.snapshot_of(name)?.traffic.drain.get(),
    });
    Some(Step::Apply(Box::new(Object::Deployment(desired.ok()?))))
}

/// What the apiserver's last answer to this very Deployment means, when it was no.
pub(super) fn refused(world: &World, component: &Component, desired: &Deployment) -> Option<Verdict> {
    let refusal = world.refusal(Kind::Deployment, &desired.metadata)?;
    let message = format!(
        "the apiserver refuses the pods of component {}: {}",
        component.name, refusal.message
    );
    Some(if refusal.may_pass {
        let message = format!("{}; it is tried again by itself", message.trim_end_matches('.'));
        Verdict::Wait(Wait::person(TEMPLATE_REFUSED, message))
    } else {
        Failure::new(TEMPLATE_REFUSED, message).verdict()
    })
}

/// Apply what is missing or was changed by another hand; otherwise set the replicas where they differ.
fn bring(mut desired: Deployment, existing: Option<&Deployment>) -> Vec<Step> {
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
pub(super) fn both_sides(world: &World, status: &ReleaseStatus) -> Vec<Step> {
    let Some(today) = world.today() else {
        return Vec::new();
    };
    let moved = happened(status, MilestoneKind::TrafficMoved).is_some();
    let handing = happened(status, MilestoneKind::HandingOver).is_some();
    let stopping: Vec<_> = world
        .stopping(status)
        .into_iter()
        .map(|component| component.name.as_str())
        .chain(dropped(world, status))
        .collect();
    let candidate = world
        .snapshot
        .components
        .iter()
        .filter(|_| moved)
        .filter_map(|component| kept(world, status, component));
    let previous = status
        .previous
        .as_deref()
        .and_then(|name| world.snapshot_of(name));
    let old = previous.iter().flat_map(|snapshot| &snapshot.components);
    let old = old
        .filter(|component| today.replicas.contains_key(&component.name))
        .filter(|component| !(handing && stopping.contains(&component.name.as_str())))
        .filter_map(|component| predecessor(world, status, component));
    candidate.chain(old).collect()
}

/// What keeps a component that has been released at as many pods as it should have: scaled, or made when it is not
/// there and should be.
pub(super) fn kept(world: &World, status: &ReleaseStatus, component: &Component) -> Option<Step> {
    let replicas = world.replicas(component);
    match world.deployment(&component.name, world.release().spec.revision) {
        Some(deployment) => scale(deployment, replicas),
        None if replicas == 0 => None,
        None => {
            let desired = desired(world, status, component).ok()?;
            Some(Step::Apply(Box::new(Object::Deployment(desired))))
        }
    }
}

struct Unready {
    has_trouble: bool,
    message: String,
    deadline: Option<Timestamp>,
}

fn unready(world: &World, component: &Component) -> Option<Unready> {
    let desired = usize::try_from(world.replicas(component)).unwrap_or_default();
    let ready = world.ready_pods(&component.name, world.name()).len();
    let existing = world.deployment(&component.name, world.release().spec.revision);
    if ready >= desired && (existing.is_some() || desired == 0) {
        return None;
    }
    let pods = || world.pods(&component.name, world.name()).map(AsRef::as_ref);
    let deadline = existing
        .and_then(|deployment| unready_since(deployment, desired, pods()))
        .and_then(|since| since.checked_add(patience(component)).ok());
    let count = format!("{ready} of {desired} pods of {} are ready", component.name);
    let trouble = trouble(existing.map(AsRef::as_ref), pods());
    Some(match trouble {
        Some(trouble) => Unready {
            has_trouble: true,
            message: format!("{count}: {trouble}"),
            deadline,
        },
        None => Unready {
            has_trouble: false,
            message: count,
            deadline,
        },
    })
}

/// What is still missing of the pods that the App wants today, and the time that their component is given.
pub(super) fn behind(world: &World) -> Option<(String, SignedDuration)> {
    let mut components = world.snapshot.components.iter();
    components.find_map(|component| Some((unready(world, component)?.message, patience(component))))
}

/// Time that a component has from its creation to being healthy.
fn patience(component: &Component) -> SignedDuration {
    component
        .health
        .as_ref()
        .map_or(ROLLOUT_DEADLINE, |health| health.deadline.signed())
}

/// The first thing that keeps pods from running, as Kubernetes says it.
pub(super) fn trouble<'a>(
    deployment: Option<&Deployment>,
    pods: impl Iterator<Item = &'a Pod>,
) -> Option<String> {
    let refused = deployment
        .and_then(|deployment| deployment.status.as_ref())
        .into_iter()
        .flat_map(|status| status.conditions.iter().flatten())
        .find(|condition| condition.type_ == "ReplicaFailure" && condition.status == "True")
        .and_then(|condition| condition.message.clone());
    refused
        .map(|message| crate::conditions::shorten(&message))
        .or_else(|| pods.filter_map(agent::trouble).next())
}

/// Met when every request of every overlapping component passed the desired number of times in a row on every
/// ready pod.
pub(super) fn healthy(world: &World, status: &mut ReleaseStatus) -> Verdict {
    if happened(status, MilestoneKind::TrafficMoved).is_some() {
        return Verdict::Met;
    }
    let components = world.overlapping(status);
    passing(world, &components).unwrap_or(Verdict::Met)
}

/// Waits until these components are healthy; `None` when they are.
fn passing(world: &World, components: &[&Component]) -> Option<Verdict> {
    if let Some(step) = probe_pod(world, components) {
        return Some(Verdict::Act(vec![step], starting_probe_pod()));
    }
    components.iter().find_map(|component| {
        let starts = needs_probe_pod(component) && !probe_pod_is_ready(world);
        let starting = if starts {
            starting_probe_pod()
        } else {
            starting(components)
        };
        unhealthy(world, component, &starting)
    })
}

fn starting_probe_pod() -> Wait {
    Wait::machine(
        STARTING_PROBE_POD,
        "starting the pod that asks health with headers from Secrets",
    )
}

fn needs_probe_pod(component: &Component) -> bool {
    let requests = component.health.iter().flat_map(|health| &health.http);
    requests
        .flat_map(|request| &request.headers)
        .any(|header| header.value_from.is_some())
}

/// The pod that asks for this process, where these components need it and there is none: a process that has just
/// started has none yet, also in the middle of a bake.
pub(super) fn probe_pod(world: &World, components: &[&Component]) -> Option<Step> {
    let needed = components.iter().any(|component| needs_probe_pod(component));
    let desired = needed
        .then(|| agent::probe_pod(world.settings, world.release(), world.snapshot))
        .flatten()?;
    let mut pods = world.observed.pods.iter();
    match pods.find(|pod| pod.name_any() == desired.name_any()) {
        None => Some(Step::Create(Box::new(Object::Pod(desired)))),
        // One that was evicted asks nobody any more.
        Some(pod) if has_finished(pod) && pod.metadata.deletion_timestamp.is_none() => {
            ObjectRef::of(Kind::Pod, &pod.metadata).map(Step::Delete)
        }
        Some(_) => None,
    }
}

fn existing_probe_pod<'a>(world: &World<'a>) -> Option<&'a Pod> {
    let name = names::probe_pod(world.name(), &world.settings.probe_token_sha256);
    world
        .observed
        .pods
        .iter()
        .find(|pod| pod.name_any() == name)
        .map(AsRef::as_ref)
}

fn probe_pod_is_ready(world: &World) -> bool {
    existing_probe_pod(world).is_some_and(is_ready)
}

fn probe_pod_made(world: &World) -> Option<Timestamp> {
    Some(existing_probe_pod(world)?.metadata.creation_timestamp.as_ref()?.0)
}

fn unhealthy(world: &World, component: &Component, starting: &Wait) -> Option<Verdict> {
    let health = component.health.as_ref()?;
    let pods = world.ready_pods(&component.name, world.name());
    let behind = pods.iter().filter(|pod| {
        world
            .health(pod)
            .is_none_or(|found| found.passes < health.success_threshold)
    });
    // The one that has had the longest time.
    let behind = behind.min_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|made| made.0))?;
    let deployment = world.deployment(&component.name, world.release().spec.revision)?;
    let created = deployment.metadata.creation_timestamp.as_ref()?.0;
    let created = behind
        .metadata
        .creation_timestamp
        .as_ref()
        .map_or(created, |made| made.0.max(created));
    let asking = if needs_probe_pod(component) {
        probe_pod_made(world)
    } else {
        None
    };
    let deadline = asking
        .map_or(created, |asking| asking.max(created))
        .checked_add(patience(component))
        .ok()?;
    let PodHealth {
        proven,
        failures,
        unreachable,
        last_failure,
        passed,
        failed,
        ..
    } = world.health(behind).cloned().unwrap_or_default();
    let (reason, message) = match last_failure {
        // Nobody has asked yet.
        Some(_) if unreachable > 0 && starting.reason == STARTING_PROBE_POD => {
            (starting.reason, starting.message.clone())
        }
        Some(found) if unreachable > 0 => (
            Reason::ProbeUnreachable,
            format!(
                "the operator cannot reach pod {}: {found}; a NetworkPolicy must let it in from the operator's namespace",
                behind.name_any()
            ),
        ),
        Some(found) => (Reason::Unhealthy, format!("pod {}: {found}", behind.name_any())),
        None => (starting.reason, starting.message.clone()),
    };
    if world.now < deadline {
        return Some(Verdict::Wait(Wait::machine(reason, message).until(deadline)));
    }
    // One that was healthy, while the release waits for something else, is ill when it would be in the bake.
    if proven && failures.max(unreachable) < health.failure_threshold {
        return Some(Verdict::Wait(Wait::machine(reason, message)));
    }
    // While the operator was away nobody asked: time alone does not make a version unhealthy.
    let rounds = health.success_threshold.saturating_add(health.failure_threshold);
    if passed.saturating_add(failed) < u64::from(rounds) {
        let round = health.period.signed().max(SignedDuration::from_secs(1));
        let soon = world
            .now
            .saturating_add(round.saturating_mul(i32::try_from(rounds).unwrap_or(i32::MAX)));
        return Some(Verdict::Wait(
            Wait::machine(reason, message).until(soon.unwrap_or(Timestamp::MAX)),
        ));
    }
    let mend = if reason == Reason::Unhealthy {
        format!(
            ": correct what it answers, or health.http of component {}",
            component.name
        )
    } else {
        String::new()
    };
    let reason = if reason == Reason::ProbeUnreachable {
        reason
    } else {
        Reason::Unhealthy
    };
    let moment = crate::conditions::moment(deadline);
    Some(Failure::new(reason, format!("{message}; not healthy by {moment}{mend}")).verdict())
}

/// Met when the components that never run twice have passed to the new version: the old pods are gone, then
/// the new ones available and healthy.
pub(super) fn handed_over(world: &World, status: &mut ReleaseStatus) -> Verdict {
    if happened(status, MilestoneKind::TrafficMoved).is_some() {
        return Verdict::Met;
    }
    let components = world.stopping(status);
    let dropped = dropped(world, status);
    if components.is_empty() && dropped.is_empty() {
        return Verdict::Met;
    }
    if happened(status, MilestoneKind::HandingOver).is_none() {
        if world.suspended() {
            return Verdict::Wait(super::held("before it hands its workers over"));
        }
        return Verdict::Commit(MilestoneKind::HandingOver);
    }
    let names: Vec<&str> = components
        .iter()
        .map(|component| component.name.as_str())
        .chain(dropped)
        .collect();
    if let Some(verdict) = stopped(world, &names, world.name()) {
        return verdict;
    }
    start(world, status, &components)
        .or_else(|| passing(world, &components))
        .unwrap_or(Verdict::Met)
}

/// Components with strategy `Recreate` that the new version no longer has.
fn dropped<'a>(world: &World<'a>, status: &ReleaseStatus) -> Vec<&'a str> {
    let Some(previous) = status
        .previous
        .as_deref()
        .and_then(|name| world.snapshot_of(name))
    else {
        return Vec::new();
    };
    previous
        .components
        .iter()
        .filter(|component| component.strategy == fairway_crds::component::Strategy::Recreate)
        .filter(|component| world.snapshot.component(&component.name).is_none())
        .map(|component| component.name.as_str())
        .collect()
}

/// Ends the pods of these components of every release but `keep`, and waits until they are gone; `None` when
/// they are. A pod counts until the apiserver has forgotten it: one that is still terminating may still work.
pub(super) fn stopped(world: &World, components: &[&str], keep: &str) -> Option<Verdict> {
    let others = world.observed.deployments.iter().filter(|deployment| {
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
        .flat_map(|component| world.pods_of_others(component, keep))
        .next();
    let unseen = others
        .iter()
        .find(|deployment| !has_settled_at_zero(deployment))
        .map(|deployment| deployment.name_any());
    let reason = Reason::StoppingPrevious;
    let wait = match (left, unseen) {
        (Some(pod), _) => {
            let message = format!("{} must be gone before its successor starts", pod.name_any());
            ending(world, pod, Wait::machine(reason, message))
        }
        (None, Some(unseen)) => Wait::machine(
            reason,
            format!("{unseen} must be gone before its successor starts"),
        ),
        (None, None) if steps.is_empty() => return None,
        (None, None) => Wait::machine(reason, "ending the old pods before their successors start"),
    };
    Some(Verdict::Act(steps, wait))
}

/// The wait for a pod to be gone. When it should have ended long ago, a person has to see after its node.
pub(super) fn ending(world: &World, pod: &Pod, wait: Wait) -> Wait {
    let Some(end) = pod.metadata.deletion_timestamp.as_ref().map(|end| end.0) else {
        return wait;
    };
    let unheard = end.saturating_add(UNHEARD).unwrap_or(Timestamp::MAX);
    if world.now < unheard {
        return wait.until(unheard);
    }
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    let message = format!(
        "{}; pod {} should have ended by {} and is still there: see after its node {}; only when that machine is off for good: \
         kubectl delete pod {} -n {} --force",
        wait.message,
        pod.name_any(),
        crate::conditions::moment(end),
        node.unwrap_or("(none)"),
        pod.name_any(),
        world.namespace(),
    );
    Wait::person(wait.reason, message)
}

/// Whether the Deployment controller has seen that nothing should run, and nothing does.
fn has_settled_at_zero(deployment: &Deployment) -> bool {
    let Some(status) = &deployment.status else {
        return false;
    };
    status.observed_generation >= deployment.metadata.generation && status.replicas.unwrap_or_default() == 0
}

/// Ready pods of a component of another release, and how many it should have.
pub(super) fn standing(world: &World, component: &Component, release: &str) -> (usize, usize) {
    let ready = world
        .pods(&component.name, release)
        .filter(|pod| is_ready(pod) && !has_finished(pod))
        .count();
    let desired = world.replicas_before(component, deployment_of(world, &component.name, release));
    (ready, usize::try_from(desired).unwrap_or_default())
}

/// Name of the Deployment of another release's component.
pub(super) fn deployment_of<'a>(world: &World<'a>, component: &str, release: &str) -> Option<&'a Deployment> {
    let revision: i64 = release.rsplit_once('-')?.1.parse().ok()?;
    let name = names::deployment(world.app_name(), component, revision);
    world
        .observed
        .deployments
        .iter()
        .find(|deployment| deployment.name_any() == name)
        .map(AsRef::as_ref)
}
