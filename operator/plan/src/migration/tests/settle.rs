use super::*;

#[rstest]
#[case::it_had_ended(report(Reported::Applied), MigrationOutcome::Applied)]
#[case::nothing_had_changed(
    failed(Reported::Failed, Cause::Version, "MigrationInterrupted"),
    MigrationOutcome::Failed
)]
#[case::it_cannot_be_decided(
    failed(Reported::Unknown, Cause::Version, "MigrationUnknown"),
    MigrationOutcome::Unknown
)]
fn a_run_that_was_killed_is_settled_by_the_ledger(
    #[case] report: MigrationReport,
    #[case] outcome: MigrationOutcome,
) {
    let mut story = Story::by_command();
    story.settle();
    story.kill("crm-42-run-1");
    let (state, reason, message) = story.reported();
    assert_eq!(
        (state.as_str(), reason.as_str()),
        ("Unknown/True/False", "CheckingLedger")
    );
    assert!(
        message.contains("container agent ran out of memory (OOMKilled)"),
        "{message}"
    );
    assert!(story.bench.has_job("crm-42-settle-1"));
    story.answer("crm-42-settle-1", &report);
    assert_eq!(story.outcome(), Some(outcome));
    assert_eq!(story.bench.names(), Vec::<String>::new());
    let (_, reason, message) = story.reported();
    assert_eq!(
        reason == "MigrationInterrupted",
        message.contains("container agent ran out of memory (OOMKilled)"),
        "{reason}: {message}"
    );
}

#[test]
fn a_pod_killed_before_it_started_anything_is_retried() {
    let mut story = Story::by_command();
    story.settle();
    story.kill("crm-42-run-1");
    story.answer("crm-42-settle-1", &unstarted());
    let (_, reason, message) = story.reported();
    assert_eq!(reason, "WaitingForEnvironment");
    assert!(
        message.contains("OOMKilled"),
        "why it ended says more than that it left no trace: {message}"
    );
    story.wait_for("crm-42-run-2");
    assert_eq!(story.bench.names(), ["crm-42-run-2"]);
    story.answer("crm-42-run-2", &report(Reported::Applied));
    assert_eq!(story.outcome(), Some(MigrationOutcome::Applied));
}

#[test]
fn an_outage_of_the_ledger_does_not_hide_how_the_pod_ended() {
    let mut story = Story::by_command();
    story.settle();
    story.kill("crm-42-run-1");
    story.answer(
        "crm-42-settle-1",
        &failed(Reported::Undecided, Cause::Environment, "DatabaseUnreachable"),
    );
    story.wait_for("crm-42-settle-2");
    let interrupted = failed(Reported::Failed, Cause::Version, "MigrationInterrupted");
    story.answer("crm-42-settle-2", &interrupted);
    let (_, reason, message) = story.reported();
    assert_eq!(reason, "MigrationInterrupted");
    assert!(
        message.contains("container agent ran out of memory (OOMKilled)"),
        "{message}"
    );
    assert_eq!(story.status().run_end, None);
}

#[test]
fn an_abort_does_not_claim_that_a_run_changed_nothing_whose_pod_is_lost() {
    let mut story = Story::by_command();
    story.settle();
    story.bench.run("crm-42-run-1");
    story.settle();
    assert!(story.status().pod_started);
    let release = story.release.as_mut().unwrap();
    let abort = (annotation::ABORT.to_owned(), "ann/1".to_owned());
    release.annotations_mut().extend([abort]);
    story.bench.jobs.clear();
    story.bench.pods.clear();
    story.settle();
    assert_eq!(story.bench.names(), ["crm-42-settle-1"]);
    let interrupted = failed(Reported::Failed, Cause::Version, "MigrationInterrupted");
    story.answer("crm-42-settle-1", &interrupted);
    let (_, reason, message) = story.reported();
    assert_eq!(reason, "MigrationInterrupted");
    assert!(!message.contains("nothing was changed"), "{message}");
}

#[rstest]
#[case::by_a_report(serde_json::to_value(MigrationReport {
    before: Some("before".into()),
    ..failed(Reported::Unknown, Cause::Version, "MigrationUnknown")
}).unwrap())]
#[case::by_what_a_killed_agent_left(json!({"begun": "before"}))]
fn w2_a_run_that_is_known_to_have_begun_is_not_begun_again(#[case] known: Value) {
    let mut story = Story::by_command();
    story.settle();
    story.bench.answer("crm-42-run-1", &known);
    story.settle();
    let task = story.settle_task("crm-42-settle-1");
    assert_eq!(task.before.as_deref(), Some("before"));
    // As an agent of an earlier version says of a missing row.
    story.answer("crm-42-settle-1", &unstarted());
    assert_eq!(story.outcome(), Some(MigrationOutcome::Unknown));
    assert_eq!(story.bench.names(), Vec::<String>::new());
    assert_eq!(story.reported().1, "MigrationUnresolved");
}

#[test]
fn a_pod_that_never_starts_is_gone_before_the_ledger_is_read() {
    let mut story = Story::by_command();
    story.settle();
    let waiting = json!({"waiting": {"reason": "ImagePullBackOff", "message": "not found"}});
    story.bench.pod_of("crm-42-run-1", "Pending", waiting.clone());
    story.settle();
    let message = "Container agent of pod crm-42-run-1-x cannot pull i: “not found”. Push that image, or correct its name or pull secret.";
    assert_eq!(
        story.reported(),
        (
            "Unknown/True/False".into(),
            "PodNotStarting".into(),
            message.into()
        )
    );
    story.bench.later(crate::migration::view::START_DEADLINE);
    let decision = story.pass();
    assert!(decision.status.settling && decision.steps.is_empty());
    story.migration.status = Some(decision.status);
    let removal = story.pass();
    assert!(
        matches!(&removal.steps[..], [Step::Delete(target)] if target.name == "crm-42-run-1"),
        "{:?}",
        removal.steps
    );

    // The Job is gone, its pod is only being ended: it may still start.
    let mut pod = (*story.bench.pods[0]).clone();
    pod.metadata.deletion_timestamp = Some(Time(story.bench.now));
    story.bench.execute(&removal.steps);
    story.bench.pods = vec![Arc::new(pod)];
    story.settle();
    assert_eq!(story.bench.names(), ["crm-42-run-1-x"]);
    story.bench.pods.clear();
    story.settle();
    assert_eq!(story.bench.names(), ["crm-42-settle-1"]);
    story.answer("crm-42-settle-1", &unstarted());
    let message = format!("{message} No attempt succeeded within 1h.");
    assert_eq!(
        story.reported(),
        ("False/False/True".into(), "PodNotStarting".into(), message)
    );
}

/// A migration whose pod runs, and when it must have reported.
fn running() -> (Story, Timestamp) {
    let mut story = Story::by_command();
    story.settle();
    story.bench.run("crm-42-run-1");
    story.settle();
    let Wake::At(end) = story.pass().wake else {
        panic!("a deadline")
    };
    (story, end)
}

#[test]
fn a_pod_on_a_lost_node_is_settled_without_it() {
    let (mut story, end) = running();
    assert_eq!(end, story.bench.now + SignedDuration::from_mins(35));
    story.bench.now = end;
    story.settle();
    assert!(
        story.bench.has_job("crm-42-settle-1"),
        "{:?}",
        story.bench.names()
    );
    story.answer(
        "crm-42-settle-1",
        &failed(Reported::Undecided, Cause::Environment, "MigrationRunning"),
    );
    story.wait_for("crm-42-settle-2");
    story.answer("crm-42-settle-2", &report(Reported::Applied));
    assert_eq!(story.outcome(), Some(MigrationOutcome::Applied));
}

#[test]
fn no_pod_of_a_run_can_begin_when_its_ledger_is_read() {
    let (mut story, end) = running();
    let mut lost = (*story.bench.pods[0]).clone();
    lost.metadata.deletion_timestamp = Some(Time(story.bench.now));
    story.bench.pod_of(
        "crm-42-run-1",
        "Pending",
        json!({"waiting": {"reason": "ContainerCreating"}}),
    );
    let mut pending = (*story.bench.pods[0]).clone();
    pending.metadata.name = Some("crm-42-run-1-y".to_owned());
    story.bench.pods = vec![Arc::new(lost), Arc::new(pending)];
    story.bench.now = end;
    let decision = story.pass();
    assert!(decision.status.settling && decision.steps.is_empty());
    story.migration.status = Some(decision.status);
    let removal = story.pass();
    assert!(
        matches!(&removal.steps[..], [Step::Delete(target)] if target.name == "crm-42-run-1"),
        "{:?}",
        removal.steps
    );
}

#[test]
fn a_ledger_that_cannot_be_read_for_long_stalls_and_is_retried() {
    let mut story = Story::by_command();
    story.settle();
    story.kill("crm-42-run-1");
    let mut attempt = 1;
    while story.reported().0 == "Unknown/True/False" {
        let job = format!("crm-42-settle-{attempt}");
        story.wait_for(&job);
        story.answer(
            &job,
            &failed(Reported::Undecided, Cause::Environment, "DatabaseUnreachable"),
        );
        attempt += 1;
        assert!(attempt < 100);
    }
    let (state, reason, message) = story.reported();
    assert_eq!(
        (state.as_str(), reason.as_str()),
        ("Unknown/False/True", "CheckingLedger")
    );
    assert!(
        message.starts_with("DatabaseUnreachable happened. Attempt "),
        "{message}"
    );
    let job = format!("crm-42-settle-{attempt}");
    story.wait_for(&job);
    story.answer(&job, &report(Reported::Applied));
    assert_eq!(story.outcome(), Some(MigrationOutcome::Applied));
}

#[rstest]
#[case::the_snapshot(
    |story: &mut Story| story.has_snapshot = false,
    "SnapshotMissing",
    "ControllerRevision crm-42 is missing, ",
    "then delete this Release: kubectl -n shop delete release crm-42"
)]
#[case::the_app_of_a_migration_applied_by_a_user(
    |story: &mut Story| {
        story.app = None;
        story.migration.metadata.owner_references = None;
    },
    "AppMissing",
    "App crm is missing, ",
    "then delete this Migration: kubectl -n shop delete migration crm-42"
)]
fn a_run_that_nothing_can_settle_says_what_is_missing_and_what_to_do(
    #[case] remove: fn(&mut Story),
    #[case] expected: &str,
    #[case] missing: &str,
    #[case] command: &str,
) {
    let mut story = Story::by_command();
    story.settle();
    remove(&mut story);
    story.kill("crm-42-run-1");
    let (state, reason, message) = story.reported();
    assert_eq!(
        (state.as_str(), reason.as_str()),
        ("Unknown/False/True", expected)
    );
    assert!(message.starts_with(missing), "{message}");
    assert!(message.ends_with(command), "{message}");
}

/// W2: a failover to a replica that lacks the ledger's row, after the migration began.
#[test]
fn a_run_that_began_is_not_begun_again_when_its_row_is_missing() {
    let mut story = Story::by_command();
    story.settle();
    let lost = failed(Reported::Unknown, Cause::Version, "MigrationUnknown");
    story.answer("crm-42-run-1", &lost);
    story.answer("crm-42-settle-1", &unstarted());
    assert_eq!(story.outcome(), Some(MigrationOutcome::Unknown));
    let (_, reason, message) = story.reported();
    assert_eq!(reason, "MigrationUnresolved");
    assert!(
        message.contains("its row is missing from the ledger"),
        "{message}"
    );
    assert_eq!(story.bench.names(), Vec::<String>::new());
}
