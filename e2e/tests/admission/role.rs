//! The operator may do what it needs and nothing else; above all it has no verb on Secrets.

use super::client;
use anyhow::{Context as _, Result, ensure};
use fairway_e2e::install::OPERATOR_NAMESPACE;
use fairway_e2e::paths::repository;
use fairway_e2e::target::Target;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::rbac::v1::PolicyRule;
use kube::api::{Api, PostParams};
use rstest::rstest;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Every verb that Kubernetes knows for objects.
const VERBS: [&str; 8] = [
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
];

#[rstest]
#[case::secrets("", "secrets", "")]
#[case::logs("", "pods", "log")]
#[case::exec("", "pods", "exec")]
#[case::attach("", "pods", "attach")]
#[case::port_forward("", "pods", "portforward")]
#[case::ephemeral_containers("", "pods", "ephemeralcontainers")]
#[case::tokens("", "serviceaccounts", "token")]
#[case::config_maps("", "configmaps", "")]
#[case::nodes("", "nodes", "")]
#[case::cluster_roles("rbac.authorization.k8s.io", "clusterroles", "")]
#[case::role_bindings("rbac.authorization.k8s.io", "rolebindings", "")]
#[case::its_own_kinds("apiextensions.k8s.io", "customresourcedefinitions", "")]
#[case::admission("admissionregistration.k8s.io", "validatingadmissionpolicies", "")]
#[tokio::test]
async fn the_apiserver_says_no(
    #[case] group: &str,
    #[case] resource: &str,
    #[case] subresource: &str,
) -> Result<()> {
    let reviews = Api::<SubjectAccessReview>::all(client().await?);
    for verb in VERBS {
        for namespace in ["", OPERATOR_NAMESPACE, "kube-system", "default"] {
            let review = review(verb, group, resource, subresource, namespace);
            let answer = reviews.create(&PostParams::default(), &review).await?;
            let allowed = answer.status.is_none_or(|status| status.allowed);
            assert!(
                !allowed,
                "the operator may {verb} {resource}/{subresource} in {namespace:?}"
            );
        }
    }
    Ok(())
}

/// Without this, the test above would pass for an account that nobody has bound.
#[tokio::test]
async fn the_apiserver_says_yes_to_what_the_operator_does() -> Result<()> {
    let reviews = Api::<SubjectAccessReview>::all(client().await?);
    for (verb, group, resource, subresource) in [
        ("list", "fairway.dev", "apps", ""),
        ("update", "fairway.dev", "apps", "status"),
        ("create", "batch", "jobs", ""),
        ("patch", "apps", "deployments", ""),
    ] {
        let answer = reviews
            .create(
                &PostParams::default(),
                &review(verb, group, resource, subresource, "default"),
            )
            .await?;
        assert!(
            answer.status.is_some_and(|status| status.allowed),
            "{verb} {resource}"
        );
    }
    Ok(())
}

fn review(
    verb: &str,
    group: &str,
    resource: &str,
    subresource: &str,
    namespace: &str,
) -> SubjectAccessReview {
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(format!("system:serviceaccount:{OPERATOR_NAMESPACE}:fairway")),
            groups: Some(vec![
                "system:serviceaccounts".into(),
                "system:authenticated".into(),
            ]),
            resource_attributes: Some(ResourceAttributes {
                verb: given(verb),
                group: given(group),
                resource: given(resource),
                subresource: given(subresource),
                namespace: given(namespace),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    }
}

/// What the chart gives, whole: widening the role is a change of this table too.
#[rstest]
#[case::for_all_namespaces(&[])]
#[case::for_one_namespace(&["--set", "watchNamespace=shop"])]
fn the_rendered_role_is_this_and_no_more(#[case] values: &[&str]) -> Result<()> {
    let expected: BTreeMap<String, BTreeSet<String>> = [
        ("fairway.dev/apps", "get list watch"),
        ("fairway.dev/releases", "get list watch create patch delete"),
        ("fairway.dev/migrations", "get list watch create"),
        ("fairway.dev/backups", "get list watch create"),
        ("fairway.dev/apps/status", "update"),
        ("fairway.dev/releases/status", "update"),
        ("fairway.dev/migrations/status", "update"),
        ("fairway.dev/backups/status", "update"),
        ("fairway.dev/apps/finalizers", "update"),
        ("fairway.dev/releases/finalizers", "update"),
        ("fairway.dev/migrations/finalizers", "update"),
        ("fairway.dev/backups/finalizers", "update"),
        ("apps/deployments", "get list watch create patch"),
        ("apps/controllerrevisions", "get list watch create delete"),
        ("batch/jobs", "get list watch create delete"),
        ("/pods", "get list watch create delete"),
        ("/services", "get list watch create patch"),
        ("/persistentvolumeclaims", "get"),
        ("discovery.k8s.io/endpointslices", "get list watch"),
        ("events.k8s.io/events", "create"),
        ("coordination.k8s.io/leases", "get list watch create patch update"),
    ]
    .into_iter()
    .map(|(resource, verbs)| {
        (
            resource.to_owned(),
            verbs.split(' ').map(ToOwned::to_owned).collect(),
        )
    })
    .collect();
    assert_eq!(granted(&rendered(values)?)?, expected);
    Ok(())
}

/// Verbs by group and resource that the roles bound to the operator's account give.
fn granted(objects: &[Value]) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let bound: BTreeSet<_> = objects
        .iter()
        .filter(|object| {
            object["kind"]
                .as_str()
                .is_some_and(|kind| kind.ends_with("Binding") && kind.contains("Role"))
        })
        .map(|binding| (&binding["roleRef"]["kind"], &binding["roleRef"]["name"]))
        .map(|(kind, name)| {
            (
                kind.as_str().unwrap_or_default(),
                name.as_str().unwrap_or_default(),
            )
        })
        .collect();
    let mut granted = BTreeMap::<String, BTreeSet<String>>::new();
    for role in objects {
        let name = (
            role["kind"].as_str().unwrap_or_default(),
            role["metadata"]["name"].as_str().unwrap_or_default(),
        );
        if !bound.contains(&name) {
            continue;
        }
        let rules: Vec<PolicyRule> = serde_json::from_value(role["rules"].clone())?;
        for rule in rules {
            for group in rule.api_groups.iter().flatten() {
                for resource in rule.resources.iter().flatten() {
                    granted
                        .entry(format!("{group}/{resource}"))
                        .or_default()
                        .extend(rule.verbs.clone());
                }
            }
        }
    }
    Ok(granted)
}

/// The objects that Helm makes of the chart.
pub(crate) fn rendered(values: &[&str]) -> Result<Vec<Value>> {
    rendered_as("fairway", values)
}

/// The objects that Helm makes of the chart for a Helm release of this name.
pub(crate) fn rendered_as(name: &str, values: &[&str]) -> Result<Vec<Value>> {
    let target = Target::from_env()?;
    let output = Command::new(target.paths.binary("helm"))
        .args([
            "template",
            name,
            "--namespace",
            OPERATOR_NAMESPACE,
            "--kube-version",
            "1.34.0",
            "--set",
            "image.repository=registry.example.com/fairway",
        ])
        .arg(repository().join("charts/fairway"))
        .args(values)
        .output()
        .context("run Helm, which `make cluster-binaries` builds")?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout)?;
    let objects: Vec<Value> = serde_saphyr::from_multiple(&text).context("parse what Helm rendered")?;
    Ok(objects.into_iter().filter(|object| object.is_object()).collect())
}
