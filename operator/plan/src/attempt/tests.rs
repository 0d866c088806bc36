use super::*;
use crate::bench::Bench;
use crate::tasks::{Identity, PREFLIGHT};
use serde_json::{Value, json};

const DEADLINE: SignedDuration = SignedDuration::from_mins(10);

struct Story {
    bench: Bench,
    attempts: Attempts,
    memory: &'static str,
}

impl Story {
    fn begun() -> Self {
        let bench = Bench::new();
        let attempts = schedule(&bench).first();
        let mut story = Self {
            bench,
            attempts,
            memory: "16Mi",
        };
        let state = story.look();
        let AttemptState::UnderWay(planned) = state else {
            panic!("{state:?}")
        };
        story.bench.execute(&planned.steps);
        story
    }

    fn pod(&mut self, state: Value) {
        self.bench.pod_of("crm-42-check-1", "Pending", state);
    }

    fn look(&mut self) -> AttemptState<Value> {
        let attempt = Attempt {
            task: &PREFLIGHT,
            namespace: "shop",
            schedule: schedule(&self.bench),
            deadline_for: DeadlineFor::Report,
            answers: Answers::new(&self.bench.refused, &self.bench.dry_run_passed),
            working_reason: Reason::CheckingDatabase,
            working_message: "Checking the database.",
            blocked_reason: Reason::PodNotStarting,
            slow_start: Some(SLOW_START),
        };
        let name = PREFLIGHT.child("crm-42", 1);
        let child = Child::find(
            Identity::OwnerUid("release-uid"),
            name,
            &self.bench.jobs,
            &self.bench.pods,
        );
        let memory = self.memory;
        let create = || Ok(Object::Job(job(memory)));
        attempt.state(&mut self.attempts, &child, child.outcome(), create)
    }
}

fn schedule(bench: &Bench) -> Schedule {
    Schedule {
        deadline: Some(DEADLINE),
        now: bench.now,
    }
}

fn job(memory: &str) -> k8s_openapi::api::batch::v1::Job {
    serde_json::from_value(json!({
        "metadata": {
            "name": "crm-42-check-1",
            "annotations": {"fairway.dev/applied-hash": memory},
            "namespace": "shop",
            "ownerReferences": [{
                "apiVersion": "fairway.dev/v1alpha1", "kind": "Release", "name": "crm-42", "uid": "release-uid"
            }]
        },
        "spec": {"template": {
            "metadata": {"labels": {"fairway.dev/app": "crm"}},
            "spec": {"containers": [{"name": "agent", "resources": {"requests": {"memory": memory}}}]}
        }}
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
        AttemptState::Overdue {
            reason: Reason::DeadlineExceeded,
            message: "Checking the database.".to_owned()
        }
    );
}

#[test]
fn work_that_hangs_is_not_blamed_on_an_earlier_refusal() {
    let mut story = Story::begun();
    record(
        &mut story.attempts,
        Reason::WriteRefused,
        "The quota is exhausted.",
    );
    story.pod(json!({"running": {"startedAt": "2026-01-01T00:01:00Z"}}));
    story.bench.later(DEADLINE);
    assert_eq!(
        story.look(),
        AttemptState::Overdue {
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
    let state = story.look();
    assert!(
        matches!(&state, AttemptState::Overdue { reason: Reason::PodNotStarting, message } if message.contains("cannot pull")),
        "{state:?}"
    );
}

impl Story {
    fn steps(&mut self) -> Vec<Step> {
        match self.look() {
            AttemptState::UnderWay(planned) => planned.steps,
            state => panic!("{state:?}"),
        }
    }

    /// The step by which the API server is asked whether it accepts the Job's pod, three seconds after its creation.
    fn asked(&mut self) -> Step {
        let asked_at = self.bench.now.checked_add(POD_EXPECTED).unwrap();
        match self.look() {
            AttemptState::UnderWay(planned) => {
                assert_eq!(
                    (planned.steps, planned.wake),
                    (Vec::new(), crate::Wake::At(asked_at))
                );
            }
            state => panic!("{state:?}"),
        }
        self.bench.later(POD_EXPECTED);
        let mut steps = self.steps();
        assert_eq!(steps.len(), 1, "{steps:?}");
        steps.remove(0)
    }
}

#[test]
fn f12_a_refused_pod_of_a_job_is_reported_within_seconds() {
    let mut story = Story::begun();
    let asked = story.asked();
    let Step::DryRun(pod) = &asked else {
        panic!("{asked:?}")
    };
    let written = serde_json::to_value(pod).unwrap();
    assert_eq!(pod.kind(), Kind::Pod);
    assert_eq!(written["metadata"]["labels"]["fairway.dev/app"], "crm");
    assert_eq!(
        written["spec"]["containers"][0]["resources"]["requests"]["memory"],
        "16Mi"
    );
    story.bench.refuse(
        &asked,
        "minimum memory usage per Container is 64Mi, but request is 16Mi",
    );
    assert_eq!(story.steps(), []);
    assert_eq!(story.attempts.reason.as_deref(), Some("WriteRefused"));
    assert_eq!(
        story.attempts.message.as_deref(),
        Some(
            "The API server refuses the pod of Job crm-42-check-1: “minimum memory usage per Container is 64Mi, but \
             request is 16Mi”."
        )
    );
}

#[test]
fn f12_a_job_whose_pod_is_accepted_is_waited_for() {
    let mut story = Story::begun();
    let asked = story.asked();
    story.bench.execute(&[asked]);
    assert_eq!(story.steps(), []);
    assert_eq!(story.attempts.reason, None);
}

#[test]
fn f12_a_corrected_app_replaces_a_job_whose_pod_is_refused() {
    let mut story = Story::begun();
    let asked = story.asked();
    story.bench.refuse(
        &asked,
        "minimum memory usage per Container is 64Mi, but request is 16Mi",
    );
    story.memory = "64Mi";
    let steps = story.steps();
    assert!(
        matches!(&steps[..], [Step::Delete(job)] if job.name == "crm-42-check-1"),
        "{steps:?}"
    );
}

#[test]
fn f12_a_corrected_app_replaces_a_pod_without_a_node() {
    let mut story = Story::begun();
    story.pod(
        json!({"waiting": {"reason": "CreateContainerConfigError", "message": "image will run as root"}}),
    );
    assert_eq!(story.steps(), []);
    story.memory = "64Mi";
    assert!(matches!(&story.steps()[..], [Step::Delete(_)]));
}
