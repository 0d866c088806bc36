use super::*;

fn unsettled() -> Story {
    let mut story = Story::by_command();
    story.settle();
    story.answer("crm-42-run-1", &partial());
    story
}

#[test]
fn a_partial_migration_asks_with_the_command_to_answer() {
    let story = unsettled();
    assert_eq!(story.outcome(), Some(MigrationOutcome::Partial));
    let (state, reason, message) = story.reported();
    assert_eq!(
        (state.as_str(), reason.as_str()),
        ("Unknown/False/True", "MigrationUnresolved")
    );
    assert_eq!(
        message,
        "The migration failed with exit code 1 (SQLSTATE 42P07) and left the schema changed: “relation \
         \"lead\" already exists”. Look at the database. If all of the migration is there, run: kubectl -n shop annotate \
         release crm-42 fairway.dev/resolve=\"applied:$(date +%s)\" --overwrite If none of it is there: kubectl \
         -n shop annotate release crm-42 fairway.dev/resolve=\"not-applied:$(date +%s)\" --overwrite"
    );
    assert_eq!(story.bench.names(), Vec::<String>::new());
}

#[test]
fn f9_an_unknown_outcome_keeps_what_the_agent_found() {
    let mut story = Story::by_command();
    story.settle();
    let mut unknown = failed(Reported::Unknown, Cause::Version, "MigrationUnknown");
    let finding = "The migration ended, but database sessions (pid 4711) that may belong to it were still active 60 s later, so its \
                   outcome is unknown.";
    if let Some(failure) = &mut unknown.failure {
        failure.message = finding.to_owned();
    }
    story.answer("crm-42-run-1", &unknown);
    unknown.last_error = Some("ERROR:  canceling statement".to_owned());
    story.answer("crm-42-settle-1", &unknown);
    let (_, reason, message) = story.reported();
    assert_eq!(reason, "MigrationUnresolved");
    let expected =
        format!("{finding} Its last error: “ERROR: canceling statement”. Look at the database. If all of");
    assert!(message.starts_with(&expected), "{message}");
}

#[rstest]
#[case::applied(
    "applied:1",
    Resolution::Applied,
    Reported::Applied,
    MigrationOutcome::Applied
)]
#[case::not_applied(
    "not-applied:1",
    Resolution::NotApplied,
    Reported::Failed,
    MigrationOutcome::Failed
)]
fn a_users_verdict_settles_it(
    #[case] value: &str,
    #[case] resolution: Resolution,
    #[case] answer: Reported,
    #[case] outcome: MigrationOutcome,
) {
    let mut story = unsettled();
    story.annotate(value);
    let task = story.settle_task("crm-42-settle-1");
    assert_eq!(
        (task.resolution, task.resolution_token.as_deref()),
        (Some(resolution), Some("1"))
    );
    assert_eq!(story.status().last_handled_resolve, None, "not answered yet");

    // What is said meanwhile is answered for itself.
    story.annotate("applied:2");
    story.answer("crm-42-settle-1", &report(answer));
    assert_eq!(story.outcome(), Some(outcome));
    assert_eq!(
        story.status().last_handled_resolve.as_deref(),
        Some("applied:2"),
        "there is nothing left to resolve"
    );
    assert_eq!(story.bench.names(), Vec::<String>::new());
}

#[test]
fn a_malformed_verdict_is_answered_with_its_form() {
    let mut story = unsettled();
    story.annotate("yes");
    let (state, _, message) = story.reported();
    assert_eq!(state, "Unknown/False/True");
    let form = "The value “yes” of the annotation fairway.dev/resolve is neither applied:<token> nor not-applied:<token>. The migration failed";
    assert!(message.starts_with(form), "{message}");
    assert_eq!(story.bench.names(), Vec::<String>::new());
}

#[test]
fn a_verdict_given_before_the_question_is_no_answer() {
    let mut story = Story::by_command();
    story.settle();
    story.annotate("applied:1");
    story.answer("crm-42-run-1", &partial());
    assert_eq!(story.outcome(), Some(MigrationOutcome::Partial));
    assert_eq!(story.bench.names(), Vec::<String>::new());
    story.annotate("applied:2");
    assert!(story.bench.has_job("crm-42-settle-1"));
}

#[test]
fn a_verdict_that_could_not_be_recorded_is_recorded_later() {
    let mut story = unsettled();
    story.annotate("applied:1");
    story.kill("crm-42-settle-1");
    assert_eq!(story.status().last_handled_resolve, None);
    story.wait_for("crm-42-settle-2");
    story.answer("crm-42-settle-2", &report(Reported::Applied));
    assert_eq!(story.outcome(), Some(MigrationOutcome::Applied));
    assert_eq!(story.status().last_handled_resolve.as_deref(), Some("applied:1"));
}

#[rstest]
#[case::not_applied("not-applied:1", MigrationOutcome::Failed, "MigrationNotApplied")]
#[case::applied("applied:1", MigrationOutcome::Applied, "Succeeded")]
fn a_verdict_counts_although_the_row_is_missing(
    #[case] verdict: &str,
    #[case] outcome: MigrationOutcome,
    #[case] reason: &str,
) {
    let mut story = unsettled();
    story.annotate(verdict);
    story.answer("crm-42-settle-1", &unstarted());
    assert_eq!(story.outcome(), Some(outcome));
    assert_eq!(story.reported().1, reason);
    assert_eq!(story.status().last_handled_resolve.as_deref(), Some(verdict));
}

#[test]
fn a_migration_by_hand_is_resolved_by_its_own_annotation() {
    let mut story = Story::by_command();
    story.migration.spec.release = None;
    story.release = None;
    story.settle();
    story.answer("crm-42-run-1", &partial());
    assert!(
        story
            .reported()
            .2
            .contains("kubectl -n shop annotate migration crm-42 fairway.dev/resolve=\"applied:")
    );
    story
        .migration
        .annotations_mut()
        .insert(annotation::RESOLVE.to_owned(), "applied:1".to_owned());
    story.settle();
    assert!(story.bench.has_job("crm-42-settle-1"));
}
