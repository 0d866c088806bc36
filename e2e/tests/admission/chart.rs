//! The chart as it is installed.

use super::docs::{apply, notes};
use super::role::{rendered, rendered_as};
use anyhow::{Context as _, Result, ensure};
use fairway_e2e::admission;
use fairway_e2e::install;
use fairway_e2e::ns::{Context, with_temp_ns};
use fairway_e2e::target::Target;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use rstest::rstest;
use serde_json::{Value, json};

/// What an object of the chart runs, if it runs anything.
fn pod_spec(object: &Value) -> Option<&Value> {
    match object["kind"].as_str()? {
        "Deployment" => Some(&object["spec"]["template"]["spec"]),
        "Pod" => Some(&object["spec"]),
        _ => None,
    }
}

/// `helm test` asks the operator through its Service, from a pod under the restricted profile.
#[test]
fn its_own_test_passes() -> Result<()> {
    install::test(&Target::from_env()?)
}

/// Pod Security "restricted" as the API server enforces it, and not as we read it.
#[tokio::test]
async fn pods_run_in_a_namespace_with_the_restricted_profile() -> Result<()> {
    with_temp_ns(|context| async move {
        let pods = context.api::<Pod>();
        let dry = PostParams {
            dry_run: true,
            ..PostParams::default()
        };

        let objects = rendered(&[])?;
        let specs: Vec<_> = objects.iter().filter_map(pod_spec).collect();
        assert_eq!(specs.len(), 2, "the operator and the chart's test");
        for spec in specs {
            let mut spec = spec.clone();
            // Its own account is in its own namespace.
            spec["serviceAccountName"] = json!("default");
            let pod = serde_json::from_value(json!({"metadata": {"name": "of-the-chart"}, "spec": spec}))?;
            pods.create(&dry, &pod).await?;
        }

        // The namespace does enforce it.
        let careless = serde_json::from_value(json!({
            "metadata": {"name": "careless"}, "spec": {"containers": [{"name": "a", "image": "a:1"}]}
        }))?;
        let refused = pods.create(&dry, &careless).await;
        assert!(
            matches!(&refused, Err(kube::Error::Api(status)) if status.code == 403),
            "{refused:?}"
        );
        Ok(())
    })
    .await
}

/// What the restricted profile does not ask for.
#[test]
fn pods_have_read_only_root_numeric_user_and_memory_limit() -> Result<()> {
    for spec in rendered(&[])?.iter().filter_map(pod_spec) {
        assert_eq!(spec["securityContext"]["runAsUser"], 65532, "{spec}");
        for container in spec["containers"].as_array().into_iter().flatten() {
            assert_eq!(
                container["securityContext"]["readOnlyRootFilesystem"], true,
                "{container}"
            );
            assert!(
                container["resources"]["limits"]["memory"].is_string(),
                "{container}"
            );
        }
    }
    Ok(())
}

/// F12: what OpenShift's default SecurityContextConstraints ask: a user of the namespace's range, or none, which is then set.
#[tokio::test]
async fn f12_pods_run_where_the_cluster_assigns_the_user() -> Result<()> {
    with_temp_ns(|context| async move {
        let name = format!("range-{}", context.namespace);
        let parameters = PostParams::default();
        let policies = Api::<ValidatingAdmissionPolicy>::all(context.client.clone());
        let bindings = Api::<ValidatingAdmissionPolicyBinding>::all(context.client.clone());
        let in_range = "(!has(x.runAsUser) || (x.runAsUser >= 1000650000 && x.runAsUser < 1000660000))";
        let policy = serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {
                "matchConstraints": {
                    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": context.namespace}},
                    "resourceRules": [
                        {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]},
                    ],
                },
                "validations": [{
                    "expression": format!(
                        "[object.spec.securityContext].all(x, {in_range}) && \
                         object.spec.containers.map(c, c.securityContext).all(x, {in_range})"
                    ),
                    "message": "runAsUser is not of this namespace's range",
                }],
            },
        }))?;
        let binding = json!({"metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]}});
        policies.create(&parameters, &policy).await?;
        bindings
            .create(&parameters, &serde_json::from_value(binding)?)
            .await?;
        let result = pods_in_range(&context).await;
        // Unlike what the test creates in its namespace, these stay.
        bindings.delete(&name, &DeleteParams::default()).await?;
        policies.delete(&name, &DeleteParams::default()).await?;
        result
    })
    .await
}

async fn pods_in_range(context: &Context) -> Result<()> {
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let pods = context.api::<Pod>();
    let created = async |user: &str| -> kube::Result<()> {
        let value = format!("user={user}");
        let objects = rendered(&["--set-json", &value]).unwrap_or_default();
        for spec in objects.iter().filter_map(pod_spec) {
            let mut spec = spec.clone();
            spec["serviceAccountName"] = json!("default");
            let pod = json!({"metadata": {"name": "of-the-chart"}, "spec": spec});
            let pod = serde_json::from_value(pod).map_err(kube::Error::SerdeError)?;
            pods.create(&dry, &pod).await?;
        }
        Ok(())
    };
    let pod = admission::example_pod(&json!({}), 65532);
    let is_refused = |answer: &_| admission::is_refused(answer, "not of this namespace's range");
    admission::until_asked(context, pod, is_refused).await?;
    let own_user = created("{}").await;
    ensure!(own_user.is_err(), "the policy refuses the chart's own user");
    for user in [r#"{"id": 1000650007}"#, r#"{"assigned": {}}"#] {
        created(user)
            .await
            .with_context(|| format!("the chart's pods with user={user}"))?;
    }
    Ok(())
}

/// The one object of a kind, if there is one.
fn only<'a>(objects: &'a [Value], kind: &str) -> Result<Option<&'a Value>> {
    let found: Vec<_> = objects.iter().filter(|object| object["kind"] == kind).collect();
    ensure!(found.len() <= 1, "several of kind {kind}: {found:?}");
    Ok(found.first().copied())
}

/// The labels that the operator's pods are selected by.
fn selector(objects: &[Value]) -> Result<&Value> {
    let deployment = only(objects, "Deployment")?.context("no Deployment")?;
    Ok(&deployment["spec"]["selector"])
}

#[rstest]
#[case::of_one_nothing_may_be_away(&[], None)]
#[case::one_of_two(&["replicas=2"], Some(json!(1)))]
#[case::as_many_as_are_given(&["replicas=3", "podDisruptionBudget.maxUnavailable=2"], Some(json!(2)))]
#[case::a_share(&["replicas=4", "podDisruptionBudget.maxUnavailable=50%"], Some(json!("50%")))]
fn a_node_is_drained_with_an_operator_left_and_never_in_vain(
    #[case] values: &[&str],
    #[case] expected: Option<Value>,
) -> Result<()> {
    let objects = rendered(&set(values))?;
    let budget = only(&objects, "PodDisruptionBudget")?;
    assert_eq!(budget.is_some(), expected.is_some(), "{budget:?}");
    if let Some(budget) = budget {
        let spec = json!({"maxUnavailable": expected, "selector": selector(&objects)?});
        assert_eq!(budget["spec"], spec);
        apply(&Target::from_env()?, "the chart", vec![budget.clone()])?;
    }
    Ok(())
}

/// Two operators in one namespace do not wait for each other, and each may take its own Lease and no other.
#[rstest]
#[case::the_only_one("fairway", "fairway")]
#[case::one_beside_it("blue-fairway", "blue-fairway")]
#[case::of_any_name("blue", "blue-fairway")]
fn the_lease_has_the_name_of_the_helm_release(#[case] release: &str, #[case] lease: &str) -> Result<()> {
    let objects = rendered_as(release, &[])?;
    let deployment = only(&objects, "Deployment")?.context("no Deployment")?;
    let arguments = &deployment["spec"]["template"]["spec"]["containers"][0]["args"];
    let asked = json!(format!("--lease={lease}"));
    ensure!(
        arguments.as_array().is_some_and(|all| all.contains(&asked)),
        "{arguments}"
    );
    let allowed: Vec<_> = objects
        .iter()
        .filter(|object| object["kind"] == "Role")
        .flat_map(|role| role["rules"].as_array().into_iter().flatten())
        .filter(|rule| rule["resources"] == json!(["leases"]) && rule["verbs"] != json!(["create"]))
        .map(|rule| rule["resourceNames"].clone())
        .collect();
    assert_eq!(allowed, [json!([lease])]);
    Ok(())
}

/// `--set` before each of the values.
fn set<'a>(values: &[&'a str]) -> Vec<&'a str> {
    values.iter().flat_map(|value| ["--set", value]).collect()
}

const FROM: &str = r#"networkPolicy.from=[{"namespaceSelector":{"matchLabels":{"team":"observers"}}}]"#;
const EGRESS: &str = r#"networkPolicy.egress=[{"ports":[{"port":6443}]}]"#;

/// Ingress and egress of the operator's pods with these values.
#[rstest]
#[case::s13_only_namespaces_with_the_label_read_metrics(
    &[],
    Some((json!([chart_test(), readers(json!({"namespaceSelector": {"matchLabels": {"metrics": "enabled"}}}))]), json!([{}])))
)]
#[case::whoever_is_named(
    &["--set-json", FROM],
    Some((json!([chart_test(), readers(json!({"namespaceSelector": {"matchLabels": {"team": "observers"}}}))]), json!([{}])))
)]
#[case::nobody(&["--set-json", "networkPolicy.from=[]"], Some((json!([chart_test()]), json!([{}]))))]
#[case::only_where_it_is_told_to(
    &["--set-json", "networkPolicy.from=[]", "--set-json", EGRESS],
    Some((json!([chart_test()]), json!([{"ports": [{"port": 6443}]}])))
)]
#[case::none_where_none_is_wanted(&["--set", "networkPolicy.enabled=false"], None)]
fn the_operator_is_asked_by_and_asks_whom_the_values_name(
    #[case] values: &[&str],
    #[case] expected: Option<(Value, Value)>,
) -> Result<()> {
    let objects = rendered(values)?;
    let policy = only(&objects, "NetworkPolicy")?;
    assert_eq!(policy.is_some(), expected.is_some(), "{policy:?}");
    if let (Some(policy), Some((ingress, egress))) = (policy, expected) {
        let spec = json!({
            "podSelector": selector(&objects)?,
            "policyTypes": ["Ingress", "Egress"],
            "ingress": ingress,
            "egress": egress,
        });
        assert_eq!(policy["spec"], spec);
        apply(&Target::from_env()?, "the chart", vec![policy.clone()])?;
    }
    Ok(())
}

/// The rule for the pod of `helm test`.
fn chart_test() -> Value {
    json!({"ports": [{"port": "probes", "protocol": "TCP"}], "from": [
        {"podSelector": {"matchLabels": {
            "app.kubernetes.io/instance": "fairway", "app.kubernetes.io/component": "test"
        }}},
    ]})
}

/// The rule for those who may read metrics.
fn readers(from: Value) -> Value {
    json!({"ports": [{"port": "metrics", "protocol": "TCP"}, {"port": "probes", "protocol": "TCP"}], "from": [from]})
}

/// The chart's own test is what the policy lets through.
#[test]
fn chart_test_pod_has_the_labels_that_the_policy_selects() -> Result<()> {
    let objects = rendered(&["--set-json", FROM])?;
    let policy = only(&objects, "NetworkPolicy")?.context("no NetworkPolicy")?;
    let named = &policy["spec"]["ingress"][0]["from"][0]["podSelector"]["matchLabels"];
    let pod = only(&objects, "Pod")?.context("no Pod")?;
    for (label, value) in named.as_object().into_iter().flatten() {
        assert_eq!(&pod["metadata"]["labels"][label], value, "{label}");
    }
    Ok(())
}

/// The ports that the policy names are those of the operator's container.
#[test]
fn the_ports_of_the_policy_are_those_of_the_operator() -> Result<()> {
    let objects = rendered(&[])?;
    let deployment = only(&objects, "Deployment")?.context("no Deployment")?;
    let ports = &deployment["spec"]["template"]["spec"]["containers"][0]["ports"];
    let expected =
        json!([{"name": "metrics", "containerPort": 8080}, {"name": "probes", "containerPort": 8081}]);
    assert_eq!(ports, &expected);
    Ok(())
}

#[rstest]
#[case::of_all_namespaces(
    &[],
    "Fairway 0.1.0 runs in namespace fairway-system.\n",
    "  metadata: {name: hello}\n"
)]
#[case::of_one_namespace(
    &["--set", "watchNamespaces={shop}"],
    "Fairway 0.1.0 runs in namespace fairway-system and manages the Apps in namespace shop.\n",
    "  metadata: {name: hello, namespace: shop}\n"
)]
fn the_notes_say_where_it_runs_and_what_to_do_first(
    #[case] values: &[&str],
    #[case] first: &str,
    #[case] app: &str,
) -> Result<()> {
    let notes = notes(values)?;
    ensure!(notes.starts_with(first), "{notes}");
    ensure!(notes.contains(app), "{notes}");
    ensure!(
        notes.contains("\n  helm test fairway --namespace fairway-system --logs\n"),
        "{notes}"
    );
    // Nothing that the template forgot.
    ensure!(
        !notes.contains("{{") && !notes.contains("<no value>") && !notes.contains("%!"),
        "{notes}"
    );
    Ok(())
}
