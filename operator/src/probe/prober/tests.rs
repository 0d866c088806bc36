use super::*;
use fairway_engine::Key;
use fairway_engine::kinds::Reconciled;
use fairway_plan::protocol::{HttpRequest, Scheme};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

fn target(port: u16) -> ProbeTarget {
    ProbeTarget {
        pod_uid: "p-1".into(),
        pod_name: "crm-web-2-x".into(),
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        requests: vec![(
            port,
            HttpRequest {
                scheme: Scheme::Http,
                path: "/health".into(),
                host: None,
                headers: Vec::new(),
                status: 200,
                json: None,
            },
        )],
        via: None,
        period: Duration::from_millis(1),
        success_threshold: 3,
        failure_threshold: 2,
    }
}

/// A pod that answers 200 to every request.
async fn healthy_pod() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = [0; 1024];
            if stream.read(&mut buffer).await.is_ok() {
                let _ = stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                    .await;
            }
        }
    });
    port
}

fn prober() -> (Arc<Prober>, Arc<SharedEngine>) {
    let (metrics, _) = Metrics::new();
    let engine = Arc::new(SharedEngine::new(crate::fake::engine()));
    let prober = Prober::new(Token::new([0; 32]).0, engine.clone(), metrics);
    (Arc::new(prober), engine)
}

/// Asks until the Release has news, and then ends the probe.
async fn news(
    prober: Arc<Prober>,
    engine: &SharedEngine,
    target: ProbeTarget,
) -> fairway_plan::observed::PodHealth {
    let release = Key::new("shop", "crm-2");
    let probes = engine.with(|engine, _| engine.probe(&release, vec![target]));
    let asking = tokio::spawn(prober.ask(probes[0].clone()));
    while engine.with(|engine, _| engine.load(Reconciled::Release).ready) == 0 {
        tokio::task::yield_now().await;
    }
    let health = engine.with(|engine, _| engine.probes().next().unwrap().1.clone());
    engine.with(|engine, _| engine.probe(&release, Vec::new()));
    asking.await.unwrap();
    health
}

#[tokio::test]
async fn a_healthy_pod_wakes_its_release() {
    let (prober, engine) = prober();
    let health = news(prober, &engine, target(healthy_pod().await)).await;
    assert!(health.passes >= 3, "{health:?}");
}

#[tokio::test]
async fn a_closed_port_wakes_its_release_at_once() {
    let (prober, engine) = prober();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let closed = listener.local_addr().unwrap().port();
    drop(listener);
    let health = news(prober, &engine, target(closed)).await;
    assert!(health.unreachable >= 1 && health.passes == 0, "{health:?}");
}

#[tokio::test]
async fn without_its_probe_pod_a_target_is_unreachable() {
    let (prober, engine) = prober();
    let via = fairway_plan::observed::ProbePod {
        address: None,
        indexes: vec![Some(0)],
    };
    let target = ProbeTarget {
        via: Some(via),
        ..target(1)
    };
    let health = news(prober, &engine, target).await;
    assert_eq!(
        health.last_failure.as_deref(),
        Some("the probe pod is not running yet")
    );
}
