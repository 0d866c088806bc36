//! Whether the quotas of the namespace leave room for the candidate's pods beside those of the previous version. A dry run asks
//! for one pod, and each would pass alone.
//!
//! What is counted is the least that the pods take, so that room is never said to be lacking where it is not: without defaults of
//! a LimitRange, without quotas with scopes other than `NotTerminating`, and without components whose previous pods are gone
//! before they start. What is missed that way, the API server says when the pods are created.
//! <https://kubernetes.io/docs/concepts/policy/resource-quotas/>.

use super::verdict::{Verdict, Wait};
use super::view::View;
use crate::labels;
use crate::readings::has_finished;
use fairway_crds::Reason;
use fairway_crds::component::Component;
use fairway_crds::release::ReleaseStatus;
use k8s_openapi::api::core::v1::{Pod, ResourceQuota};
use kube::ResourceExt;
use serde_json::Value;
use std::sync::Arc;

/// The scope of pods that run for as long as they like, as those of Deployments do.
const NOT_TERMINATING: &str = "NotTerminating";

/// The wait for room in a quota; `None` when there is enough, as far as can be known, or once pods of this release are there:
/// they are counted, and those of the agent end.
pub(super) fn exceeded(view: &View, status: &ReleaseStatus) -> Option<Verdict> {
    let is_own = |pod: &Arc<Pod>| {
        let release = pod.labels().get(labels::RELEASE);
        release.is_some_and(|release| release == view.name()) && !has_finished(pod)
    };
    if view.observed.pods.iter().any(is_own) {
        return None;
    }
    let overlapping = view.overlapping(status);
    let needed = |resource: &str| {
        let by_component = overlapping.iter().map(|component| {
            let pods = u64::try_from(view.replicas(component)).unwrap_or_default();
            needed_by_pod(component, resource).times(pods)
        });
        by_component.fold(Amount::default(), Amount::plus)
    };
    let quotas = view
        .observed
        .quotas
        .iter()
        .filter(|quota| covers_candidate_pods(quota));
    let mut limits = quotas.flat_map(|quota| limits_of(quota).map(move |limit| (quota, limit)));
    let message = limits.find_map(|(quota, limit)| {
        let needed = needed(limit.resource);
        let is_exceeded = needed > Amount::default() && limit.used.plus(needed) > limit.hard;
        is_exceeded.then(|| message(view, quota, &limit, needed))
    })?;
    Some(Verdict::Wait(Wait::user(Reason::QuotaExceeded, message)))
}

fn message(view: &View, quota: &ResourceQuota, limit: &Limit<'_>, needed: Amount) -> String {
    format!(
        "ResourceQuota {quota} has no room for the pods of Release {release} beside those that run ({resource}: {used} of \
         {hard} in use, {needed} more needed). Raise the quota, or lower replicas or requests in the App. The release then \
         continues by itself.",
        quota = quota.name_any(),
        release = view.name(),
        resource = limit.resource,
        used = limit.used.shown(limit.resource),
        hard = limit.hard.shown(limit.resource),
        needed = needed.shown(limit.resource),
    )
}

fn covers_candidate_pods(quota: &ResourceQuota) -> bool {
    let Some(spec) = &quota.spec else { return false };
    let mut scopes = spec.scopes.iter().flatten();
    spec.scope_selector.is_none() && scopes.all(|scope| scope == NOT_TERMINATING)
}

/// How much of a resource may be used in a namespace, and is.
struct Limit<'a> {
    resource: &'a str,
    hard: Amount,
    used: Amount,
}

fn limits_of(quota: &ResourceQuota) -> impl Iterator<Item = Limit<'_>> {
    let hard = quota.spec.iter().flat_map(|spec| spec.hard.iter().flatten());
    hard.filter_map(|(resource, hard)| {
        let used = quota.status.as_ref().and_then(|status| status.used.as_ref());
        let used = used
            .and_then(|used| used.get(resource))
            .and_then(|used| Amount::parse(&used.0));
        Some(Limit {
            resource,
            hard: Amount::parse(&hard.0)?,
            used: used.unwrap_or_default(),
        })
    })
}

/// What one pod of a component takes of a resource that a quota names.
fn needed_by_pod(component: &Component, resource: &str) -> Amount {
    let pod = &component.template["spec"];
    match resource.split_once('.') {
        Some(("requests", name)) => needed_by_containers(pod, "requests", name),
        Some(("limits", name)) => needed_by_containers(pod, "limits", name),
        _ => match resource {
            "pods" | "count/pods" => Amount::ONE,
            "cpu" | "memory" | "ephemeral-storage" => needed_by_containers(pod, "requests", resource),
            _ => Amount::default(),
        },
    }
}

/// The sum over a pod's containers, or what an init container takes alone if that is more:
/// <https://kubernetes.io/docs/concepts/workloads/pods/init-containers/#resource-sharing-within-containers>. A quota counts
/// either `requests` or `limits`.
fn needed_by_containers(pod: &Value, counted: &str, resource: &str) -> Amount {
    let stated = |holder: &Value, counted: &str| Amount::from_json(&holder["resources"][counted][resource]);
    if let Some(of_whole_pod) = stated(pod, counted) {
        return of_whole_pod;
    }
    // Without a request, the limit is one.
    let of_container = |container: &Value| stated(container, counted).or_else(|| stated(container, "limits"));
    let containers = |member: &str| pod[member].as_array().into_iter().flatten();
    let (sidecars, init_containers): (Vec<_>, Vec<_>) =
        containers("initContainers").partition(|container| container["restartPolicy"] == "Always");
    let together = containers("containers").chain(sidecars).filter_map(of_container);
    let together = together.fold(Amount::default(), Amount::plus);
    let one_by_one = init_containers.into_iter().filter_map(of_container);
    one_by_one.fold(together, Amount::max)
}

/// An amount of a resource in billionths, as Kubernetes counts it: sums are exact, and anybody may write one that is too large.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Amount(u128);

impl Amount {
    const ONE: Self = Self(BILLION);

    /// A quantity of a template, which may be a number.
    fn from_json(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => Self::parse(text),
            Value::Number(number) => Self::parse(&number.to_string()),
            _ => None,
        }
    }

    /// A quantity, if it is one and not negative; one that is too large is as much as there can be. (`kube_quantity` reads floats, and
    /// its sums panic when they are too large.)
    /// <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>.
    fn parse(text: &str) -> Option<Self> {
        let suffix = |(suffix, factor): &(&str, u128)| Some((text.strip_suffix(suffix)?, *factor));
        let (number, factor) = SUFFIXES.iter().find_map(suffix).unwrap_or((text, BILLION));
        let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
        let exponent: i32 = exponent.parse().ok()?;
        let mantissa = mantissa.strip_prefix('+').unwrap_or(mantissa);
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = [whole, fraction].concat();
        if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
            return None;
        }
        // Only digits: too many of them for a number.
        let digits = digits.parse().unwrap_or(u128::MAX);
        let scale = exponent.saturating_sub(i32::try_from(fraction.len()).unwrap_or(i32::MAX));
        let power = 10_u128.checked_pow(scale.unsigned_abs());
        let amount = digits.saturating_mul(factor);
        Some(Self(match (scale < 0, power) {
            (true, power) => power.map_or(0, |power| amount / power),
            (false, power) => amount.saturating_mul(power.unwrap_or(u128::MAX)),
        }))
    }

    fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    fn times(self, count: u64) -> Self {
        Self(self.0.saturating_mul(count.into()))
    }

    /// As users write it: memory in Mi, what has parts in thousandths.
    fn shown(self, resource: &str) -> String {
        if resource.ends_with("memory") || resource.ends_with("storage") {
            return format!("{}Mi", self.0.div_ceil(BILLION << 20));
        }
        if self.0.is_multiple_of(BILLION) {
            return (self.0 / BILLION).to_string();
        }
        format!("{}m", self.0.div_ceil(BILLION / 1000))
    }
}

const BILLION: u128 = 1_000_000_000;

/// Suffixes with what they stand for, in billionths.
const SUFFIXES: [(&str, u128); 15] = [
    ("Ki", BILLION << 10),
    ("Mi", BILLION << 20),
    ("Gi", BILLION << 30),
    ("Ti", BILLION << 40),
    ("Pi", BILLION << 50),
    ("Ei", BILLION << 60),
    ("n", 1),
    ("u", 1_000),
    ("m", 1_000_000),
    ("k", BILLION * 1_000),
    ("M", BILLION * 1_000_000),
    ("G", BILLION * BILLION),
    ("T", BILLION * BILLION * 1_000),
    ("P", BILLION * BILLION * 1_000_000),
    ("E", BILLION * BILLION * BILLION),
];

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case("2", Some(2_000_000_000))]
    #[case("250m", Some(250_000_000))]
    #[case("1.5Gi", Some(1_610_612_736_000_000_000))]
    #[case("1e3", Some(1_000_000_000_000))]
    #[case("1E3", Some(1_000_000_000_000))]
    #[case("2M", Some(2_000_000_000_000_000))]
    #[case("100000000001", Some(100_000_000_001_000_000_000))]
    #[case("2E", Some(2_000_000_000_000_000_000_000_000_000))]
    #[case("1e300", Some(u128::MAX))]
    #[case("1e-300", Some(0))]
    #[case("+.5", Some(500_000_000))]
    #[case("99999999999999999999999999999999999999999", Some(u128::MAX))]
    #[case("", None)]
    #[case("Ki", None)]
    #[case("-1", None)]
    #[case("inf", None)]
    #[case("1e99999999999", None)]
    #[case("1e", None)]
    #[case(".", None)]
    fn quantities_are_amounts(#[case] text: &str, #[case] expected: Option<u128>) {
        assert_eq!(Amount::parse(text), expected.map(Amount));
    }

    #[test]
    fn what_fits_exactly_fits() {
        let amount = |text: &str| Amount::parse(text).unwrap();
        assert!(amount("300m").plus(amount("100m").times(3)) <= amount("600m"));
        assert!(amount("1e300").plus(amount("1e300")) <= amount("1e300"));
    }

    #[rstest]
    // A limit without a request is a request, too.
    #[case("requests.cpu", "2")]
    #[case("cpu", "2")]
    #[case("requests.nvidia.com/gpu", "3")]
    #[case("limits.cpu", "2")]
    #[case("requests.memory", "1Gi")]
    #[case("pods", "1")]
    #[case("count/pods", "1")]
    #[case("persistentvolumeclaims", "0")]
    fn a_pod_takes_the_sum_of_its_containers_or_what_one_takes_before(
        #[case] resource: &str,
        #[case] expected: &str,
    ) {
        let component: Component = serde_json::from_value(json!({"name": "web", "template": {"spec": {
            "initContainers": [
                {"name": "proxy", "restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}},
                {"name": "load", "resources": {"requests": {"memory": "1Gi"}, "limits": {"cpu": 2}}},
            ],
            "containers": [
                {"name": "web", "resources": {"requests": {"cpu": "200m", "memory": "64Mi"}}},
                {"name": "log", "resources": {"limits": {"cpu": "100m", "nvidia.com/gpu": 3}}},
            ],
        }}}))
        .unwrap();
        assert_eq!(
            needed_by_pod(&component, resource),
            Amount::parse(expected).unwrap()
        );
    }

    #[rstest]
    #[case("requests.cpu", "250m", "250m")]
    #[case("limits.cpu", "2", "2")]
    #[case("memory", "1.5Gi", "1536Mi")]
    #[case("pods", "3", "3")]
    fn amounts_are_shown_as_users_write_them(
        #[case] resource: &str,
        #[case] amount: &str,
        #[case] expected: &str,
    ) {
        assert_eq!(Amount::parse(amount).unwrap().shown(resource), expected);
    }
}
