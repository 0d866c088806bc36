use crate::app;
use crate::bench;
use crate::names;
use crate::observed::{AppObserved, Refusal};
use crate::schedule::Schedule;
use crate::{Decision, Object, Step, Wake};
use fairway_crds::app::{AppStatus, BackupSchedule, BackupState};
use fairway_crds::condition::{BACKUP_OVERDUE, STALLED};
use fairway_crds::{App, Backup};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt;
use proptest::prelude::*;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// An App with a schedule, and what the API server holds of its backups.
#[derive(Debug)]
struct Story {
    app: App,
    backups: Vec<Backup>,
    refused: BTreeMap<String, Refusal>,
    now: Timestamp,
}

impl Story {
    /// App `crm` has a schedule since noon.
    fn new(cron: &str) -> Self {
        let mut app = bench::app();
        app.metadata.generation = Some(1);
        app.spec.backup.as_mut().unwrap().schedule = Some(BackupSchedule {
            cron: cron.to_owned(),
            time_zone: "UTC".to_owned(),
        });
        let mut story = Self {
            app,
            backups: Vec::new(),
            refused: BTreeMap::new(),
            now: at("2026-01-01T12:00:00Z"),
        };
        story.settle();
        story
    }

    fn plan(&self) -> Decision<AppStatus> {
        let observed = AppObserved {
            app: Arc::new(self.app.clone()),
            releases: Vec::new(),
            snapshots: BTreeMap::new(),
            deployments: Vec::new(),
            pods: Vec::new(),
            migrations: Vec::new(),
            backups: self.backups.iter().cloned().map(Arc::new).collect(),
            refused: self.refused.clone(),
        };
        app::plan(&observed, &bench::settings(), self.now)
    }

    /// Backups that a decision creates.
    fn created(decision: &Decision<AppStatus>) -> Vec<Backup> {
        let steps = decision.steps.iter();
        steps
            .filter_map(|step| match step {
                Step::Create(object) => match &**object {
                    Object::Backup(backup) => Some(backup.clone()),
                    _ => None,
                },
                _ => None,
            })
            .collect()
    }

    fn execute(&mut self, decision: &Decision<AppStatus>) {
        for mut backup in Self::created(decision) {
            let exists = self
                .backups
                .iter()
                .any(|other| other.name_any() == backup.name_any());
            assert!(!exists, "{} is created twice", backup.name_any());
            backup.metadata.creation_timestamp = Some(Time(self.now));
            self.backups.push(backup);
        }
    }

    /// Plans and executes until a pass changes nothing; when it is to be planned again.
    fn settle(&mut self) -> Wake {
        for _ in 0..10 {
            let decision = self.plan();
            let news = Some(&decision.status) != self.app.status.as_ref();
            if !news && Self::created(&decision).is_empty() {
                return decision.wake;
            }
            self.execute(&decision);
            self.app.status = Some(decision.status);
        }
        panic!("no fixed point");
    }

    fn pass_at(&mut self, moment: &str) -> Wake {
        self.now = at(moment);
        self.settle()
    }

    /// The Backup of that name ends well, now.
    fn verify(&mut self, name: &str) {
        let now = self.now;
        self.end(
            name,
            json!({"outcome": "Succeeded", "level": "Decoded", "takenAt": now.to_string()}),
        );
    }

    fn end(&mut self, name: &str, mut status: serde_json::Value) {
        let now = self.now.to_string();
        status["attempts"] = json!({"current": 1, "since": now});
        status["conditions"] = json!([{
            "type": "Succeeded", "status": "True", "reason": "Succeeded", "message": "m", "lastTransitionTime": now,
        }]);
        let mut backups = self.backups.iter_mut();
        let backup = backups.find(|backup| backup.name_any() == name).unwrap();
        backup.status = Some(serde_json::from_value(status).unwrap());
    }

    fn names(&self) -> Vec<String> {
        self.backups.iter().map(|backup| backup.name_any()).collect()
    }

    fn state(&self) -> &BackupState {
        self.app.status.as_ref().unwrap().backup.as_ref().unwrap()
    }

    fn condition(&self, type_: &str) -> Option<&Condition> {
        let mut conditions = self.app.status.as_ref().unwrap().conditions.iter();
        conditions.find(|condition| condition.type_ == type_)
    }

    fn schedule(&self) -> Schedule {
        let settings = self.app.spec.backup.as_ref().unwrap();
        Schedule::of(settings.schedule.as_ref().unwrap(), "shop", "crm").unwrap()
    }

    /// When the work of a run begins.
    fn start(&self, run: &str) -> Timestamp {
        self.schedule().start(at(run))
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn second() -> SignedDuration {
    SignedDuration::from_secs(1)
}

#[test]
fn a_schedule_says_when_its_next_runs_begin_and_wakes_then() {
    let mut story = Story::new("15 2 * * *");
    let starts = [
        "2026-01-02T02:15:00Z",
        "2026-01-03T02:15:00Z",
        "2026-01-04T02:15:00Z",
    ];
    let starts = starts.map(|run| story.start(run));
    assert_eq!(story.state().next_runs, starts);
    assert_eq!(story.names(), [""; 0]);
    assert_eq!(story.settle(), Wake::At(starts[0]));
    story.now = starts[0] - second();
    assert_eq!(story.settle(), Wake::At(starts[0]));
    assert_eq!(story.names(), [""; 0]);
    story.now = starts[0];
    story.settle();
    assert_eq!(story.names(), ["crm-20260102t0215z"]);
    assert_eq!(story.state().next_runs[..2], starts[1..]);
    assert_eq!(
        story.state().last_run.as_ref().unwrap().at,
        at("2026-01-02T02:15:00Z")
    );
    assert_eq!(story.backups[0].spec.reason, "scheduled for 2026-01-02T02:15:00Z");
    assert_eq!(story.backups[0].owner_references(), [], "it outlives its App");
}

#[test]
fn a_crash_between_backup_and_status_makes_no_second_one() {
    let mut story = Story::new("15 2 * * *");
    story.now = story.start("2026-01-02T02:15:00Z");
    let decision = story.plan();
    story.execute(&decision);
    // The status was not written.
    let again = story.plan();
    assert_eq!(Story::created(&again), []);
    assert_eq!(again.status, decision.status);
}

#[test]
fn of_the_runs_that_went_by_the_last_is_caught_up_on() {
    let mut story = Story::new("15 2 * * *");
    story.pass_at("2026-01-09T08:00:00Z");
    assert_eq!(story.names(), ["crm-20260109t0215z"]);
    assert_eq!(
        story.state().next_runs[0],
        story.start("2026-01-10T02:15:00Z"),
        "the next run is the usual one"
    );
}

#[test]
fn a_run_that_has_not_begun_leaves_the_one_before_to_be_caught_up_on() {
    let mut story = Story::new("15 2 * * *");
    story.now = story.start("2026-01-09T02:15:00Z") - second();
    story.settle();
    assert_eq!(story.names(), ["crm-20260108t0215z"]);
    story.verify("crm-20260108t0215z");
    story.now += second();
    story.settle();
    assert_eq!(story.names()[1], "crm-20260109t0215z");
}

#[test]
fn no_scheduled_backup_begins_beside_another_and_the_last_run_is_caught_up_on() {
    let mut story = Story::new("0 * * * *");
    story.pass_at("2026-01-01T13:30:00Z");
    story.pass_at("2026-01-01T14:30:00Z");
    story.pass_at("2026-01-01T15:30:00Z");
    assert_eq!(story.names(), ["crm-20260101t1300z"]);
    story.verify("crm-20260101t1300z");
    story.settle();
    assert_eq!(story.names()[1..], ["crm-20260101t1500z"]);
}

#[test]
fn a_scheduled_backup_that_a_user_deletes_is_not_created_again() {
    let mut story = Story::new("15 2 * * *");
    story.pass_at("2026-01-02T08:00:00Z");
    story.backups.clear();
    story.settle();
    assert_eq!(story.names(), [""; 0]);
    story.pass_at("2026-01-03T02:15:00Z");
    let overdue = &story.condition(BACKUP_OVERDUE).unwrap().message;
    assert!(
        overdue.ends_with("Backup crm-20260102t0215z of the last run of the schedule was deleted."),
        "{overdue}"
    );
}

#[test]
fn runs_while_the_app_is_suspended_are_skipped() {
    let mut story = Story::new("15 2 * * *");
    story.app.spec.suspend = true;
    assert_eq!(story.pass_at("2026-01-04T08:00:00Z"), Wake::OnChange);
    assert!(story.state().next_runs.is_empty() && story.names().is_empty());
    story.app.spec.suspend = false;
    let wake = story.settle();
    assert_eq!(wake, Wake::At(story.start("2026-01-05T02:15:00Z")));
    assert_eq!(story.names(), [""; 0]);
    assert_eq!(story.condition(BACKUP_OVERDUE), None);
}

#[test]
fn an_edited_schedule_counts_from_the_edit_on() {
    let mut story = Story::new("15 2 * * *");
    story.pass_at("2026-01-02T08:00:00Z");
    let schedule = story.app.spec.backup.as_mut().unwrap().schedule.as_mut().unwrap();
    schedule.cron = "0 7 * * *".to_owned();
    story.settle();
    assert_eq!(story.names(), ["crm-20260102t0215z"]);
    assert_eq!(story.state().next_runs[0], story.start("2026-01-03T07:00:00Z"));
    story.app.spec.backup.as_mut().unwrap().schedule = None;
    assert_eq!(story.settle(), Wake::OnChange);
    assert_eq!(story.app.status.as_ref().unwrap().backup, None);
}

#[test]
fn a_clock_that_was_ahead_holds_nothing_up_when_it_is_right_again() {
    let mut story = Story::new("15 2 * * *");
    story.pass_at("2027-06-01T08:00:00Z");
    assert_eq!(story.names(), ["crm-20270601t0215z"]);
    story.verify("crm-20270601t0215z");
    story.pass_at("2026-01-02T08:00:00Z");
    assert_eq!(story.names()[1..], ["crm-20260102t0215z"]);
    // Nor does the backup of that clock hide that there is no other.
    story.end("crm-20260102t0215z", json!({"outcome": "Failed"}));
    story.pass_at("2026-01-03T08:00:00Z");
    assert!(story.condition(BACKUP_OVERDUE).is_some());
}

#[test]
fn a_backup_that_the_api_server_refuses_is_said_and_still_due() {
    let mut story = Story::new("15 2 * * *");
    story.now = story.start("2026-01-02T02:15:00Z");
    let step = story
        .plan()
        .steps
        .into_iter()
        .find(|step| step.id().starts_with("Backup/"));
    let refusal = Refusal {
        message: "exceeded quota: backups".to_owned(),
        conflicts: Vec::new(),
        may_pass: true,
    };
    story.refused.insert(step.unwrap().key(), refusal);
    let decision = story.plan();
    assert_eq!(Story::created(&decision), []);
    assert_eq!(decision.status.backup.as_ref().unwrap().last_run, None);
    story.refused.clear();
    story.now += SignedDuration::from_mins(5);
    story.settle();
    assert_eq!(story.names(), ["crm-20260102t0215z"]);
}

#[test]
fn a_schedule_that_cannot_be_followed_takes_none_and_wakes_nobody() {
    let mut story = Story::new("15 2 * * *");
    let settings = story.app.spec.backup.as_mut().unwrap();
    settings.schedule.as_mut().unwrap().time_zone = "Mars/Olympus".to_owned();
    assert_eq!(story.pass_at("2026-01-05T08:00:00Z"), Wake::OnChange);
    assert_eq!(story.names(), [""; 0]);
    assert!(story.state().next_runs.is_empty());
    let settings = story.app.spec.backup.as_mut().unwrap();
    settings.schedule.as_mut().unwrap().time_zone = "UTC".to_owned();
    story.settle();
    assert_eq!(
        story.state().next_runs[0],
        story.start("2026-01-06T02:15:00Z"),
        "what went by meanwhile does not count"
    );
    assert_eq!(story.condition(STALLED), None);
}

#[test]
fn no_verified_backup_by_the_next_run_is_overdue_and_a_verified_one_ends_that() {
    let mut story = Story::new("15 2 * * *");
    story.pass_at("2026-01-02T08:00:00Z");
    let by = Wake::At(at("2026-01-03T02:15:00Z"));
    assert_eq!(story.settle(), by);
    story.pass_at("2026-01-03T02:14:59Z");
    assert_eq!(story.condition(BACKUP_OVERDUE), None);
    story.pass_at("2026-01-03T02:15:00Z");
    let overdue = story.condition(BACKUP_OVERDUE).unwrap();
    assert_eq!(overdue.reason, "BackupOverdue");
    assert_eq!(
        overdue.message,
        "No backup has been verified since 2026-01-02T02:15:00Z, when the schedule asked for one. There is no verified backup. \
         To see how the last run of the schedule went: kubectl -n shop describe backup crm-20260102t0215z"
    );
    story.verify("crm-20260102t0215z");
    let wake = story.settle();
    assert_eq!(story.condition(BACKUP_OVERDUE), None);
    let newest = story.state().last_verified.clone().unwrap();
    assert_eq!(
        (newest.name.as_str(), newest.level.as_str()),
        ("crm-20260102t0215z", "Decoded")
    );
    assert_eq!(wake, Wake::At(story.start("2026-01-03T02:15:00Z")));
}

#[test]
fn a_weekly_run_is_overdue_after_a_day() {
    let mut story = Story::new("0 3 * * 6");
    story.pass_at("2026-01-03T08:00:00Z");
    let start = story.start("2026-01-03T03:00:00Z");
    assert_eq!(story.settle(), Wake::At(start + SignedDuration::from_hours(24)));
    story.now = start + SignedDuration::from_hours(24);
    story.settle();
    assert!(story.condition(BACKUP_OVERDUE).is_some());
}

#[test]
fn a_backup_by_hand_counts_as_well() {
    let mut story = Story::new("15 2 * * *");
    story.pass_at("2026-01-02T08:00:00Z");
    let by_hand = json!({
        "apiVersion": "fairway.dev/v1alpha1", "kind": "Backup",
        "metadata": {"name": "by-hand", "namespace": "shop"}, "spec": {"app": "crm"},
    });
    story.backups.push(serde_json::from_value(by_hand).unwrap());
    story.verify("by-hand");
    story.pass_at("2026-01-03T02:16:00Z");
    assert_eq!(story.condition(BACKUP_OVERDUE), None);
    assert_eq!(story.state().last_verified.as_ref().unwrap().name, "by-hand");
}

#[test]
fn a_database_server_with_another_clock_makes_nothing_overdue() {
    let mut story = Story::new("15 2 * * *");
    story.pass_at("2026-01-02T02:25:00Z");
    // Its clock is an hour behind.
    let taken = json!({"outcome": "Succeeded", "takenAt": "2026-01-02T01:25:00Z"});
    story.end("crm-20260102t0215z", taken);
    story.pass_at("2026-01-03T02:16:00Z");
    assert_eq!(story.condition(BACKUP_OVERDUE), None);
}

/// A time that passes between two looks at the App, which a crash may follow.
#[derive(Clone, Debug)]
enum Event {
    Passes(i64),
    /// The clock is set by that much, for the rest of the story.
    ClockIsSet(i64),
    /// A pass that ends before its status is written.
    Crashes,
    Verified,
    Failed,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (1..40_000_i64).prop_map(Event::Passes),
        1 => (40_000..4_000_000_i64).prop_map(Event::Passes),
        1 => (-200_000..200_000_i64).prop_map(Event::ClockIsSet),
        2 => Just(Event::Crashes),
        4 => Just(Event::Verified),
        1 => Just(Event::Failed),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    /// Whatever happens: a run has one Backup, not before its time, two are never open, and what is due has been created once
    /// nothing is under way.
    #[test]
    fn each_run_has_at_most_one_backup(
        cron in prop::sample::select(&["15 2 * * *", "*/20 * * * *", "0 */6 * * 1-5", "30 23 28-31 * *"][..]),
        events in prop::collection::vec(event(), 1..25),
    ) {
        let mut story = Story::new(cron);
        let mut latest_now = story.now;
        for event in events {
            match event {
                Event::Passes(seconds) | Event::ClockIsSet(seconds) => {
                    story.now += SignedDuration::from_secs(seconds);
                    latest_now = latest_now.max(story.now);
                }
                Event::Crashes => {
                    let decision = story.plan();
                    story.execute(&decision);
                    continue;
                }
                Event::Verified | Event::Failed => {
                    let open = story.backups.iter().find(|backup| backup.status.is_none());
                    if let Some(name) = open.map(|backup| backup.name_any()) {
                        match event {
                            Event::Verified => story.verify(&name),
                            _ => story.end(&name, json!({"outcome": "Failed"})),
                        }
                    }
                }
            }
            let wake = story.settle();
            let open = story.backups.iter().filter(|backup| backup.status.is_none()).count();
            prop_assert!(open <= 1, "{:?}", story.names());
            let runs = story.names().into_iter().map(|name| names::scheduled_run("crm", &name).unwrap());
            let runs: Vec<_> = runs.collect();
            prop_assert!(runs.iter().all(|run| *run <= latest_now), "{runs:?}");
            let unique: BTreeSet<_> = runs.iter().collect();
            prop_assert_eq!(unique.len(), runs.len());
            let next = &story.state().next_runs;
            prop_assert_eq!(next.len(), 3);
            prop_assert!(next.iter().all(|next| *next > story.now));
            prop_assert!(matches!(wake, Wake::At(at) if at > story.now && at <= next[0]), "{wake:?}");
        }
    }
}
