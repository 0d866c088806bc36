//! The rungs that move users: TrafficMoved, Baked, Retired.

use super::rollout::{ending, scale};
use super::verdict::{Failure, Verdict, Wait};
use super::world::{World, happened};
use crate::build::service;
use crate::snapshot::Snapshot;
use crate::{Object, ObjectRef, Step, labels, names, object::Kind};
use fairway_crds::Reason;
use fairway_crds::component::{Component, Serves};
use fairway_crds::release::{MilestoneKind, ProbeCounts, ReleaseStatus};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::ResourceExt;
use std::collections::BTreeSet;

/// Ended Releases that are kept besides the one that serves and the one before it.
const HISTORY: usize = 10;

/// Time in which endpoints usually follow a selector; a wait that lasts longer is told in status.
const CONVERGENCE: jiff::SignedDuration = jiff::SignedDuration::from_secs(1);

/// Components of a spec that serve, with what they serve.
pub fn serving(snapshot: &Snapshot) -> impl Iterator<Item = (&Component, &Serves)> {
    snapshot
        .components
        .iter()
        .filter_map(|component| Some((component, component.serves.as_ref()?)))
}

/// Met when every Service selects the candidate and its endpoints show only it. An App that serves nothing has no
/// traffic, but an old version that goes: from this record on it is watched, and a newer release waits for its end.
pub fn traffic_moved(world: &World, status: &mut ReleaseStatus) -> Verdict {
    let moved = happened(status, MilestoneKind::TrafficMoved).is_some();
    if serving(world.snapshot).next().is_none() {
        return match status.previous {
            Some(_) if !moved && world.suspended() => {
                Verdict::Wait(super::held("before its predecessor goes"))
            }
            Some(_) if !moved => Verdict::Commit(MilestoneKind::TrafficMoved),
            _ => Verdict::Met,
        };
    }
    if !moved && world.suspended() {
        return Verdict::Wait(super::held("before it moves traffic"));
    }
    if !moved
        && super::backward::selected(world)
        && let Some(failure) = tripped(world)
    {
        // Between the switch and its record it has users already.
        return failure.verdict();
    }
    match direct(world, world.snapshot, world.name()) {
        None if moved => Verdict::Met,
        None => Verdict::Commit(MilestoneKind::TrafficMoved),
        // Another hand took the traffic away and keeps it: what it selects must not be retired.
        Some(verdict) if moved && is_astray(world) => verdict,
        // The selector was changed by another hand during the bake: put it right, the watch goes on.
        Some(Verdict::Wait(_)) if moved => Verdict::Met,
        Some(verdict) => verdict,
    }
}

/// Whether a Service that this release serves selects another one.
fn is_astray(world: &World) -> bool {
    serving(world.snapshot).any(|(_, serves)| {
        let found = world.observed.services.get(&serves.service);
        found.is_some_and(|found| service::selected_release(found) != Some(world.name()))
    })
}

/// Points the Services of a spec at a release and waits until their endpoints show only it; `None` when they
/// do. Never an empty selector, and the caller has made sure that the release has ready pods.
pub fn direct(world: &World, snapshot: &Snapshot, release: &str) -> Option<Verdict> {
    let Some(app) = world.observed.app.as_deref() else {
        let message = format!(
            "App {} is gone, so nobody says where its traffic goes",
            world.app_name()
        );
        return Some(Verdict::Wait(Wait::machine(Reason::WaitingForApp, message)));
    };
    let mut switches = Vec::new();
    for (component, serves) in serving(snapshot) {
        let existing = world.observed.services.get(&serves.service).map(AsRef::as_ref);
        let desired = service::service(app, component, serves, release, existing);
        if let Some(other) = existing.and_then(|existing| service::other_owner(app, existing)) {
            let message = format!(
                "Service {} gets the traffic of App {other}: name another one in serves.service of component {}",
                serves.service, component.name
            );
            return Some(Verdict::Wait(Wait::person(Reason::ServiceRefused, message)));
        }
        if !service::needs_apply(&desired, existing) {
            continue;
        }
        if let Some(conflict) = conflict(world, &desired, existing) {
            return Some(conflict);
        }
        let mut desired = desired;
        // A switch that was decided on an older state of the Service must not undo a newer one.
        desired.metadata.resource_version =
            existing.and_then(|existing| existing.metadata.resource_version.clone());
        desired.annotations_mut().insert(
            labels::SWITCHED_AT.to_owned(),
            super::report::to_milliseconds(world.now).to_string(),
        );
        switches.push(desired);
    }
    let wait = |message: String| Wait::machine(Reason::SwitchingTraffic, message);
    if release == world.name()
        && let Some(steps) = rehearsals(world, &switches)
    {
        let message = "asking the apiserver whether it would take every switch, before the first";
        return Some(Verdict::Act(
            steps,
            wait(message.to_owned()).brief().until(world.now),
        ));
    }
    let steps: Vec<_> = switches
        .into_iter()
        .map(|service| Step::Apply(Box::new(Object::Service(service))))
        .collect();
    if !steps.is_empty() {
        let soon = world
            .now
            .saturating_add(CONVERGENCE)
            .unwrap_or(jiff::Timestamp::MAX);
        return Some(Verdict::Act(
            steps,
            wait(format!("switching traffic to {release}"))
                .brief()
                .until(soon),
        ));
    }
    let (_, lagging) =
        serving(snapshot).find(|(component, serves)| !shows_only(world, component, serves, release))?;
    let wait = wait(format!(
        "waiting until the endpoints of Service {} show only {release}",
        lagging.service
    ));
    let told_from = switched_at(world, &lagging.service)?
        .saturating_add(CONVERGENCE)
        .unwrap_or(jiff::Timestamp::MAX);
    Some(Verdict::Wait(if world.now < told_from {
        wait.brief().until(told_from)
    } else {
        wait
    }))
}

/// Dry runs of the switches that have not passed one, where there are several: with the second refused, half of the
/// users would be left on each side. On the way back nobody asks first, since one side is ill.
fn rehearsals(world: &World, switches: &[Service]) -> Option<Vec<Step>> {
    if switches.len() < 2 {
        return None;
    }
    let steps: Vec<_> = switches
        .iter()
        .filter_map(|service| world.rehearsal(Object::Service(service.clone())))
        .collect();
    (!steps.is_empty()).then_some(steps)
}

/// When Fairway last pointed a Service somewhere else; long ago when it does not say.
fn switched_at(world: &World, service: &str) -> Option<jiff::Timestamp> {
    let found = world.observed.services.get(service)?;
    let at = found
        .annotations()
        .get(labels::SWITCHED_AT)
        .and_then(|at| at.parse().ok());
    Some(at.unwrap_or(jiff::Timestamp::UNIX_EPOCH))
}

fn conflict(world: &World, desired: &Service, existing: Option<&Service>) -> Option<Verdict> {
    let name = desired.name_any();
    let refusal = world.refusal(Kind::Service, &desired.metadata)?;
    let selector = existing.and_then(|existing| existing.spec.as_ref()?.selector.as_ref());
    if refusal.conflict && selector.is_none_or(|selector| selector.is_empty()) {
        // Whoever set it has removed it: nobody is selected, so this is not left for later.
        return None;
    }
    let mend = if refusal.conflict {
        format!(
            "its selector is set by another manager: {}; remove spec.selector from the Service's manifest, so that Fairway can switch it",
            refusal.message
        )
    } else {
        refusal.message.clone()
    };
    Some(Verdict::Wait(Wait::person(
        Reason::ServiceRefused,
        format!("Service {name} cannot be switched: {mend}"),
    )))
}

/// Whether the Service's endpoints are pods of that release, at least one of them ready.
fn shows_only(world: &World, component: &Component, serves: &Serves, release: &str) -> bool {
    let ours: Vec<String> = world
        .pods(&component.name, release)
        .map(|pod| pod.name_any())
        .collect();
    let mut ready = false;
    let slices = world.observed.endpoint_slices.iter();
    for slice in
        slices.filter(|slice| slice.labels().get("kubernetes.io/service-name") == Some(&serves.service))
    {
        for endpoint in &slice.endpoints {
            let name = endpoint
                .target_ref
                .as_ref()
                .and_then(|target| target.name.as_ref());
            if !name.is_some_and(|name| ours.contains(name)) {
                return false;
            }
            ready |= endpoint
                .conditions
                .as_ref()
                .and_then(|conditions| conditions.ready)
                .unwrap_or(true);
        }
    }
    ready
}

/// Met when nothing tripped for as long as `policy.bake.for` says.
pub fn baked(world: &World, status: &mut ReleaseStatus) -> Verdict {
    let Some(moved) = happened(status, MilestoneKind::TrafficMoved).map(|milestone| milestone.at) else {
        return Verdict::Met;
    };
    let bake = world.today().map(|today| today.bake).unwrap_or_default();
    if bake.is_zero() || happened(status, MilestoneKind::Baked).is_some() {
        return Verdict::Met;
    }
    if let Some(failure) = tripped(world) {
        return failure.verdict();
    }
    let until =
        moved.saturating_add(jiff::SignedDuration::try_from(bake).unwrap_or(jiff::SignedDuration::MAX));
    let until = until.unwrap_or(jiff::Timestamp::MAX);
    let message = format!(
        "{} serves since {} and is watched until {}; to go back: kubectl annotate release {} fairway.dev/rollback=now",
        world.name(),
        crate::conditions::moment(moved),
        crate::conditions::moment(until),
        world.name()
    );
    let components: Vec<_> = world.snapshot.components.iter().collect();
    if let Some(step) = super::rollout::probe_pod(world, &components) {
        return Verdict::Act(vec![step], Wait::clock(Reason::Baking, message).until(until));
    }
    if world.now < until {
        return Verdict::Wait(Wait::clock(Reason::Baking, message).until(until));
    }
    // Were the operator away for the whole bake, nothing would have been watched: ask at least once.
    let unasked = watched(world).find(|(component, pod)| {
        component.health.is_some() && world.health(pod).is_none_or(|found| found.passes == 0)
    });
    if let Some((_, pod)) = unasked {
        let blocked = world.health(pod).filter(|found| found.unreachable > 0);
        return Verdict::Wait(match blocked.and_then(|found| found.last_failure.as_ref()) {
            Some(found) => Wait::clock(Reason::ProbeUnreachable, unreachable(world, pod, found)),
            None => Wait::clock(Reason::Baking, message),
        });
    }
    if let Some((message, given)) = super::rollout::behind(world) {
        let limit = until.saturating_add(given).unwrap_or(jiff::Timestamp::MAX);
        let message = format!("{message}; the old version goes when all are");
        return if world.now < limit {
            Verdict::Wait(Wait::clock(Reason::Baking, message).until(limit))
        } else {
            Failure::new(Reason::HealthLost, message).verdict()
        };
    }
    status.evidence.probes = Some(counts(world));
    Verdict::Commit(MilestoneKind::Baked)
}

/// The bake is over, but nobody could look: neither healthy nor unhealthy.
fn unreachable(world: &World, pod: &Pod, found: &str) -> String {
    format!(
        "{release} serves, but the operator cannot reach pod {pod}: {found}; a NetworkPolicy must let it in from the operator's namespace; to go back: kubectl annotate release {release} fairway.dev/rollback=now",
        release = world.name(),
        pod = pod.name_any(),
    )
}

fn watched<'a>(world: &World<'a>) -> impl Iterator<Item = (&'a Component, &'a Pod)> {
    let world = *world;
    world.snapshot.components.iter().flat_map(move |component| {
        world
            .ready_pods(&component.name, world.name())
            .into_iter()
            .map(move |pod| (component, pod.as_ref()))
    })
}

/// Why the candidate must not keep the traffic: enough failures in a row on a ready pod, or no ready pod left.
fn tripped(world: &World) -> Option<Failure> {
    let unhealthy = watched(world).find_map(|(component, pod)| {
        let limit = component.health.as_ref()?.failure_threshold;
        let found = world.health(pod).filter(|found| found.failures >= limit)?;
        let what = found
            .last_failure
            .clone()
            .unwrap_or_else(|| "its health requests failed".to_owned());
        Some(format!(
            "pod {} failed {} health checks in a row: {what}",
            pod.name_any(),
            limit
        ))
    });
    let empty = serving(world.snapshot)
        .find(|(component, _)| world.ready_pods(&component.name, world.name()).is_empty())
        .map(|(component, _)| {
            let trouble =
                super::rollout::trouble(None, world.pods(&component.name, world.name()).map(AsRef::as_ref));
            match trouble {
                Some(trouble) => format!("no pod of {} is ready any more: {trouble}", component.name),
                None => format!("no pod of {} is ready any more", component.name),
            }
        });
    unhealthy
        .or(empty)
        .map(|message| Failure::new(Reason::HealthLost, message))
}

fn counts(world: &World) -> ProbeCounts {
    let (passed, failed) = watched(world)
        .filter_map(|(_, pod)| world.health(pod))
        .fold((0, 0), |(passed, failed), found| {
            (passed + found.passed, failed + found.failed)
        });
    ProbeCounts {
        passed: i64::try_from(passed).unwrap_or(i64::MAX),
        failed: i64::try_from(failed).unwrap_or(i64::MAX),
    }
}

/// Met when the old pods have drained and are gone, and what only this release needed is removed.
pub fn retired(world: &World, status: &mut ReleaseStatus) -> Verdict {
    let mut steps = retirements(world);
    steps.extend(leftovers(world));
    let left = world.observed.pods.iter().find(|pod| {
        pod.labels().contains_key(labels::COMPONENT)
            && pod
                .labels()
                .get(labels::RELEASE)
                .is_some_and(|release| release != world.name())
            && !super::world::has_finished(pod)
    });
    let waits = !super::verbs::waits_no_longer(world, status);
    let left = left.filter(|_| waits);
    steps.retain(|step| waits || world.refused(step).is_none());
    if steps.is_empty() && left.is_none() {
        return Verdict::Met;
    }
    let wait = Wait::machine(Reason::RetiringPrevious, "the old pods drain and end");
    Verdict::Act(steps, left.map_or(wait.clone(), |pod| ending(world, pod, wait)))
}

/// What ends the pods of every other release, but for those that a Service selects all the same.
pub fn retirements(world: &World) -> Vec<Step> {
    let others = world.observed.deployments.iter().filter(|deployment| {
        deployment
            .labels()
            .get(labels::RELEASE)
            .is_some_and(|release| release != world.name())
    });
    let others = others.filter(|deployment| {
        let mut services = world.observed.services.values();
        !services.any(|service| service::selects(service, deployment.labels()))
    });
    others.filter_map(|deployment| scale(deployment, 0)).collect()
}

/// Agent pods and Jobs of this release that have done their work.
pub fn leftovers(world: &World) -> Vec<Step> {
    let mine = |labels_of: &std::collections::BTreeMap<String, String>| {
        labels_of
            .get(labels::RELEASE)
            .is_some_and(|release| release == world.name())
            && labels_of
                .get(labels::WORK)
                .is_some_and(|work| ["pin", "preflight", "probe"].contains(&work.as_str()))
    };
    let jobs = world
        .observed
        .jobs
        .iter()
        .filter(|job| mine(job.labels()) && job.metadata.deletion_timestamp.is_none());
    let jobs = jobs.filter_map(|job| ObjectRef::of(Kind::Job, &job.metadata));
    let pods = world.observed.pods.iter().filter(|pod| {
        // A Job's pods go with the Job.
        mine(pod.labels())
            && pod.metadata.deletion_timestamp.is_none()
            && !pod.labels().contains_key("job-name")
    });
    let pods = pods.filter_map(|pod| ObjectRef::of(Kind::Pod, &pod.metadata));
    jobs.chain(pods).map(Step::Delete).collect()
}

/// Ended Releases beyond the history that is kept, and the snapshots of those that are gone. What they own goes
/// with them; Backups stay.
pub fn pruned(world: &World, status: &ReleaseStatus) -> Vec<Step> {
    let mut ended: Vec<_> = world
        .observed
        .siblings
        .iter()
        .filter(|release| super::world::has_ended(release) && Some(release.name_any()) != status.previous)
        .filter(|release| release.spec.revision < world.release().spec.revision)
        .filter(|release| release.metadata.deletion_timestamp.is_none())
        .collect();
    ended.sort_by_key(|release| std::cmp::Reverse(release.spec.revision));
    let old: Vec<_> = ended.into_iter().skip(HISTORY).collect();
    let kept: BTreeSet<_> = world
        .observed
        .siblings
        .iter()
        .filter(|release| !old.contains(release))
        .map(|release| release.name_any())
        .collect();
    let specs = world.observed.revisions.iter().filter(|revision| {
        // A newer one is made before its Release.
        let number = names::revision(world.app_name(), &revision.name);
        number.is_some_and(|number| number < world.release().spec.revision) && !kept.contains(&revision.name)
    });
    old.iter()
        .filter_map(|release| ObjectRef::of(Kind::Release, &release.metadata))
        .chain(specs.cloned())
        .map(Step::Delete)
        .collect()
}
