use super::*;
use crate::fake::{Apiserver, apiserver, engine, failure};
use crate::probe::via::Token;
use fairway_engine::kinds::App;
use serde_json::{Value, json};
use std::time::Duration;

fn app(version: u64, status: Option<&Value>) -> App {
    let mut app = json!({
        "apiVersion": "fairway.dev/v1alpha1", "kind": "App",
        "metadata": {"namespace": "shop", "name": "crm", "uid": "a-1", "resourceVersion": version.to_string(), "generation": 1},
        "spec": {"components": [], "suspend": true},
    });
    if let Some(status) = status {
        app["status"] = status.clone();
    }
    serde_json::from_value(app).unwrap()
}

fn driver() -> (Arc<Driver>, Arc<SharedEngine>, Apiserver) {
    let (client, server) = apiserver();
    let (metrics, _) = Metrics::new();
    let (events, _) = Events::new(metrics.clone());
    let engine = Arc::new(SharedEngine::new(engine()));
    let (token, _) = Token::new([0; 32]);
    let prober = Arc::new(Prober::new(token, engine.clone(), metrics.clone()));
    let driver = Driver::new(engine.clone(), client, prober, events, metrics);
    (Arc::new(driver), engine, server)
}

async fn let_others_run() {
    for _ in 0..9 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn passes_start_when_the_caches_are_complete_and_this_process_leads_and_end_before_it_stops() {
    let (driver, engine, mut server) = driver();
    let (stop, stopped) = channel::channel(false);
    let running = tokio::spawn(driver.run(stopped));
    let waiting = || engine.with(|engine, _| engine.load(fairway_engine::kinds::Reconciled::App).ready);
    engine.with(|engine, now| engine.put(app(1, None), now));
    let_others_run().await;
    assert_eq!(waiting(), 1, "kinds are missing");
    engine.with(crate::fake::complete);
    // The empty first lists have removed it.
    engine.with(|engine, now| engine.put(app(1, None), now));
    let_others_run().await;
    assert_eq!(waiting(), 1, "another process leads");
    engine.with(|engine, now| engine.set_leads(true, now));
    let_others_run().await;
    assert_eq!(waiting(), 0);
    // The pass is under way: its status is still to be written.
    stop.send_replace(true);
    let asked = server.answer(failure(409, "Conflict")).await;
    assert_eq!(
        asked.what,
        "PUT /apis/fairway.dev/v1alpha1/namespaces/shop/apps/crm/status"
    );
    running.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_failed_pass_is_retried_when_its_time_comes() {
    let (driver, engine, mut server) = driver();
    let (_stop, stopped) = channel::channel(false);
    engine.with(crate::fake::complete);
    engine.with(|engine, now| {
        engine.set_leads(true, now);
        engine.put(app(1, None), now);
    });
    let _running = tokio::spawn(driver.run(stopped));
    server.answer(failure(503, "ServiceUnavailable")).await;
    let failed = tokio::time::Instant::now();
    server.answer(failure(503, "ServiceUnavailable")).await;
    assert!(failed.elapsed() >= Duration::from_millis(200));
}
