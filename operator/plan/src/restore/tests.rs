use super::*;
use crate::bench::{self, Bench, app, reported};
use crate::protocol::Failure;
use crate::snapshot::Snapshot;
use fairway_crds::backup::{Removal, RemovalState};
use fairway_crds::{App, Backup};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use rstest::rstest;
use serde_json::json;
use std::sync::Arc;

struct Story {
    bench: Bench,
    restore: Restore,
    app: Option<App>,
    backup: Option<Backup>,
    others: Vec<Restore>,
}

fn restore(name: &str) -> Restore {
    let restore = json!({
        "apiVersion": "fairway.dev/v1alpha1", "kind": "Restore",
        "metadata": {"name": name, "namespace": "shop", "uid": format!("{name}-uid"), "generation": 1},
        "spec": {"app": "crm", "from": {"backup": "nightly"}, "into": "InPlace"}
    });
    serde_json::from_value(restore).unwrap()
}

fn backup() -> Backup {
    let backup = json!({
        "apiVersion": "fairway.dev/v1alpha1", "kind": "Backup",
        "metadata": {"name": "nightly", "namespace": "shop", "uid": "0f1e2d3c-uid"},
        "spec": {"app": "crm"},
        "status": {"outcome": "Succeeded", "set": {
            "store": {"volume": {"claimName": "backups"}}, "path": "shop/crm/nightly-0f1e2d3c",
        }}
    });
    serde_json::from_value(backup).unwrap()
}

impl Story {
    fn new() -> Self {
        Self {
            bench: Bench::new(),
            restore: restore("noon"),
            app: Some(app()),
            backup: Some(backup()),
            others: Vec::new(),
        }
    }

    /// A story whose restored database is prepared, and would lose that.
    fn prepared(loss: &Loss) -> Self {
        let mut story = Self::new();
        story.settle();
        story.answer(1, &prepared_with(loss));
        story
    }

    fn pass(&mut self) -> Decision<RestoreStatus> {
        let app = self.app.clone().map(Arc::new);
        let observed = RestoreObserved {
            restore: Arc::new(self.restore.clone()),
            others: self.others.iter().cloned().map(Arc::new).collect(),
            snapshot: app.as_ref().map(|app| Arc::new(Snapshot::of(&app.spec))),
            app,
            backup: self.backup.clone().map(Arc::new),
            jobs: self.bench.jobs.clone(),
            pods: self.bench.pods.clone(),
            refused: self.bench.refused.clone(),
            dry_run_passed: self.bench.dry_run_passed.clone(),
        };
        let decision = plan(&observed, &bench::settings(), self.bench.now);
        assert_eq!(
            decision,
            plan(&observed, &bench::settings(), self.bench.now),
            "planning is deterministic"
        );
        decision
    }

    /// Plans and executes until a pass changes nothing.
    fn settle(&mut self) {
        for _ in 0..20 {
            let decision = self.pass();
            if decision.steps.is_empty() && Some(&decision.status) == self.restore.status.as_ref() {
                return;
            }
            self.bench.execute(&decision.steps);
            self.restore.status = Some(decision.status);
        }
        panic!("no fixed point");
    }

    fn status(&self) -> &RestoreStatus {
        self.restore.status.as_ref().unwrap()
    }

    fn reported(&self) -> (String, String, String) {
        reported(&self.status().conditions)
    }

    fn reason(&self) -> String {
        self.reported().1
    }

    fn answer(&mut self, attempt: u32, report: &RestoreReport) {
        self.bench.answer(&format!("noon-restore-{attempt}"), report);
        self.settle();
    }

    fn annotate(&mut self, key: &str, value: &str) {
        let annotations = self.restore.metadata.annotations.get_or_insert_default();
        annotations.insert(key.to_owned(), value.to_owned());
        self.settle();
    }

    /// The step that the Job of an attempt does.
    fn step_of(&self, attempt: u32) -> RestoreStep {
        let name = format!("noon-restore-{attempt}");
        let job = self.bench.jobs.iter().find(|job| job.name_any() == name).unwrap();
        let pod = job.spec.as_ref().unwrap().template.spec.as_ref().unwrap();
        let variables = pod.containers[0].env.as_ref().unwrap();
        let task = variables
            .iter()
            .find(|variable| variable.name == protocol::TASK_VARIABLE)
            .unwrap();
        let task: protocol::Task = serde_json::from_str(task.value.as_ref().unwrap()).unwrap();
        let protocol::Task::Restore(task) = task else {
            panic!("{task:?}");
        };
        assert_eq!(
            (&*task.backup_uid, &*task.restore_uid),
            ("0f1e2d3c-uid", "noon-uid")
        );
        task.step
    }
}

fn nothing() -> RestoreReport {
    RestoreReport {
        prepared: None,
        swapped: None,
        loss: None,
        failure: None,
    }
}

fn loss(rows: u64) -> Loss {
    Loss {
        rows,
        tables: 1,
        largest: vec![("public.lead".to_owned(), rows)],
        uncounted: None,
    }
}

fn prepared_with(loss: &Loss) -> RestoreReport {
    RestoreReport {
        prepared: Some(PreparedDatabase {
            database: "crm_fairway_restore_1".into(),
            taken_at: "2026-01-01T00:00:00Z".into(),
            fingerprint: "f".into(),
            bytes: 4711,
            seconds: 2.0,
        }),
        loss: Some(loss.clone()),
        ..nothing()
    }
}

fn swapped() -> RestoreReport {
    RestoreReport {
        swapped: Some(SwappedDatabase {
            replaced: "crm_fairway_replaced_1".into(),
            at: "2026-01-01T01:00:00Z".into(),
            refused_milliseconds: Some(40),
        }),
        loss: Some(loss(11)),
        ..nothing()
    }
}

fn failing(cause: Cause, reason: Reason) -> RestoreReport {
    RestoreReport {
        failure: Some(Failure {
            cause,
            reason,
            message: format!("{reason} happened."),
        }),
        ..nothing()
    }
}

#[test]
fn an_attempt_and_its_set_are_recorded_before_the_job_exists() {
    let mut story = Story::new();
    let first = story.pass();
    assert_eq!(first.steps, []);
    assert_eq!(
        first.status.set.as_ref().unwrap().path,
        "shop/crm/nightly-0f1e2d3c"
    );
    story.settle();
    assert_eq!(story.bench.names(), ["noon-restore-1"]);
    assert_eq!(story.step_of(1), RestoreStep::Prepare);
}

#[test]
fn nothing_is_replaced_before_the_user_has_read_what_is_lost() {
    let story = Story::prepared(&loss(11));
    assert_eq!(story.bench.names(), Vec::<String>::new());
    let (conditions, reason, message) = story.reported();
    assert_eq!(
        (&*conditions, &*reason),
        ("Unknown/False/True", "AwaitingAgreement")
    );
    let expected = "The restore to 2026-01-01T00:00:00Z is prepared and would lose at least 11 row changes in 1 table \
        (public.lead: 11). The application goes on writing, so a higher number may be needed, or any. Without an answer it \
        ends at 2026-01-02T00:00:00Z. To go on, run: kubectl -n shop annotate frst noon \
        fairway.dev/restore=\"11:$(date +%s)\" --overwrite To abort it: kubectl -n shop annotate frst noon \
        fairway.dev/abort=\"$(date +%s)\" --overwrite";
    assert_eq!(message, expected);
}

#[rstest]
#[case::number("11:1", Some(11))]
#[case::any("alice/any:1", None)]
fn an_agreement_is_recorded_before_the_database_is_replaced(#[case] value: &str, #[case] rows: Option<u64>) {
    let mut story = Story::prepared(&loss(11));
    let annotations = story.restore.metadata.annotations.get_or_insert_default();
    annotations.insert(annotation::RESTORE.to_owned(), value.to_owned());
    let decision = story.pass();
    assert_eq!(decision.steps, []);
    assert!(decision.status.agreed.is_some());
    story.settle();
    assert_eq!(story.step_of(2), RestoreStep::Swap { agreed_rows: rows });
    story.answer(2, &swapped());
    let status = story.status();
    assert_eq!(status.outcome, Some(RestoreOutcome::Succeeded));
    assert_eq!(status.replaced.as_ref().unwrap().name, "crm_fairway_replaced_1");
    let message = "The database has been that of 2026-01-01T00:00:00Z since 2026-01-01T01:00:00Z. Connections were refused \
        for 40 ms. The replaced database is kept as crm_fairway_replaced_1 and accepts no connections; drop it when nobody \
        needs it. It held at least 11 later row changes in 1 table (public.lead: 11).";
    assert_eq!(
        story.reported(),
        ("True/False/False".into(), "Succeeded".into(), message.into())
    );
    assert_eq!(story.bench.names(), Vec::<String>::new());
}

#[rstest]
#[case::too_few("10:1", "The agreement to lose 10 row changes is not enough.")]
#[case::no_token("any", "The value of annotation fairway.dev/restore is neither")]
fn an_answer_that_is_no_agreement_is_answered(#[case] value: &str, #[case] said: &str) {
    let mut story = Story::prepared(&loss(11));
    story.annotate(annotation::RESTORE, value);
    let (_, reason, message) = story.reported();
    assert_eq!(reason, "AwaitingAgreement");
    assert!(message.starts_with(said), "{message}");
    assert_eq!(story.status().agreed, None);
}

#[test]
fn what_cannot_be_counted_is_agreed_to_by_any_alone() {
    let mut story = Story::prepared(&Loss {
        uncounted: Some("a was truncated".into()),
        ..loss(0)
    });
    assert!(story.reported().2.contains("More may be lost: a was truncated"));
    assert!(story.reported().2.contains("fairway.dev/restore=\"any:"));
    story.annotate(annotation::RESTORE, "1000:1");
    assert_eq!(story.status().agreed, None);
    story.annotate(annotation::RESTORE, "any:2");
    assert!(story.status().agreed.is_some());
}

#[test]
fn the_user_is_asked_again_when_more_would_be_lost() {
    let mut story = Story::prepared(&loss(11));
    story.annotate(annotation::RESTORE, "11:1");
    story.answer(
        2,
        &RestoreReport {
            loss: Some(loss(50)),
            ..failing(Cause::Environment, Reason::RestoreLosesMore)
        },
    );
    let (conditions, reason, message) = story.reported();
    assert_eq!(
        (&*conditions, &*reason),
        ("Unknown/False/True", "AwaitingAgreement")
    );
    assert!(message.starts_with("RestoreLosesMore happened."), "{message}");
    assert!(message.contains("at least 50 row changes"), "{message}");
    assert_eq!(story.status().agreed, None);
    story.annotate(annotation::RESTORE, "60:2");
    assert_eq!(
        story.step_of(3),
        RestoreStep::Swap {
            agreed_rows: Some(60)
        }
    );
}

#[test]
fn a_swap_that_the_environment_keeps_from_ending_is_repeated() {
    let mut story = Story::prepared(&loss(11));
    story.annotate(annotation::RESTORE, "any:1");
    story.answer(2, &failing(Cause::Environment, Reason::SessionsRemain));
    assert!(
        story
            .reported()
            .2
            .starts_with("SessionsRemain happened. Attempt 3 begins at")
    );
    story.bench.later(SignedDuration::from_secs(10));
    story.settle();
    assert_eq!(story.step_of(3), RestoreStep::Swap { agreed_rows: None });
    story.bench.later(SignedDuration::from_hours(1));
    story.answer(3, &failing(Cause::Environment, Reason::SessionsRemain));
    assert_eq!(story.step_of(4), RestoreStep::Discard, "and ended at last");
}

#[rstest]
#[case::prepared(&[], RestoreOutcome::Aborted)]
#[case::paused(&["any:1"], RestoreOutcome::Aborted)]
fn an_aborted_restore_removes_its_database(#[case] agreed: &[&str], #[case] outcome: RestoreOutcome) {
    let mut story = Story::prepared(&loss(11));
    let mut last = 1;
    for value in agreed {
        story.annotate(annotation::RESTORE, value);
        last += 1;
        story.answer(last, &failing(Cause::Environment, Reason::SessionsRemain));
    }
    story.annotate(annotation::ABORT, "1");
    assert_eq!(story.step_of(last + 1), RestoreStep::Discard);
    assert_eq!(story.reason(), "DiscardingRestore");
    story.answer(last + 1, &nothing());
    assert_eq!(story.status().outcome, Some(outcome));
    assert_eq!(story.reason(), "Aborted");
}

#[test]
fn an_abort_waits_for_a_swap_that_is_under_way() {
    let mut story = Story::prepared(&loss(11));
    story.annotate(annotation::RESTORE, "any:1");
    story.bench.run("noon-restore-2");
    story.annotate(annotation::ABORT, "1");
    assert_eq!(story.step_of(2), RestoreStep::Swap { agreed_rows: None });
    assert_eq!(story.reason(), "ReplacingDatabase");
    story.answer(2, &swapped());
    assert_eq!(story.status().outcome, Some(RestoreOutcome::Succeeded));
}

#[test]
fn an_abort_after_the_database_was_replaced_unseen_removes_nothing() {
    let mut story = Story::prepared(&loss(11));
    story.annotate(annotation::RESTORE, "any:1");
    story.bench.kill("noon-restore-2");
    story.settle();
    story.annotate(annotation::ABORT, "1");
    assert_eq!(story.step_of(3), RestoreStep::Discard);
    story.answer(3, &swapped());
    let status = story.status();
    assert_eq!(status.outcome, Some(RestoreOutcome::Succeeded));
    assert_eq!(status.discarding, None);
    let message = story.reported().2;
    let said = "The database has been that of 2026-01-01T00:00:00Z since 2026-01-01T01:00:00Z.";
    assert!(message.starts_with(said), "{message}");
}

#[test]
fn the_question_says_what_the_backup_lacks() {
    let mut story = Story::new();
    let lacks = "Not in this backup: the rows of 1 foreign table (public.remote).";
    story.backup.as_mut().unwrap().status.as_mut().unwrap().notes = vec![lacks.to_owned()];
    story.settle();
    story.answer(1, &prepared_with(&loss(11)));
    assert!(story.reported().2.contains(lacks), "{}", story.reported().2);
}

#[test]
fn a_restore_that_nobody_agrees_to_ends() {
    let mut story = Story::prepared(&loss(11));
    story.bench.later(SignedDuration::from_hours(24));
    story.settle();
    assert_eq!(story.step_of(2), RestoreStep::Discard);
    story.answer(2, &nothing());
    assert_eq!(story.status().outcome, Some(RestoreOutcome::Failed));
    assert_eq!(story.reason(), "NotAgreed");
}

#[test]
fn a_backup_that_cannot_be_restored_leaves_no_database() {
    let mut story = Story::new();
    story.settle();
    story.answer(1, &failing(Cause::Version, Reason::RestoreFailed));
    assert_eq!(story.step_of(2), RestoreStep::Discard);
    story.answer(2, &nothing());
    assert_eq!(
        story.reported(),
        (
            "False/False/True".into(),
            "RestoreFailed".into(),
            "RestoreFailed happened.".into()
        )
    );
}

#[rstest]
#[case::unfinished(|backup: &mut Backup| backup.status = None, "WaitingForSource", None)]
#[case::failed(
    |backup: &mut Backup| backup.status.as_mut().unwrap().outcome = Some(fairway_crds::backup::BackupOutcome::Failed),
    "AppMissing",
    Some(RestoreOutcome::Failed)
)]
#[case::being_removed(
    |backup: &mut Backup| {
        let status = backup.status.as_mut().unwrap();
        status.removal = Some(Removal {
            since: "2026-01-01T00:00:00Z".parse().unwrap(),
            state: RemovalState::Removing,
            set: status.set.clone().unwrap(),
            objects: 0,
            bytes: 0,
            until: None,
            note: None,
            attempts: None,
        });
    },
    "AppMissing",
    Some(RestoreOutcome::Failed)
)]
#[case::of_another_app(
    |backup: &mut Backup| backup.spec.app = "shop".into(),
    "AppMissing",
    Some(RestoreOutcome::Failed)
)]
fn only_a_backup_of_the_app_that_has_succeeded_is_restored(
    #[case] spoil: fn(&mut Backup),
    #[case] reason: &str,
    #[case] outcome: Option<RestoreOutcome>,
) {
    let mut story = Story::new();
    spoil(story.backup.as_mut().unwrap());
    story.settle();
    assert_eq!(story.reason(), reason);
    assert_eq!(story.status().outcome, outcome);
    assert_eq!(story.bench.names(), Vec::<String>::new());
}

#[test]
fn a_backup_may_be_applied_after_its_restore() {
    let mut story = Story::new();
    let backup = story.backup.take();
    story.restore.metadata.creation_timestamp = Some(Time(story.bench.now));
    story.settle();
    assert_eq!(story.reason(), "WaitingForApp");
    story.backup = backup;
    story.settle();
    assert_eq!(story.step_of(1), RestoreStep::Prepare);
}

#[test]
fn restores_of_an_app_run_one_after_the_other() {
    let mut story = Story::new();
    let mut other = restore("evening");
    other.status = Some(RestoreStatus {
        attempts: Some(Attempts {
            current: 1,
            since: story.bench.now,
            next: None,
            reason: None,
            message: None,
        }),
        ..RestoreStatus::default()
    });
    story.others = vec![other];
    story.settle();
    assert_eq!(story.reason(), "WaitingForRestore");
    story.others.clear();
    story.settle();
    assert_eq!(story.bench.names(), ["noon-restore-1"]);
}
