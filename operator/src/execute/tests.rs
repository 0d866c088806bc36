use super::*;
use crate::fake::{Apiserver, Asked, apiserver, failure};
use serde_json::{Value, json};

fn app() -> Key {
    Key::new("shop", "crm")
}

fn executor() -> (Executor, Arc<World>, Arc<Memory>, Apiserver) {
    let (client, server) = apiserver();
    let (world, memory) = (Arc::new(World::default()), Arc::new(Memory::default()));
    (
        Executor::new(client, world.clone(), memory.clone()),
        world,
        memory,
        server,
    )
}

fn deployment(version: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {
            "namespace": "shop", "name": "crm-web-2", "labels": {"fairway.dev/app": "crm"}, "uid": "d-2",
            "annotations": {"fairway.dev/applied-hash": "h1"}, "resourceVersion": version,
        },
    })
}

fn wanted_deployment() -> Box<Object> {
    let mut object: Deployment = serde_json::from_value(deployment("0")).unwrap();
    (object.metadata.uid, object.metadata.resource_version) = (None, None);
    Box::new(Object::Deployment(object))
}

fn wanted_service() -> Box<Object> {
    Box::new(Object::Service(
        serde_json::from_value(json!({
            "metadata": {
                "namespace": "shop", "name": "crm", "annotations": {"fairway.dev/applied-hash": "h2"},
            },
        }))
        .unwrap(),
    ))
}

fn wanted_job(owner: Option<&str>) -> Box<Object> {
    let owners: Vec<Value> = owner
        .map(|uid| json!({"apiVersion": "fairway.dev/v1alpha1", "kind": "Migration", "name": "crm-2", "uid": uid}))
        .into_iter()
        .collect();
    Box::new(Object::Job(
        serde_json::from_value(json!({
            "metadata": {
                "namespace": "shop", "name": "crm-2-run-1", "labels": {"fairway.dev/app": "crm"},
                "ownerReferences": owners,
            },
        }))
        .unwrap(),
    ))
}

fn existing_job(owner: &str, app: &str) -> Value {
    json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {
            "namespace": "shop", "name": "crm-2-run-1", "uid": "j-1", "resourceVersion": "7",
            "labels": {"fairway.dev/app": app},
            "ownerReferences": [{"apiVersion": "v1", "kind": "X", "name": "x", "uid": owner}],
        },
    })
}

async fn one(
    step: Step,
    answer: (u16, Value),
) -> (Result<Carried, StepError>, Asked, Arc<World>, Arc<Memory>) {
    let (executor, world, memory, mut server) = executor();
    let (app, steps) = (app(), [step]);
    let (carried, asked) = tokio::join!(executor.carry_out(&app, &steps), server.answer(answer));
    (carried, asked, world, memory)
}

fn is_stale(world: &World) -> bool {
    let work = crate::key::Work::new(crate::key::Reconciled::App, app());
    matches!(
        world.view(&app(), &work, |_| Some(())),
        crate::world::View::Stale(_)
    )
}

#[tokio::test]
async fn a_deployment_is_applied_server_side_by_fairway_and_strictly() {
    let (carried, asked, world, _) = one(Step::Apply(wanted_deployment()), (200, deployment("5"))).await;
    assert_eq!(carried, Ok(Carried::Out { switched: false }));
    assert_eq!(
        asked.what,
        "PATCH /apis/apps/v1/namespaces/shop/deployments/crm-web-2"
    );
    assert_eq!(
        asked.query,
        ["fieldManager=fairway", "fieldValidation=Strict", "force=true"]
    );
    assert_eq!(asked.body["kind"], "Deployment");
    assert!(is_stale(&world), "the caches have not seen it yet");
}

#[tokio::test]
async fn a_service_is_applied_without_force_and_counts_as_a_switch() {
    let stored = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "shop", "name": "crm", "resourceVersion": "5"}});
    let (carried, asked, ..) = one(Step::Apply(wanted_service()), (200, stored)).await;
    assert_eq!(carried, Ok(Carried::Out { switched: true }));
    assert_eq!(asked.what, "PATCH /api/v1/namespaces/shop/services/crm");
    assert!(
        !asked.query.contains(&"force=true".to_owned()),
        "{:?}",
        asked.query
    );
}

#[tokio::test(start_paused = true)]
async fn what_was_refused_is_tried_again_whatever_the_reason() {
    let (executor, _, memory, mut server) = executor();
    let (app, steps) = (app(), [Step::Apply(wanted_service())]);
    let (carried, _) = tokio::join!(
        executor.carry_out(&app, &steps),
        server.answer(failure(422, "Invalid"))
    );
    assert!(matches!(carried, Ok(Carried::Learned)), "{carried:?}");
    let told = memory.told(&app, Instant::now());
    assert!(
        !told.refused["Service/crm"].may_pass,
        "a release need not wait for it"
    );
    let forgotten = told.forgotten.expect("a moment at which it is tried again");
    assert!(memory.told(&app, forgotten).refused.is_empty());
}

#[tokio::test]
async fn a_conflict_with_another_manager_is_told_to_the_planner_once() {
    let conflict = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 409, "reason": "Conflict", "message": "…",
        "details": {"causes": [{
            "reason": "FieldManagerConflict", "field": ".spec.selector", "message": "conflict with \"helm\" using v1",
        }]},
    });
    let (executor, world, memory, mut server) = executor();
    let (app, steps) = (app(), [Step::Apply(wanted_service())]);
    let (first, _) = tokio::join!(
        executor.carry_out(&app, &steps),
        server.answer((409, conflict.clone()))
    );
    assert_eq!(first, Ok(Carried::Learned));
    let refusal = &memory.told(&app, Instant::now()).refused["Service/crm"];
    assert_eq!(refusal.hash, "h2");
    assert_eq!(refusal.message, ".spec.selector: conflict with \"helm\" using v1");
    assert!(refusal.conflict && !is_stale(&world));
    let (second, _) = tokio::join!(executor.carry_out(&app, &steps), server.answer((409, conflict)));
    assert_eq!(
        second.unwrap_err().reason(),
        "WriteRefused",
        "a planner that insists backs off"
    );
}

#[tokio::test]
async fn an_invalid_object_stops_the_steps_behind_it() {
    let (executor, _, memory, mut server) = executor();
    let (app, steps) = (
        app(),
        [Step::Apply(wanted_deployment()), Step::Apply(wanted_service())],
    );
    let (carried, _) = tokio::join!(
        executor.carry_out(&app, &steps),
        server.answer(failure(422, "Invalid"))
    );
    assert_eq!(carried, Ok(Carried::Learned));
    assert!(
        memory
            .told(&app, Instant::now())
            .refused
            .contains_key("Deployment/crm-web-2")
    );
    server.asked_nothing_more(executor).await;
}

#[tokio::test]
async fn a_dry_run_persists_nothing_and_its_success_is_remembered() {
    let (executor, world, memory, mut server) = executor();
    let (app, steps) = (app(), [Step::DryRun(wanted_deployment())]);
    let answer = (200, deployment("5"));
    let (carried, asked) = tokio::join!(executor.carry_out(&app, &steps), server.answer(answer.clone()));
    assert_eq!(
        carried,
        Ok(Carried::Learned),
        "nothing in the cluster will wake the planner"
    );
    assert!(
        asked.query.contains(&"dryRun=All".to_owned()),
        "{:?}",
        asked.query
    );
    assert!(!is_stale(&world));
    assert!(
        memory
            .told(&app, Instant::now())
            .dry_run_passed
            .contains("Deployment/crm-web-2#h1")
    );
    let (again, _) = tokio::join!(executor.carry_out(&app, &steps), server.answer(answer));
    assert_eq!(again, Ok(Carried::Out { switched: false }));
}

#[tokio::test]
async fn creating_what_is_there_adopts_an_object_of_the_same_owner() {
    let (executor, world, _, mut server) = executor();
    let (app, steps) = (app(), [Step::Create(wanted_job(Some("m-2")))]);
    let (carried, asked) = tokio::join!(executor.carry_out(&app, &steps), async {
        let create = server.answer(failure(409, "AlreadyExists")).await;
        let get = server.answer((200, existing_job("m-2", "crm"))).await;
        (create, get)
    });
    assert_eq!(carried, Ok(Carried::Out { switched: false }));
    assert_eq!(asked.0.what, "POST /apis/batch/v1/namespaces/shop/jobs");
    assert_eq!(asked.0.query, ["fieldManager=fairway"]);
    assert_eq!(
        asked.1.what,
        "GET /apis/batch/v1/namespaces/shop/jobs/crm-2-run-1"
    );
    assert!(
        is_stale(&world),
        "the adopted object must be seen before the next plan"
    );
}

#[tokio::test]
async fn an_object_of_another_owner_is_not_adopted() {
    let (executor, _, memory, mut server) = executor();
    let (app, steps) = (app(), [Step::Create(wanted_job(Some("m-2")))]);
    let (carried, ()) = tokio::join!(executor.carry_out(&app, &steps), async {
        server.answer(failure(409, "AlreadyExists")).await;
        server.answer((200, existing_job("someone", "crm"))).await;
    });
    assert_eq!(carried, Ok(Carried::Learned));
    assert_eq!(
        memory.told(&app, Instant::now()).refused["Job/crm-2-run-1"].message,
        "Job crm-2-run-1 exists already and belongs to something else; delete or rename it"
    );
}

#[tokio::test]
async fn without_an_owner_the_apps_label_decides() {
    for (label, adopted) in [("crm", true), ("cms", false)] {
        let (executor, _, _, mut server) = executor();
        let (app, steps) = (app(), [Step::Create(wanted_job(None))]);
        let (carried, ()) = tokio::join!(executor.carry_out(&app, &steps), async {
            server.answer(failure(409, "AlreadyExists")).await;
            server.answer((200, existing_job("someone", label))).await;
        });
        assert_eq!(
            carried == Ok(Carried::Out { switched: false }),
            adopted,
            "{label}: {carried:?}"
        );
    }
}

#[tokio::test]
async fn a_name_that_is_just_being_freed_is_waited_for() {
    let (executor, _, memory, mut server) = executor();
    let (app, steps) = (app(), [Step::Create(wanted_job(Some("m-2")))]);
    let mut ending = existing_job("m-2", "crm");
    ending["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let (carried, ()) = tokio::join!(executor.carry_out(&app, &steps), async {
        server.answer(failure(409, "AlreadyExists")).await;
        server.answer((200, ending)).await;
    });
    assert_eq!(
        carried,
        Err(StepError::BeingDeleted {
            object: "Job/crm-2-run-1".into()
        })
    );
    assert!(memory.told(&app, Instant::now()).refused.is_empty());
}

fn reference(kind: Kind) -> ObjectRef {
    ObjectRef {
        kind,
        namespace: "shop".into(),
        name: "crm-web-2".into(),
        uid: "d-2".into(),
        resource_version: Some("7".into()),
    }
}

#[tokio::test]
async fn deleting_names_the_uid_and_takes_the_pods_along() {
    let gone = json!({"kind": "Status", "apiVersion": "v1", "status": "Success"});
    let (carried, asked, ..) = one(Step::Delete(reference(Kind::Job)), (200, gone)).await;
    assert_eq!(carried, Ok(Carried::Out { switched: false }));
    assert_eq!(asked.what, "DELETE /apis/batch/v1/namespaces/shop/jobs/crm-web-2");
    assert_eq!(
        asked.body,
        json!({"preconditions": {"uid": "d-2"}, "propagationPolicy": "Background"})
    );
}

#[tokio::test]
async fn deleting_or_scaling_what_is_gone_or_replaced_is_fine() {
    for (code, reason) in [(404, "NotFound"), (409, "Conflict")] {
        let (carried, ..) = one(Step::Delete(reference(Kind::Deployment)), failure(code, reason)).await;
        assert_eq!(carried, Ok(Carried::Out { switched: false }));
        let (carried, ..) = one(Step::Scale(reference(Kind::Deployment), 0), failure(code, reason)).await;
        assert_eq!(carried, Ok(Carried::Out { switched: false }));
    }
}

#[tokio::test]
async fn scaling_sets_replicas_of_that_very_deployment_and_nothing_else() {
    let (carried, asked, world, _) = one(
        Step::Scale(reference(Kind::Deployment), 3),
        (200, deployment("9")),
    )
    .await;
    assert_eq!(carried, Ok(Carried::Out { switched: false }));
    assert_eq!(
        asked.what,
        "PATCH /apis/apps/v1/namespaces/shop/deployments/crm-web-2"
    );
    assert_eq!(
        asked.body,
        json!({"metadata": {"uid": "d-2", "resourceVersion": "7"}, "spec": {"replicas": 3}})
    );
    assert!(is_stale(&world));
}

#[tokio::test]
async fn an_apiserver_that_cannot_answer_is_tried_again_and_teaches_nothing() {
    let (carried, _, _, memory) = one(
        Step::Apply(wanted_deployment()),
        failure(503, "ServiceUnavailable"),
    )
    .await;
    assert_eq!(carried.unwrap_err().reason(), "WriteFailed");
    assert!(memory.told(&app(), Instant::now()).refused.is_empty());
}

#[tokio::test(start_paused = true)]
async fn in_a_namespace_that_is_being_deleted_nothing_more_is_made() {
    let (executor, _, _, mut server) = executor();
    let (app, steps) = (app(), [Step::Apply(wanted_deployment())]);
    let (code, mut status) = failure(403, "Forbidden");
    status["details"] = json!({"causes": [{"reason": "NamespaceTerminating"}]});
    let (carried, _) = tokio::join!(executor.carry_out(&app, &steps), server.answer((code, status)));
    let Ok(Carried::Held(until)) = carried else {
        panic!("{carried:?}")
    };
    // Nobody answers a second request: it would wait for ever.
    assert_eq!(executor.carry_out(&app, &steps).await, Ok(Carried::Held(until)));
}

#[tokio::test]
async fn a_write_whose_event_was_faster_than_its_answer_is_not_waited_for() {
    let (executor, world, _, mut server) = executor();
    world.put::<Deployment>(serde_json::from_value(deployment("5")).unwrap());
    let (app, steps) = (app(), [Step::Apply(wanted_deployment())]);
    let (carried, _) = tokio::join!(
        executor.carry_out(&app, &steps),
        server.answer((200, deployment("5")))
    );
    assert_eq!(carried, Ok(Carried::Out { switched: false }));
    assert!(!is_stale(&world));
}

#[tokio::test]
async fn what_was_changed_meanwhile_is_planned_anew_without_a_failure() {
    let (carried, _, _, memory) = one(Step::Apply(wanted_service()), failure(409, "Conflict")).await;
    assert_eq!(carried, Ok(Carried::Outdated));
    assert!(memory.told(&app(), Instant::now()).refused.is_empty());
}

#[tokio::test]
async fn an_object_that_ends_by_and_by_is_awaited_in_the_version_in_which_it_began_to() {
    let (executor, world, _, mut server) = executor();
    let mut ending = existing_job("m-2", "crm");
    ending["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    world.put::<Job>(serde_json::from_value(ending.clone()).unwrap());
    let reference = ObjectRef {
        name: "crm-2-run-1".into(),
        uid: "j-1".into(),
        ..reference(Kind::Job)
    };
    let (app, steps) = (app(), [Step::Delete(reference)]);
    let (carried, _) = tokio::join!(executor.carry_out(&app, &steps), server.answer((200, ending)));
    assert_eq!(carried, Ok(Carried::Out { switched: false }));
    assert!(!is_stale(&world), "its event was faster than the answer");
}
