//! Baked: nothing tripped for as long as the App's policy says.

use crate::kubectl;
use crate::message::moment;
use crate::release::health::{LET_PROBES_IN, probe_pod::probe_pod, tripped, watched};
use crate::release::history::happened;
use crate::release::readiness::behind;
use crate::release::verdict::{Failure, Verdict, Wait};
use crate::release::view::View;
use fairway_crds::Reason;
use fairway_crds::release::{MilestoneKind, ProbeCounts, ReleaseStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

/// Met when the new version stayed healthy for as long as `policy.bake.for` says.
pub(in crate::release) fn climb(view: &View, status: &mut ReleaseStatus) -> Verdict {
    let Some(moved) = happened(status, MilestoneKind::TrafficMoved).map(|milestone| milestone.at) else {
        return Verdict::Met;
    };
    let bake = view.today().map(|today| today.bake).unwrap_or_default();
    if bake.is_zero() || happened(status, MilestoneKind::Baked).is_some() {
        return Verdict::Met;
    }
    if let Some(failure) = tripped(view) {
        return failure.verdict();
    }
    let until =
        moved.saturating_add(jiff::SignedDuration::try_from(bake).unwrap_or(jiff::SignedDuration::MAX));
    let until = until.unwrap_or(jiff::Timestamp::MAX);
    let message = format!(
        "{} serves since {} and is watched until {}. To roll back: {}",
        view.name(),
        moment(moved),
        moment(until),
        kubectl::rollback(view.namespace(), view.name())
    );
    let components: Vec<_> = view.snapshot.components.iter().collect();
    if let Some(step) = probe_pod(view, &components) {
        return Verdict::Act(vec![step], Wait::bake(Reason::Baking, message).until(until));
    }
    if view.now < until {
        return Verdict::Wait(Wait::bake(Reason::Baking, message).until(until));
    }
    // Were the operator away for the whole bake, nothing would have been watched: ask at least once.
    let unasked = watched(view).find(|(component, pod)| {
        component.health.is_some() && view.health(pod).is_none_or(|found| found.passes == 0)
    });
    if let Some((_, pod)) = unasked {
        let blocked = view.health(pod).filter(|found| found.unreachable > 0);
        return Verdict::Wait(match blocked.and_then(|found| found.last_failure.as_ref()) {
            Some(found) => Wait::clock(Reason::ProbeUnreachable, unreachable(view, pod, found)),
            None => Wait::bake(Reason::Baking, message),
        });
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

/// The bake is over, but nobody could look: neither healthy nor unhealthy.
fn unreachable(view: &View, pod: &Pod, found: &str) -> String {
    format!(
        "{release} serves, but the operator cannot reach pod {pod}: {found}. {LET_PROBES_IN} To roll back: {rollback}",
        release = view.name(),
        pod = pod.name_any(),
        rollback = kubectl::rollback(view.namespace(), view.name()),
    )
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
