//! The operator may do what it needs and nothing else; above all it has no verb on Secrets.

use super::client;
use anyhow::{Context as _, Result, ensure};
use fairway_e2e::install::OPERATOR_NAMESPACE;
use fairway_e2e::operator;
use fairway_e2e::paths::repository;
use fairway_e2e::rbac::{self, Access, is_allowed};
use fairway_e2e::target::Target;
use k8s_openapi::api::rbac::v1::PolicyRule;
use kube::Client;
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
    let client = client().await?;
    let resource = match subresource {
        "" => resource.to_owned(),
        subresource => format!("{resource}/{subresource}"),
    };
    for verb in VERBS {
        for namespace in ["", OPERATOR_NAMESPACE, "kube-system", "default"] {
            let allowed = operator_may(&client, verb, group, &resource, namespace).await?;
            assert!(!allowed, "the operator may {verb} {resource} in {namespace:?}");
        }
    }
    Ok(())
}

/// Without this, the test above would pass for an account that nobody has bound.
#[tokio::test]
async fn the_apiserver_says_yes_to_what_the_operator_does() -> Result<()> {
    let client = client().await?;
    for (verb, group, resource) in [
        ("list", "fairway.dev", "apps"),
        ("update", "fairway.dev", "apps/status"),
        ("create", "batch", "jobs"),
        ("patch", "apps", "deployments"),
    ] {
        let allowed = operator_may(&client, verb, group, resource, "default").await?;
        assert!(allowed, "{verb} {resource}");
    }
    Ok(())
}

async fn operator_may(
    client: &Client,
    verb: &str,
    group: &str,
    resource: &str,
    namespace: &str,
) -> Result<bool> {
    let groups = ["system:serviceaccounts", "system:authenticated"];
    let access = Access {
        verb,
        group,
        resource,
        namespace,
    };
    is_allowed(client, operator::USER, &groups, access).await
}

/// What the chart gives, whole: widening the role is a change of this table too.
#[rstest]
#[case::for_all_namespaces(&[])]
#[case::for_one_namespace(&["--set", "watchNamespaces={shop}"])]
fn the_rendered_role_is_this_and_no_more(#[case] values: &[&str]) -> Result<()> {
    let expected: BTreeMap<String, BTreeSet<String>> = [
        ("fairway.dev/apps", "list watch"),
        ("fairway.dev/releases", "get list watch create patch delete"),
        ("fairway.dev/migrations", "get list watch create"),
        ("fairway.dev/backups", "get list watch create delete"),
        ("fairway.dev/apps/status", "update"),
        ("fairway.dev/releases/status", "update"),
        ("fairway.dev/migrations/status", "update"),
        ("fairway.dev/backups/status", "update"),
        ("fairway.dev/apps/finalizers", "update"),
        ("fairway.dev/releases/finalizers", "update"),
        ("fairway.dev/migrations/finalizers", "update"),
        ("fairway.dev/backups/finalizers", "update"),
        ("apps/deployments", "list watch create patch"),
        ("apps/controllerrevisions", "get list watch create delete"),
        ("batch/jobs", "get list watch create delete"),
        ("/pods", "get list watch create delete"),
        ("/services", "get list watch create patch delete"),
        ("/persistentvolumeclaims", "get"),
        ("discovery.k8s.io/endpointslices", "list watch"),
        ("/resourcequotas", "list watch"),
        ("events.k8s.io/events", "create"),
        ("coordination.k8s.io/leases", "get list watch create patch"),
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
    let mut rules: Vec<PolicyRule> = Vec::new();
    for role in objects {
        let name = (
            role["kind"].as_str().unwrap_or_default(),
            role["metadata"]["name"].as_str().unwrap_or_default(),
        );
        if bound.contains(&name) {
            let of_role: Vec<PolicyRule> = serde_json::from_value(role["rules"].clone())?;
            rules.extend(of_role);
        }
    }
    let mut granted = BTreeMap::<String, BTreeSet<String>>::new();
    for (resource, verb) in rbac::granted(rules) {
        granted.entry(resource).or_default().insert(verb);
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
