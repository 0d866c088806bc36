//! Baked: nothing tripped for as long as the App's policy says.

use crate::kubectl;
use crate::message::{moment, sentences};
use crate::observed::PodHealth;
use crate::release::health::comparison::{TRIPPED, Tripped, tripped};
use crate::release::health::{
    is_asked_enough, no_connection, probe_pod::probe_pod, round, time_to_judge, watched,
};
use crate::release::history::happened;
use crate::release::readiness::behind;
use crate::release::unserved;
use crate::release::verdict::{Failure, Verdict, Wait};
use crate::release::view::View;
use crate::retry::Schedule;
use fairway_crds::Reason;
use fairway_crds::component::Component;
use fairway_crds::release::{MilestoneKind, ProbeCounts, ReleaseStatus};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

/// Met when the candidate stayed healthy for as long as `policy.bake.for` says.
pub(in crate::release) fn climb(view: &View, status: &mut ReleaseStatus) -> Verdict {
    let Some(moved) = happened(status, MilestoneKind::TrafficMoved).map(|milestone| milestone.at) else {
        return Verdict::Met;
    };
    let bake = view.today().map(|today| today.bake).unwrap_or_default();
    if bake.is_zero() || happened(status, MilestoneKind::Baked).is_some() {
        return Verdict::Met;
    }
    let tripped = match tripped(view, status) {
        Some(Tripped::Failed(failure)) => return failure.verdict(),
        Some(Tripped::Waits(until, message)) => {
            let schedule = Schedule {
                deadline: None,
                now: view.now,
            };
            status
                .attempts
                .entry(TRIPPED.to_owned())
                .or_insert_with(|| schedule.first());
            Some((until, message.unwrap_or_default()))
        }
        None => {
            status.attempts.remove(TRIPPED);
            None
        }
    };
    let until =
        moved.saturating_add(jiff::SignedDuration::try_from(bake).unwrap_or(jiff::SignedDuration::MAX));
    let until = until.unwrap_or(jiff::Timestamp::MAX);
    let message = sentences([
        format!(
            "{} serves since {} and is watched until {}.",
            view.name(),
            moment(moved),
            moment(until)
        ),
        unserved::announced(&unserved::by_this_release(view)),
        tripped.as_ref().map(|(_, why)| why.clone()).unwrap_or_default(),
        how_to_roll_back(view, status),
    ]);
    if let Some((until, _)) = tripped {
        return Verdict::Wait(Wait::bake(Reason::Baking, message).until(until));
    }
    let components: Vec<_> = view.snapshot.components.iter().collect();
    if let Some(step) = probe_pod(view, &components) {
        return Verdict::Act(vec![step], Wait::bake(Reason::Baking, message).until(until));
    }
    if view.now < until {
        return Verdict::Wait(Wait::bake(Reason::Baking, message).until(until));
    }
    if let Some(wait) =
        watched(view).find_map(|(component, pod)| last_round(view, status, component, pod, until, &message))
    {
        return Verdict::Wait(wait);
    }
    if let Some((message, given)) = behind(view) {
        let limit = until.saturating_add(given).unwrap_or(jiff::Timestamp::MAX);
        let message = format!("{message} The bake ends when all are ready.");
        return if view.now < limit {
            Verdict::Wait(Wait::bake(Reason::Baking, message).until(limit))
        } else {
            Failure::new(Reason::HealthLost, message).verdict()
        };
    }
    status.evidence.probes = Some(counts(view));
    Verdict::Commit(MilestoneKind::Baked)
}

/// The wait while the last round of health requests to a pod has not passed: another one is made after each period, until
/// it is clear that the pod is not unhealthy either. Were the operator away for the whole bake, nothing would have been
/// watched, so this process has to ask at least so often.
fn last_round(
    view: &View,
    status: &ReleaseStatus,
    component: &Component,
    pod: &Pod,
    bake_ends: Timestamp,
    message: &str,
) -> Option<Wait> {
    let health = component.health.as_ref()?;
    let found = view.health(pod).cloned().unwrap_or_default();
    if found.passes > 0 {
        return None;
    }
    if let Some(failure) = found.last_failure.as_ref().filter(|_| found.unreachable > 0) {
        return Some(Wait::user(
            Reason::ProbeUnreachable,
            unreachable(view, status, component, pod, &found, failure),
        ));
    }
    let judged_at = bake_ends
        .saturating_add(time_to_judge(health))
        .unwrap_or(Timestamp::MAX);
    if view.now >= judged_at && is_asked_enough(health, &found) {
        return None;
    }
    let next_round = view.now.saturating_add(round(health)).unwrap_or(Timestamp::MAX);
    Some(Wait::bake(Reason::Baking, message).until(next_round))
}

/// How a user rolls back, where there is a version to roll back to.
fn how_to_roll_back(view: &View, status: &ReleaseStatus) -> String {
    match view.previous(status) {
        Some(_) => format!(
            "To roll back: {}",
            kubectl::rollback(view.namespace(), view.name())
        ),
        None => String::new(),
    }
}

/// The bake is over, but nobody could look: neither healthy nor unhealthy.
fn unreachable(
    view: &View,
    status: &ReleaseStatus,
    component: &Component,
    pod: &Pod,
    health: &PodHealth,
    found: &str,
) -> String {
    sentences([
        format!(
            "{} serves, but its health could not be checked at the end of the bake.",
            view.name()
        ),
        no_connection(component, &pod.name_any(), health, found),
        how_to_roll_back(view, status),
    ])
}

fn counts(view: &View) -> ProbeCounts {
    let (passed, failed) = watched(view)
        .filter_map(|(_, pod)| view.health(pod))
        .fold((0, 0), |(passed, failed), found| {
            (passed + found.passed, failed + found.failed)
        });
    ProbeCounts {
        passed: i64::try_from(passed).unwrap_or(i64::MAX),
        failed: i64::try_from(failed).unwrap_or(i64::MAX),
    }
}
