//! The agent that makes health requests with headers from Secrets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use axum::{
    Router,
    http::{HeaderMap, StatusCode},
    routing::get,
};
use fairway_protocol::{Header, HttpRequest, ProbeCall, ProbeTask, ProbeVerdict, Scheme, Task};
use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::{
    harness::{Container, Pod},
    postgres::{Database, free_port},
};

const TOKEN: &str = "operator-token";

/// A pod that is healthy for those who know its secret.
async fn application(address: IpAddr) -> u16 {
    let health = |headers: HeaderMap| async move {
        match headers
            .get("authorization")
            .is_some_and(|value| value == "Bearer s3cret")
        {
            true => StatusCode::OK,
            false => StatusCode::UNAUTHORIZED,
        }
    };
    let listener = TcpListener::bind((address, 0)).await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/data", get(health))).await });
    port
}

fn task(port: u16) -> Task {
    let request = HttpRequest {
        scheme: Scheme::Http,
        path: "/data".into(),
        host: None,
        headers: vec![Header {
            name: "Authorization".into(),
            value: None,
            value_from_variable: Some("PROBE_0".into()),
        }],
        status: 200,
        json: Default::default(),
    };
    let token_sha256 = Sha256::digest(TOKEN)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Task::Probe(ProbeTask {
        token_sha256,
        requests: vec![(port, request)],
    })
}

/// One HTTP exchange; `None` while nobody listens.
async fn call(probe: u16, token: &str, body: &str) -> Option<String> {
    call_at(Ipv4Addr::LOCALHOST.into(), probe, token, body).await
}

async fn call_at(address: IpAddr, probe: u16, token: &str, body: &str) -> Option<String> {
    let mut stream = TcpStream::connect((address, probe)).await.ok()?;
    let request = format!(
        "POST /probe HTTP/1.1\r\nHost: probe\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    Some(answer)
}

fn body(index: usize, address: &str) -> String {
    serde_json::to_string(&ProbeCall {
        index,
        address: address.into(),
    })
    .expect("a call")
}

async fn served(pod: &Pod, probe: u16, port: u16) -> Container {
    let container = pod.start(&task(port));
    while TcpStream::connect((Ipv4Addr::LOCALHOST, probe)).await.is_err() {
        tokio::task::yield_now().await;
    }
    container
}

#[tokio::test]
async fn only_the_operator_gets_verdicts_and_nobody_gets_secrets() {
    let database = Database::new().await;
    let probe = free_port();
    let pod = Pod::new(&database, "pod-1")
        .with("PROBE_0", "Bearer s3cret")
        .with("FAIRWAY_PROBE_PORT", &probe.to_string());
    let port = application(Ipv4Addr::LOCALHOST.into()).await;
    let container = served(&pod, probe, port).await;
    for (token, body, expected) in [
        (TOKEN, body(0, "127.0.0.1"), "200 OK"),
        ("another", body(0, "127.0.0.1"), "401 Unauthorized"),
        ("", body(0, "127.0.0.1"), "401 Unauthorized"),
        (TOKEN, body(1, "127.0.0.1"), "404 Not Found"),
        (TOKEN, body(0, "evil.example"), "400 Bad Request"),
        (TOKEN, "{}".to_owned(), "400 Bad Request"),
        (TOKEN, "x".repeat(4096), "413 Payload Too Large"),
    ] {
        let answer = call(probe, token, &body).await.expect("the agent serves");
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {expected}\r\n")),
            "{token} {body}: {answer}"
        );
    }
    let answer = call(probe, TOKEN, &body(0, "127.0.0.1"))
        .await
        .expect("the agent serves");
    let verdict = answer.rsplit("\r\n").next().expect("a body");
    assert_eq!(
        serde_json::from_str::<ProbeVerdict>(verdict).expect("a verdict"),
        ProbeVerdict::Passed
    );
    container.signal("TERM");
    let outcome = container.end().await;
    assert_eq!(outcome.code, Some(0));
    assert!(!outcome.log.contains("s3cret"));
}

#[tokio::test]
async fn f12_a_cluster_with_ipv6_alone_is_served() {
    let own = IpAddr::from(Ipv6Addr::LOCALHOST);
    let database = Database::new().await;
    let probe = free_port();
    let pod = Pod::new(&database, "pod-1")
        .with("PROBE_0", "Bearer s3cret")
        .with("FAIRWAY_PROBE_PORT", &probe.to_string());
    let port = application(own).await;
    let container = served(&pod, probe, port).await;
    let answer = call_at(own, probe, TOKEN, &body(0, "::1"))
        .await
        .expect("the agent serves");
    let verdict = answer.rsplit("\r\n").next().expect("a body");
    assert_eq!(
        serde_json::from_str::<ProbeVerdict>(verdict).expect("a verdict"),
        ProbeVerdict::Passed
    );
    container.signal("TERM");
    container.end().await;
}
