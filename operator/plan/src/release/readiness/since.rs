//! From when on a component's pods have had the time that their health is given.

use crate::readings::{is_ready, ready_condition};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;

/// From when on the pods that are missing have had their time: a release may wait for hours between two rungs, and a
/// pod that is replaced or added then is given as long as the first ones were. Not known while the Deployment's
/// controller is still to make them, and is not kept from it.
///
/// While too few are available, what counts is when that began: pods that fail and are replaced over and over do not
/// start again each time.
pub(super) fn unready_since<'a>(
    deployment: &Deployment,
    desired: usize,
    pods: impl Iterator<Item = &'a Pod>,
) -> Option<Timestamp> {
    let created = deployment.metadata.creation_timestamp.as_ref()?.0;
    let status = deployment.status.as_ref();
    let conditions = status
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    let found = |kind: &str| conditions.iter().find(|condition| condition.type_ == kind);
    let available = found("Available");
    let Some(available) = available else {
        return Some(created);
    };
    if available.status != "True" {
        let since = available.last_transition_time.as_ref().map(|since| since.0);
        return Some(since.map_or(created, |since| since.max(created)));
    }
    let pods: Vec<_> = pods
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
        .collect();
    if pods.len() < desired {
        // A quota or a policy refuses some of them, while enough are there for it to be available.
        let refused = found("ReplicaFailure").filter(|condition| condition.status == "True");
        return Some(refused?.last_transition_time.as_ref()?.0.max(created));
    }
    let unready = pods.into_iter().filter(|pod| !is_ready(pod));
    unready.filter_map(not_ready_since).max()
}

/// Since when a pod is not ready; since it was created when it never was.
fn not_ready_since(pod: &Pod) -> Option<Timestamp> {
    let ready = ready_condition(pod);
    let since = ready.and_then(|ready| ready.last_transition_time.as_ref());
    Some(since.or(pod.metadata.creation_timestamp.as_ref())?.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn at(minute: i64) -> Value {
        json!(format!("2026-01-01T00:{minute:02}:00Z"))
    }

    fn pod(made: i64, ready: &str, since: i64) -> Value {
        json!({
            "metadata": {"creationTimestamp": at(made)},
            "status": {"conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": at(since)}]},
        })
    }

    fn available(status: &str, since: i64) -> Value {
        json!([{"type": "Available", "status": status, "lastTransitionTime": at(since)}])
    }

    #[rstest]
    #[case::nobody_has_looked_at_it(json!([]), vec![], Some(0))]
    #[case::it_was_never_available(available("False", 0), vec![pod(7, "False", 7)], Some(0))]
    #[case::its_pods_went_away_later(available("False", 30), vec![pod(0, "True", 1)], Some(30))]
    #[case::pods_fail_and_are_replaced(available("False", 30), vec![pod(39, "False", 39)], Some(30))]
    #[case::one_of_several_was_replaced(available("True", 1), vec![pod(0, "True", 1), pod(20, "False", 20)], Some(20))]
    #[case::one_is_ill(available("True", 1), vec![pod(0, "True", 1), pod(0, "False", 25)], Some(25))]
    #[case::a_quota_has_room_for_some(json!([
        {"type": "Available", "status": "True", "lastTransitionTime": at(1)},
        {"type": "ReplicaFailure", "status": "True", "lastTransitionTime": at(2)},
    ]), vec![pod(0, "True", 1)], Some(2))]
    #[case::its_controller_has_not_made_them(available("True", 1), vec![pod(0, "True", 1)], None)]
    fn the_time_of_missing_pods_counts_from_when_they_went_missing(
        #[case] conditions: Value,
        #[case] pods: Vec<Value>,
        #[case] minute: Option<i64>,
    ) {
        let deployment = json!({
            "metadata": {"creationTimestamp": at(0)},
            "spec": {"selector": {}, "template": {}},
            "status": {"conditions": conditions},
        });
        let deployment: Deployment = serde_json::from_value(deployment).unwrap();
        let pods: Vec<Pod> = pods
            .into_iter()
            .map(|pod| serde_json::from_value(pod).unwrap())
            .collect();
        let since = unready_since(&deployment, 2, pods.iter());
        let expected = minute.map(|minute| at(minute).as_str().unwrap().parse::<Timestamp>().unwrap());
        assert_eq!(since, expected);
    }
}
