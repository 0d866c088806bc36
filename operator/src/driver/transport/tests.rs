use super::*;
use crate::fake::{Asked, api_server, failure};
use fairway_engine::kinds::{App, Deployment, Job, Service};
use fairway_plan::object;
use kube::core::Expression;
use serde_json::{Value, json};
use std::sync::Arc;

fn deployment(version: Option<&str>) -> Value {
    let mut deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"namespace": "shop", "name": "crm-web-2", "labels": {"fairway.dev/app": "crm"}},
    });
    if let Some(version) = version {
        deployment["metadata"]["resourceVersion"] = json!(version);
    }
    deployment
}

fn desired_deployment() -> Box<Object> {
    let deployment: Deployment = serde_json::from_value(deployment(None)).unwrap();
    Box::new(Object::Deployment(deployment))
}

fn reference(kind: object::Kind) -> ObjectRef {
    ObjectRef {
        kind,
        namespace: "shop".into(),
        name: "crm-web-2".into(),
        uid: "d-2".into(),
        resource_version: Some("7".into()),
    }
}

async fn ask(request: Request, answer: (u16, Value)) -> (Answer, Asked) {
    let (client, mut server) = api_server();
    let transport = Transport::new(client);
    tokio::join!(transport.ask(&request), server.answer(answer))
}

async fn write(step: Step, answer: (u16, Value)) -> (Answer, Asked) {
    ask(Request::Write(Arc::new(step)), answer).await
}

fn version(answer: &Answer) -> Option<&str> {
    match answer {
        Answer::Object(object) => object.metadata.resource_version.as_deref(),
        _ => None,
    }
}

#[tokio::test]
async fn a_deployment_is_applied_server_side_by_fairway_and_strictly() {
    let (answer, asked) = write(Step::Apply(desired_deployment()), (200, deployment(Some("5")))).await;
    assert_eq!(version(&answer), Some("5"));
    assert_eq!(
        asked.what,
        "PATCH /apis/apps/v1/namespaces/shop/deployments/crm-web-2"
    );
    assert_eq!(
        asked.query,
        ["fieldManager=fairway", "fieldValidation=Strict", "force=true"]
    );
    assert_eq!(asked.body, deployment(None));
}

#[tokio::test]
async fn a_dry_run_says_so() {
    let (_, asked) = write(Step::DryRun(desired_deployment()), (200, deployment(Some("5")))).await;
    assert!(
        asked.query.contains(&"dryRun=All".to_owned()),
        "{:?}",
        asked.query
    );
}

#[tokio::test]
async fn f11_a_dry_run_brings_the_warnings_of_the_api_server() {
    let (client, mut server) = api_server();
    let transport = Transport::new(client);
    let request = Request::Write(Arc::new(Step::DryRun(desired_deployment())));
    let warnings = [
        r#"299 - "would violate PodSecurity \"restricted:latest\"""#,
        r#"299 - "b", 299 - "c""#,
    ];
    let answered = server.answer_with_warnings((200, deployment(Some("5"))), &warnings);
    let (answer, _) = tokio::join!(transport.ask(&request), answered);
    let Answer::Passed(warnings) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(
        warnings,
        [r#"would violate PodSecurity "restricted:latest""#, "b", "c"]
    );
}

#[tokio::test]
async fn f12_the_dry_run_of_a_pod_needs_no_other_verb_than_create() {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "shop", "name": "crm-42-check-1"}});
    let desired = Box::new(Object::Pod(serde_json::from_value(pod.clone()).unwrap()));
    let (_, asked) = write(Step::DryRun(desired), (201, pod)).await;
    assert_eq!(asked.what, "POST /api/v1/namespaces/shop/pods");
    assert!(
        asked.query.contains(&"dryRun=All".to_owned()),
        "{:?}",
        asked.query
    );
}

/// S14: an apply leaves what another manager has added; a patch needs no verb that the role lacks.
#[tokio::test]
async fn s14_a_changed_deployment_is_replaced_with_a_patch() {
    let mut desired = deployment(Some("7"));
    desired["metadata"]["uid"] = json!("d-2");
    desired["metadata"]["annotations"] = json!({"fairway.dev/applied-hash": "0123"});
    desired["spec"] = json!({"replicas": 2, "selector": {}, "template": {}});
    let desired: Deployment = serde_json::from_value(desired).unwrap();
    let step = Step::Replace(
        Box::new(Object::Deployment(desired)),
        vec!["kubectl-set".to_owned()],
    );
    let (answer, asked) = write(step, (200, deployment(Some("8")))).await;
    assert_eq!(version(&answer), Some("8"));
    assert_eq!(
        asked.what,
        "PATCH /apis/apps/v1/namespaces/shop/deployments/crm-web-2"
    );
    assert_eq!(asked.query, ["fieldManager=fairway"]);
    assert_eq!(
        asked.body,
        json!([
            {"op": "add", "path": "/metadata/uid", "value": "d-2"},
            {"op": "add", "path": "/metadata/resourceVersion", "value": "7"},
            {"op": "add", "path": "/metadata/managedFields", "value": [{
                "manager": "fairway", "operation": "Apply", "apiVersion": "apps/v1", "fieldsType": "FieldsV1",
                "fieldsV1": {"f:metadata": {"f:labels": {"f:fairway.dev/app": {}}}},
            }]},
            {"op": "add", "path": "/metadata/annotations/fairway.dev~1applied-hash", "value": "0123"},
            {"op": "add", "path": "/spec", "value": {"replicas": 2, "selector": {}, "template": {}}},
        ])
    );
}

/// F15: what the team's Deployment had is noted on it, in the write that scales it down.
#[tokio::test]
async fn f15_taking_over_notes_how_many_pods_there_were() {
    let step = Step::TakeOver(reference(object::Kind::Deployment), 3);
    let (_, asked) = write(step, (200, deployment(Some("8")))).await;
    assert_eq!(
        asked.what,
        "PATCH /apis/apps/v1/namespaces/shop/deployments/crm-web-2"
    );
    assert_eq!(
        asked.body,
        json!({
            "metadata": {"uid": "d-2", "resourceVersion": "7", "annotations": {"fairway.dev/replicas": "3"}},
            "spec": {"replicas": 0},
        })
    );
}

/// Of a list no more is read than what is looked at.
#[tokio::test]
async fn pods_are_listed_by_their_labels() {
    let selector = Expression::In("app".to_owned(), ["crm".to_owned()].into()).into();
    let list = json!({"kind": "PodList", "metadata": {"resourceVersion": "9"}, "items": [{
        "metadata": {"namespace": "shop", "name": "crm-1", "resourceVersion": "8"},
        "spec": {"nodeName": "one", "containers": [{"name": "web"}]},
        "status": {"phase": "Running", "podIP": "10.0.0.9"},
    }]});
    let request = Request::List(Kind::Pod, "shop".into(), selector);
    let (answer, asked) = ask(request, (200, list)).await;
    assert_eq!(asked.what, "GET /api/v1/namespaces/shop/pods");
    let labels = "labelSelector=app+in+%28crm%29";
    assert!(asked.query.iter().any(|part| part == labels), "{:?}", asked.query);
    let Answer::Objects(found) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(found.len(), 1);
    assert_eq!(
        found[0].data,
        json!({"spec": {"nodeName": "one"}, "status": {"phase": "Running"}})
    );
}

#[tokio::test]
async fn a_service_is_applied_without_force() {
    let service =
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "shop", "name": "crm"}});
    let desired: Service = serde_json::from_value(service.clone()).unwrap();
    let step = Step::Apply(Box::new(Object::Service(desired)));
    let (_, asked) = write(step, (200, service)).await;
    assert_eq!(asked.what, "PATCH /api/v1/namespaces/shop/services/crm");
    assert_eq!(asked.query, ["fieldManager=fairway", "fieldValidation=Strict"]);
}

#[tokio::test]
async fn a_job_is_created_by_fairway() {
    let job =
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"namespace": "shop", "name": "run"}});
    let desired: Job = serde_json::from_value(job.clone()).unwrap();
    let step = Step::Create(Box::new(Object::Job(desired)));
    let (answer, asked) = write(step, failure(409, "AlreadyExists")).await;
    assert!(matches!(answer, Answer::Error(status) if status.reason == "AlreadyExists"));
    assert_eq!(asked.what, "POST /apis/batch/v1/namespaces/shop/jobs");
    assert_eq!(asked.query, ["fieldManager=fairway"]);
    assert_eq!(asked.body, job);
}

#[tokio::test]
async fn deleting_names_the_uid_and_takes_the_pods_along() {
    let gone = json!({"kind": "Status", "apiVersion": "v1", "status": "Success"});
    let (answer, asked) = write(Step::Delete(reference(object::Kind::Job)), (200, gone)).await;
    assert!(matches!(answer, Answer::Done), "{answer:?}");
    assert_eq!(asked.what, "DELETE /apis/batch/v1/namespaces/shop/jobs/crm-web-2");
    assert_eq!(
        asked.body,
        json!({"preconditions": {"uid": "d-2"}, "propagationPolicy": "Background"})
    );
}

#[tokio::test]
async fn a_backup_is_deleted_in_the_version_that_was_observed() {
    let gone = json!({"kind": "Status", "apiVersion": "v1", "status": "Success"});
    let (_, asked) = write(Step::Delete(reference(object::Kind::Backup)), (200, gone)).await;
    assert_eq!(
        asked.what,
        "DELETE /apis/fairway.dev/v1alpha1/namespaces/shop/backups/crm-web-2"
    );
    assert_eq!(
        asked.body["preconditions"],
        json!({"uid": "d-2", "resourceVersion": "7"})
    );
}

#[tokio::test]
async fn an_object_that_ends_later_comes_back() {
    let step = Step::Delete(reference(object::Kind::Deployment));
    let (answer, _) = write(step, (200, deployment(Some("8")))).await;
    assert_eq!(version(&answer), Some("8"));
}

#[tokio::test]
async fn scaling_sets_replicas_of_that_very_deployment_and_nothing_else() {
    let step = Step::Scale(reference(object::Kind::Deployment), 3);
    let (answer, asked) = write(step, (200, deployment(Some("9")))).await;
    assert_eq!(version(&answer), Some("9"));
    assert_eq!(
        asked.what,
        "PATCH /apis/apps/v1/namespaces/shop/deployments/crm-web-2"
    );
    assert_eq!(
        asked.body,
        json!({"metadata": {"uid": "d-2", "resourceVersion": "7"}, "spec": {"replicas": 3}})
    );
}

#[tokio::test]
async fn a_status_is_written_for_exactly_the_object_observed() {
    let object = json!({
        "apiVersion": "fairway.dev/v1alpha1", "kind": "App",
        "metadata": {"namespace": "shop", "name": "crm", "resourceVersion": "41"},
        "spec": {"components": []}, "status": {"observedGeneration": 3},
    });
    let app: App = serde_json::from_value(object.clone()).unwrap();
    let mut stored = object;
    stored["metadata"]["resourceVersion"] = json!("42");
    let (answer, asked) = ask(Request::Commit(Own::App(Arc::new(app))), (200, stored)).await;
    assert_eq!(version(&answer), Some("42"));
    assert_eq!(
        asked.what,
        "PUT /apis/fairway.dev/v1alpha1/namespaces/shop/apps/crm/status"
    );
    assert_eq!(asked.query, ["fieldManager=fairway"]);
    assert_eq!(asked.body["kind"], "App");
    assert_eq!(asked.body["metadata"]["resourceVersion"], "41");
    assert_eq!(asked.body["status"]["observedGeneration"], 3);
}

#[tokio::test]
async fn a_claim_is_read_by_its_name() {
    let key = NamespacedName::new("shop", "uploads");
    let (answer, asked) = ask(Request::Read(Resource::Claim, key), failure(403, "Forbidden")).await;
    assert!(matches!(answer, Answer::Error(status) if status.code == 403));
    assert_eq!(
        asked.what,
        "GET /api/v1/namespaces/shop/persistentvolumeclaims/uploads"
    );
}
