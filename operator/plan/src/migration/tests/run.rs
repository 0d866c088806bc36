use super::*;
use crate::missing::APPLIED_WITHIN;

#[test]
fn a_run_is_recorded_before_its_job_exists() {
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
fn no_migration_begins_beside_a_backup() {
    let mut story = Story::by_command();
    story.backup = Some("nightly".to_owned());
    story.settle();
    assert_eq!(story.status().run_id, None);
    let message = "Waiting for Backup nightly: no migration begins beside a backup.";
    assert_eq!(
        story.reported(),
        (
            "Unknown/False/False".into(),
            "WaitingForBackup".into(),
            message.into()
        )
    );
    story.backup = None;
    story.settle();
    assert_eq!(story.bench.names(), ["crm-42-run-1"]);
    // One that has begun is not interrupted.
    story.backup = Some("nightly".to_owned());
    story.settle();
    assert_eq!(story.bench.names(), ["crm-42-run-1"]);
    assert_eq!(story.reported().1, "Migrating");
}

#[test]
fn another_release_image_or_command_is_another_run() {
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
    "Applied in 12.3 s."
)]
#[case::already_applied(
    report(Reported::AlreadyApplied),
    MigrationOutcome::AlreadyApplied,
    "True/False/False",
    "Succeeded",
    "The ledger shows that this image, command and inputs were applied before, so the migration was not run again."
)]
#[case::unchanged(
    MigrationReport { after: Some("before".into()), ..report(Reported::Applied) }, MigrationOutcome::Applied,
    "True/False/False", "Succeeded",
    "Applied in 12.3 s. The schema is unchanged: if the migration should have changed it, check its log."
)]
#[case::its_end_is_not_proven(
    MigrationReport { note: Some("That it was over is not proven.".into()), ..report(Reported::Applied) },
    MigrationOutcome::Applied, "True/False/False", "Succeeded",
    "Applied in 12.3 s. That it was over is not proven."
)]
#[case::a_check_does_not_hold(
    MigrationReport { failed_check: Some("no-orphans found 3".into()), ..report(Reported::Applied) },
    MigrationOutcome::Applied, "False/False/True", "MigrationCheckFailed",
    "The migration was applied in 12.3 s, but no-orphans found 3."
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
fn a_report_ends_it_and_leaves_no_job(
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
    let message_while_running =
        "The migration has been running since 2026-01-01T00:00:00Z. Its timeout is 20m.";
    assert_eq!(
        story.reported(),
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
        "the report is recorded before the Job is removed"
    );
    story.settle();
    assert_eq!(story.outcome(), Some(outcome));
    assert_eq!(
        story.reported(),
        (conditions.into(), reason.into(), message.into())
    );
    assert_eq!(story.bench.names(), Vec::<String>::new());
}

#[rstest]
#[case::the_database_is_away(Reported::NotStarted, "DatabaseUnreachable")]
#[case::another_run_is_not_settled(Reported::Blocked, "MigrationUnresolved")]
fn a_failure_of_the_environment_is_retried_for_an_hour(#[case] outcome: Reported, #[case] reason: &str) {
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
    let attempted = story.bench.now.duration_since(begun);
    assert!(
        attempted > SignedDuration::from_mins(50) && attempted < crate::migration::view::START_DEADLINE,
        "{attempted}"
    );
    let message = format!("{reason} happened. No attempt succeeded within 1h.");
    assert_eq!(
        story.reported(),
        ("False/False/True".into(), reason.into(), message)
    );
    assert_eq!(story.outcome(), Some(MigrationOutcome::NotStarted));
}

#[test]
fn a_deleted_job_is_created_again_with_its_name() {
    let mut story = Story::by_command();
    story.settle();
    story.bench.jobs.clear();
    story.settle();
    assert_eq!(story.bench.names(), ["crm-42-run-1"]);
}

#[test]
fn no_job_is_created_beside_a_pod_whose_job_was_deleted() {
    let mut story = Story::by_command();
    story.settle();
    story.bench.run("crm-42-run-1");
    story.bench.jobs.clear();
    story.settle();
    assert_eq!(story.bench.names(), ["crm-42-run-1-x"]);
    assert_eq!(story.reported().1, "Migrating");
}

#[test]
fn a_job_of_a_deleted_app_is_never_taken_for_a_report() {
    let mut story = Story::by_command();
    story.settle();
    story.bench.run("crm-42-run-1");
    story.bench.relabel_job("crm-42-run-1", "another");
    story.bench.pods.clear();
    story.settle();
    let message = "Waiting until Job crm-42-run-1 ends, which an earlier App named crm left running. To look at it: kubectl -n shop describe job crm-42-run-1";
    assert_eq!(story.reported().2, message);
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
#[case::no_app(|story: &mut Story| story.app = None, "AppMissing", "App crm does not exist or is being deleted. Create a Migration whose spec.app names an App of this namespace.")]
#[case::no_component(
    |story: &mut Story| story.migration.spec.component = "db".into(), "MigrationInvalid",
    "Component db of the migration does not exist. Set it to the name of one in the App's spec.components."
)]
#[case::no_database(
    |story: &mut Story| story.app.as_mut().unwrap().spec.database = None, "MigrationInvalid",
    "The App has no spec.database. Add its image and connection."
)]
fn an_impossible_migration_fails(
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
        story.reported(),
        ("False/False/True".into(), reason.into(), message.into())
    );
    assert_eq!(story.outcome(), Some(MigrationOutcome::NotStarted));
    assert_eq!(story.bench.names(), Vec::<String>::new());
}

/// W20d: a Migration by hand that is seen before what it names.
#[rstest]
#[case::its_app(
    |story: &mut Story| story.app = None,
    "App crm does not exist or is being deleted."
)]
#[case::its_release(
    |story: &mut Story| (story.release, story.has_snapshot) = (None, false),
    "Release crm-42 does not exist."
)]
#[case::the_acceptance_of_its_release(
    |story: &mut Story| {
        story.release.as_mut().unwrap().status = None;
        story.has_snapshot = false;
    },
    "App crm has not accepted Release crm-42."
)]
fn a_migration_waits_ten_minutes_for(#[case] remove: fn(&mut Story), #[case] missing: &str) {
    let mut story = Story::by_command();
    story.migration.metadata.creation_timestamp = Some(Time(story.bench.now));
    let end = story.bench.now + APPLIED_WITHIN;
    remove(&mut story);
    story.settle();
    let (_, reason, message) = story.reported();
    assert_eq!(reason, "WaitingForApp");
    assert!(message.starts_with(missing), "{message}");
    assert_eq!(story.pass().wake, Wake::At(end));
    assert_eq!(story.bench.names(), Vec::<String>::new());

    let whole = Story::by_command();
    let mut come = Story {
        migration: story.migration.clone(),
        ..whole
    };
    come.settle();
    assert_eq!(come.bench.names(), ["crm-42-run-1"]);

    story.bench.later(APPLIED_WITHIN);
    story.settle();
    assert_eq!(story.outcome(), Some(MigrationOutcome::NotStarted));
}

#[test]
fn a_run_whose_app_was_deleted_still_reports() {
    let mut story = Story::by_command();
    story.settle();
    story.bench.run("crm-42-run-1");
    story.app = None;
    story.settle();
    assert_eq!(story.reported().1, "Migrating");
    story.answer("crm-42-run-1", &report(Reported::Applied));
    assert_eq!(story.outcome(), Some(MigrationOutcome::Applied));
}

#[test]
fn nothing_begins_for_a_migration_that_is_being_deleted() {
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
fn runs_that_outlived_their_migration_are_removed_at_their_end() {
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
fn a_pod_that_is_never_created_is_given_one_more_hour() {
    let mut story = Story::on_start();
    let recorded = story.pass();
    story.migration.status = Some(recorded.status);
    story.bench.later(SignedDuration::from_hours(1));
    let late = story.pass();
    assert!(
        matches!(&late.steps[..], [Step::Create(_)]),
        "perhaps no operator ran to create it"
    );
    story.migration.status = Some(late.status);
    story.bench.later(SignedDuration::from_hours(1));
    story.settle();
    story.answer("crm-42-settle-1", &unstarted());
    assert_eq!(story.outcome(), Some(MigrationOutcome::NotStarted));
    let (_, reason, message) = story.reported();
    assert_eq!(reason, "PodNotStarting");
    assert!(
        message.starts_with("Pod crm-42-run-1 was not created in time, or was removed."),
        "{message}"
    );
}

#[test]
fn a_refused_pod_is_reported_at_once_and_settled_after_an_hour() {
    let mut story = Story::on_start();
    let recorded = story.pass();
    story.migration.status = Some(recorded.status);
    let steps = story.pass().steps;
    story.bench.refuse(&steps[0], "exceeded quota: pods");
    story.settle();
    let message = "The API server refused to create Pod crm-42-run-1: “exceeded quota: pods”.";
    assert_eq!(
        story.reported(),
        ("Unknown/True/False".into(), "WriteRefused".into(), message.into())
    );
    story.bench.later(SignedDuration::from_hours(1));
    story.settle();
    story.answer("crm-42-settle-1", &unstarted());
    assert_eq!(story.outcome(), Some(MigrationOutcome::NotStarted));
    assert_eq!(story.reported().1, "WriteRefused");
}
