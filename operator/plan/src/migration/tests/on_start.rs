use super::*;
use fairway_crds::migration::LedgerRow;

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
fn a_run_that_is_known_to_have_begun_is_not_begun_again_whatever_its_guard_says() {
    let mut story = Story::on_start();
    story.settle();
    story.migration.status.as_mut().unwrap().ledger_row = Some(LedgerRow::Written);
    story.guard_says(&unstarted());
    story.settle();
    assert_eq!(story.bench.names(), ["crm-42-settle-1"]);
}

#[test]
fn a_helper_that_waits_does_not_acquit_an_application_that_ran() {
    let mut story = Story::on_start();
    story.settle();
    let undecided = failed(Reported::Undecided, Cause::Version, "MigrationTimedOut");
    let mut guard = agent_status(json!({"running": {"startedAt": "2026-01-01T00:00:10Z"}}));
    guard["lastState"] =
        json!({"terminated": {"exitCode": 1, "message": serde_json::to_string(&undecided).unwrap()}});
    let helper = json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}});
    story.bench.set_pod(
        "crm-42-run-1",
        json!({"phase": "Running", "initContainerStatuses": [guard], "containerStatuses": [
            container("web", json!({"running": {}})), container("proxy", helper)
        ]}),
    );
    story.settle();
    assert_eq!(
        story.status().run_end.as_ref().unwrap().reason,
        "MigrationTimedOut"
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

/// A guard that runs beside an application in that state.
fn beside(story: &mut Story, phase: &str, application: &Value, helper: &Value) {
    let guard = agent_status(json!({"running": {"startedAt": "2026-01-01T00:00:10Z"}}));
    let status = json!({
        "phase": phase, "initContainerStatuses": [guard],
        "containerStatuses": [container("proxy", helper.clone()), container("web", application.clone())]
    });
    story.bench.set_pod("crm-42-run-1", status);
}

#[test]
fn w15_a_helper_that_ends_does_not_end_the_application() {
    let mut story = Story::on_start();
    story.settle();
    beside(
        &mut story,
        "Running",
        &json!({"running": {}}),
        &json!({"terminated": {"exitCode": 0}}),
    );
    assert_eq!(story.pass().steps, vec![]);
}

#[test]
fn w15_the_exit_code_of_the_application_is_reported() {
    let mut story = Story::on_start();
    story.settle();
    let ended = json!({"terminated": {"exitCode": 3, "finishedAt": "2026-01-01T00:00:20Z"}});
    beside(&mut story, "Running", &ended, &json!({"running": {}}));
    let ending = story.pass();
    assert!(matches!(&ending.steps[..], [Step::Delete(target)] if target.name == "crm-42-run-1"));
    // The guard learns of it when the pod is ended. Where its answer is lost, the next one reads it in the ledger.
    story.settle();
    assert_eq!(story.status().exit_code, Some(3));
    story.guard_says(&failed(Reported::Failed, Cause::Version, "MigrationFailed"));
    story.settle();
    assert_eq!(story.status().exit_code, Some(3));
    let (_, reason, message) = story.reported();
    assert_eq!(
        (reason.as_str(), message.as_str()),
        (
            "MigrationFailed",
            "MigrationFailed happened. Container web exited with code 3."
        )
    );
}

#[test]
fn w15_the_pod_and_its_log_are_kept_after_a_failure() {
    let mut story = Story::on_start();
    story.settle();
    let report = failed(Reported::Failed, Cause::Version, "MigrationFailed");
    let mut guard = agent_status(json!({
        "terminated": {"exitCode": 1, "message": serde_json::to_string(&report).unwrap(), "finishedAt": "2026-01-01T00:00:21Z"}
    }));
    guard["ready"] = json!(false);
    let web = container(
        "web",
        json!({"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:00:20Z"}}),
    );
    story.bench.now = "2026-01-01T00:00:22Z".parse().unwrap();
    story.bench.set_pod(
        "crm-42-run-1",
        json!({"phase": "Failed", "initContainerStatuses": [guard], "containerStatuses": [web]}),
    );
    story.settle();
    assert_eq!(story.outcome(), Some(MigrationOutcome::Failed));
    assert_eq!(story.bench.names(), ["crm-42-run-1"]);
    let end: jiff::Timestamp = "2026-01-01T01:00:20Z".parse().unwrap();
    assert_eq!(story.pass().wake, Wake::At(end));
    story.bench.now = end;
    story.settle();
    assert_eq!(story.bench.names(), Vec::<String>::new());
}

#[test]
fn w15_the_application_has_the_grace_period_of_its_template() {
    let mut story = Story::on_start();
    let app = story.app.as_mut().unwrap();
    app.spec.components[0].template["spec"]["terminationGracePeriodSeconds"] = json!(7);
    story.settle();
    let spec = story.bench.pods[0].spec.as_ref().unwrap();
    assert_eq!(spec.termination_grace_period_seconds, Some(7));
}

/// An init container that waits for the schema waits for the migration, which comes after it.
fn waiting_for_schema(mut story: Story) -> Story {
    let app = story.app.as_mut().unwrap();
    app.spec.components[0].template["spec"]["initContainers"] = json!([{"name": "wait", "image": "busybox"}]);
    story.settle();
    story
}

#[rstest]
#[case::by_command(Story::by_command())]
#[case::on_start(Story::on_start())]
fn w16_an_init_container_that_runs_is_named_and_an_abort_is_obeyed(#[case] story: Story) {
    let on_start = story.migration.spec.on_start.is_some();
    let mut story = waiting_for_schema(story);
    let wait = container("wait", json!({"running": {"startedAt": "2026-01-01T00:00:10Z"}}));
    story.bench.now = "2026-01-01T00:00:12Z".parse().unwrap();
    if on_start {
        let guard = agent_status(json!({"running": {"startedAt": "2026-01-01T00:00:09Z"}}));
        story.bench.set_pod(
            "crm-42-run-1",
            json!({"phase": "Pending", "initContainerStatuses": [guard, wait]}),
        );
    } else {
        story.bench.pod_of(
            "crm-42-run-1",
            "Pending",
            json!({"waiting": {"reason": "PodInitializing"}}),
        );
        let pod = Arc::make_mut(story.bench.pods.last_mut().unwrap());
        pod.spec = Some(
            serde_json::from_value(json!({"containers": [], "initContainers": [{"name": "wait"}]})).unwrap(),
        );
        pod.status.as_mut().unwrap().init_container_statuses =
            Some(vec![serde_json::from_value(wait).unwrap()]);
    }
    let named_at: jiff::Timestamp = "2026-01-01T00:00:20Z".parse().unwrap();
    story.settle();
    assert_eq!(story.reported().1, "Migrating", "it may end soon");
    assert_eq!(story.pass().wake, Wake::At(named_at));
    story.bench.now = named_at;
    story.settle();
    let (_, reason, message) = story.reported();
    assert_eq!(reason, "PodNotStarting");
    assert!(
        message.contains("Init container wait of pod crm-42-run-1")
            && message.contains("has been running since 2026-01-01T00:00:10Z")
            && message.contains("kubectl -n shop annotate release crm-42 fairway.dev/abort="),
        "{message}"
    );

    let release = story.release.as_mut().unwrap();
    release
        .annotations_mut()
        .insert(annotation::ABORT.to_owned(), "1".to_owned());
    story.settle();
    if on_start {
        // A guard that runs may have let the application start: what may have begun is not interrupted.
        assert_eq!(story.bench.names(), ["crm-42-run-1"]);
        return;
    }
    assert!(story.bench.names().is_empty(), "{:?}", story.bench.names());
    let (_, reason, message) = story.reported();
    assert_eq!(reason, "Aborted", "{message}");
}

#[test]
fn w16_an_abort_in_a_pause_ends_the_attempts() {
    let mut story = Story::by_command();
    story.settle();
    let away = failed(Reported::NotStarted, Cause::Environment, "DatabaseUnreachable");
    story.answer("crm-42-run-1", &away);
    assert_eq!(story.reported().1, "WaitingForEnvironment");
    let release = story.release.as_mut().unwrap();
    release
        .annotations_mut()
        .insert(annotation::ABORT.to_owned(), "ann/1".to_owned());
    story.settle();
    assert_eq!(story.outcome(), Some(MigrationOutcome::NotStarted));
    assert_eq!(story.reported().1, "Aborted");
    assert_eq!(story.bench.names(), Vec::<String>::new());
}
