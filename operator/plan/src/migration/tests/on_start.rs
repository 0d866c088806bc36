use super::*;

#[test]
fn an_application_that_became_healthy_has_migrated() {
    let mut story = Story::on_start();
    story.settle();
    assert_eq!(story.bench.names(), ["crm-42-run-1"]);
    story.guard_says(&report(Reported::Applied));
    let decision = story.pass();
    assert_eq!(
        (decision.status.outcome, decision.steps),
        (Some(MigrationOutcome::Applied), vec![])
    );
    story.settle();
    assert_eq!(story.bench.names(), Vec::<String>::new());
}

#[test]
fn an_application_that_exited_has_failed() {
    let mut story = Story::on_start();
    story.settle();
    story.guard_says(&failed(Reported::Failed, Cause::Version, "MigrationFailed"));
    story.settle();
    assert_eq!(story.outcome(), Some(MigrationOutcome::Failed));
}

#[test]
fn an_overdue_application_is_ended_before_it_is_judged() {
    let mut story = Story::on_start();
    story.settle();
    let undecided = failed(Reported::Undecided, Cause::Version, "MigrationTimedOut");
    story.guard_says(&undecided);
    let recorded = story.pass();
    assert!(recorded.status.settling && recorded.status.outcome.is_none());
    story.migration.status = Some(recorded.status);
    let ending = story.pass();
    assert!(matches!(&ending.steps[..], [Step::Delete(target)] if target.name == "crm-42-run-1"));
    story.settle();
    assert_eq!(story.bench.names(), ["crm-42-settle-1"]);
    story.answer("crm-42-settle-1", &partial());
    assert_eq!(
        story.outcome(),
        Some(MigrationOutcome::Partial),
        "it changed the schema after the guard had given it up"
    );
}

#[test]
fn an_application_that_cannot_start_does_not_fail_the_version() {
    let mut story = Story::on_start();
    story.settle();
    let guard = agent_status(json!({"running": {"startedAt": "2026-01-01T00:00:10Z"}}));
    let stuck = container(
        "web",
        json!({"waiting": {"reason": "CreateContainerConfigError", "message": "secret \"crm\" not found"}}),
    );
    let status = json!({"phase": "Pending", "initContainerStatuses": [guard], "containerStatuses": [stuck]});
    story.bench.set_pod("crm-42-run-1", status.clone());
    story.settle();
    let (_, reason, message) = story.reported();
    assert_eq!(reason, "PodNotStarting");
    assert!(
        message.contains("secret \"crm\" not found") && message.contains("Its timeout is 20m."),
        "{message}"
    );

    let undecided = failed(Reported::Undecided, Cause::Version, "MigrationTimedOut");
    let mut status = status;
    status["initContainerStatuses"][0]["lastState"] =
        json!({"terminated": {"exitCode": 1, "message": serde_json::to_string(&undecided).unwrap()}});
    story.bench.set_pod("crm-42-run-1", status);
    story.settle();
    let unchanged = failed(Reported::Failed, Cause::Version, "MigrationTimedOut");
    story.answer("crm-42-settle-1", &unchanged);
    assert_eq!(story.outcome(), Some(MigrationOutcome::Failed));
    let (_, reason, message) = story.reported();
    assert_eq!(reason, "PodNotStarting");
    assert!(
        message.contains("secret \"crm\" not found") && message.contains("The schema is unchanged."),
        "{message}"
    );
}

#[test]
fn a_pod_in_which_only_a_sidecar_goes_on_is_ended() {
    let mut story = Story::on_start();
    story.settle();
    let guard = agent_status(json!({"running": {"startedAt": "2026-01-01T00:00:10Z"}}));
    story.bench.set_pod("crm-42-run-1", json!({"phase": "Running", "initContainerStatuses": [guard], "containerStatuses": [
        container("web", json!({"terminated": {"exitCode": 0}})), container("proxy", json!({"running": {}}))
    ]}));
    let decision = story.pass();
    assert!(matches!(&decision.steps[..], [Step::Delete(target)] if target.name == "crm-42-run-1"));
}
