//! The task `probe`: health requests that need a header from a Secret, made next to the Secret.
//!
//! The probe agent makes only the requests that its task lists, to an address that the operator names, and answers with
//! verdicts. A caller that does not present the operator's token gets 401 and nothing else.

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
use fairway_health::request;
use fairway_protocol::{Failure, ProbeCall, ProbeTask, ProbeVerdict, Reason};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio::net::TcpListener;

use crate::{
    environment::Environment,
    failure::environment as environment_failure,
    report::{Report, exit_code},
    termination::Termination,
    text::hex,
};

struct Probe {
    task: ProbeTask,
    environment: Environment,
}

/// How a probe agent ended. Its verdicts are its answers; the report says only why there were none.
#[derive(Debug, Serialize)]
pub(crate) struct ProbeReport {
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<Failure>,
}

impl Report for ProbeReport {
    fn texts(&mut self) -> Vec<&mut String> {
        self.failure
            .iter_mut()
            .map(|failure| &mut failure.message)
            .collect()
    }

    fn exit_code(&self) -> u8 {
        exit_code(self.failure.is_some())
    }
}

/// Serves probe requests until SIGTERM.
pub(crate) async fn run(task: ProbeTask, environment: &Environment) -> ProbeReport {
    match serve(task, environment.clone()).await {
        Ok(()) => ProbeReport { failure: None },
        Err(error) => not_run(environment_failure(
            Reason::AgentFailed,
            format!(
                "The probe agent cannot listen on port {}: {error}.",
                environment.probe_port()
            ),
        )),
    }
}

/// The answer to a task that was not started.
pub(crate) fn not_run(failure: Failure) -> ProbeReport {
    ProbeReport {
        failure: Some(failure),
    }
}

async fn serve(task: ProbeTask, environment: Environment) -> std::io::Result<()> {
    let port = environment.probe_port();
    // All addresses of the pod, of either family.
    let listener = match TcpListener::bind(SocketAddr::from(([0; 16], port))).await {
        Ok(listener) => listener,
        Err(_) => TcpListener::bind(SocketAddr::from(([0; 4], port))).await?,
    };
    let mut termination = Termination::listen();
    axum::serve(listener, router(task, environment))
        .with_graceful_shutdown(async move { termination.requested().await })
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
