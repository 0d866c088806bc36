//! The chart as it is installed.

use super::role::rendered;
use anyhow::Result;
use fairway_e2e::install;
use fairway_e2e::ns::with_temp_ns;
use fairway_e2e::target::Target;
use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
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

/// Pod Security "restricted" as the apiserver enforces it, and not as we read it.
#[tokio::test]
async fn a_namespace_that_enforces_the_restricted_profile_takes_its_pods() -> Result<()> {
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
fn its_pods_have_a_read_only_root_a_number_for_a_user_and_a_limit_of_memory() -> Result<()> {
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
