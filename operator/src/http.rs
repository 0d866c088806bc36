//! /healthz and /readyz on one address, /metrics on another.
//!
//! The probes of the kubelet have a listener and a thread of their own, so that neither a flood of connections to
//! /metrics nor a busy runtime makes them fail.

use crate::args::ListenAddress;
use crate::metrics;
use crate::shared::SharedEngine;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use fairway_engine::{Failing, Watched};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus_client::registry::Registry;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as StdListener};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// What clients of a listener may cost.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Most connections at a time; another one waits until one of them ends.
    connections: usize,
    /// Time for a client to send the head of its request.
    head: Duration,
    /// Longest life of a connection, whatever its client does.
    connection: Duration,
}

const LIMITS: Limits = Limits {
    connections: 64,
    head: Duration::from_secs(5),
    connection: Duration::from_secs(20),
};
/// How often the runtime of the operator shows that it still executes tasks.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Time without a heartbeat after which /healthz fails, so that the kubelet restarts a process whose runtime hangs. A
/// runtime that is only busy beats more often.
const HUNG: Duration = Duration::from_secs(60);

/// What the pages show.
#[derive(Debug)]
pub(crate) struct Pages {
    engine: Arc<SharedEngine>,
    registry: Registry,
    metrics: metrics::Metrics,
    health: Arc<Health>,
}

/// Whether every task of the process still runs. A task that ends ends the process, so that this shows how it goes
/// down; a runtime that executes no task any more shows in the age of the last heartbeat.
#[derive(Debug)]
pub(crate) struct Health {
    stopped: Mutex<Option<String>>,
    stopping: AtomicBool,
    started: Instant,
    /// Milliseconds from `started` to the last heartbeat.
    beat: AtomicU64,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            stopped: Mutex::default(),
            stopping: AtomicBool::default(),
            started: Instant::now(),
            beat: AtomicU64::default(),
        }
    }
}

impl Health {
    /// Beats on the runtime that calls it, and never returns.
    pub(crate) async fn beat(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(HEARTBEAT);
        loop {
            ticks.tick().await;
            self.record_beat(Instant::now());
        }
    }

    fn record_beat(&self, now: Instant) {
        let since = now.saturating_duration_since(self.started).as_millis();
        self.beat
            .store(u64::try_from(since).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Why the process must be restarted, if it must.
    fn fault(&self, now: Instant) -> Option<String> {
        let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = &*stopped {
            return Some(format!("{task} has stopped"));
        }
        let beat = self.started + Duration::from_millis(self.beat.load(Ordering::Relaxed));
        let silent = now.saturating_duration_since(beat);
        (silent > HUNG).then(|| format!("the runtime has executed no task for {} s", silent.as_secs()))
    }

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

/// Binds an address; one without a host is every address of both families, or of IPv4 where there is no IPv6.
///
/// # Errors
/// When the address cannot be bound; the message names it.
pub(crate) fn bind(address: ListenAddress) -> std::io::Result<StdListener> {
    let refused =
        |error: &std::io::Error| matches!(error.kind(), ErrorKind::AddrInUse | ErrorKind::PermissionDenied);
    let (address, bound) = match address {
        ListenAddress::Host(address) => (address, StdListener::bind(address)),
        ListenAddress::Any(port) => {
            let (six, four) = (
                (Ipv6Addr::UNSPECIFIED, port).into(),
                (Ipv4Addr::UNSPECIFIED, port).into(),
            );
            match StdListener::bind::<SocketAddr>(six) {
                Err(error) if !refused(&error) => (four, StdListener::bind(four)),
                bound => (six, bound),
            }
        }
    };
    let named = |error: std::io::Error| {
        std::io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
    };
    let listener = bound.map_err(named)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Answers the probes of the kubelet on a thread with a runtime of its own, until the process ends.
///
/// # Errors
/// When the thread or its runtime cannot be started.
pub(crate) fn serve_probes(listener: StdListener, pages: &Arc<Pages>) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let router = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(pages.clone());
    std::thread::Builder::new()
        .name("probes".to_owned())
        .spawn(move || {
            if let Err(error) = runtime.block_on(serve(listener, router, LIMITS)) {
                tracing::error!(%error, "probes are not answered any more");
            }
        })?;
    Ok(())
}

/// Answers requests for metrics until the process ends.
///
/// # Errors
/// When the listener breaks.
pub(crate) async fn serve_metrics(listener: StdListener, pages: Arc<Pages>) -> std::io::Result<()> {
    serve(listener, metrics_router(pages), LIMITS).await
}

fn metrics_router(pages: Arc<Pages>) -> Router {
    Router::new()
        .route("/metrics", get(show_metrics))
        .with_state(pages)
}

/// Serves one request for each connection, in bounded time, on a bounded number of connections.
async fn serve(listener: StdListener, router: Router, limits: Limits) -> std::io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let permits = Arc::new(Semaphore::new(limits.connections));
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else {
            return Err(std::io::Error::other(
                "the semaphore of the connections was closed",
            ));
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let connection = serve_connection(stream, router.clone(), limits);
                tokio::spawn(async move {
                    connection.await;
                    drop(permit);
                });
            }
            // The client is gone, or file descriptors are short: neither ends the listener.
            Err(error) => {
                tracing::debug!(%error, "a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve_connection(stream: TcpStream, router: Router, limits: Limits) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .keep_alive(false)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    match tokio::time::timeout(limits.connection, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection ended early"),
        Err(_) => tracing::debug!("a connection took too long and was closed"),
    }
}

async fn healthz(State(pages): State<Arc<Pages>>) -> (StatusCode, String) {
    match pages.health.fault(Instant::now()) {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(fault) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{fault}\n")),
    }
}

async fn readyz(State(pages): State<Arc<Pages>>) -> (StatusCode, String) {
    if pages.health.stopping.load(Ordering::Relaxed) {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n".to_owned());
    }
    let (missing, failing) = pages
        .engine
        .with(|engine, _| (engine.missing().clone(), engine.failing().clone()));
    if missing.is_empty() {
        (StatusCode::OK, format!("ok\n{}", fails(&failing)))
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, waits_for(&missing))
    }
}

/// One line for each watch that fails. The operator stays ready: it goes on with what it knows, no other process
/// would know more, and a rollout of the operator must not hang on it.
fn fails(failing: &BTreeMap<Watched, Failing>) -> String {
    failing
        .iter()
        .map(|(watched, Failing { since, why })| {
            format!("the watch of {watched} has been failing since {since:.0}: {why}\n")
        })
        .collect()
}

/// One line for each kind, and namespace, whose objects are not known yet. Not being the leader is being ready: a standby is
/// what it should be.
fn waits_for(missing: &BTreeMap<Watched, String>) -> String {
    missing
        .iter()
        .map(|(watched, why)| format!("waiting for {watched}: {why}\n"))
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
    use fairway_engine::kinds::Kind;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

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
        engine.with(|engine, now| engine.watch_failed(Kind::App.into(), why, now));
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
    async fn readiness_waits_for_every_kind_in_every_namespace() {
        let (metrics, registry) = metrics::Metrics::new();
        let engine = Arc::new(SharedEngine::new(crate::fake::engine_of(&["blog", "shop"])));
        let pages = Pages::new(engine.clone(), registry, metrics, Arc::default());
        let pages = Arc::new(pages);
        engine.with(|engine, now| crate::fake::complete_in(engine, Some("shop"), now));
        let (status, text) = readyz(State(pages.clone())).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(text.lines().count(), Kind::ALL.len(), "{text}");
        assert!(
            text.contains("waiting for Pod in namespace blog: the first list is under way\n"),
            "{text}"
        );
        engine.with(|engine, now| crate::fake::complete_in(engine, Some("blog"), now));
        assert_eq!(readyz(State(pages)).await.0, StatusCode::OK);
    }

    /// S18g: a watch that fails after the first list shows, and does not make the operator unready.
    #[tokio::test]
    async fn s18g_readiness_names_a_watch_that_fails() {
        let (pages, engine, _) = pages();
        engine.with(crate::fake::complete);
        let why = "the operator's role does not allow to list and watch it".to_owned();
        engine.with(|engine, now| engine.watch_failed(Kind::Deployment.into(), why, now));
        let (status, text) = readyz(State(pages.clone())).await;
        assert_eq!(status, StatusCode::OK);
        assert!(
            text.starts_with("ok\nthe watch of Deployment has been failing since 20"),
            "{text}"
        );
        assert!(
            text.ends_with("Z: the operator's role does not allow to list and watch it\n"),
            "{text}"
        );
        engine.with(|engine, _| engine.watch_works(&Kind::Deployment.into()));
        assert_eq!(readyz(State(pages)).await.1, "ok\n");
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

    #[test]
    fn health_fails_once_the_runtime_hangs() {
        let health = Health::default();
        health.record_beat(health.started + Duration::from_secs(100));
        let at = |seconds| health.fault(health.started + Duration::from_secs(seconds));
        assert_eq!(at(160), None);
        let fault = "the runtime has executed no task for 161 s".to_owned();
        assert_eq!(at(261), Some(fault));
    }

    /// S13: half-open connections cost a bounded number of tasks, each for a bounded time, and the probes are answered
    /// all the while.
    #[tokio::test]
    async fn s13_half_open_connections_to_metrics_leave_the_probes_alone() -> std::io::Result<()> {
        let (pages, engine, _) = pages();
        engine.with(crate::fake::complete);
        let loopback = ListenAddress::Host((Ipv4Addr::LOCALHOST, 0).into());
        let (metrics, probes) = (bind(loopback)?, bind(loopback)?);
        let (metrics_at, probes_at) = (metrics.local_addr()?, probes.local_addr()?);
        serve_probes(probes, &pages)?;
        let limits = Limits {
            connections: 4,
            head: Duration::from_millis(50),
            ..LIMITS
        };
        let server = tokio::spawn(serve(metrics, metrics_router(pages), limits));

        let mut half_open = Vec::new();
        for _ in 0..4 * limits.connections {
            let mut stream = TcpStream::connect(metrics_at).await?;
            stream.write_all(b"GET /metrics HTTP/1.1\r\n").await?;
            half_open.push(stream);
        }
        assert!(get(probes_at, "/readyz").await?.starts_with("HTTP/1.1 200"));
        // The first of them are closed when their time is over, and the page is answered again.
        assert!(get(metrics_at, "/metrics").await?.starts_with("HTTP/1.1 200"));
        server.abort();
        Ok(())
    }

    async fn get(address: std::net::SocketAddr, path: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: operator\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }
}
