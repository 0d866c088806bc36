use super::*;

#[test]
fn an_application_that_became_healthy_has_migrated_and_its_pod_goes() {
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
fn an_application_that_failed_is_ended_before_the_ledger_has_the_last_word() {
    let mut story = Story::on_start();
    story.settle();
    story.guard_says(&failed(Reported::Failed, Cause::Version, "MigrationFailed"));
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
        "it changed the schema after the guard had answered"
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
