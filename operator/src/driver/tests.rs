use super::*;
use crate::fake::{ApiServer, api_server, engine, failure};
use crate::telemetry::tests::Log;
use fairway_engine::NamespacedName;
use fairway_engine::kinds::{App, OwnKind};
use fairway_plan::observed::ProbeTarget;
use serde_json::{Value, json};
use std::net::Ipv4Addr;
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

fn driver() -> (Arc<Driver>, Arc<SharedEngine>, ApiServer) {
    let (client, server) = api_server();
    let (metrics, _) = Metrics::new();
    let (events, _) = Events::new(metrics.clone());
    let engine = Arc::new(SharedEngine::new(engine()));
    let prober = Arc::new(Prober::new(engine.clone(), metrics.clone()));
    let driver = Driver::new(engine.clone(), client, prober, Handle::current(), events, metrics);
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
    let waiting = || engine.with(|engine, _| engine.load(fairway_engine::kinds::OwnKind::App).ready);
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

#[tokio::test]
async fn probes_end_with_the_driver() {
    let (driver, engine, _server) = driver();
    let target = ProbeTarget {
        pod_uid: "p-1".into(),
        pod_name: "crm-web-2-x".into(),
        address: Ipv4Addr::LOCALHOST.into(),
        requests: Vec::new(),
        via: None,
        period: Duration::from_secs(3600),
        success_threshold: 3,
        failure_threshold: 2,
    };
    let release = NamespacedName::new("shop", "crm-2");
    driver.probe(engine.with(|engine, _| engine.probe(&release, vec![target])));
    let prober = driver.prober.clone();
    let (stop, stopped) = channel::channel(false);
    let running = tokio::spawn(driver.run(stopped));
    let_others_run().await;
    assert_eq!(
        Arc::strong_count(&prober),
        3,
        "the driver, the probe and the test hold it"
    );
    stop.send_replace(true);
    running.await.unwrap().unwrap();
    assert_eq!(
        Arc::strong_count(&prober),
        1,
        "the probe is stopped before the driver returns"
    );
}

#[tokio::test]
async fn a_step_of_a_release_is_one_line_of_the_log() {
    let (driver, _, _server) = driver();
    let log = Log::default();
    let guard = tracing::subscriber::set_default(log.subscriber("info"));
    let release = ObjectKey::new(OwnKind::Release, NamespacedName::new("shop", "crm-2"));
    driver.report(&release, Ended::default());
    let step = ReleaseStep {
        app: "crm".to_owned(),
        step: Some("BackedUp".to_owned()),
        reason: "BackingUp".to_owned(),
    };
    let ended = Ended {
        step: Some(step),
        ..Ended::default()
    };
    driver.report(&release, ended);
    drop(guard);
    let lines: Vec<Value> = log
        .text()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let [line] = &lines[..] else { panic!("{lines:?}") };
    for (member, value) in [
        ("level", "INFO"),
        ("message", "release step"),
        ("namespace", "shop"),
        ("app", "crm"),
        ("release", "crm-2"),
        ("step", "BackedUp"),
        ("reason", "BackingUp"),
    ] {
        assert_eq!(line[member], value, "{line}");
    }
}
