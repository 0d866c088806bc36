use super::*;
use fairway_engine::NamespacedName;
use fairway_engine::kinds::OwnKind;
use fairway_plan::probe_token::ProbeKey;
use fairway_plan::protocol::{HttpRequest, Scheme};
use std::net::{IpAddr, Ipv4Addr};
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
                json: Default::default(),
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
    let prober = Prober::new(engine.clone(), metrics);
    (Arc::new(prober), engine)
}

/// Asks until the Release has news, and then ends the probe.
async fn news(
    prober: Arc<Prober>,
    engine: &SharedEngine,
    target: ProbeTarget,
) -> fairway_plan::observed::PodHealth {
    let release = NamespacedName::new("shop", "crm-2");
    let probes = engine.with(|engine, _| engine.probe(&release, vec![target]));
    let asking = tokio::spawn(prober.ask(probes[0].clone()));
    while engine.with(|engine, _| engine.load(OwnKind::Release).ready) == 0 {
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
        token: ProbeKey::new([0; 32]).token("shop", "crm-2", 1),
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

/// Ten pods whose page is 1 MiB of empty objects, as a tree more than 100 MiB.
async fn ask_hostile_pods(page: &'static [u8]) {
    let (metrics, _) = Metrics::new();
    let engine = Arc::new(SharedEngine::new(crate::fake::engine()));
    // What is measured is memory: a busy machine may take its time.
    let prober = Prober {
        limit: Duration::from_secs(600),
        ..Prober::new(engine.clone(), metrics)
    };
    let release = NamespacedName::new("hostile", "crm-2");
    let mut targets = Vec::new();
    for number in 0..10 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let mut target = target(listener.local_addr().unwrap().port());
        target.pod_uid = format!("p-{number}");
        target.requests[0].1.json = [("/ok".to_owned(), "true".to_owned())].into();
        targets.push(target);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", page.len());
                    let mut asked = [0; 256];
                    let _ = stream.read(&mut asked).await;
                    let _ = stream.write_all(head.as_bytes()).await;
                    let _ = stream.write_all(page).await;
                });
            }
        });
    }
    let probes = engine.with(|engine, _| engine.probe(&release, targets));
    let rounds = join_all(probes.iter().map(|probe| prober.round(probe))).await;
    let expected =
        ProbeVerdict::Failed("GET /health answered 200, but `/ok` is missing, expected `true`".to_owned());
    assert!(rounds.iter().all(|verdict| *verdict == expected), "{rounds:?}");
}

/// S6: ten pods, asked at the same time, with a page of 1 MiB each: at most 4 MiB.
#[test]
fn s6_hostile_pages_stay_within_4_mib() {
    let peak = crate::peak::peak_of(
        "probe::prober::tests::s6_hostile_pages_stay_within_4_mib",
        || {
            format!("[{}{{}}]", r#"{"":0},"#.repeat(149_790))
                .leak()
                .as_bytes()
        },
        |page| {
            assert!((1_048_000..=1_048_576).contains(&page.len()), "{}", page.len());
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(ask_hostile_pods(page));
        },
    );
    if let Some(peak) = peak {
        println!("{} KiB", peak / 1024);
        assert!(peak < 4 * 1024 * 1024, "{} KiB", peak / 1024);
    }
}
