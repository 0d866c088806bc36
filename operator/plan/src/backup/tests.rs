use super::*;
use crate::bench::{self, Bench, app, reported};
use crate::missing::APPLIED_WITHIN;
use crate::protocol::{Cause, Failure};
use fairway_crds::app::Keep;
use fairway_crds::store::{Store, VolumeStore};
use fairway_crds::{App, Backup};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use rstest::rstest;
use serde_json::json;
use std::sync::Arc;

struct Story {
    bench: Bench,
    backup: Backup,
    app: Option<App>,
    others: Vec<Backup>,
    last_by_hand: Option<(String, Timestamp)>,
    migration: Option<String>,
    last_proven: Option<(String, i64)>,
}

impl Story {
    fn new() -> Self {
        let backup = json!({
            "apiVersion": "fairway.dev/v1alpha1", "kind": "Backup",
            "metadata": {"name": "nightly", "namespace": "shop", "uid": "0f1e2d3c-uid", "generation": 1},
            "spec": {"app": "crm"}
        });
        Self {
            bench: Bench::new(),
            backup: serde_json::from_value(backup).unwrap(),
            app: Some(app()),
            others: Vec::new(),
            last_by_hand: None,
            migration: None,
            last_proven: None,
        }
    }

    fn pass(&mut self) -> Decision<BackupStatus> {
        let app = self.app.clone().map(Arc::new);
        let observed = BackupObserved {
            backup: Arc::new(self.backup.clone()),
            snapshot: app.as_ref().map(|app| Arc::new(Snapshot::of(&app.spec))),
            app,
            release: None,
            others: self.others.iter().cloned().map(Arc::new).collect(),
            last_by_hand: self.last_by_hand.clone(),
            last_proven: self.last_proven.clone(),
            migration: self.migration.clone(),
            candidates: self.candidates(),
            removals: Vec::new(),
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

    /// What retention sees: this Backup and a newer verified one.
    fn candidates(&self) -> Vec<Candidate> {
        let newer = Candidate {
            name: "newer".to_owned(),
            verified: Some("2026-01-01T00:00:02Z".parse().unwrap()),
            failed: None,
            keep_until: None,
            held_by: Vec::new(),
        };
        vec![Candidate::of(&self.backup, &[], None), newer]
    }

    /// Plans and executes until a pass changes nothing.
    fn settle(&mut self) {
        for _ in 0..20 {
            let decision = self.pass();
            if decision.steps.is_empty() && Some(&decision.status) == self.backup.status.as_ref() {
                return;
            }
            self.bench.execute(&decision.steps);
            self.backup.status = Some(decision.status);
        }
        panic!("no fixed point");
    }

    fn edit(&mut self, edit: impl FnOnce(&mut fairway_crds::app::AppSpec)) {
        edit(&mut self.app.as_mut().unwrap().spec);
    }

    fn status(&self) -> &BackupStatus {
        self.backup.status.as_ref().unwrap()
    }

    fn reported(&self) -> (String, String, String) {
        reported(&self.status().conditions)
    }

    fn answer(&mut self, attempt: u32, report: &BackupReport) {
        self.bench.answer(&format!("nightly-backup-{attempt}"), report);
        self.settle();
    }
}

fn proven() -> BackupReport {
    BackupReport {
        evidence: Some(BackupEvidence {
            level: "Decoded".into(),
            bytes: 4711,
            sha256: "ab".repeat(32),
            taken_at: "2026-01-01T00:00:01Z".into(),
            server_version: "16.4".into(),
            fingerprint: "f".into(),
            seconds: 12.4,
            notes: Vec::new(),
            proof: None,
        }),
        failure: None,
    }
}

fn failure(cause: Cause, reason: &str) -> BackupReport {
    let failure = Failure {
        cause,
        reason: reason.parse().unwrap(),
        message: format!("{reason} happened."),
    };
    BackupReport {
        evidence: None,
        failure: Some(failure),
    }
}

#[test]
fn a_backup_that_has_ended_says_why_it_is_kept() {
    let mut story = Story::new();
    story.settle();
    story.bench.later(SignedDuration::from_secs(10));
    story.answer(1, &proven());
    assert_eq!(story.status().kept_because, [""; 0], "nobody says what is kept");
    let keep = |last, daily| Keep {
        last,
        daily,
        weekly: 0,
        monthly: 0,
        yearly: 0,
    };
    let says = |story: &mut Story, keep| {
        let app = story.app.as_mut().unwrap();
        app.spec.backup.as_mut().unwrap().keep = Some(keep);
        story.settle();
        story.status().kept_because.clone()
    };
    assert_eq!(says(&mut story, keep(2, 1)), ["last"]);
    assert_eq!(says(&mut story, keep(1, 1)), [""; 0]);
    let until = story.bench.now + SignedDuration::from_hours(1);
    story.backup.spec.keep_until = Some(until);
    story.backup.metadata.generation = Some(2);
    assert_eq!(says(&mut story, keep(1, 1)), ["keepUntil 2026-01-01T01:00:10Z"]);
    assert_eq!(story.status().observed_generation, Some(2));
    assert_eq!(story.pass().wake, Wake::At(until));
    story.bench.now = until;
    story.settle();
    assert_eq!(story.status().kept_because, [""; 0]);
    assert_eq!(story.pass().wake, Wake::OnChange);
}

#[test]
fn a_backup_that_outlives_its_app_still_says_until_when_it_is_kept() {
    let mut story = Story::new();
    story.settle();
    story.bench.later(SignedDuration::from_secs(10));
    story.answer(1, &proven());
    let until = story.bench.now + SignedDuration::from_hours(1);
    story.backup.spec.keep_until = Some(until);
    story.app = None;
    story.settle();
    assert_eq!(story.status().kept_because, ["keepUntil 2026-01-01T01:00:10Z"]);
    assert_eq!(story.pass().wake, Wake::At(until));
    story.bench.now = until;
    story.settle();
    assert_eq!(story.status().kept_because, [""; 0]);
}

#[test]
fn no_backup_begins_beside_a_migration_but_the_one_that_it_waits_for() {
    let mut story = Story::new();
    story.migration = Some("crm-42".to_owned());
    story.settle();
    assert_eq!(story.status().attempts, None);
    assert_eq!(
        story.reported(),
        (
            "Unknown/False/False".into(),
            "WaitingForMigration".into(),
            "Waiting for the end of Migration crm-42: no backup begins beside a migration.".into()
        )
    );
    story.migration = None;
    story.settle();
    assert_eq!(story.bench.names(), ["nightly-backup-1"]);
    // An attempt that is under way is not interrupted; the next one waits.
    story.migration = Some("crm-43".to_owned());
    story.settle();
    assert_eq!(story.bench.names(), ["nightly-backup-1"]);
    story.answer(1, &failure(Cause::Environment, "StoreFull"));
    story.bench.later(SignedDuration::from_mins(1));
    story.settle();
    assert_eq!(story.reported().1, "WaitingForMigration");
    story.migration = None;
    story.settle();
    assert!(story.bench.has_job("nightly-backup-2"));
}

#[test]
fn the_backup_of_the_schedule_waits_for_none_by_hand() {
    let mut story = Story::new();
    let older = json!({
        "apiVersion": "fairway.dev/v1alpha1", "kind": "Backup",
        "metadata": {"name": "older", "creationTimestamp": "2025-12-31T00:00:00Z"}, "spec": {"app": "crm"},
    });
    story.others = vec![serde_json::from_value(older).unwrap()];
    story.backup.metadata.creation_timestamp = Some(Time(story.bench.now));
    story.last_by_hand = Some(("oldest".to_owned(), story.bench.now));
    story.settle();
    assert_eq!(story.reported().1, "WaitingForBackup");
    let state = json!({"lastRun": {"at": "2026-01-01T00:00:00Z", "backup": "nightly"}});
    let app = story.app.as_mut().unwrap();
    app.status = Some(serde_json::from_value(json!({"backup": state})).unwrap());
    story.settle();
    assert_eq!(story.bench.names(), ["nightly-backup-1"]);
}

#[test]
fn an_attempt_is_recorded_before_its_job_exists() {
    let mut story = Story::new();
    let first = story.pass();
    assert_eq!(first.steps, []);
    assert_eq!(first.status.attempts.as_ref().unwrap().current, 1);
    story.settle();
    assert_eq!(story.bench.names(), ["nightly-backup-1"]);
}

#[test]
fn a_proven_copy_ends_it_and_leaves_no_job() {
    let mut story = Story::new();
    story.settle();
    story.bench.run("nightly-backup-1");
    story.settle();
    story.answer(1, &proven());
    let status = story.status();
    assert_eq!(status.outcome, Some(BackupOutcome::Succeeded));
    assert_eq!(status.set.as_ref().unwrap().path, "shop/crm/nightly-0f1e2d3c");
    assert_eq!(
        (status.level.as_deref(), status.bytes),
        (Some("Decoded"), Some(4711))
    );
    let message = "Wrote 4711 bytes to shop/crm/nightly-0f1e2d3c of claim backups in 12 s, proven to the level Decoded.";
    assert_eq!(
        story.reported(),
        ("True/False/False".into(), "Succeeded".into(), message.into())
    );
    assert_eq!(story.bench.names(), Vec::<String>::new());
}

#[test]
fn a_report_is_recorded_before_its_job_is_removed() {
    let mut story = Story::new();
    story.settle();
    story.bench.answer("nightly-backup-1", &proven());
    let decision = story.pass();
    assert_eq!(decision.status.outcome, Some(BackupOutcome::Succeeded));
    assert_eq!(decision.steps, []);
}

#[test]
fn a_failure_of_the_environment_is_retried_after_a_pause() {
    let mut story = Story::new();
    story.settle();
    story.answer(1, &failure(Cause::Environment, "StoreFull"));
    assert_eq!(
        story.pass().wake,
        Wake::At(story.bench.now + SignedDuration::from_secs(5))
    );
    let message = "StoreFull happened. Attempt 2 begins at 2026-01-01T00:00:05Z, and none begins after 2026-01-02T00:00:00Z.";
    assert_eq!(
        story.reported(),
        (
            "Unknown/True/False".into(),
            "WaitingForEnvironment".into(),
            message.into()
        )
    );
    story.bench.later(SignedDuration::from_secs(5));
    story.settle();
    assert_eq!(
        story.bench.names(),
        ["nightly-backup-2"],
        "the first attempt's Job is gone"
    );
    story.answer(2, &proven());
    assert_eq!(story.status().outcome, Some(BackupOutcome::Succeeded));
}

#[test]
fn a_day_of_attempts_ends_with_the_last_reason() {
    let mut story = Story::new();
    story.settle();
    for attempt in 1..1000 {
        story.answer(attempt, &failure(Cause::Environment, "PasswordRejected"));
        if story.status().outcome.is_some() {
            break;
        }
        let next = story.status().attempts.as_ref().unwrap().next.unwrap();
        story.bench.now = next;
        story.settle();
    }
    let message = "PasswordRejected happened. No attempt succeeded within 24h.";
    assert_eq!(
        story.reported(),
        (
            "False/False/True".into(),
            "PasswordRejected".into(),
            message.into()
        )
    );
    assert_eq!(story.bench.names(), Vec::<String>::new());
}

#[test]
fn a_failure_of_the_version_is_final() {
    let mut story = Story::new();
    story.settle();
    story.answer(1, &failure(Cause::Version, "ToolMissing"));
    assert_eq!(
        story.reported(),
        (
            "False/False/True".into(),
            "ToolMissing".into(),
            "ToolMissing happened.".into()
        )
    );
}

#[test]
fn a_pod_that_was_killed_is_retried() {
    let mut story = Story::new();
    story.settle();
    story.bench.kill("nightly-backup-1");
    story.settle();
    let (_, reason, message) = story.reported();
    assert_eq!(reason, "WaitingForEnvironment");
    assert!(
        message.contains("container agent ran out of memory (OOMKilled)"),
        "{message}"
    );
}

#[test]
fn a_corrected_claim_is_used_at_once() {
    let mut story = Story::new();
    story.settle();
    story.bench.pod_of(
        "nightly-backup-1",
        "Pending",
        json!({"waiting": {"reason": "ContainerCreating"}}),
    );
    story.bench.set_pod(
        "nightly-backup-1-x",
        json!({"phase": "Pending", "conditions": [{
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": "0/1 nodes are available: persistentvolumeclaim \"backups\" not found."
        }]}),
    );
    story.settle();
    let (_, reason, message) = story.reported();
    assert_eq!(reason, "PodNotStarting");
    assert!(
        message.contains("persistentvolumeclaim \"backups\" not found"),
        "{message}"
    );
    let vault = Store::Volume(VolumeStore {
        claim_name: "vault".into(),
    });
    let settings = story.app.as_mut().unwrap().spec.backup.as_mut();
    settings.unwrap().store = vault.clone();
    story.settle();
    assert_eq!(story.bench.names(), ["nightly-backup-2"]);
    assert_eq!(story.status().set.as_ref().unwrap().store, vault);
}

#[test]
fn a_corrected_claim_is_used_where_the_api_server_refused_the_first() {
    let mut story = Story::new();
    story.settle();
    story.bench.jobs.clear();
    let steps = story.pass().steps;
    story.bench.refuse(&steps[0], "claim backups is not allowed here");
    story.settle();
    assert_eq!(story.reported().1, "WriteRefused");
    let vault = Store::Volume(VolumeStore {
        claim_name: "vault".into(),
    });
    let settings = story.app.as_mut().unwrap().spec.backup.as_mut();
    settings.unwrap().store = vault.clone();
    story.settle();
    assert_eq!(story.bench.names(), ["nightly-backup-2"]);
    assert_eq!(story.status().set.as_ref().unwrap().store, vault);
}

#[test]
fn a_silent_pod_is_reported_after_two_minutes() {
    let mut story = Story::new();
    story.settle();
    story.bench.later(SLOW_START - SignedDuration::from_secs(1));
    story.settle();
    assert_eq!(story.reported().1, "BackingUp");
    assert_eq!(
        story.pass().wake,
        Wake::At(story.bench.now + SignedDuration::from_secs(1))
    );
    story.bench.later(SignedDuration::from_secs(1));
    story.settle();
    let (_, reason, message) = story.reported();
    assert_eq!(reason, "PodNotStarting");
    assert!(
        message.contains("kubectl -n shop get events --field-selector involvedObject.name=nightly-backup-1"),
        "{message}"
    );
}

#[rstest]
#[case::no_app(|story: &mut Story| story.app = None, "App crm does not exist or is being deleted. Create a Backup whose spec.app names an App of this namespace.")]
#[case::no_store(|story: &mut Story| story.app.as_mut().unwrap().spec.backup = None, "App crm has no spec.backup. Add its store, then create a new Backup.")]
#[case::no_database(
    |story: &mut Story| story.app.as_mut().unwrap().spec.database = None,
    "App crm has no spec.database, so there is nothing to back up. Add it, then create a new Backup."
)]
fn an_impossible_backup_fails(#[case] break_it: fn(&mut Story), #[case] message: &str) {
    let mut story = Story::new();
    break_it(&mut story);
    story.settle();
    assert_eq!(
        story.reported(),
        ("False/False/True".into(), "AppMissing".into(), message.into())
    );
    assert_eq!(story.bench.names(), Vec::<String>::new());
}

/// W20d: a tool that applies a Backup and its App in one go applies the Backup first.
#[test]
fn a_backup_waits_ten_minutes_for_its_app() {
    let mut story = Story::new();
    let app = story.app.take();
    story.backup.metadata.creation_timestamp = Some(Time(story.bench.now));
    let end = story.bench.now + APPLIED_WITHIN;
    story.settle();
    let message = format!(
        "App crm does not exist or is being deleted. If that is still so at {}, this Backup fails.",
        crate::message::moment(end)
    );
    assert_eq!(
        story.reported(),
        ("Unknown/True/False".into(), "WaitingForApp".into(), message)
    );
    assert_eq!(story.pass().wake, Wake::At(end));

    let mut late = Story {
        backup: story.backup.clone(),
        ..Story::new()
    };
    late.app = None;
    late.bench.later(APPLIED_WITHIN);
    late.settle();
    assert_eq!(late.reported().1, "AppMissing");

    story.app = app;
    story.settle();
    story.answer(1, &proven());
    assert_eq!(story.status().outcome, Some(BackupOutcome::Succeeded));
}

#[test]
fn a_backup_outlives_its_app() {
    let mut story = Story::new();
    story.settle();
    story.bench.run("nightly-backup-1");
    story.app = None;
    story.settle();
    story.answer(1, &proven());
    assert_eq!(story.status().outcome, Some(BackupOutcome::Succeeded));
}

#[test]
fn the_job_of_a_deleted_backup_is_not_taken_for_its_own() {
    let mut story = Story::new();
    story.settle();
    story.bench.answer("nightly-backup-1", &proven());
    story.backup.metadata.uid = Some("another".into());
    story.backup.status = None;
    story.settle();
    assert_eq!(story.status().outcome, None);
    let (_, reason, message) = story.reported();
    assert_eq!(reason, "NameTaken");
    assert_eq!(
        message,
        "Job nightly-backup-1 already exists and was not created for this Backup. Delete it: kubectl -n shop delete \
         job nightly-backup-1"
    );
    let mut job = (*story.bench.jobs[0]).clone();
    job.metadata.deletion_timestamp = Some(Time(story.bench.now));
    story.bench.jobs = vec![Arc::new(job)];
    story.settle();
    let (_, reason, message) = story.reported();
    assert_eq!(reason, "ObjectBeingDeleted");
    assert_eq!(
        message,
        "Waiting for Job nightly-backup-1 to be deleted. It was not created for this Backup."
    );
    story.bench.jobs.clear();
    story.bench.pods.clear();
    story.settle();
    assert_eq!(story.bench.names(), ["nightly-backup-1"]);
}

#[test]
fn a_backup_that_succeeded_says_what_it_lacks() {
    let mut story = Story::new();
    story.settle();
    let mut report = proven();
    let lacks = "roles and tablespaces are not in it: permission denied";
    report.evidence.as_mut().unwrap().notes = vec![lacks.into()];
    story.answer(1, &report);
    assert_eq!(story.status().outcome, Some(BackupOutcome::Succeeded));
    assert_eq!(story.status().notes, [lacks]);
    assert!(
        story
            .reported()
            .2
            .ends_with("Roles and tablespaces are not in it: permission denied."),
        "{:?}",
        story.reported()
    );
}

#[test]
fn a_refused_job_is_reported_at_once() {
    let mut story = Story::new();
    story.settle();
    story.bench.jobs.clear();
    let steps = story.pass().steps;
    story.bench.refuse(&steps[0], "exceeded quota: jobs");
    let decision = story.pass();
    assert_eq!(
        decision.steps,
        [],
        "it is not asked again before the refusal is forgotten"
    );
    let message = "The API server refused to create Job nightly-backup-1: “exceeded quota: jobs”.";
    assert_eq!(
        reported(&decision.status.conditions),
        ("Unknown/True/False".into(), "WriteRefused".into(), message.into())
    );
    story.bench.later(DEADLINE);
    story.settle();
    let message = "The API server refused to create Job nightly-backup-1: “exceeded quota: jobs”. \
                   No attempt succeeded within 24h.";
    assert_eq!(
        story.reported(),
        ("False/False/True".into(), "WriteRefused".into(), message.into())
    );
}

/// S11: of many Backups at once one runs; one that a Release waits for goes first, and one that has begun is not
/// interrupted.
#[rstest]
#[case::older(json!({"metadata": {"name": "older", "creationTimestamp": "2026-01-01T11:59:00Z"}, "spec": {"app": "crm"}}), true)]
#[case::newer(json!({"metadata": {"name": "newer", "creationTimestamp": "2026-01-01T12:01:00Z"}, "spec": {"app": "crm"}}), false)]
#[case::newer_for_a_release(
    json!({"metadata": {"name": "newer", "creationTimestamp": "2026-01-01T12:01:00Z"}, "spec": {"app": "crm", "release": "crm-2"}}),
    true
)]
#[case::newer_that_has_begun(
    json!({
        "metadata": {"name": "newer", "creationTimestamp": "2026-01-01T12:01:00Z"}, "spec": {"app": "crm"},
        "status": {"attempts": {"current": 1, "since": "2026-01-01T12:01:00Z"}}
    }),
    true
)]
#[case::same_moment_by_name(json!({"metadata": {"name": "a", "creationTimestamp": "2026-01-01T12:00:00Z"}, "spec": {"app": "crm"}}), true)]
fn s11_backups_of_an_app_run_one_after_the_other(#[case] other: serde_json::Value, #[case] waits: bool) {
    let mut story = Story::new();
    story.backup.metadata.creation_timestamp = Some(Time("2026-01-01T12:00:00Z".parse().unwrap()));
    let mut object = json!({"apiVersion": "fairway.dev/v1alpha1", "kind": "Backup"});
    for (key, value) in other.as_object().unwrap() {
        object[key] = value.clone();
    }
    let other: Backup = serde_json::from_value(object).unwrap();
    let name = other.name_any();
    story.others.push(other);
    story.settle();
    let (status, reason, message) = story.reported();
    assert_eq!(story.status().attempts.is_none(), waits, "{message}");
    if waits {
        let expected = format!("Waiting for Backup {name}: backups of App crm run one after the other.");
        assert_eq!(
            (&*status, &*reason, &*message),
            ("Unknown/False/False", "WaitingForBackup", &*expected)
        );
        story.others.clear();
        story.settle();
        assert!(
            story.status().attempts.is_some(),
            "it begins when the other has ended"
        );
    }
}

#[rstest]
#[case::of_nobody(json!({"app": "crm"}), "nightly", None, true)]
#[case::of_its_release(json!({"app": "crm", "release": "crm-7"}), "crm-7-0123abcd", None, false)]
#[case::of_its_release_again(json!({"app": "crm", "release": "crm-7"}), "crm-7-0123abcd-2", None, false)]
#[case::with_another_name(json!({"app": "crm", "release": "crm-7"}), "audit", None, true)]
#[case::as_if_of_a_release(json!({"app": "crm", "release": "crm-7"}), "crm-7-x", None, true)]
#[case::with_more_than_a_number(json!({"app": "crm", "release": "crm-7"}), "crm-7-0123abcd-x", None, true)]
#[case::of_a_release_that_had_ended(json!({"app": "crm", "release": "crm-7"}), "crm-7-0123abcd-9", Some("2026-01-01T00:00:00Z"), true)]
fn s11_only_a_release_in_progress_has_backups_that_are_not_by_hand(
    #[case] spec: serde_json::Value,
    #[case] name: &str,
    #[case] ended: Option<&str>,
    #[case] expected: bool,
) {
    let backup: Backup = serde_json::from_value(json!({
        "apiVersion": "fairway.dev/v1alpha1", "kind": "Backup", "spec": spec,
        "metadata": {"name": name, "creationTimestamp": "2026-01-02T00:00:00Z"},
    }))
    .unwrap();
    let mut release: Release = crate::bench::release();
    release.metadata.name = Some("crm-7".to_owned());
    release.metadata.uid = Some("0123abcd-4567".to_owned());
    if let Some(at) = ended {
        let status = json!({"outcome": "Succeeded", "conditions": [{
            "type": "Succeeded", "status": "True", "reason": "Succeeded", "message": "", "lastTransitionTime": at,
        }]});
        release.status = Some(serde_json::from_value(status).unwrap());
    }
    assert_eq!(is_by_hand(&backup, Some(&release), None), expected);
}

#[test]
fn s11_backups_by_hand_begin_five_minutes_apart() {
    let mut story = Story::new();
    story.last_by_hand = Some(("audit".to_owned(), story.bench.now));
    let decision = story.pass();
    let (_, reason, message) = reported(&decision.status.conditions);
    assert_eq!(reason, "WaitingForBackup");
    assert!(
        message.contains("Backup audit has just ended, and 5m lie between"),
        "{message}"
    );
    let turn = story.bench.now.saturating_add(LEAST_INTERVAL).unwrap();
    assert_eq!(decision.wake, Wake::At(turn));
    story.bench.now = turn;
    story.settle();
    assert!(story.status().attempts.is_some());
}

#[test]
fn s11_a_backup_whose_release_was_deleted_is_by_hand() {
    let backup: Backup = serde_json::from_value(json!({
        "apiVersion": "fairway.dev/v1alpha1", "kind": "Backup", "spec": {"app": "crm", "release": "crm-7"},
        "metadata": {"name": "crm-7-0123abcd", "creationTimestamp": "2026-01-02T00:00:00Z"},
    }))
    .unwrap();
    assert!(is_by_hand(&backup, None, None));
}

/// An App whose backups are restored.
fn restoring() -> Story {
    let mut story = Story::new();
    let scratch = serde_json::from_value(json!({"size": "20Gi"})).unwrap();
    story.edit(|spec| spec.backup.as_mut().unwrap().scratch = Some(scratch));
    story
}

fn restored() -> BackupReport {
    let report = proven();
    BackupReport {
        evidence: report.evidence.map(|evidence| BackupEvidence {
            level: "Restored".into(),
            proof: Some(crate::protocol::RestoreProof {
                seconds: 3.4,
                tables: 7,
                bytes: 9000,
            }),
            ..evidence
        }),
        ..report
    }
}

#[test]
fn what_a_restore_took_and_found_is_in_status() {
    let mut story = restoring();
    story.settle();
    let (_, reason, message) = story.reported();
    assert_eq!(reason, "BackingUp");
    assert!(message.contains("restoring it"), "{message}");
    assert_eq!(story.status().verify, Some(Level::Restored));
    story.answer(1, &restored());
    let status = story.status();
    assert_eq!(status.level.as_deref(), Some("Restored"));
    let found = RestoreProof {
        seconds: 3,
        tables: 7,
        bytes: 9000,
    };
    assert_eq!(status.proof, Some(found));
    let (_, _, message) = story.reported();
    assert!(
        message.ends_with("Restored 7 tables and 9000 bytes in 3 s."),
        "{message}"
    );
}

#[test]
fn a_backup_below_the_level_that_is_asked_for_fails() {
    let mut story = restoring();
    story.settle();
    story.answer(1, &proven());
    assert_eq!(story.status().outcome, Some(BackupOutcome::Failed));
    let (_, reason, message) = story.reported();
    assert_eq!(reason, "AgentFailed");
    assert!(message.contains("Decoded and not to Restored"), "{message}");
}

#[test]
fn an_app_that_asks_for_less_meanwhile_takes_what_there_is() {
    let mut story = restoring();
    story.settle();
    story.edit(|spec| spec.backup.as_mut().unwrap().verify = Some(Level::Decoded));
    story.answer(1, &proven());
    assert_eq!(story.status().outcome, Some(BackupOutcome::Succeeded));
    assert_eq!(story.status().level.as_deref(), Some("Decoded"));
}

#[test]
fn an_app_that_asks_for_more_meanwhile_gets_it_with_the_next_backup() {
    let mut story = Story::new();
    story.settle();
    let scratch = serde_json::from_value(json!({"size": "20Gi"})).unwrap();
    story.edit(|spec| spec.backup.as_mut().unwrap().scratch = Some(scratch));
    story.answer(1, &failure(Cause::Environment, "StoreFull"));
    story.bench.later(SignedDuration::from_secs(5));
    story.settle();
    assert_eq!(story.status().verify, Some(Level::Decoded));
    // The first attempt may have left a set, which the second one proves again.
    story.answer(2, &proven());
    assert_eq!(story.status().outcome, Some(BackupOutcome::Succeeded));
}

#[test]
fn a_dump_that_no_server_takes_back_is_not_taken_again() {
    let mut story = restoring();
    story.settle();
    story.answer(1, &failure(Cause::Version, "BackupNotRestorable"));
    assert_eq!(story.status().outcome, Some(BackupOutcome::Failed));
    let (_, reason, message) = story.reported();
    assert_eq!(
        (&*reason, &*message),
        ("BackupNotRestorable", "BackupNotRestorable happened.")
    );
    assert_eq!(story.bench.names(), Vec::<String>::new());
}

#[rstest]
#[case::less_than_half(Some(9423), true)]
#[case::half(Some(9422), false)]
#[case::the_first_one(None, false)]
fn a_backup_of_less_than_half_the_last_ones_size_warns(#[case] last: Option<i64>, #[case] warns: bool) {
    let mut story = Story::new();
    story.last_proven = last.map(|bytes| ("crm-41-release0".to_owned(), bytes));
    story.settle();
    story.answer(1, &proven());
    let conditions = &story.status().conditions;
    let warned = conditions.iter().find(|condition| condition.type_ == WARNED);
    let said = warned.map(|condition| (condition.reason.as_str(), condition.status.as_str()));
    assert_eq!(said, warns.then_some(("BackupShrank", "True")));
    if let Some(condition) = warned {
        for part in ["4711 bytes", "crm-41-release0", "9423"] {
            assert!(condition.message.contains(part), "{}", condition.message);
        }
    }
    // It counts all the same: rows may have been deleted on purpose.
    assert_eq!(story.status().outcome, Some(BackupOutcome::Succeeded));
}
