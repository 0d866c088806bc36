use super::*;

#[test]
fn the_run_is_on_record_before_its_job_exists() {
    let mut story = Story::by_command();
    let first = story.pass();
    assert_eq!(first.steps, []);
    assert!(first.status.run_id.is_some());
    story.settle();
    assert_eq!(story.bench.names(), ["crm-42-run-1"]);
    assert_eq!(
        story.bench.job("crm-42-run-1").labels().get(labels::RUN_ID),
        story.status().run_id.as_ref()
    );
    assert!(
        story.bench.job("crm-42-run-1").owner_references().is_empty(),
        "a running migration outlives its App"
    );
}

#[test]
fn a_run_is_another_one_for_another_release_image_or_command() {
    let (migration, release) = (Story::by_command().migration, release());
    let id = run_id(&migration, Some(&release));
    let mut of_another_release = release.clone();
    of_another_release.metadata.uid = Some("another".into());
    let mut of_another_command = migration.clone();
    of_another_command.spec.command = Some(vec!["other".into()]);
    let mut of_another_image = migration.clone();
    of_another_image.spec.image = "ghcr.io/acme/crm@sha256:2".into();
    let mut made_again = migration.clone();
    made_again.metadata.uid = Some("another".into());
    assert_ne!(id, run_id(&migration, Some(&of_another_release)));
    assert_ne!(id, run_id(&of_another_command, Some(&release)));
    assert_ne!(id, run_id(&of_another_image, Some(&release)));
    assert_eq!(
        id,
        run_id(&made_again, Some(&release)),
        "the same release never runs it again"
    );
}

#[rstest]
#[case::applied(
    report(Reported::Applied),
    MigrationOutcome::Applied,
    "True/False/False",
    "Succeeded",
    "applied in 12.3 s"
)]
#[case::already_applied(
    report(Reported::AlreadyApplied),
    MigrationOutcome::AlreadyApplied,
    "True/False/False",
    "Succeeded",
    "the ledger already has this image and command, so nothing was run"
)]
#[case::unchanged(
    MigrationReport { after: Some("before".into()), ..report(Reported::Applied) }, MigrationOutcome::Applied,
    "True/False/False", "Succeeded",
    "applied in 12.3 s; it left the schema unchanged: make sure that it had nothing to do"
)]
#[case::a_check_does_not_hold(
    MigrationReport { failed_check: Some("no-orphans found 3".into()), ..report(Reported::Applied) },
    MigrationOutcome::Applied, "False/False/True", "MigrationCheckFailed",
    "the migration was applied in 12.3 s, but what it must have done is not there: no-orphans found 3"
)]
#[case::failed(
    failed(Reported::Failed, Cause::Version, "MigrationTimedOut"),
    MigrationOutcome::Failed,
    "False/False/True",
    "MigrationTimedOut",
    "MigrationTimedOut happened."
)]
#[case::not_startable(
    failed(Reported::NotStarted, Cause::Version, "DatabaseOwned"),
    MigrationOutcome::NotStarted,
    "False/False/True",
    "DatabaseOwned",
    "DatabaseOwned happened."
)]
fn an_answer_ends_it_and_leaves_no_job(
    #[case] report: MigrationReport,
    #[case] outcome: MigrationOutcome,
    #[case] conditions: &str,
    #[case] reason: &str,
    #[case] message: &str,
) {
    let mut story = Story::by_command();
    story.settle();
    story.bench.run("crm-42-run-1");
    story.settle();
    let message_while_running = "migrating since 2026-01-01T00:00:00Z; ended after 20m";
    assert_eq!(
        story.told(),
        (
            "Unknown/True/False".into(),
            "Migrating".into(),
            message_while_running.into()
        )
    );
    story.bench.answer("crm-42-run-1", &report);
    assert_eq!(
        story.pass().steps,
        [],
        "the answer is committed before the Job is removed"
    );
    story.settle();
    assert_eq!(story.outcome(), Some(outcome));
    assert_eq!(story.told(), (conditions.into(), reason.into(), message.into()));
    assert_eq!(story.bench.names(), Vec::<String>::new());
}

#[rstest]
#[case::the_database_is_away(Reported::NotStarted, "DatabaseUnreachable")]
#[case::another_run_is_not_settled(Reported::Blocked, "MigrationUnresolved")]
fn what_the_surroundings_cause_is_tried_again_for_an_hour(#[case] outcome: Reported, #[case] reason: &str) {
    let mut story = Story::by_command();
    story.settle();
    let begun = story.bench.now;
    let mut attempt = 1;
    while story.outcome().is_none() {
        story.wait_for(&format!("crm-42-run-{attempt}"));
        story.answer(
            &format!("crm-42-run-{attempt}"),
            &failed(outcome, Cause::Environment, reason),
        );
        attempt += 1;
    }
    let tried = story.bench.now.duration_since(begun);
    assert!(
        tried > SignedDuration::from_mins(50) && tried < crate::migration::run::START_DEADLINE,
        "{tried}"
    );
    let message = format!("{reason} happened. Given up after 1h.");
    assert_eq!(story.told(), ("False/False/True".into(), reason.into(), message));
    assert_eq!(story.outcome(), Some(MigrationOutcome::NotStarted));
}

#[test]
fn a_job_that_was_deleted_is_made_again_under_its_name() {
    let mut story = Story::by_command();
    story.settle();
    story.bench.jobs.clear();
    story.settle();
    assert_eq!(story.bench.names(), ["crm-42-run-1"]);
}

#[test]
fn no_job_is_made_beside_a_pod_whose_job_was_deleted() {
    let mut story = Story::by_command();
    story.settle();
    story.bench.run("crm-42-run-1");
    story.bench.jobs.clear();
    story.settle();
    assert_eq!(story.bench.names(), ["crm-42-run-1-x"]);
    assert_eq!(story.told().1, "Migrating");
}

#[test]
fn what_an_earlier_app_of_the_same_name_left_is_never_taken_for_an_answer() {
    let mut story = Story::by_command();
    story.settle();
    story.bench.run("crm-42-run-1");
    story.bench.relabel_job("crm-42-run-1", "another");
    story.bench.pods.clear();
    story.settle();
    let message =
        "crm-42-run-1 of an App of the same name that was deleted is still at work; waiting for its end";
    assert_eq!(story.told().2, message);
    story.bench.answer("crm-42-run-1", &report(Reported::Applied));
    story.bench.pods.clear();
    story.settle();
    assert_eq!(story.outcome(), None);
    assert_eq!(
        story.bench.job("crm-42-run-1").labels().get(labels::RUN_ID),
        story.status().run_id.as_ref()
    );
}

#[rstest]
#[case::no_app(|story: &mut Story| story.app = None, "AppMissing", "App crm does not exist: set spec.app to the name of one in this namespace")]
#[case::no_component(
    |story: &mut Story| story.migration.spec.component = "db".into(), "MigrationInvalid",
    "component db of the migration does not exist: set it to the name of one in the App's spec.components"
)]
#[case::no_database(
    |story: &mut Story| story.app.as_mut().unwrap().spec.database = None, "MigrationInvalid",
    "the App has no spec.database: add its image and connection"
)]
fn a_migration_that_cannot_be_made_says_so_in_one_sentence(
    #[case] break_it: fn(&mut Story),
    #[case] reason: &str,
    #[case] message: &str,
) {
    let mut story = Story::by_command();
    story.migration.spec.release = None;
    story.release = None;
    break_it(&mut story);
    story.settle();
    assert_eq!(
        story.told(),
        ("False/False/True".into(), reason.into(), message.into())
    );
    assert_eq!(story.outcome(), Some(MigrationOutcome::NotStarted));
    assert_eq!(story.bench.names(), Vec::<String>::new());
}

#[test]
fn a_run_whose_app_was_deleted_still_gives_its_answer() {
    let mut story = Story::by_command();
    story.settle();
    story.bench.run("crm-42-run-1");
    story.app = None;
    story.settle();
    assert_eq!(story.told().1, "Migrating");
    story.answer("crm-42-run-1", &report(Reported::Applied));
    assert_eq!(story.outcome(), Some(MigrationOutcome::Applied));
}

#[test]
fn nothing_is_begun_for_a_migration_that_is_being_deleted() {
    let mut story = Story::by_command();
    story.migration.metadata.deletion_timestamp = Some(Time(story.bench.now));
    let decision = story.pass();
    assert_eq!(
        (decision.steps, decision.status),
        (vec![], MigrationStatus::default())
    );
    story.migration.metadata.deletion_timestamp = None;
    story.settle();
    story.bench.jobs.clear();
    story.migration.metadata.deletion_timestamp = Some(Time(story.bench.now));
    story.settle();
    assert_eq!(story.bench.names(), Vec::<String>::new());
}

#[test]
fn runs_that_outlived_their_migration_are_removed_when_they_have_ended() {
    let mut story = Story::by_command();
    story.settle();
    story.bench.run("crm-42-run-1");
    let gone = |_: &str, _: &str| false;
    assert_eq!(orphans(&story.bench.jobs, &story.bench.pods, gone), []);
    story.bench.answer("crm-42-run-1", &report(Reported::Applied));
    assert_eq!(orphans(&story.bench.jobs, &story.bench.pods, |_, _| true), []);
    let names: Vec<_> = orphans(&story.bench.jobs, &story.bench.pods, gone)
        .into_iter()
        .map(|orphan| orphan.name)
        .collect();
    assert_eq!(names, ["crm-42-run-1"]);

    let mut story = Story::on_start();
    story.settle();
    assert_eq!(orphans(&[], &story.bench.pods, gone), []);
    story.guard_says(&report(Reported::Applied));
    assert_eq!(
        orphans(&[], &story.bench.pods, gone).len(),
        1,
        "its application would go on for ever"
    );
}

#[test]
fn a_step_repeated_is_the_same_step() {
    let mut story = Story::by_command();
    let recorded = story.pass();
    story.migration.status = Some(recorded.status);
    let (once, twice) = (story.pass(), story.pass());
    assert_eq!(once, twice);
    assert!(matches!(&once.steps[..], [Step::Create(object)] if matches!(**object, Object::Job(_))));
}

#[test]
fn a_pod_that_cannot_be_made_is_told_and_given_up_after_an_hour_in_which_somebody_tried() {
    let mut story = Story::on_start();
    let recorded = story.pass();
    story.migration.status = Some(recorded.status);
    story.bench.later(SignedDuration::from_mins(3));
    let refused = story.pass();
    assert!(matches!(&refused.steps[..], [Step::Create(_)]));
    let (_, reason, message) = told(&refused.status.conditions);
    assert_eq!(reason, "PodNotStarting");
    assert!(
        message.ends_with("kubectl -n shop describe migration crm-42"),
        "{message}"
    );
    story.migration.status = Some(refused.status);
    story.bench.later(SignedDuration::from_hours(1));
    let again = story.pass();
    assert!(again.steps.is_empty(), "perhaps nobody was there to make it");
    story.migration.status = Some(again.status);
    story.bench.later(SignedDuration::from_hours(1));
    story.settle();
    story.answer("crm-42-settle-1", &unstarted());
    assert_eq!(story.outcome(), Some(MigrationOutcome::NotStarted));
}
