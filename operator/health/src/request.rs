//! One health request to one port of one pod.
//!
//! A new connection for each request, as the kubelet makes it; no proxy, no redirects, at most [`BODY_LIMIT`] of body
//! and [`TIMEOUT`] for all of it. Every verdict is one sentence.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use fairway_protocol::{Header, HttpRequest, ProbeVerdict, Scheme};
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::{ACCEPT, CONNECTION, HOST, HeaderName, HeaderValue, LOCATION, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::tls::unverified_client;

/// Largest body that is read.
pub const BODY_LIMIT: usize = 1024 * 1024;
/// Longest time for one request, from the connection to the last byte.
pub const TIMEOUT: Duration = Duration::from_secs(5);

/// Makes one health request and judges the answer. `variables` hold the header values that come from Secrets; none
/// of them is ever part of a verdict.
pub async fn request(
    address: IpAddr,
    port: u16,
    request: &HttpRequest,
    variables: &BTreeMap<String, String>,
) -> ProbeVerdict {
    within(TIMEOUT, SocketAddr::new(address, port), request, variables).await
}

async fn within(
    limit: Duration,
    target: SocketAddr,
    request: &HttpRequest,
    variables: &BTreeMap<String, String>,
) -> ProbeVerdict {
    match tokio::time::timeout(limit, exchange(target, request, variables)).await {
        Ok(Ok(())) => ProbeVerdict::Passed,
        Ok(Err(verdict)) => verdict,
        Err(_) => failed(
            request,
            format!("gave no answer within {} s", limit.as_secs_f64()),
        ),
    }
}

fn failed(request: &HttpRequest, what: impl AsRef<str>) -> ProbeVerdict {
    ProbeVerdict::Failed(format!("GET {} {}", request.path, what.as_ref()))
}

async fn exchange(
    target: SocketAddr,
    request: &HttpRequest,
    variables: &BTreeMap<String, String>,
) -> Result<(), ProbeVerdict> {
    let message = message(target, request, variables)?;
    let connected = tokio::time::timeout(TIMEOUT / 2, TcpStream::connect(target)).await;
    let stream = match connected {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            let what = format!("no connection to {target}: {error}");
            return Err(match error.kind() {
                ErrorKind::ConnectionRefused => ProbeVerdict::Refused(what),
                _ => ProbeVerdict::Unreachable(what),
            });
        }
        Err(_) => {
            return Err(ProbeVerdict::Unreachable(format!(
                "no connection to {target} within 2.5 s (a NetworkPolicy may block it)"
            )));
        }
    };
    // One small request: waiting to fill a packet would only delay it. Failing to ask for that changes nothing.
    let _ = stream.set_nodelay(true);
    match request.scheme {
        Scheme::Http => send(stream, message, request).await,
        Scheme::Https => {
            let config = unverified_client().map_err(|error| failed(request, format!("failed: {error}")))?;
            let name = request.host.as_deref().and_then(server_name);
            let stream = TlsConnector::from(Arc::new(config))
                .connect(name.unwrap_or_else(|| target.ip().into()), stream)
                .await
                .map_err(|_| failed(request, "could not agree on TLS (the port may not serve HTTPS)"))?;
            send(stream, message, request).await
        }
    }
}

/// The name that the server is asked for: that of a `Host` header, without its port. An address is no such name.
fn server_name(host: &str) -> Option<ServerName<'static>> {
    let name = host.split_once(':').map_or(host, |(name, _)| name);
    ServerName::try_from(name.to_owned()).ok()
}

fn message(
    target: SocketAddr,
    request: &HttpRequest,
    variables: &BTreeMap<String, String>,
) -> Result<Request<Empty<Bytes>>, ProbeVerdict> {
    let host = request.host.clone().unwrap_or_else(|| target.to_string());
    let mut message = Request::get(&request.path)
        .header(HOST, host)
        .header(USER_AGENT, concat!("fairway/", env!("CARGO_PKG_VERSION")))
        .header(ACCEPT, "*/*")
        .header(CONNECTION, "close")
        .body(Empty::new())
        .map_err(|_| failed(request, "cannot be sent: path or host is not valid"))?;
    for header in &request.headers {
        let (name, value) = name_and_value(header, variables).map_err(|what| failed(request, what))?;
        message.headers_mut().insert(name, value);
    }
    Ok(message)
}

fn name_and_value(
    Header {
        name,
        value,
        value_from_variable,
    }: &Header,
    variables: &BTreeMap<String, String>,
) -> Result<(HeaderName, HeaderValue), String> {
    let value = match (value, value_from_variable) {
        (Some(value), _) => Some(value),
        (None, Some(variable)) => variables.get(variable),
        (None, None) => None,
    };
    let value = value.ok_or_else(|| format!("cannot be sent: header {name} has no value"))?;
    let name_of_header = HeaderName::try_from(name.as_str())
        .map_err(|_| format!("cannot be sent: {name:?} is not a header's name"))?;
    let mut value = HeaderValue::try_from(value.as_str()).map_err(|_| {
        format!("cannot be sent: the value of header {name} holds a line break or another control character")
    })?;
    value.set_sensitive(true);
    Ok((name_of_header, value))
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    message: Request<Empty<Bytes>>,
    request: &HttpRequest,
) -> Result<(), ProbeVerdict> {
    let broken = |_| failed(request, "closed the connection without an HTTP answer");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // The connection must be driven beside the exchange; both end together, so nothing is left behind.
    tokio::select! {
        verdict = async {
            let response = sender.send_request(message).await.map_err(broken)?;
            judge(response, request).await
        } => verdict,
        () = async {
            // Its errors reach the exchange, which says what they mean.
            let _ = connection.await;
            std::future::pending().await
        } => Ok(()),
    }
}

async fn judge(response: Response<Incoming>, request: &HttpRequest) -> Result<(), ProbeVerdict> {
    let status = response.status();
    if status.as_u16() != request.status {
        let redirect = match response
            .headers()
            .get(LOCATION)
            .and_then(|value| value.to_str().ok())
        {
            Some(location) if status.is_redirection() => {
                format!(" (a redirect to {}, not followed)", without_query(location))
            }
            _ => String::new(),
        };
        let what = format!(
            "answered {}{redirect}, expected {}",
            status.as_u16(),
            request.status
        );
        return Err(failed(request, what));
    }
    let body = Limited::new(response.into_body(), BODY_LIMIT)
        .collect()
        .await
        .map_err(|error| match error.is::<LengthLimitError>() {
            true => failed(request, "answered more than 1 MiB"),
            false => failed(
                request,
                format!("answered {} and broke off in the body", status.as_u16()),
            ),
        })?;
    let Some(expected) = &request.json else {
        return Ok(());
    };
    let Ok(answer) = serde_json::from_slice::<Value>(&body.to_bytes()) else {
        return Err(failed(
            request,
            format!("answered {} with a body that is not JSON", status.as_u16()),
        ));
    };
    match difference("", expected, &answer) {
        None => Ok(()),
        Some(what) => Err(failed(
            request,
            format!("answered {}, but {what}", status.as_u16()),
        )),
    }
}

/// The target of a redirect without its query, which may hold a token.
fn without_query(location: &str) -> String {
    let path = location.split(['?', '#']).next().unwrap_or_default();
    path.chars().take(100).collect()
}

/// The first member that is not as expected, as half a sentence.
fn difference(path: &str, expected: &Value, answer: &Value) -> Option<String> {
    if let (Value::Object(expected), Value::Object(answer)) = (expected, answer) {
        return expected.iter().find_map(|(name, expected)| {
            let path = if path.is_empty() {
                name.clone()
            } else {
                format!("{path}.{name}")
            };
            match answer.get(name) {
                Some(answer) => difference(&path, expected, answer),
                None => Some(format!("`{path}` is missing, expected {}", brief(expected))),
            }
        });
    }
    let what = if path.is_empty() {
        "the body".to_owned()
    } else {
        format!("`{path}`")
    };
    (expected != answer).then(|| format!("{what} is {}, expected {}", brief(answer), brief(expected)))
}

fn brief(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests;
