//! One health request to one port of one pod.
//!
//! A new connection for each request, as the kubelet makes it; no proxy, no redirects, at most [`BODY_LIMIT`] of body
//! and [`TIMEOUT`] for all of it. Every verdict is one sentence.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    net::{IpAddr, SocketAddr},
    sync::{Arc, OnceLock},
    time::Duration,
};

use fairway_protocol::{Header, HttpRequest, ProbeVerdict, Scheme};
use http_body_util::{BodyExt as _, Empty};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::{ACCEPT, CONNECTION, HOST, HeaderName, HeaderValue, LOCATION, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, client::Resumption, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::{
    members::{Members, Unusable},
    tls::unverified_client,
};

/// Largest body that is read.
pub const BODY_LIMIT: usize = 1024 * 1024;
/// Most of an answer that is in memory at once, its head included.
const BUFFER: usize = 32 * 1024;
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
    request_within(TIMEOUT, SocketAddr::new(address, port), request, variables).await
}

/// Makes one health request that may take so long.
pub async fn request_within(
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
            let config = tls_client().map_err(|error| failed(request, format!("failed: {error}")))?;
            let name = request.host.as_deref().and_then(server_name);
            let stream = TlsConnector::from(config)
                .connect(name.unwrap_or_else(|| target.ip().into()), stream)
                .await
                .map_err(|_| failed(request, "could not agree on TLS (the port may not serve HTTPS)"))?;
            send(stream, message, request).await
        }
    }
}

/// The one TLS configuration of all health requests.
fn tls_client() -> Result<Arc<ClientConfig>, rustls::Error> {
    static CLIENT: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    if let Some(client) = CLIENT.get() {
        return Ok(client.clone());
    }
    // Two first requests at once make two, of which one is kept.
    let mut config = unverified_client()?;
    // Sessions of pods that come and go are worth nothing, and would be memory that pods fill.
    config.resumption = Resumption::disabled();
    Ok(CLIENT.get_or_init(|| Arc::new(config)).clone())
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
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(BUFFER)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
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
    read(response.into_body(), request).await
}

/// Reads a body to its end and compares it as it arrives; nothing of it is kept.
async fn read(mut body: Incoming, request: &HttpRequest) -> Result<(), ProbeVerdict> {
    let status = request.status;
    let unusable = |error| match error {
        Unusable::NotJson => failed(request, format!("answered {status} with a body that is not JSON")),
        Unusable::TooDeep => failed(
            request,
            format!("answered {status} with JSON that is nested too deep"),
        ),
    };
    let mut members = (!request.json.is_empty()).then(|| Members::new(&request.json));
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|_| failed(request, format!("answered {status} and broke off in the body")))?;
        let Some(piece) = frame.data_ref() else { continue };
        length += piece.len();
        if length > BODY_LIMIT {
            return Err(failed(request, "answered more than 1 MiB"));
        }
        members
            .as_mut()
            .map_or(Ok(()), |members| members.read(piece))
            .map_err(unusable)?;
    }
    match members.map_or(Ok(None), Members::end).map_err(unusable)? {
        None => Ok(()),
        Some(what) => Err(failed(request, format!("answered {status}, but {what}"))),
    }
}

/// The target of a redirect without its query, which may hold a token.
fn without_query(location: &str) -> String {
    let path = location.split(['?', '#']).next().unwrap_or_default();
    path.chars().take(100).collect()
}

#[cfg(test)]
mod tests;
