use super::*;
use crate::backup::plan;
use crate::bench::{self, Bench, app, reported};
use crate::protocol::Failure;
use crate::{Decision, Wake};
use fairway_crds::App;
use fairway_crds::app::Keep;
use fairway_crds::store::{Store, VolumeStore};
use rstest::rstest;
use serde_json::json;
use std::sync::Arc;

/// A verified Backup that an App keeps no longer, and a newer one.
struct Story {
    bench: Bench,
    backup: Backup,
    app: Option<App>,
    newer: Option<Timestamp>,
    held_by: Vec<String>,
    others: Vec<Backup>,
    /// Whether the Backup was deleted.
    is_gone: bool,
}

impl Story {
    fn new() -> Self {
        let mut bench = Bench::new();
        bench.later(SignedDuration::from_hours(24));
        let mut app = app();
        app.status = Some(serde_json::from_value(json!({"observedGeneration": 1})).unwrap());
        app.spec.backup.as_mut().unwrap().keep = Some(Keep {
            last: 1,
            daily: 0,
            weekly: 0,
            monthly: 0,
            yearly: 0,
        });
        Self {
            bench,
            backup: backup("nightly", "Succeeded"),
            app: Some(app),
            newer: Some("2026-01-01T01:00:00Z".parse().unwrap()),
            held_by: Vec::new(),
            others: Vec::new(),
            is_gone: false,
        }
    }

    fn pass(&self) -> Decision<BackupStatus> {
        let newer = Candidate {
            name: "newer".to_owned(),
            verified: self.newer,
            failed: None,
            keep_until: None,
            held_by: Vec::new(),
        };
        let mut own = Candidate::of(&self.backup, &[], None);
        own.held_by = self.held_by.clone();
        let observed = BackupObserved {
            backup: Arc::new(self.backup.clone()),
            app: self.app.clone().map(Arc::new),
            release: None,
            snapshot: None,
            others: Vec::new(),
            last_by_hand: None,
            last_proven: None,
            migration: None,
            candidates: vec![own, newer],
            removals: self.others.iter().cloned().map(Arc::new).collect(),
            jobs: self.bench.jobs.clone(),
            pods: self.bench.pods.clone(),
            refused: self.bench.refused.clone(),
            dry_run_passed: self.bench.dry_run_passed.clone(),
        };
        plan(&observed, &bench::settings(), self.bench.now)
    }

    /// One pass, whose status is lost if `crashes`. Returns whether it changed anything.
    fn step(&mut self, crashes: bool) -> bool {
        let Decision {
            mut steps, status, ..
        } = self.pass();
        let is_changed = !steps.is_empty() || self.backup.status.as_ref() != Some(&status);
        let deletes = |step: &Step| matches!(step, Step::Delete(target) if target.kind == Kind::Backup);
        self.is_gone |= steps.iter().any(deletes);
        steps.retain(|step| !deletes(step));
        self.bench.execute(&steps);
        if !crashes {
            self.backup.status = Some(status);
        }
        is_changed
    }

    /// Plans and executes until a pass changes nothing.
    fn settle(&mut self) {
        for _ in 0..20 {
            if self.is_gone || !self.step(false) {
                return;
            }
        }
        panic!("no fixed point");
    }

    fn answer(&mut self, attempt: u32, report: &PruneReport) {
        self.bench.answer(&format!("nightly-prune-{attempt}"), report);
    }

    fn removal(&self) -> Option<&Removal> {
        self.backup.status.as_ref()?.removal.as_ref()
    }

    fn reported(&self) -> (String, String, String) {
        reported(&self.backup.status.as_ref().unwrap().conditions)
    }

    fn settings(&mut self) -> &mut fairway_crds::app::BackupSettings {
        self.app.as_mut().unwrap().spec.backup.as_mut().unwrap()
    }
}

fn backup(name: &str, outcome: &str) -> Backup {
    let set =
        json!({"store": {"volume": {"claimName": "backups"}}, "path": format!("shop/crm/{name}-0f1e2d3c")});
    let succeeded = match outcome {
        "Succeeded" => "True",
        _ => "False",
    };
    let mut status = json!({
        "observedGeneration": 1, "outcome": outcome, "level": "Decoded", "takenAt": "2026-01-01T00:00:01Z",
        "attempts": {"current": 1, "since": "2026-01-01T00:00:00Z"},
        "conditions": [{
            "type": "Succeeded", "status": succeeded, "reason": outcome, "message": "It ended.", "observedGeneration": 1,
            "lastTransitionTime": "2026-01-01T00:00:05Z",
        }],
    });
    if outcome == "Succeeded" {
        status["set"] = set;
    }
    serde_json::from_value(json!({
        "apiVersion": "fairway.dev/v1alpha1", "kind": "Backup",
        "metadata": {
            "name": name, "namespace": "shop", "uid": "0f1e2d3c-uid", "generation": 1, "resourceVersion": "5",
        },
        "spec": {"app": "crm"}, "status": status,
    }))
    .unwrap()
}

fn end(outcome: PruneOutcome) -> PruneReport {
    PruneReport {
        outcome: Some(outcome),
        objects: 3,
        bytes: 4711,
        until: None,
        note: None,
        failure: None,
    }
}

fn retained(until: Option<&str>) -> PruneReport {
    PruneReport {
        objects: 0,
        bytes: 0,
        until: until.map(str::to_owned),
        note: Some("The backup store, claim backups, refuses to delete x.".to_owned()),
        ..end(PruneOutcome::Retained)
    }
}

#[test]
fn what_is_to_be_removed_is_stored_before_an_agent_begins() {
    let mut story = Story::new();
    let first = story.pass();
    assert_eq!(first.steps, []);
    assert_eq!(first.status.removal.as_ref().unwrap().attempts, None);
    story.step(false);
    assert!(!crate::proof::is_verified(&story.backup));
    assert_eq!(
        story.reported(),
        (
            "True/True/False".into(),
            "RemovingBackup".into(),
            WORKING.to_owned()
        )
    );
    assert_eq!(
        taken_at(&story.backup),
        Some("2026-01-01T00:00:01Z".parse().unwrap())
    );
    let second = story.pass();
    assert_eq!(second.steps, [], "the attempt is stored first");
    story.settle();
    assert_eq!(story.bench.names(), ["nightly-prune-1"]);
}

#[test]
fn the_backup_goes_after_its_set_and_in_the_version_that_says_so() {
    let mut story = Story::new();
    story.settle();
    story.answer(1, &end(PruneOutcome::Removed));
    let decision = story.pass();
    assert_eq!(decision.steps, [], "what became of the set is stored first");
    story.step(false);
    assert_eq!(story.removal().unwrap().state, RemovalState::Removed);
    let decision = story.pass();
    let [Step::Delete(target)] = &*decision.steps else {
        panic!("{:?}", decision.steps);
    };
    assert_eq!((target.kind, &*target.name), (Kind::Backup, "nightly"));
    assert_eq!(target.resource_version.as_deref(), Some("5"));
    assert!(target.kind.is_deleted_unchanged());
    assert_eq!(
        removed(&story.backup).unwrap(),
        "Retention has removed Backup nightly of 2026-01-01T00:00:01Z: 3 files or objects with 4711 bytes of \
         shop/crm/nightly-0f1e2d3c in claim backups."
    );
}

#[test]
fn a_crash_after_any_pass_changes_nothing_about_the_end() {
    for crash in 0..8 {
        let mut story = Story::new();
        for pass in 0..30 {
            if story.is_gone {
                break;
            }
            if story.bench.has_job("nightly-prune-1") && story.bench.pods.is_empty() {
                story.answer(1, &end(PruneOutcome::Removed));
            }
            story.step(pass == crash);
        }
        assert!(story.is_gone, "after a crash in pass {crash}");
        assert_eq!(story.removal().unwrap().state, RemovalState::Removed);
    }
}

#[rstest]
#[case::without_its_app(|story: &mut Story| story.app = None, "does not exist or is being deleted")]
#[case::without_keep(|story: &mut Story| story.settings().keep = None, "has no spec.backup.keep")]
#[case::suspended(|story: &mut Story| story.app.as_mut().unwrap().spec.suspend = true, "spec.suspend of App crm")]
#[case::restored(|story: &mut Story| story.app.as_mut().unwrap().status = None, "is not reconciled yet")]
#[case::kept_by_a_user(
    |story: &mut Story| story.backup.spec.keep_until = Some("2026-02-01T00:00:00Z".parse().unwrap()),
    "stays until 2026-02-01T00:00:00Z"
)]
#[case::newest(|story: &mut Story| story.newer = None, "No newer backup of App crm is verified")]
#[case::newest_by_a_clock_that_was_ahead(
    |story: &mut Story| story.newer = Some("2031-01-01T00:00:00Z".parse().unwrap()),
    "No newer backup of App crm is verified"
)]
#[case::in_use(|story: &mut Story| story.held_by = vec!["Release crm-3".to_owned()], "Release crm-3 refers to it")]
fn what_speaks_against_it_keeps_a_backup_and_stops_a_removal(
    #[case] change: fn(&mut Story),
    #[case] words: &str,
) {
    let mut kept = Story::new();
    change(&mut kept);
    kept.settle();
    assert_eq!(kept.removal(), None, "nothing is decided");

    let mut late = Story::new();
    late.step(false);
    change(&mut late);
    late.settle();
    assert_eq!(late.bench.names(), [""; 0], "nothing has begun");
    assert!(late.removal().is_some(), "it does not come back");
    let (state, reason, message) = late.reported();
    assert_eq!((&*state, &*reason), ("True/False/False", "RemovingBackup"));
    assert!(message.contains(words), "{message}");
}

#[test]
fn an_attempt_that_was_stored_does_not_begin_when_its_app_is_gone() {
    let mut story = Story::new();
    story.step(false);
    story.step(false);
    assert!(story.removal().unwrap().attempts.is_some());
    story.app = None;
    story.settle();
    assert_eq!(story.bench.names(), [""; 0]);
}

#[test]
fn sets_are_removed_one_after_the_other() {
    let mut other = backup("other", "Succeeded");
    let mut removal = json!({
        "since": "2026-01-01T00:00:00Z", "state": "Removing", "attempts": {"current": 1, "since": "2026-01-01T00:00:00Z"},
        "set": {"store": {"volume": {"claimName": "backups"}}, "path": "shop/crm/other-0f1e2d3c"},
    });
    let mut set = |removal: &serde_json::Value| {
        other.status.as_mut().unwrap().removal = Some(serde_json::from_value(removal.clone()).unwrap());
        other.clone()
    };
    let mut story = Story::new();
    story.others = vec![set(&removal)];
    story.settle();
    assert_eq!(story.removal(), None, "nothing is decided meanwhile");
    story.others.clear();
    story.step(false);
    story.others = vec![set(&removal)];
    story.settle();
    assert!(story.reported().2.contains("Backup other is removed first"));
    removal["attempts"]["next"] = json!("2026-01-02T00:00:05Z");
    story.others = vec![set(&removal)];
    story.settle();
    assert_eq!(
        story.bench.names(),
        ["nightly-prune-1"],
        "a pause holds up nobody"
    );
}

/// Complaint 29: a store that protects what it holds makes each deletion an error.
#[rstest]
#[case::without_a_date(None, 24)]
#[case::with_a_date(Some("2026-01-04T00:00:00Z"), 48)]
#[case::with_a_date_that_has_passed(Some("2025-01-04T00:00:00Z"), 24)]
fn c29_a_refused_removal_is_said_and_asked_again(#[case] until: Option<&str>, #[case] hours: i64) {
    let mut story = Story::new();
    story.settle();
    story.answer(1, &retained(until));
    story.settle();
    assert_eq!(story.removal().unwrap().state, RemovalState::Retained);
    assert_eq!(story.bench.names(), [""; 0], "its Job is removed");
    let (state, reason, message) = story.reported();
    assert_eq!((&*state, &*reason), ("True/False/False", "BackupRetained"));
    let next = story.bench.now + SignedDuration::from_hours(hours);
    let expected = format!(
        "The backup store, claim backups, refuses to delete x. Fairway asks again at {}.",
        moment(next)
    );
    assert_eq!(message, expected);
    assert_eq!(story.pass().wake, Wake::At(next));
    story.bench.now = next;
    story.settle();
    assert_eq!(story.bench.names(), ["nightly-prune-2"]);
    assert_eq!(
        story.reported().1,
        "BackupRetained",
        "that it is asked is no news"
    );
    story.answer(2, &end(PruneOutcome::Hidden));
    story.settle();
    assert!(story.is_gone);
    assert_eq!(story.removal().unwrap().state, RemovalState::Hidden);
}

#[test]
fn a_store_that_fails_is_asked_again_with_pauses_and_then_once_a_day() {
    let failed = PruneReport {
        outcome: None,
        failure: Some(Failure {
            cause: Cause::Environment,
            reason: Reason::StoreUnreachable,
            message: "The store does not answer.".to_owned(),
        }),
        ..end(PruneOutcome::Removed)
    };
    let mut story = Story::new();
    story.settle();
    let begin = story.bench.now;
    let mut attempt = 1;
    while story.bench.now.duration_since(begin) < SignedDuration::from_hours(20) {
        story.answer(attempt, &failed);
        story.settle();
        let (_, reason, message) = story.reported();
        assert_eq!(reason, "WaitingForEnvironment");
        assert!(message.starts_with("The store does not answer."), "{message}");
        let Wake::At(next) = story.pass().wake else {
            panic!("nothing wakes it");
        };
        let pause = next.duration_since(story.bench.now);
        assert!(
            pause >= SignedDuration::from_secs(5) && pause <= SignedDuration::from_hours(24),
            "{pause}"
        );
        story.bench.now = next;
        story.settle();
        attempt += 1;
        assert_eq!(story.bench.names(), [format!("nightly-prune-{attempt}")]);
    }
    assert!(story.bench.now.duration_since(begin) > SignedDuration::from_hours(24));
    assert!(attempt < 25, "{attempt} attempts in a day");
    story.answer(attempt, &end(PruneOutcome::Removed));
    story.settle();
    assert!(story.is_gone);
}

#[test]
fn a_backup_that_failed_is_removed_from_its_place_after_a_week() {
    let mut story = Story::new();
    story.backup = backup("nightly", "Failed");
    story.settle();
    let until: Timestamp = "2026-01-08T00:00:05Z".parse().unwrap();
    assert_eq!(story.removal(), None);
    assert_eq!(
        story.backup.status.as_ref().unwrap().kept_because,
        ["unproven, to 2026-01-08T00:00:05Z"]
    );
    assert_eq!(story.pass().wake, Wake::At(until));
    story.bench.now = until;
    story.settle();
    assert_eq!(
        story.removal().unwrap().set.path,
        "shop/crm/nightly-0f1e2d3c",
        "the place in which it may have left something"
    );
    assert_eq!(story.reported().0, "False/True/False");
    assert_eq!(story.bench.names(), ["nightly-prune-1"]);
}

#[test]
fn the_store_of_the_set_is_asked_with_the_apps_credentials_of_today() {
    let bucket = |secret: &str, bucket: &str| -> Store {
        let key = |key: &str| json!({"secretKeyRef": {"name": secret, "key": key}});
        let credentials = json!({"accessKeyId": key("id"), "secretAccessKey": key("secret")});
        let s3 = json!({"bucket": bucket, "region": "eu-central-1", "credentialsFrom": credentials});
        serde_json::from_value(json!({"s3": s3})).unwrap()
    };
    let store_of_job = |set: Store, current: Store| {
        let mut story = Story::new();
        story.backup.status.as_mut().unwrap().set.as_mut().unwrap().store = set;
        story.settings().store = current;
        story.settle();
        serde_json::to_string(story.bench.job("nightly-prune-1")).unwrap()
    };
    let job = store_of_job(bucket("old", "a"), bucket("new", "a"));
    assert!(
        job.contains(r#""name":"new""#) && !job.contains(r#""name":"old""#),
        "{job}"
    );
    let job = store_of_job(bucket("old", "a"), bucket("new", "b"));
    assert!(job.contains(r#""name":"old""#), "{job}");
    let volume = Store::Volume(VolumeStore {
        claim_name: "vault".into(),
    });
    let job = store_of_job(bucket("old", "a"), volume);
    assert!(!job.contains("vault"), "{job}");
    assert!(!job.contains("FAIRWAY_DATABASE"), "it needs no database: {job}");
}
