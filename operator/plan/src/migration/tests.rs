//! The planner of Migrations, by the outcomes that it must lead to.

mod on_start;
mod resolve;
mod run;
mod settle;

use super::*;
use crate::Object;
use crate::bench::{self, Bench, DIGEST, agent as agent_status, app, container, release, reported};
use crate::names::run_id;
use crate::protocol::{self, Cause, Failure, Resolution, SettleTask, Task};
use crate::snapshot::Snapshot;
use fairway_crds::release::annotation;
use fairway_crds::{App, Migration, Release};
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
    has_snapshot: bool,
    backup: Option<String>,
}

impl Story {
    fn of(form: &Value) -> Self {
        let mut migration = json!({
            "apiVersion": "fairway.dev/v1alpha1", "kind": "Migration",
            "metadata": {
                "name": "crm-42", "namespace": "shop", "uid": "migration-uid", "generation": 1,
                "ownerReferences": [{"apiVersion": "fairway.dev/v1alpha1", "kind": "Release", "name": "crm-42", "uid": "release-uid", "controller": true}]
            },
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
            has_snapshot: true,
            backup: None,
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
            snapshot: (self.app.as_ref())
                .filter(|_| self.has_snapshot)
                .map(|app| Arc::new(Snapshot::of(&app.spec))),
            app: self.app.clone().map(Arc::new),
            release: self.release.clone().map(Arc::new),
            backup: self.backup.clone(),
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
            if decision.steps.is_empty() && Some(&decision.status) == self.migration.status.as_ref() {
                return;
            }
            self.bench.execute(&decision.steps);
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

    fn reported(&self) -> (String, String, String) {
        reported(&self.status().conditions)
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

    /// The task of a settling Job.
    fn settle_task(&self, job: &str) -> SettleTask {
        let job = self.bench.job(job);
        let pod = job.spec.as_ref().unwrap().template.spec.as_ref().unwrap();
        let task = pod.containers[0].env.as_ref().unwrap()[0].value.as_ref().unwrap();
        let Task::Settle(task) = serde_json::from_str(task).unwrap() else {
            panic!("a settling")
        };
        task
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
        row_missing: false,
        note: None,
    }
}

fn failed(outcome: Reported, cause: Cause, reason: &str) -> MigrationReport {
    let failure = Failure {
        cause,
        reason: reason.parse().unwrap(),
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
