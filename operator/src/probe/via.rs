//! Asking through the probe pod, which holds the header values that the operator may not see.

use fairway_plan::probe_token::ProbeToken;
use fairway_plan::protocol::{PROBE_PORT, ProbeCall, ProbeVerdict};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::net::TcpStream;

/// The probe pod's own request may take 5 s.
const TIMEOUT: Duration = Duration::from_secs(7);
/// A verdict is one sentence.
const ANSWER_LIMIT: usize = 4096;

/// Most of an answer that is in memory at once, its head included: a tenant's pod may have taken the address.
const BUFFER: usize = 16 * 1024;

/// Has the probe pod make its request `index` to the pod at `address`.
pub(super) async fn request(
    probe_pod: IpAddr,
    token: &ProbeToken,
    index: usize,
    address: IpAddr,
) -> ProbeVerdict {
    let target = SocketAddr::new(probe_pod, PROBE_PORT);
    match tokio::time::timeout(TIMEOUT, exchange(target, token, index, address)).await {
        Ok(Ok(verdict)) => verdict,
        Ok(Err(what)) => ProbeVerdict::Unreachable(format!("the probe pod at {target} {what}")),
        Err(_) => ProbeVerdict::Unreachable(format!("the probe pod at {target} gave no answer within 7 s")),
    }
}

async fn exchange(
    target: SocketAddr,
    token: &ProbeToken,
    index: usize,
    address: IpAddr,
) -> Result<ProbeVerdict, String> {
    let stream = TcpStream::connect(target)
        .await
        .map_err(|error| format!("cannot be connected to: {error}"))?;
    // One small request: waiting to fill a packet would only delay it. Failing to ask for that changes nothing.
    let _ = stream.set_nodelay(true);
    let call = ProbeCall {
        index,
        address: address.to_string(),
    };
    let body = serde_json::to_vec(&call).map_err(|_| "cannot be asked: the call is not valid".to_owned())?;
    // Hex digits are always a valid header value.
    let mut bearer = HeaderValue::try_from(format!("Bearer {}", token.secret()))
        .map_err(|_| "cannot be asked: its token is not valid".to_owned())?;
    bearer.set_sensitive(true);
    let message = Request::post("/probe")
        .header(HOST, target.to_string())
        .header(AUTHORIZATION, bearer)
        .header(CONTENT_TYPE, "application/json")
        .header(CONNECTION, "close")
        .body(Full::new(Bytes::from(body)))
        .map_err(|_| "cannot be asked: the request is not valid".to_owned())?;
    let broken = |_| "closed the connection without an answer".to_owned();
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(BUFFER)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let answer = async {
        let response = sender.send_request(message).await.map_err(broken)?;
        match response.status() {
            StatusCode::OK => {}
            status => return Err(format!("answered {status}")),
        }
        let unreadable = "gave an answer that cannot be read";
        let body = Limited::new(response.into_body(), ANSWER_LIMIT)
            .collect()
            .await
            .map_err(|_| unreadable.to_owned())?
            .to_bytes();
        serde_json::from_slice(&body).map_err(|_| unreadable.to_owned())
    };
    // The connection must be driven beside the exchange; both end together, so nothing is left behind.
    tokio::select! {
        answer = answer => answer,
        () = async {
            // Its errors reach the exchange, which says what they mean.
            let _ = connection.await;
            std::future::pending().await
        } => Err(String::new()),
    }
}
