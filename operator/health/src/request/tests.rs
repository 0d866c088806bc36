//! Every answer that a pod can give, from a server on loopback.

use std::net::Ipv4Addr;

use rstest::rstest;
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::tls::provider;

/// What the pod does with one connection.
enum Pod {
    /// Sends this and closes.
    Says(Vec<u8>),
    /// Sends this and then more and more.
    Floods(&'static str),
    /// Accepts and stays silent.
    Hangs,
}

/// Answers one connection; the handle gives what the client sent.
async fn pod(behaviour: Pod) -> (u16, JoinHandle<String>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut received = vec![0; 4096];
        let count = stream.read(&mut received).await.unwrap();
        match behaviour {
            Pod::Says(answer) => stream.write_all(&answer).await.unwrap(),
            Pod::Floods(head) => {
                stream.write_all(head.as_bytes()).await.unwrap();
                let piece = vec![b'x'; 64 * 1024];
                while stream.write_all(&piece).await.is_ok() {}
            }
            Pod::Hangs => while stream.read(&mut [0; 64]).await.is_ok_and(|count| count > 0) {},
        }
        String::from_utf8_lossy(&received[..count]).into_owned()
    });
    (port, serving)
}

fn get(path: &str) -> HttpRequest {
    HttpRequest {
        scheme: Scheme::Http,
        path: path.into(),
        host: None,
        headers: Vec::new(),
        status: 200,
        json: BTreeMap::new(),
    }
}

async fn ask(port: u16, one: &HttpRequest) -> ProbeVerdict {
    request(Ipv4Addr::LOCALHOST.into(), port, one, &BTreeMap::new()).await
}

fn ok(body: &str) -> Pod {
    Pod::Says(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes())
}

#[rstest]
#[case(r#"{"ok":true,"database":"connected","uptime":3}"#, None)]
#[case(
    r#"{"ok":false,"database":"connected"}"#,
    Some("GET /health answered 200, but `/ok` is `false`, expected `true`")
)]
#[case(
    r#"{"ok":true}"#,
    Some("GET /health answered 200, but `/database` is missing, expected `connected`")
)]
#[case(
    "[1]",
    Some("GET /health answered 200, but `/database` is missing, expected `connected`")
)]
#[case("<html>", Some("GET /health answered 200 with a body that is not JSON"))]
#[case("", Some("GET /health answered 200 with a body that is not JSON"))]
#[tokio::test]
async fn s2_the_body_is_compared_by_the_members_given(#[case] body: &str, #[case] failure: Option<&str>) {
    let (port, _) = pod(ok(body)).await;
    let members = [("/ok", "true"), ("/database", "connected")];
    let one = HttpRequest {
        json: members
            .map(|(pointer, text)| (pointer.into(), text.into()))
            .into(),
        ..get("/health")
    };
    assert_eq!(
        ask(port, &one).await,
        failure.map_or(ProbeVerdict::Passed, |text| ProbeVerdict::Failed(text.into()))
    );
}

#[rstest]
#[case(
    "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
    "GET / answered 404, expected 200"
)]
#[case(
    "HTTP/1.1 302 Found\r\nLocation: /login?token=abc\r\nContent-Length: 0\r\n\r\n",
    "GET / answered 302 (a redirect to /login, not followed), expected 200"
)]
#[case(
    "SSH-2.0-OpenSSH_9.2\r\n",
    "GET / closed the connection without an HTTP answer"
)]
#[case("", "GET / closed the connection without an HTTP answer")]
#[case(
    "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nshort",
    "GET / answered 200 and broke off in the body"
)]
#[tokio::test]
async fn every_wrong_answer_is_one_sentence(#[case] answer: &str, #[case] sentence: &str) {
    let (port, _) = pod(Pod::Says(answer.into())).await;
    assert_eq!(ask(port, &get("/")).await, ProbeVerdict::Failed(sentence.into()));
}

#[tokio::test]
async fn two_gigabytes_are_not_read() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 2147483648\r\n\r\n";
    let (port, serving) = pod(Pod::Floods(head)).await;
    let verdict = ask(port, &get("/big")).await;
    assert_eq!(
        verdict,
        ProbeVerdict::Failed("GET /big answered more than 1 MiB".into())
    );
    serving.await.expect("the connection was closed");
}

#[tokio::test]
async fn silence_ends_when_the_time_is_over() {
    let (port, serving) = pod(Pod::Hangs).await;
    let target = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let verdict = request_within(Duration::from_millis(100), target, &get("/"), &BTreeMap::new()).await;
    assert_eq!(
        verdict,
        ProbeVerdict::Failed("GET / gave no answer within 0.1 s".into())
    );
    serving.await.expect("the connection was closed");
}

/// A pod that serves one request by HTTPS, with a certificate of its own making. The handle gives the server name that
/// the client asked for, and what it sent.
async fn https_pod(answer: Vec<u8>) -> (u16, JoinHandle<(Option<String>, String)>) {
    let certificate = rcgen::generate_simple_self_signed(["crm".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(certificate.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.cert.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = TlsAcceptor::from(Arc::new(config)).accept(stream).await.unwrap();
        let name = stream.get_ref().1.server_name().map(str::to_owned);
        let mut received = vec![0; 4096];
        let count = stream.read(&mut received).await.unwrap();
        stream.write_all(&answer).await.unwrap();
        stream.shutdown().await.unwrap();
        (name, String::from_utf8_lossy(&received[..count]).into_owned())
    });
    (port, serving)
}

fn https(host: Option<&str>) -> HttpRequest {
    HttpRequest {
        scheme: Scheme::Https,
        host: host.map(str::to_owned),
        ..get("/health")
    }
}

/// As a kubelet does it: what the certificate says is not asked.
#[rstest]
#[case::of_an_address(None, None)]
#[case::of_a_name(Some("shop.example.com"), Some("shop.example.com"))]
#[case::of_a_name_and_a_port(Some("shop.example.com:8443"), Some("shop.example.com"))]
#[case::of_an_address_in_brackets(Some("[::1]:8443"), None)]
#[tokio::test]
async fn a_pod_may_serve_https_with_any_certificate(#[case] host: Option<&str>, #[case] name: Option<&str>) {
    let (port, serving) = https_pod(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec()).await;
    assert_eq!(ask(port, &https(host)).await, ProbeVerdict::Passed);
    let (asked, sent) = serving.await.unwrap();
    assert_eq!(asked.as_deref(), name);
    let host = host.map_or_else(|| format!("127.0.0.1:{port}"), str::to_owned);
    assert!(sent.contains(&format!("host: {host}\r\n")), "{sent}");
}

#[tokio::test]
async fn a_wrong_answer_by_https_is_the_same_sentence() {
    let (port, _) = https_pod(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n".to_vec()).await;
    assert_eq!(
        ask(port, &https(None)).await,
        ProbeVerdict::Failed("GET /health answered 503, expected 200".into())
    );
}

#[rstest]
#[case::http(ok("{}"))]
#[case::nothing(Pod::Says(Vec::new()))]
#[tokio::test]
async fn a_port_that_does_not_serve_https_is_told(#[case] behaviour: Pod) {
    let (port, _) = pod(behaviour).await;
    assert_eq!(
        ask(port, &https(None)).await,
        ProbeVerdict::Failed("GET /health could not agree on TLS (the port may not serve HTTPS)".into())
    );
}

#[tokio::test]
async fn silence_in_the_handshake_ends_when_the_time_is_over() {
    let (port, serving) = pod(Pod::Hangs).await;
    let target = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let limit = Duration::from_millis(100);
    let verdict = request_within(limit, target, &https(None), &BTreeMap::new()).await;
    assert_eq!(
        verdict,
        ProbeVerdict::Failed("GET /health gave no answer within 0.1 s".into())
    );
    serving.await.expect("the connection was closed");
}

#[tokio::test]
async fn a_closed_port_refuses_which_is_not_an_answer() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let ProbeVerdict::Refused(why) = ask(port, &get("/")).await else {
        panic!("not refused")
    };
    assert!(
        why.starts_with(&format!("no connection to 127.0.0.1:{port}: ")),
        "{why}"
    );
}

#[tokio::test]
async fn headers_come_from_the_list_and_from_secrets() {
    let (port, serving) = pod(ok("{}")).await;
    let mut one = get("/data");
    one.host = Some("crm.example".into());
    one.headers = vec![
        Header {
            name: "X-Tenant".into(),
            value: Some("a".into()),
            value_from_variable: None,
        },
        Header {
            name: "Authorization".into(),
            value: None,
            value_from_variable: Some("PROBE_0".into()),
        },
    ];
    let secrets = BTreeMap::from([("PROBE_0".to_owned(), "Bearer s3cret".to_owned())]);
    let verdict = request(Ipv4Addr::LOCALHOST.into(), port, &one, &secrets).await;
    assert_eq!(verdict, ProbeVerdict::Passed);
    let sent = serving.await.unwrap().to_lowercase();
    for line in [
        "host: crm.example\r\n",
        "x-tenant: a\r\n",
        "authorization: bearer s3cret\r\n",
    ] {
        assert!(sent.contains(line), "{sent}");
    }
}

#[rstest]
#[case(None, "GET / cannot be sent: header Authorization has no value")]
#[case(
    Some("s3cret\n"),
    "GET / cannot be sent: the value of header Authorization holds a line break or another control character"
)]
#[tokio::test]
async fn a_secret_that_cannot_be_sent_is_named_and_not_shown(
    #[case] secret: Option<&str>,
    #[case] sentence: &str,
) {
    let mut one = get("/");
    one.headers = vec![Header {
        name: "Authorization".into(),
        value: None,
        value_from_variable: Some("PROBE_0".into()),
    }];
    let secrets = secret
        .map(|secret| ("PROBE_0".to_owned(), secret.to_owned()))
        .into_iter()
        .collect();
    let verdict = request(Ipv4Addr::LOCALHOST.into(), 1, &one, &secrets).await;
    assert_eq!(verdict, ProbeVerdict::Failed(sentence.into()));
}
