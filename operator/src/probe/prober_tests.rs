use super::*;
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

fn failed(what: &str) -> ProbeVerdict {
    ProbeVerdict::Failed(what.into())
}

/// The rounds after which the Release is woken.
fn news(verdicts: impl IntoIterator<Item = ProbeVerdict>) -> (Vec<bool>, PodHealth) {
    let (mut health, target) = (PodHealth::default(), target(1));
    let news = verdicts
        .into_iter()
        .map(|verdict| count(&mut health, &target, verdict))
        .collect();
    (news, health)
}

#[test]
fn reaching_the_passes_in_a_row_is_news_and_going_on_is_not() {
    let (news, health) = news((0..5).map(|_| ProbeVerdict::Passed));
    assert_eq!(news, [false, false, true, false, false]);
    assert_eq!((health.passes, health.passed, health.failed), (5, 5, 0));
}

#[test]
fn the_first_failure_and_the_last_one_needed_are_news() {
    let (news, health) = news([ProbeVerdict::Passed, failed("503"), failed("503"), failed("503")]);
    assert_eq!(news, [false, true, true, false]);
    assert_eq!((health.passes, health.failures, health.failed), (0, 3, 3));
    assert!(!health.proven);
}

#[test]
fn what_has_passed_often_enough_is_proven_for_good() {
    let passed = || ProbeVerdict::Passed;
    assert!(!news([passed(), passed(), failed("503"), passed()]).1.proven);
    assert!(news([passed(), passed(), passed(), failed("503")]).1.proven);
}

#[test]
fn a_new_text_is_news() {
    let (news, health) = news([failed("503"), failed("503"), failed("503"), failed("404")]);
    assert_eq!(news, [true, true, false, true]);
    assert_eq!(health.last_failure.as_deref(), Some("404"));
}

#[test]
fn being_unreachable_is_neither_passing_nor_failing() {
    let unreachable = || ProbeVerdict::Unreachable("no route".into());
    let (news, health) = news([failed("503"), unreachable(), unreachable(), unreachable()]);
    assert_eq!(news, [true, true, true, false]);
    assert_eq!(
        (health.passes, health.failures, health.unreachable, health.failed),
        (0, 0, 3, 4)
    );
}

#[test]
fn a_pod_that_refuses_has_failed_if_it_ever_answered() {
    let refused = || ProbeVerdict::Refused("no connection".into());
    let (_, health) = news([refused(), refused()]);
    assert_eq!((health.failures, health.unreachable), (0, 2));
    let (news, health) = news([ProbeVerdict::Passed, refused(), refused()]);
    assert_eq!(news, [false, true, true]);
    assert_eq!((health.failures, health.unreachable), (2, 0));
}

#[test]
fn a_wrong_answer_weighs_more_than_none() {
    let unreachable = || ProbeVerdict::Unreachable("no route".into());
    let refused = || ProbeVerdict::Refused("no connection".into());
    assert_eq!(worse(unreachable(), refused()), refused());
    assert_eq!(worse(refused(), failed("503")), failed("503"));
    assert_eq!(worse(unreachable(), failed("503")), failed("503"));
    assert_eq!(worse(failed("503"), unreachable()), failed("503"));
    assert_eq!(worse(ProbeVerdict::Passed, unreachable()), unreachable());
    assert_eq!(
        worse(ProbeVerdict::Passed, ProbeVerdict::Passed),
        ProbeVerdict::Passed
    );
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

fn prober() -> (Arc<Prober>, Arc<Queue>) {
    let (metrics, _) = Metrics::new();
    let queue = Arc::new(Queue::default());
    (
        Arc::new(Prober::new(Token::new([0; 32]).0, queue.clone(), metrics)),
        queue,
    )
}

#[tokio::test]
async fn a_healthy_pod_wakes_its_release_and_keeps_its_counts_while_it_is_wanted() {
    let (prober, queue) = prober();
    let (release, target) = (Key::new("shop", "crm-2"), target(healthy_pod().await));
    prober.set(&release, vec![target.clone()]);
    assert_eq!(queue.next().await.key, release);
    assert!(prober.health(&release)["p-1"].passes >= 3);
    prober.set(&release, vec![target.clone()]);
    assert!(
        prober.health(&release)["p-1"].passes >= 3,
        "the same target goes on"
    );
    prober.set(
        &release,
        vec![ProbeTarget {
            success_threshold: 5,
            ..target
        }],
    );
    assert_eq!(
        prober.health(&release)["p-1"].passes,
        0,
        "another question starts anew"
    );
    prober.set(&release, Vec::new());
    assert!(prober.health(&release).is_empty());
}

#[tokio::test]
async fn a_closed_port_is_unreachable_and_told_at_once() {
    let (prober, queue) = prober();
    let release = Key::new("shop", "crm-2");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let closed = listener.local_addr().unwrap().port();
    drop(listener);
    prober.set(&release, vec![target(closed)]);
    assert_eq!(queue.next().await.key, release);
    let health = &prober.health(&release)["p-1"];
    assert!(health.unreachable >= 1 && health.passes == 0, "{health:?}");
    prober.stop();
    assert!(prober.health(&release).is_empty());
}

#[tokio::test]
async fn without_its_probe_pod_a_target_is_unreachable() {
    let (prober, queue) = prober();
    let release = Key::new("shop", "crm-2");
    let via = fairway_plan::observed::ProbePod {
        address: None,
        indexes: vec![Some(0)],
    };
    prober.set(
        &release,
        vec![ProbeTarget {
            via: Some(via),
            ..target(healthy_pod().await)
        }],
    );
    assert_eq!(queue.next().await.key, release);
    let found = prober.health(&release)["p-1"].last_failure.clone();
    assert_eq!(found.as_deref(), Some("the probe pod is not running yet"));
}
