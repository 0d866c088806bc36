//! The client of the API server: kube's, with what an operator needs of it and nothing that hides a failure.

use crate::metrics::Metrics;
use futures::future::BoxFuture;
use hyper::header::{HeaderValue, USER_AGENT};
use hyper::{Request, Response};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ClientBuilder, ConfigExt};
use kube::{Client, Config};
use std::task::{Context, Poll};
use std::time::Duration;
use tower::{BoxError, Layer, Service, ServiceBuilder};

/// Longest wait for the head of an answer. A watch answers at once and then streams for as long as it likes.
const ANSWER: Duration = Duration::from_secs(30);

/// Connections that are kept for the next request.
const IDLE_CONNECTIONS: usize = 16;

/// A client for the cluster of this pod, or of the kubeconfig when run by hand.
///
/// kube's default stack retries by itself and delays small packets (Nagle); here the controllers' own backoff
/// decides when to try again, and a switch of traffic is not held back for a fuller packet.
///
/// # Errors
/// When no configuration is found or its certificates cannot be read.
pub(crate) async fn connect(metrics: Metrics) -> Result<Client, Box<dyn std::error::Error + Send + Sync>> {
    let mut config = Config::infer().await?;
    // By this name audit logs know who asked.
    config.headers.push((
        USER_AGENT,
        HeaderValue::from_static(concat!("fairway/", env!("CARGO_PKG_VERSION"))),
    ));
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(Duration::from_secs(10)));
    // A watch waits for minutes without a byte: when the API server's machine is gone without a word, the kernel finds
    // out within half a minute.
    connector.set_keepalive(Some(Duration::from_secs(15)));
    connector.set_keepalive_interval(Some(Duration::from_secs(5)));
    connector.set_keepalive_retries(Some(3));
    let connector = config.rustls_https_connector_with_connector(connector)?;
    // A burst of work opens a connection for each request under way; each that idles afterwards costs its buffers.
    let transport = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(IDLE_CONNECTIONS)
        .build(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(transport);
    let builder = ClientBuilder::new(service, config.default_namespace.clone());
    #[cfg(feature = "fault-injection")]
    let builder = builder.with_layer(&crate::fault::FaultLayer::from_environment());
    Ok(builder.with_layer(&MeasureLayer { metrics }).build())
}

/// Counts requests and bounds the wait for their answers.
#[derive(Clone, Debug)]
struct MeasureLayer {
    metrics: Metrics,
}

impl<S> Layer<S> for MeasureLayer {
    type Service = Measure<S>;

    fn layer(&self, inner: S) -> Measure<S> {
        Measure {
            inner,
            metrics: self.metrics.clone(),
        }
    }
}

/// See [`MeasureLayer`].
#[derive(Clone, Debug)]
struct Measure<S> {
    inner: S,
    metrics: Metrics,
}

impl<S, B> Service<Request<Body>> for Measure<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: 'static,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<B>, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let metrics = self.metrics.clone();
        let method = request.method().clone();
        let answer = tokio::time::timeout(ANSWER, self.inner.call(request));
        Box::pin(async move {
            let answer = match answer.await {
                Ok(answer) => answer.map_err(Into::into),
                Err(_) => Err("the API server gave no answer within 30 s".into()),
            };
            metrics.requested(
                method.as_str(),
                answer.as_ref().ok().map(|answer| answer.status().as_u16()),
            );
            answer
        })
    }
}
