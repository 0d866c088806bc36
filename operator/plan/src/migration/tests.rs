use super::*;
use crate::Object;
use crate::bench::{self, Bench, DIGEST, agent as agent_status, app, container, release, told};
use crate::protocol::{self, Cause, Failure, Resolution, Task};
use crate::snapshot::Snapshot;
use fairway_crds::App;
use fairway_crds::release::annotation;
use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use rstest::rstest;
use serde_json::{Value, json};

use protocol::MigrationOutcome as Reported;

struct Story {
    bench: Bench,
    migration: Migration,
    release: Option<Release>,
    app: Option<App>,
}

impl Story {
    fn of(form: &Value) -> Self {
        let mut migration = json!({
            "apiVersion": "fairway.dev/v1alpha1", "kind": "Migration",
            "metadata": {"name": "crm-42", "namespace": "shop", "uid": "migration-uid", "generation": 1},
            "spec": {"app": "crm", "release": "crm-42", "component": "web", "timeout": "20m", "image": format!("ghcr.io/acme/crm@{DIGEST}")}
        });
        migration["spec"]
            .as_object_mut()
            .unwrap()
            .extend(form.as_object().unwrap().clone());
        Self {
            bench: Bench::new(),
            migration: serde_json::from_value(migration).unwrap(),
            release: Some(release()),
            app: Some(app()),
        }
    }

    fn by_command() -> Self {
        Self::of(&json!({"command": ["migrate"]}))
    }

    fn on_start() -> Self {
        Self::of(&json!({"onStart": {}}))
    }

    fn pass(&mut self) -> Decision<MigrationStatus> {
        let observed = MigrationObserved {
            migration: Arc::new(self.migration.clone()),
            snapshot: self.app.as_ref().map(|app| Arc::new(Snapshot::of(&app.spec))),
            app: self.app.clone().map(Arc::new),
            release: self.release.clone().map(Arc::new),
            jobs: self.bench.jobs.clone(),
            pods: self.bench.pods.clone(),
        };
        let decision = plan(&observed, &bench::settings(), self.bench.now);
        assert_eq!(
            decision,
            plan(&observed, &bench::settings(), self.bench.now),
            "planning is deterministic"
        );
        decision
    }

    /// Plans and carries out until a pass changes nothing.
    fn settle(&mut self) {
        for _ in 0..20 {
            let decision = self.pass();
            if decision.steps.is_empty() && Some(&decision.status) == self.migration.status.as_ref() {
                return;
            }
            self.bench.carry_out(&decision.steps);
            self.migration.status = Some(decision.status);
        }
        panic!("no fixed point");
    }

    fn status(&self) -> &MigrationStatus {
        self.migration.status.as_ref().unwrap()
    }

    fn outcome(&self) -> Option<MigrationOutcome> {
        self.status().outcome
    }

    fn told(&self) -> (String, String, String) {
        told(&self.status().conditions)
    }

    fn answer(&mut self, job: &str, report: &MigrationReport) {
        self.bench.answer(job, report);
        self.settle();
    }

    fn kill(&mut self, job: &str) {
        self.bench.kill(job);
        self.settle();
    }

    fn guard_says(&mut self, report: &MigrationReport) {
        let message = serde_json::to_string(report).unwrap();
        let mut guard = agent_status(json!({"running": {"startedAt": "2026-01-01T00:00:10Z"}}));
        guard["lastState"] = json!({"terminated": {"exitCode": 0, "message": message}});
        self.bench.set_pod(
            "crm-42-run-1",
            json!({"phase": "Running", "initContainerStatuses": [guard]}),
        );
    }

    fn annotate(&mut self, value: &str) {
        let release = self.release.as_mut().unwrap();
        release
            .annotations_mut()
            .insert(annotation::RESOLVE.to_owned(), value.to_owned());
        self.settle();
    }

    /// Lets pauses end until that Job exists.
    fn wait_for(&mut self, job: &str) {
        for _ in 0..100 {
            if self.bench.has_job(job) {
                return;
            }
            let Wake::At(next) = self.pass().wake else {
                panic!("nothing to wait for; there are {:?}", self.bench.names())
            };
            self.bench.now = next;
            self.settle();
        }
        panic!("no {job} after all; there are {:?}", self.bench.names());
    }
}

fn report(outcome: Reported) -> MigrationReport {
    MigrationReport {
        outcome,
        failure: None,
        before: Some("before".into()),
        after: Some("after".into()),
        seconds: Some(12.34),
        exit_code: None,
        sqlstate: None,
        last_error: None,
        schema_ahead: false,
        failed_check: None,
    }
}

fn failed(outcome: Reported, cause: Cause, reason: &str) -> MigrationReport {
    let failure = Failure {
        cause,
        reason: reason.into(),
        message: format!("{reason} happened."),
    };
    MigrationReport {
        failure: Some(failure),
        before: None,
        after: None,
        seconds: None,
        ..report(outcome)
    }
}

fn unstarted() -> MigrationReport {
    failed(Reported::NotStarted, Cause::Environment, "MigrationNotStarted")
}

fn partial() -> MigrationReport {
    MigrationReport {
        exit_code: Some(1),
        sqlstate: Some("42P07".into()),
        last_error: Some("relation \"lead\" already exists".into()),
        ..failed(Reported::Partial, Cause::Version, "MigrationPartial")
    }
}

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
#[case::it_had_ended(report(Reported::Applied), MigrationOutcome::Applied)]
#[case::nothing_had_changed(
    failed(Reported::Failed, Cause::Version, "MigrationCutOff"),
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
    let (state, reason, message) = story.told();
    assert_eq!(
        (state.as_str(), reason.as_str()),
        ("Unknown/True/False", "Settling")
    );
    assert!(
        message.contains("container agent ran out of memory (OOMKilled)"),
        "{message}"
    );
    assert!(story.bench.has_job("crm-42-settle-1"));
    story.answer("crm-42-settle-1", &report);
    assert_eq!(story.outcome(), Some(outcome));
    assert_eq!(story.bench.names(), Vec::<String>::new());
}

#[test]
fn a_pod_that_was_killed_before_it_started_anything_is_followed_by_another() {
    let mut story = Story::by_command();
    story.settle();
    story.kill("crm-42-run-1");
    story.answer("crm-42-settle-1", &unstarted());
    let (_, reason, message) = story.told();
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

#[rstest]
#[case::the_database_is_away(Reported::NotStarted, "DatabaseUnreachable")]
#[case::another_run_is_not_settled(Reported::Blocked, "MigrationUnsettled")]
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
        tried > SignedDuration::from_mins(50) && tried < run::START_DEADLINE,
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

#[test]
fn a_pod_that_never_starts_is_ended_and_out_of_the_way_before_the_ledger_is_asked() {
    let mut story = Story::by_command();
    story.settle();
    let waiting = json!({"waiting": {"reason": "ImagePullBackOff", "message": "not found"}});
    story.bench.pod_of("crm-42-run-1", "Pending", waiting.clone());
    story.settle();
    let message = "container agent of pod crm-42-run-1-x cannot pull i: not found";
    assert_eq!(
        story.told(),
        (
            "Unknown/True/False".into(),
            "PodNotStarting".into(),
            message.into()
        )
    );
    story.bench.later(run::START_DEADLINE);
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
    story.bench.carry_out(&removal.steps);
    story.bench.pods = vec![Arc::new(pod)];
    story.settle();
    assert_eq!(story.bench.names(), ["crm-42-run-1-x"]);
    story.bench.pods.clear();
    story.settle();
    assert_eq!(story.bench.names(), ["crm-42-settle-1"]);
    story.answer("crm-42-settle-1", &unstarted());
    let message = format!("{message}. Given up after 1h.");
    assert_eq!(
        story.told(),
        ("False/False/True".into(), "PodNotStarting".into(), message)
    );
}

#[test]
fn a_pod_on_a_node_that_nobody_hears_of_is_settled_over_its_head() {
    let mut story = Story::by_command();
    story.settle();
    story.bench.run("crm-42-run-1");
    story.settle();
    let Wake::At(end) = story.pass().wake else {
        panic!("a deadline")
    };
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
fn a_ledger_that_cannot_be_asked_for_long_is_a_persons_concern_and_asked_on() {
    let mut story = Story::by_command();
    story.settle();
    story.kill("crm-42-run-1");
    let mut attempt = 1;
    while story.told().0 == "Unknown/True/False" {
        let job = format!("crm-42-settle-{attempt}");
        story.wait_for(&job);
        story.answer(
            &job,
            &failed(Reported::Undecided, Cause::Environment, "DatabaseUnreachable"),
        );
        attempt += 1;
        assert!(attempt < 100);
    }
    let (state, reason, message) = story.told();
    assert_eq!(
        (state.as_str(), reason.as_str()),
        ("Unknown/False/True", "Settling")
    );
    assert!(
        message.starts_with("DatabaseUnreachable happened. The ledger is asked again at "),
        "{message}"
    );
    let job = format!("crm-42-settle-{attempt}");
    story.wait_for(&job);
    story.answer(&job, &report(Reported::Applied));
    assert_eq!(story.outcome(), Some(MigrationOutcome::Applied));
}

fn unsettled() -> Story {
    let mut story = Story::by_command();
    story.settle();
    story.answer("crm-42-run-1", &partial());
    story
}

#[test]
fn a_partial_migration_asks_a_person_with_the_command_to_answer() {
    let story = unsettled();
    assert_eq!(story.outcome(), Some(MigrationOutcome::Partial));
    let (state, reason, message) = story.told();
    assert_eq!(
        (state.as_str(), reason.as_str()),
        ("Unknown/False/True", "MigrationUnsettled")
    );
    assert_eq!(
        message,
        "The migration failed with exit code 1 (SQLSTATE 42P07) and the schema is not what it was before: relation \
         \"lead\" already exists. Look at the database; if the migration's work is there: kubectl annotate release \
         crm-42 fairway.dev/resolve=applied:$(date +%s) -n shop --overwrite ; if it is not, or was undone: kubectl \
         annotate release crm-42 fairway.dev/resolve=not-applied:$(date +%s) -n shop --overwrite"
    );
    assert_eq!(story.bench.names(), Vec::<String>::new());
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
fn a_persons_verdict_settles_it(
    #[case] value: &str,
    #[case] resolution: Resolution,
    #[case] answer: Reported,
    #[case] outcome: MigrationOutcome,
) {
    let mut story = unsettled();
    story.annotate(value);
    let job = story.bench.job("crm-42-settle-1");
    let container = &job
        .spec
        .as_ref()
        .unwrap()
        .template
        .spec
        .as_ref()
        .unwrap()
        .containers[0];
    let task = container.env.as_ref().unwrap()[0].value.as_ref().unwrap();
    let Task::Settle(task) = serde_json::from_str(task).unwrap() else {
        panic!("a settling")
    };
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
fn a_verdict_that_nobody_understands_is_answered_with_its_form() {
    let mut story = unsettled();
    story.annotate("yes");
    let (state, _, message) = story.told();
    assert_eq!(state, "Unknown/False/True");
    let form = "fairway.dev/resolve=\"yes\" is not understood: write applied:<token> or not-applied:<token>. The migration failed";
    assert!(message.starts_with(form), "{message}");
    assert_eq!(story.bench.names(), Vec::<String>::new());
}

#[test]
fn a_verdict_that_was_given_before_the_question_is_no_answer() {
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

#[test]
fn a_row_that_a_restore_took_away_is_not_run_again() {
    let mut story = unsettled();
    story.annotate("not-applied:1");
    story.answer("crm-42-settle-1", &unstarted());
    assert_eq!(story.outcome(), Some(MigrationOutcome::Failed));
    assert_eq!(story.told().1, "MigrationNotStarted");
}

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
fn a_migration_applied_by_hand_is_resolved_by_its_own_annotation() {
    let mut story = Story::by_command();
    story.migration.spec.release = None;
    story.release = None;
    story.settle();
    story.answer("crm-42-run-1", &partial());
    assert!(
        story
            .told()
            .2
            .contains("kubectl annotate migration crm-42 fairway.dev/resolve=applied:")
    );
    story
        .migration
        .annotations_mut()
        .insert(annotation::RESOLVE.to_owned(), "applied:1".to_owned());
    story.settle();
    assert!(story.bench.has_job("crm-42-settle-1"));
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
