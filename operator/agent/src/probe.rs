//! The probe agent: health requests that need a header from a Secret, made next to the Secret.
//!
//! It makes only the requests that its task lists, to an address that the operator names, and answers with
//! verdicts. Whoever does not present the operator's token gets 401 and nothing else.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, StatusCode, header::AUTHORIZATION},
    routing::{get, post},
};
use fairway_protocol::{ProbeCall, ProbeTask, ProbeVerdict};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio::net::TcpListener;

use super::{
    environment::Environment,
    fingerprint::hex,
    migrate::{terminated, termination},
};
use fairway_health::request;

struct Probe {
    task: ProbeTask,
    environment: Environment,
}

/// Serves until SIGTERM.
///
/// # Errors
/// When the port cannot be listened on.
pub(crate) async fn run(task: ProbeTask, environment: Environment) -> std::io::Result<()> {
    let port = environment.probe_port();
    // All addresses of the pod, of either family.
    let listener = match TcpListener::bind(SocketAddr::from(([0; 16], port))).await {
        Ok(listener) => listener,
        Err(_) => TcpListener::bind(SocketAddr::from(([0; 4], port))).await?,
    };
    let mut terminate = termination();
    axum::serve(listener, router(task, environment))
        .with_graceful_shutdown(async move { terminated(&mut terminate).await })
        .await
}

fn router(task: ProbeTask, environment: Environment) -> Router {
    Router::new()
        .route("/probe", post(probe))
        .route("/healthz", get(|| async { "ok" }))
        .layer(DefaultBodyLimit::max(1024))
        .with_state(Arc::new(Probe { task, environment }))
}

async fn probe(
    State(state): State<Arc<Probe>>,
    headers: HeaderMap,
    body: String,
) -> Result<Json<ProbeVerdict>, StatusCode> {
    if !is_operator(&headers, &state.task.token_sha256) {
        return Err(StatusCode::UNAUTHORIZED);
    }
    let call: ProbeCall = serde_json::from_str(&body).map_err(|_| StatusCode::BAD_REQUEST)?;
    let address: IpAddr = call.address.parse().map_err(|_| StatusCode::BAD_REQUEST)?;
    let (port, listed) = state.task.requests.get(call.index).ok_or(StatusCode::NOT_FOUND)?;
    Ok(Json(
        request(address, *port, listed, state.environment.variables()).await,
    ))
}

fn is_operator(headers: &HeaderMap, token_sha256: &str) -> bool {
    let presented = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "))
        .unwrap_or_default();
    let presented = hex(&Sha256::digest(presented.as_bytes()));
    presented
        .as_bytes()
        .ct_eq(token_sha256.to_lowercase().as_bytes())
        .into()
}
