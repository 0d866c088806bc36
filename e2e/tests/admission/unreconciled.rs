//! An object that no controller has seen yet does not look healthy to kstatus, by which Flux and Helm wait.

use super::{Effect, app, backup, create, migration, release};
use anyhow::Result;
use fairway_e2e::ns::with_temp_ns;
use rstest::rstest;
use serde_json::{Value, json};

#[rstest]
#[case::app(app())]
#[case::release(release())]
#[case::migration(migration())]
#[case::backup(backup())]
#[tokio::test]
async fn it_is_created_in_progress_whatever_status_it_claims(#[case] mut object: Value) -> Result<()> {
    // Status is a subresource: what comes with a create is dropped, and the default takes its place.
    object["status"] = json!({"observedGeneration": 1, "conditions": [{
        "type": "Ready", "status": "True", "reason": "Claimed", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"
    }]});
    // Nothing is to run: the operator would see an App within milliseconds, so what the create answers is judged.
    with_temp_ns(|context| async move {
        let answer = create(&context.client, &context.namespace, &object, Effect::Stored, None).await?;
        let stored = answer.unwrap_or_else(|refusal| panic!("{refusal:?}"));
        assert_eq!(stored["status"], json!({"observedGeneration": -1}));
        assert_eq!(kstatus(&stored), "InProgress");
        Ok(())
    })
    .await
}

#[test]
fn without_the_default_it_would_look_healthy() {
    assert_eq!(kstatus(&json!({"metadata": {"generation": 1}})), "Current");
}

/// The generic part of `github.com/fluxcd/cli-utils/pkg/kstatus/status`, in its order: the generation, then
/// conditions, then Ready; an object that says nothing is Current.
fn kstatus(object: &Value) -> &'static str {
    let status = &object["status"];
    if status["observedGeneration"].is_i64()
        && status["observedGeneration"] != object["metadata"]["generation"]
    {
        return "InProgress";
    }
    let conditions = status["conditions"].as_array().into_iter().flatten();
    let mut ready = "Current";
    for condition in conditions {
        match (condition["type"].as_str(), condition["status"].as_str()) {
            (Some("Reconciling"), Some("True")) => return "InProgress",
            (Some("Stalled"), Some("True")) => return "Failed",
            (Some("Ready"), Some("True")) => ready = "Current",
            (Some("Ready"), _) => ready = "InProgress",
            _ => {}
        }
    }
    ready
}
