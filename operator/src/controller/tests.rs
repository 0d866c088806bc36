use super::*;
use crate::events::Events;
use crate::fake::{Apiserver, apiserver, failure};
use crate::key::{Watched, Work};
use crate::probe::via::Token;
use fairway_crds::{App, AppStatus};
use fairway_plan::Step;
use fairway_plan::object::Object;
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::json;

/// A controller of Apps that applies one Deployment and says in status which generation it has seen.
struct Simple;

impl Controller for Simple {
    type Object = App;
    type Observed = Arc<App>;
    const KIND: Reconciled = Reconciled::App;

    fn app(_: &Context, key: &Key) -> Option<Key> {
        Some(key.clone())
    }

    async fn observe(context: &Context, app: &Key, key: &Key) -> Result<View<Arc<App>>, ForeignError> {
        let work = Work::new(Reconciled::App, key.clone());
        Ok(context.world.view(app, &work, |group| group.app()))
    }

    fn object(observed: &Arc<App>) -> &Arc<App> {
        observed
    }

    fn plan(observed: &Arc<App>, _: &Settings, _: Timestamp) -> Decision<AppStatus> {
        let status = AppStatus {
            observed_generation: observed.metadata.generation,
            ..AppStatus::default()
        };
        let done = observed.status.as_ref() == Some(&status);
        let apply = || Step::Apply(Box::new(Object::Deployment(deployment())));
        Decision {
            steps: (!done).then(apply).into_iter().collect(),
            status,
            wake: Wake::OnChange,
        }
    }
}

fn deployment() -> Deployment {
    serde_json::from_value(
        json!({"metadata": {"namespace": "shop", "name": "web", "labels": {"fairway.dev/app": "crm"}}}),
    )
    .unwrap()
}

fn app(version: u64, seen: Option<i64>) -> App {
    serde_json::from_value(json!({
        "apiVersion": "fairway.dev/v1alpha1", "kind": "App",
        "metadata": {"namespace": "shop", "name": "crm", "resourceVersion": version.to_string(), "generation": 1},
        "spec": {"components": []},
        "status": {"observedGeneration": seen.unwrap_or(-1)},
    }))
    .unwrap()
}

fn context() -> (Arc<Context>, Apiserver) {
    let (client, server) = apiserver();
    let (metrics, _) = Metrics::new();
    let (events, _) = Events::new(metrics.clone());
    let (world, memory) = (Arc::new(World::default()), Arc::new(Memory::default()));
    let (token, probe_token_sha256) = Token::new([0; 32]);
    let context = Context {
        foreign: Foreign::new(client.clone(), world.clone()),
        prober: Arc::new(Prober::new(token, Arc::default(), metrics.clone())),
        executor: Executor::new(client.clone(), world.clone(), memory.clone()),
        reporter: Reporter::new(client, world.clone(), events, metrics.clone()),
        world,
        memory,
        metrics,
        settings: Settings {
            agent_image: "fairway".into(),
            agent_pull_secrets: Vec::new(),
            agent_pull_policy: "IfNotPresent".into(),
            probe_token_sha256,
        },
    };
    (Arc::new(context), server)
}

fn due() -> Due {
    Due {
        key: Key::new("shop", "crm"),
        since: Instant::now(),
    }
}

fn stored(object: impl serde::Serialize, version: u64) -> (u16, serde_json::Value) {
    let mut stored = serde_json::to_value(object).unwrap();
    stored["metadata"]["resourceVersion"] = version.to_string().into();
    (200, stored)
}

#[tokio::test]
async fn a_pass_carries_out_steps_before_it_writes_status_and_the_next_one_waits_for_both() {
    let (context, mut server) = context();
    context.world.put(app(1, None));
    let due = due();
    let (next, asked) = tokio::join!(pass::<Simple>(&context, &due), async {
        let apply = server.answer(stored(deployment(), 5)).await;
        let status = server.answer(stored(app(1, Some(1)), 6)).await;
        [apply.what, status.what]
    });
    assert_eq!(next.unwrap(), Next::OnChange);
    assert_eq!(
        asked,
        [
            "PATCH /apis/apps/v1/namespaces/shop/deployments/web",
            "PUT /apis/fairway.dev/v1alpha1/namespaces/shop/apps/crm/status",
        ]
    );
    assert!(
        matches!(pass::<Simple>(&context, &due).await.unwrap(), Next::At(_)),
        "older than our last write"
    );
    let mut applied = deployment();
    applied.metadata.resource_version = Some("5".into());
    context.world.put(applied);
    let work = context.world.put(app(6, Some(1)));
    assert!(work.contains(&Work::new(Reconciled::App, due.key.clone())));
    assert_eq!(
        pass::<Simple>(&context, &due).await.unwrap(),
        Next::OnChange,
        "nothing left to do"
    );
    server.asked_nothing_more(context).await;
}

#[tokio::test]
async fn a_refusal_that_is_news_is_planned_on_and_one_that_is_not_fails_the_pass() {
    let (context, mut server) = context();
    context.world.put(app(1, None));
    let due = due();
    let (result, ()) = tokio::join!(pass::<Simple>(&context, &due), async {
        server.answer(failure(422, "Invalid")).await;
        server.answer(failure(422, "Invalid")).await;
    });
    let error = result.unwrap_err();
    assert!(
        matches!(error, PassError::Step(StepError::Refused { .. })),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_status_that_comes_too_late_is_planned_anew() {
    let (context, mut server) = context();
    context.world.put(app(1, None));
    let due = due();
    let (next, ()) = tokio::join!(pass::<Simple>(&context, &due), async {
        server.answer(stored(deployment(), 5)).await;
        server.answer(failure(409, "Conflict")).await;
    });
    assert!(matches!(next.unwrap(), Next::At(_)));
}

#[tokio::test]
async fn passes_start_when_the_caches_are_complete_and_this_process_leads_and_end_before_it_stops() {
    let (context, mut server) = context();
    let queue = Arc::new(Queue::default());
    let (leads, leading) = watch::channel(false);
    let (stop, stopped) = watch::channel(false);
    let controller = tokio::spawn(run::<Simple>(context.clone(), queue.clone(), 1, leading, stopped));
    context.world.put(app(1, None));
    queue.add(&due().key);
    for kind in Watched::ALL {
        tokio::task::yield_now().await;
        assert_eq!(queue.depth(), 1, "{kind:?} is missing");
        context.world.set_missing(kind, None);
    }
    for _ in 0..9 {
        tokio::task::yield_now().await;
    }
    assert_eq!(queue.depth(), 1, "another process leads");
    leads.send_replace(true);
    server.answer(stored(deployment(), 5)).await;
    assert_eq!(queue.depth(), 0);
    // The pass is under way: its status is still to be written.
    stop.send_replace(true);
    server.answer(stored(app(1, Some(1)), 6)).await;
    controller.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_wake_is_never_before_its_time() {
    let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let moment: Timestamp = "2026-01-01T00:00:01.2345Z".parse().unwrap();
    let start = Instant::now();
    let Next::At(due) = at(Wake::At(moment), now) else {
        panic!("a time")
    };
    assert!(due - start >= Duration::from_micros(1_234_500) && due - start < Duration::from_millis(1237));
    let Next::At(past) = at(Wake::At(now), moment) else {
        panic!("a time")
    };
    assert_eq!(
        past - start,
        DUE,
        "what is due already is due at once, but not all the time"
    );
    assert_eq!(at(Wake::OnChange, now), Next::OnChange);
}
