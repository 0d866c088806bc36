use super::*;
use crate::bench::Bench;
use crate::tasks::PREFLIGHT;
use serde_json::{Value, json};

const DEADLINE: SignedDuration = SignedDuration::from_mins(10);

struct Story {
    bench: Bench,
    attempts: Attempts,
    refused: BTreeMap<String, Refusal>,
}

impl Story {
    fn begun() -> Self {
        let bench = Bench::new();
        let attempts = schedule(&bench).first();
        let refused = BTreeMap::new();
        let mut story = Self {
            bench,
            attempts,
            refused,
        };
        let standing = story.look();
        let Standing::UnderWay(planned) = standing else {
            panic!("{standing:?}")
        };
        story.bench.execute(&planned.steps);
        story
    }

    fn pod(&mut self, state: Value) {
        self.bench.pod_of("crm-42-check-1", "Pending", state);
    }

    fn look(&mut self) -> Standing<Value> {
        let attempt = Attempt {
            task: &PREFLIGHT,
            namespace: "shop",
            work_for: "crm-42",
            schedule: schedule(&self.bench),
            bounds: Bounds::Report,
            refused: &self.refused,
            working: Reason::CheckingDatabase,
            doing: "Checking the database.",
            not_starting: Reason::PodNotStarting,
            slow_start: Some(SLOW_START),
        };
        let name = PREFLIGHT.child("crm-42", 1);
        let child = Child::find(
            &PREFLIGHT,
            "release-uid",
            name,
            &self.bench.jobs,
            &self.bench.pods,
        );
        let create = || Ok(Object::Job(job()));
        attempt.look(&mut self.attempts, &child, child.outcome(), create)
    }
}

fn schedule(bench: &Bench) -> Schedule {
    Schedule {
        deadline: Some(DEADLINE),
        now: bench.now,
    }
}

fn job() -> k8s_openapi::api::batch::v1::Job {
    serde_json::from_value(json!({
        "metadata": {
            "name": "crm-42-check-1",
            "namespace": "shop",
            "ownerReferences": [{
                "apiVersion": "fairway.dev/v1alpha1", "kind": "Release", "name": "crm-42", "uid": "release-uid"
            }]
        },
        "spec": {"template": {"metadata": {"labels": {}}}}
    }))
    .unwrap()
}

#[test]
fn work_that_hangs_is_not_blamed_on_what_delayed_its_start() {
    let mut story = Story::begun();
    story.pod(json!({"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}));
    story.look();
    assert_eq!(story.attempts.reason.as_deref(), Some("PodNotStarting"));
    story.pod(json!({"running": {"startedAt": "2026-01-01T00:01:00Z"}}));
    story.look();
    story.bench.later(DEADLINE);
    assert_eq!(
        story.look(),
        Standing::Overdue {
            reason: Reason::DeadlineExceeded,
            message: "Checking the database.".to_owned()
        }
    );
}

#[test]
fn work_that_never_starts_ends_with_what_kept_it() {
    let mut story = Story::begun();
    story.pod(json!({"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}));
    story.bench.later(DEADLINE);
    let standing = story.look();
    assert!(
        matches!(&standing, Standing::Overdue { reason: Reason::PodNotStarting, message } if message.contains("cannot pull")),
        "{standing:?}"
    );
}
