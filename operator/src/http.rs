//! /healthz, /readyz and /metrics.

use crate::metrics;
use crate::shared::SharedEngine;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use fairway_engine::kinds::Kind;
use prometheus_client::registry::Registry;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpListener;

/// What the pages show.
#[derive(Debug)]
pub(crate) struct Pages {
    engine: Arc<SharedEngine>,
    registry: Registry,
    metrics: metrics::Metrics,
    health: Arc<Health>,
}

/// Whether every task of the process still runs. A task that ends ends the process, so this only ever shows
/// how it goes down.
#[derive(Debug, Default)]
pub(crate) struct Health {
    stopped: Mutex<Option<String>>,
    stopping: AtomicBool,
}

impl Health {
    /// A task has ended that never should.
    pub(crate) fn stopped(&self, task: &str) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = Some(task.to_owned());
    }

    /// The process is being stopped, as it was asked to.
    pub(crate) fn stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }
}

impl Pages {
    /// The pages over these.
    pub(crate) fn new(
        engine: Arc<SharedEngine>,
        registry: Registry,
        metrics: metrics::Metrics,
        health: Arc<Health>,
    ) -> Self {
        Self {
            engine,
            registry,
            metrics,
            health,
        }
    }
}

/// Answers until the process ends.
///
/// # Errors
/// When the listener breaks.
pub(crate) async fn serve(listener: TcpListener, pages: Pages) -> std::io::Result<()> {
    axum::serve(listener, router(pages)).await
}

fn router(pages: Pages) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(show_metrics))
        .with_state(Arc::new(pages))
}

async fn healthz(State(pages): State<Arc<Pages>>) -> (StatusCode, String) {
    match &*pages
        .health
        .stopped
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
    {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(task) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{task} has stopped\n")),
    }
}

async fn readyz(State(pages): State<Arc<Pages>>) -> (StatusCode, String) {
    if pages.health.stopping.load(Ordering::Relaxed) {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n".to_owned());
    }
    let missing = pages.engine.with(|engine, _| engine.missing().clone());
    if missing.is_empty() {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, waits_for(&missing))
    }
}

/// One line for each kind whose objects are not known yet. Not being the leader is being ready: a standby is
/// what it should be.
fn waits_for(missing: &BTreeMap<Kind, String>) -> String {
    missing
        .iter()
        .map(|(kind, why)| format!("waiting for {}: {why}\n", kind.as_str()))
        .collect()
}

async fn show_metrics(State(pages): State<Arc<Pages>>) -> Response {
    pages.engine.with(|engine, _| pages.metrics.refresh(engine));
    match metrics::text(&pages.registry) {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages() -> (Arc<Pages>, Arc<SharedEngine>, Arc<Health>) {
        let (metrics, registry) = metrics::Metrics::new();
        let engine = Arc::new(SharedEngine::new(crate::fake::engine()));
        let health = Arc::new(Health::default());
        let pages = Pages::new(engine.clone(), registry, metrics, health.clone());
        (Arc::new(pages), engine, health)
    }

    #[tokio::test]
    async fn readiness_lists_what_it_waits_for() {
        let (pages, engine, _) = pages();
        engine.with(crate::fake::complete);
        assert_eq!(readyz(State(pages.clone())).await.0, StatusCode::OK);

        let (pages, engine, _) = self::pages();
        let why = "its CustomResourceDefinition is not installed".to_owned();
        engine.with(|engine, _| engine.list_failed(Kind::App, why));
        let (status, text) = readyz(State(pages)).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(
            text.contains("waiting for App: its CustomResourceDefinition is not installed\n"),
            "{text}"
        );
        assert!(
            text.contains("waiting for Pod: the first list is under way\n"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn health_fails_once_a_task_has_stopped() {
        let (pages, _, health) = pages();
        assert_eq!(healthz(State(pages.clone())).await.0, StatusCode::OK);
        health.stopped("the leader election");
        let (status, text) = healthz(State(pages)).await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(text, "the leader election has stopped\n");
    }
}
