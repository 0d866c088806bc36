//! What became of the agent's pods, read from their status alone.

#![allow(clippy::unwrap_used, reason = "a fixture that does not parse fails its test")]

use fairway_crds::Reason;
use fairway_plan::build::agent::{self, Outcome, Pinned};
use fairway_plan::protocol::PROTOCOL_VERSION;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use rstest::rstest;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

const WEB: &str = "sha256:1111111111111111111111111111111111111111111111111111111111111111";
const PROXY: &str = "sha256:2222222222222222222222222222222222222222222222222222222222222222";

fn pod(status: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "crm-42-check-1-x", "labels": {"batch.kubernetes.io/job-name": "crm-42-check-1"}},
        "status": status
    }))
    .unwrap()
}

fn ended(message: &str) -> Value {
    json!({"terminated": {"exitCode": 0, "message": message}})
}

fn agent_status(state: Value, last: Value) -> Value {
    json!({"name": "agent", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state, "lastState": last})
}

fn outcome(status: Value) -> Outcome<Value> {
    agent::report(&[Arc::new(pod(status))], "crm-42-check-1")
}

#[rstest]
#[case::a_report(
    json!({"phase": "Succeeded", "containerStatuses": [agent_status(ended("{\"a\":1}"), json!({}))]}),
    Outcome::Reported(json!({"a": 1}))
)]
#[case::a_guard_that_was_restarted(
    json!({"phase": "Running", "initContainerStatuses": [agent_status(json!({"running": {}}), ended("{\"a\":1}"))]}),
    Outcome::Reported(json!({"a": 1}))
)]
#[case::w20e_a_report_of_a_newer_agent(
    json!({"phase": "Succeeded", "containerStatuses": [agent_status(
        ended(&json!({"protocol": PROTOCOL_VERSION + 1, "a": 1}).to_string()), json!({}))]}),
    Outcome::Lost { reason: format!("an agent of a newer Fairway left one in version {} of the protocol, and this Fairway reads \
        versions up to {PROTOCOL_VERSION}. Upgrade Fairway in this cluster", PROTOCOL_VERSION + 1) }
)]
#[case::out_of_memory(
    json!({"phase": "Failed", "containerStatuses": [agent_status(json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}), json!({}))]}),
    Outcome::Lost { reason: "container agent ran out of memory (OOMKilled)".into() }
)]
#[case::evicted(
    json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}),
    Outcome::Lost { reason: "Evicted: “The node was low on resource: memory.”".into() }
)]
#[case::drained(
    json!({"phase": "Failed", "conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}],
           "containerStatuses": [agent_status(json!({"terminated": {"exitCode": 143, "reason": "Error"}}), json!({}))]}),
    Outcome::Lost { reason: "container agent was killed by signal 15 (exit code 143) while Kubernetes was removing its pod (EvictionByEvictionAPI)".into() }
)]
#[case::no_node(
    json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
           "message": "0/1 nodes are available: persistentvolumeclaim \"x\" not found."}]}),
    Outcome::Running { waiting: Some(
        "Pod crm-42-check-1-x cannot be scheduled: “0/1 nodes are available: persistentvolumeclaim \"x\" not found.”".into()) }
)]
#[case::no_image(
    json!({"phase": "Pending", "containerStatuses": [agent_status(json!({"waiting": {"reason": "ErrImagePull", "message": "not found"}}), json!({}))]}),
    Outcome::Running { waiting: Some("Container agent of pod crm-42-check-1-x cannot pull i: “not found”. Push that image, or correct its name or pull secret.".into()) }
)]
#[case::its_turn_has_not_come(
    json!({"phase": "Pending", "containerStatuses": [agent_status(json!({"waiting": {"reason": "PodInitializing"}}), json!({}))]}),
    Outcome::Running { waiting: None }
)]
#[case::a_guard_that_crashed_is_restarted(
    json!({"phase": "Pending", "initContainerStatuses": [agent_status(json!({"terminated": {"exitCode": 1, "reason": "Error"}}), json!({}))]}),
    Outcome::Running { waiting: None }
)]
fn the_status_of_a_pod_tells_what_became_of_its_task(
    #[case] status: Value,
    #[case] expected: Outcome<Value>,
) {
    assert_eq!(outcome(status), expected);
}

#[test]
fn a_log_is_never_taken_for_a_reason() {
    let status = json!({"phase": "Failed", "containerStatuses": [agent_status(
        json!({"terminated": {"exitCode": 1, "reason": "Error", "message": "password=hunter2"}}), json!({}))]});
    assert_eq!(
        outcome(status),
        Outcome::Lost {
            reason: "container agent exited with code 1".into()
        }
    );
}

#[test]
fn pods_of_an_earlier_job_of_the_same_name_are_not_its_own() {
    let job = serde_json::from_value(json!({"metadata": {"name": "crm-42-check-1", "uid": "new"}})).unwrap();
    let mut old =
        pod(json!({"phase": "Succeeded", "containerStatuses": [agent_status(ended("{}"), json!({}))]}));
    old.labels_mut()
        .insert("batch.kubernetes.io/controller-uid".into(), "old".into());
    let found = agent::job_report::<Value>(Some(&job), &[Arc::new(old)], "crm-42-check-1");
    assert_eq!(found, Outcome::NotThere);
}

#[test]
fn a_job_that_ended_without_a_pod_has_lost_its_report() {
    let job = serde_json::from_value(json!({
        "metadata": {"name": "crm-42-check-1", "uid": "new"},
        "status": {"conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}]}
    }))
    .unwrap();
    let found = agent::job_report::<Value>(Some(&job), &[], "crm-42-check-1");
    assert_eq!(
        found,
        Outcome::Lost {
            reason: "the pod is gone, and the Job says BackoffLimitExceeded".into()
        }
    );
}

/// A container that goes on, as a proxy does that was injected without being a native sidecar.
fn proxy(state: &str) -> Value {
    let mut proxy = agent_status(json!({}), json!({}));
    proxy["name"] = json!("proxy");
    proxy["state"] = match state {
        "running" => json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}}),
        "failed" => json!({"terminated": {"exitCode": 3}}),
        waiting => json!({"waiting": {"reason": waiting}}),
    };
    proxy
}

#[rstest]
#[case::its_report_counts(ended("{\"a\":1}"), "running", Outcome::Reported(json!({"a": 1})))]
#[case::its_end_without_a_report_counts(
    json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}), "running",
    Outcome::Lost { reason: "container agent ran out of memory (OOMKilled)".into() }
)]
#[case::how_it_ended_counts(
    json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}), "failed",
    Outcome::Lost { reason: "container agent ran out of memory (OOMKilled)".into() }
)]
#[case::it_works_on_beside_one_that_failed(json!({"running": {}}), "failed", Outcome::Running { waiting: None })]
#[case::it_works_on_beside_one_that_cannot_start(
    json!({"running": {}}), "CrashLoopBackOff", Outcome::Running { waiting: None }
)]
#[case::it_does_not_start_beside_one_that_cannot(
    json!({"waiting": {"reason": "PodInitializing"}}), "CreateContainerError",
    Outcome::Running { waiting: Some("Container proxy of pod crm-42-check-1-x cannot start (CreateContainerError).".into()) }
)]
fn f12_beside_an_injected_container_only_the_agent_counts(
    #[case] state: Value,
    #[case] beside: &str,
    #[case] expected: Outcome<Value>,
) {
    let statuses = json!([proxy(beside), agent_status(state, json!({}))]);
    assert_eq!(
        outcome(json!({"phase": "Running", "containerStatuses": statuses})),
        expected
    );
}

#[test]
fn f12_a_job_has_ended_when_its_agent_has() {
    let job = serde_json::from_value(json!({"metadata": {"name": "crm-42-check-1", "uid": "job"}})).unwrap();
    let with = |state: Value| {
        let statuses = json!([proxy("running"), agent_status(state, json!({}))]);
        let mut pod = pod(json!({"phase": "Running", "containerStatuses": statuses}));
        pod.labels_mut()
            .insert("batch.kubernetes.io/controller-uid".into(), "job".into());
        pod
    };
    let at_work = with(json!({"running": {}}));
    let done = with(json!({"terminated": {"exitCode": 0, "finishedAt": "2026-01-01T00:00:09Z"}}));
    assert_eq!(
        agent::ended_at(&done).unwrap().to_string(),
        "2026-01-01T00:00:09Z"
    );
    assert!(!agent::has_job_ended(&job, &[]));
    assert!(!agent::has_job_ended(&job, &[Arc::new(at_work.clone())]));
    assert!(agent::has_job_ended(&job, &[Arc::new(done.clone())]));
    assert!(!agent::has_job_ended(&job, &[Arc::new(done), Arc::new(at_work)]));
}

#[test]
fn f12_a_pin_pod_beside_an_injected_container_is_lost_when_its_own_have_ended() {
    let images = [("web/app".to_owned(), "ghcr.io/acme/crm:2".to_owned())].into();
    let state = json!({"terminated": {"exitCode": 128, "reason": "StartError", "message": "no such file"}});
    let pod =
        pod(json!({"phase": "Running", "containerStatuses": [proxy("running"), pulled("i0", state, "")]}));
    let reason = "container i0 could not be started (StartError: “no such file”)".to_owned();
    assert_eq!(agent::pinned(&pod, &images), Outcome::Lost { reason });
}

fn pulled(index: &str, state: Value, image_id: &str) -> Value {
    json!({"name": index, "image": "x", "imageID": image_id, "ready": false, "restartCount": 0, "state": state})
}

#[test]
fn digests_are_joined_to_the_repository_that_was_given() {
    let images: BTreeMap<String, String> = [
        ("web/app", "ghcr.io/acme/crm:2.11.0"),
        ("worker/worker", "ghcr.io/acme/crm:2.11.0"),
        ("web/proxy", "envoyproxy/envoy:v1"),
    ]
    .map(|(container, image)| (container.to_owned(), image.to_owned()))
    .into();
    let done = json!({"terminated": {"exitCode": 0, "startedAt": "2026-01-01T00:00:00Z"}});
    let pod = pod(json!({"phase": "Succeeded", "containerStatuses": [
        pulled("i0", done.clone(), &format!("docker.io/envoyproxy/envoy@{PROXY}")),
        pulled("i1", done, &format!("docker-pullable://ghcr.io/acme/crm@{WEB}")),
    ]}));
    let expected = [
        ("web/app", format!("ghcr.io/acme/crm@{WEB}")),
        ("web/proxy", format!("envoyproxy/envoy@{PROXY}")),
        ("worker/worker", format!("ghcr.io/acme/crm@{WEB}")),
    ];
    let expected = expected
        .map(|(container, image)| (container.to_owned(), image))
        .into();
    assert_eq!(
        agent::pinned(&pod, &images),
        Outcome::Reported(Pinned::All(expected))
    );
}

/// The kubelet names one repository of an image, whichever was pulled first.
#[rstest]
#[case::hub("nginx:1", "docker.io/library/nginx", true)]
#[case::hub_of_a_team("acme/crm:1", "docker.io/acme/crm", true)]
#[case::hub_by_its_other_name("index.docker.io/acme/crm:1", "docker.io/acme/crm", true)]
#[case::a_registry_on_this_machine("localhost/crm:1", "localhost/crm", true)]
#[case::another_registry("ghcr.io/acme/crm:1", "mirror.local/acme/crm", false)]
#[case::another_team("ghcr.io/acme/crm:1", "ghcr.io/other/crm", false)]
#[case::by_digest(
    "ghcr.io/acme/crm@sha256:1111111111111111111111111111111111111111111111111111111111111111",
    "ghcr.io/other/crm",
    true
)]
fn w20c_a_digest_of_another_repository_is_to_be_proven(
    #[case] image: &str,
    #[case] found: &str,
    #[case] proven: bool,
) {
    let images = [("web/app".to_owned(), image.to_owned())].into();
    let done = json!({"terminated": {"exitCode": 0, "startedAt": "2026-01-01T00:00:00Z"}});
    let pod = pod(
        json!({"phase": "Succeeded", "containerStatuses": [pulled("i0", done, &format!("{found}@{WEB}"))]}),
    );
    match agent::pinned(&pod, &images) {
        Outcome::Reported(Pinned::All(_)) => assert!(proven),
        Outcome::Reported(Pinned::Unproven(references)) => {
            assert!(!proven);
            assert_eq!(references["web/app"].rsplit_once('@').unwrap().1, WEB);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn f17_an_image_for_another_platform_never_becomes_pinned() {
    let images = [("web/app".to_owned(), "ghcr.io/acme/crm:2".to_owned())].into();
    let report = r#"{"image":"arm64","node":"amd64","program":"/bin/sh"}"#;
    let state =
        json!({"terminated": {"exitCode": 78, "startedAt": "2026-01-01T00:00:00Z", "message": report}});
    let pod = pod(
        json!({"phase": "Failed", "containerStatuses": [pulled("i0", state, &format!("ghcr.io/acme/crm@{WEB}"))]}),
    );
    assert_eq!(
        agent::pinned(&pod, &images),
        Outcome::Reported(Pinned::Never {
            reason: Reason::ImageForOtherPlatform,
            message: "ghcr.io/acme/crm:2 is built for arm64, and the node that pulled it is amd64: it cannot run /bin/sh. \
                      Build the image for that platform, or set template.spec.nodeSelector (kubernetes.io/arch) in the App."
                .into(),
        })
    );
}

#[rstest]
#[case::under_way(json!({"waiting": {"reason": "ContainerCreating"}}), "", "Pending", Outcome::Running { waiting: None })]
#[case::a_name_that_is_none(
    json!({"waiting": {"reason": "InvalidImageName", "message": "couldn't parse image name"}}), "", "Pending",
    Outcome::Reported(Pinned::Never { reason: Reason::InvalidImageName,
        message: "Container i0 of pod crm-42-check-1-x cannot pull x: “couldn't parse image name”. Push that image, or correct its name or pull secret.".into() })
)]
#[case::a_registry_that_says_no(
    json!({"waiting": {"reason": "ImagePullBackOff", "message": "GET https://a:b@ghcr.io/token?k=v : 401"}}), "", "Pending",
    Outcome::Running { waiting: Some(
        "Container i0 of pod crm-42-check-1-x cannot pull x: “GET https://ghcr.io/token?… : 401”. Push that image, or correct its name or pull secret.".into()) }
)]
#[case::an_image_that_no_registry_knows(
    json!({"terminated": {"exitCode": 0, "startedAt": "2026-01-01T00:00:00Z"}}), WEB, "Succeeded",
    Outcome::Reported(Pinned::Never { reason: Reason::ImageWithoutDigest,
        message: "The node knows no registry digest for ghcr.io/acme/crm:2. Push the image to a registry, or name it by digest.".into() })
)]
#[case::evicted(json!({"waiting": {"reason": "ContainerCreating"}}), "", "Failed",
    Outcome::Lost { reason: "Kubernetes gives no reason".into() }
)]
fn what_a_pin_pod_has_found(
    #[case] state: Value,
    #[case] image_id: &str,
    #[case] phase: &str,
    #[case] expected: Outcome<Pinned>,
) {
    let images = [("web/app".to_owned(), "ghcr.io/acme/crm:2".to_owned())].into();
    let pod = pod(json!({"phase": phase, "containerStatuses": [pulled("i0", state, image_id)]}));
    assert_eq!(agent::pinned(&pod, &images), expected);
}

#[rstest]
#[case::crashing(
    json!({"phase": "Running", "containerStatuses": [{"name": "app", "image": "i", "imageID": "", "ready": false, "restartCount": 3,
        "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"exitCode": 1, "reason": "Error", "message": "secret"}}}]}),
    Some("Container app of pod crm-42-check-1-x exited with code 1 and is being restarted (CrashLoopBackOff).")
)]
#[case::between_two_crashes(
    json!({"phase": "Running", "containerStatuses": [{"name": "app", "image": "i", "imageID": "", "ready": false, "restartCount": 1,
        "state": {"running": {}}, "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}]}),
    Some("Container app of pod crm-42-check-1-x ran out of memory (OOMKilled).")
)]
#[case::no_secret(
    json!({"phase": "Pending", "containerStatuses": [{"name": "app", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"waiting": {"reason": "CreateContainerConfigError", "message": "secret \"crm-env\" not found"}}}]}),
    Some("Container app of pod crm-42-check-1-x cannot start (CreateContainerConfigError): “secret \"crm-env\" not found”.")
)]
#[case::just_starting(
    json!({"phase": "Running", "containerStatuses": [{"name": "app", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"running": {}}}]}),
    None
)]
fn what_keeps_a_pod_from_being_ready(#[case] status: Value, #[case] expected: Option<&str>) {
    assert_eq!(agent::trouble(&pod(status)).as_deref(), expected);
}

/// F19: a pod without a node has not tried to pull anything.
#[rstest]
#[case::no_node(json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]}), false)]
#[case::no_secret(json!({"containerStatuses": [pulled("i0", json!({"waiting": {"reason": "CreateContainerConfigError", "message": "x"}}), "")]}), false)]
#[case::no_image(json!({"containerStatuses": [pulled("i0", json!({"waiting": {"reason": "ErrImagePull", "message": "x"}}), "")]}), true)]
fn f19_only_what_the_kubelet_says_of_an_image_is_about_the_image(
    #[case] status: Value,
    #[case] expected: bool,
) {
    assert_eq!(agent::waits_for_image(&pod(status)), expected);
}
