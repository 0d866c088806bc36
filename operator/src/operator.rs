//! Puts the operator together and runs it until it is stopped or one of its tasks ends.

use crate::agent_image::AgentImage;
use crate::args::OperatorArgs;
use crate::driver::{Driver, watch_all};
use crate::events::{self, Events};
use crate::http::{self, Health, Pages};
use crate::metrics::Metrics;
use crate::probe::prober::Prober;
use crate::shared::SharedEngine;
use crate::{client, leader, telemetry};
use fairway_engine::Engine;
use fairway_plan::observed::Settings;
use fairway_plan::probe_token::ProbeKey;
use kube::Client;
use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::{Handle, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle, JoinSet};

/// Longest time from a signal to the end of the process.
const STOP: Duration = Duration::from_secs(9);

type Failure = Box<dyn Error + Send + Sync>;
/// A task of the process: its name, and how it ended.
type Ended = (&'static str, Result<(), Failure>);

/// Runs the operator.
pub(crate) fn run(mut arguments: OperatorArgs) -> ExitCode {
    arguments.watch_namespaces.sort_unstable();
    arguments.watch_namespaces.dedup();
    telemetry::init(arguments.log_format);
    // One provider of cryptography for everything that speaks TLS; only the first caller can set it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (runtime, probe_runtime) = match runtimes() {
        Ok(runtimes) => runtimes,
        Err(error) => {
            tracing::error!(%error, "cannot start the runtime");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(operate(arguments, probe_runtime.handle().clone()));
    // What is left are connections, whose ends nobody waits for.
    probe_runtime.shutdown_background();
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(causes = ?causes(&*error), "the operator ends: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The runtime of the operator, and one with a thread of its own for probes: what pods answer takes that thread's time
/// and nobody else's.
fn runtimes() -> std::io::Result<(Runtime, Runtime)> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let probe_runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("probes")
        .enable_all()
        .build()?;
    Ok((runtime, probe_runtime))
}

/// What lies behind an error, outermost first.
fn causes(error: &(dyn Error + Send + Sync)) -> Vec<String> {
    let mut causes = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        causes.push(cause.to_string());
        next = cause.source();
    }
    causes
}

async fn operate(arguments: OperatorArgs, probe_runtime: Handle) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (metrics, registry) = Metrics::new();
    let health = Arc::new(Health::default());
    let settings = settings(&arguments)?;
    let engine = Arc::new(SharedEngine::new(Engine::of_namespaces(
        settings,
        arguments.concurrency,
        &arguments.watch_namespaces,
    )));
    metrics.set_concurrency(arguments.concurrency);
    // The pages are up before anything else, so that they can say what is missing.
    let pages = Arc::new(Pages::new(
        engine.clone(),
        registry,
        metrics.clone(),
        health.clone(),
    ));
    http::serve_probes(http::bind(arguments.probes_address)?, &pages)?;
    let mut tasks = JoinSet::new();
    tasks.spawn(never_ends("the heartbeat", health.clone().beat()));
    let listener = http::bind(arguments.metrics_address)?;
    let client = client::connect(metrics.clone()).await?;
    let (stop, stopped) = watch::channel(false);
    let (leads, leading) = watch::channel(false);
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        identity = arguments.identity,
        "fairway operator starts"
    );

    learn_agent_image(&client, &arguments, &metrics, &engine).await;

    tasks.spawn(async {
        (
            "the HTTP server",
            http::serve_metrics(listener, pages).await.map_err(Failure::from),
        )
    });
    let (events, announcements) = Events::new(metrics.clone());
    let writer = events::write(client.clone(), arguments.identity.clone(), announcements);
    tasks.spawn(never_ends("the event writer", writer));
    let namespaces = &arguments.watch_namespaces;
    watch_all(&mut tasks, &client, namespaces, &engine, &events, || {
        ("a watch", Ok(()))
    });
    tasks.spawn(follow_leadership(
        leading,
        arguments.lease.clone(),
        metrics.clone(),
        engine.clone(),
    ));
    // The driver and the leader end when they are asked to, in this order.
    let prober = Arc::new(Prober::new(engine.clone(), metrics.clone()));
    let driver = Arc::new(Driver::new(
        engine,
        client.clone(),
        prober,
        probe_runtime,
        events,
        metrics,
    ));
    let mut driver = tokio::spawn(driver.run(stopped));
    let (yield_lease, lease_yielded) = watch::channel(false);
    let mut leader = tokio::spawn(lead(client, arguments, leads, lease_yielded));

    let failed = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        Some(task) = tasks.join_next() => Some(task?),
        driver = &mut driver => Some(("the driver", driver?.map_err(Failure::from))),
        task = &mut leader => Some(task?),
    };
    if let Some((name, result)) = failed {
        health.stopped(name);
        return Err(result.err().unwrap_or_else(|| format!("{name} has ended").into()));
    }
    health.stopping();
    stop_gracefully(driver, leader, &stop, &yield_lease).await
}

/// Learns which image pods of the agent run, for the engine and the metrics.
async fn learn_agent_image(
    client: &Client,
    arguments: &OperatorArgs,
    metrics: &Metrics,
    engine: &SharedEngine,
) {
    let image = AgentImage::learn(
        client,
        arguments.agent_image.clone(),
        &arguments.namespace,
        &arguments.identity,
    )
    .await;
    match &image {
        AgentImage::Pinned(image) => tracing::info!(image, "image of the agent"),
        AgentImage::ByTag { image, why } => tracing::warn!(
            image,
            why,
            "the agent's image is used by its tag, which nodes may know differently; give it by digest"
        ),
    }
    metrics.set_agent_image(image.reference(), matches!(image, AgentImage::Pinned(_)));
    engine.with(|engine, _| engine.set_agent_image(image.reference()));
}

/// Ends the driver, then the leader, within [`STOP`].
async fn stop_gracefully(
    driver: JoinHandle<Result<(), JoinError>>,
    leader: JoinHandle<Ended>,
    stop: &watch::Sender<bool>,
    yield_lease: &watch::Sender<bool>,
) -> Result<(), Failure> {
    tracing::info!("stopping: passes under way are finished, then the Lease is given back");
    stop.send_replace(true);
    let graceful = async {
        driver.await??;
        yield_lease.send_replace(true);
        leader.await?.1
    };
    match tokio::time::timeout(STOP, graceful).await {
        Ok(result) => result,
        // Every write is safe to be cut off at; the next process carries on.
        Err(_) => {
            tracing::warn!("passes under way did not finish in time and are cut off");
            Ok(())
        }
    }
}

/// What is fixed for this process.
fn settings(arguments: &OperatorArgs) -> Result<Settings, Failure> {
    let mut random = [0; 32];
    rustls::crypto::ring::default_provider()
        .secure_random
        .fill(&mut random)
        .map_err(|_| "the system gives no random numbers")?;
    Ok(Settings {
        agent_image: arguments.agent_image.clone(),
        agent_pull_secrets: arguments.agent_pull_secrets.clone(),
        agent_pull_policy: arguments.agent_pull_policy.clone(),
        agent_pods: arguments.agent_pods.clone(),
        agent_of_app: Default::default(),
        probe_key: ProbeKey::new(random),
    })
}

/// Says to the engine and in the metrics whether this process leads.
async fn follow_leadership(
    mut leading: watch::Receiver<bool>,
    lease: String,
    metrics: Metrics,
    engine: Arc<SharedEngine>,
) -> Ended {
    loop {
        let leads = *leading.borrow_and_update();
        metrics.set_leads(&lease, leads);
        engine.with(|engine, now| engine.set_leads(leads, now));
        if leading.changed().await.is_err() {
            // The election has ended, which ends the process or is part of its end.
            std::future::pending::<()>().await;
        }
    }
}

async fn lead(
    client: Client,
    arguments: OperatorArgs,
    leads: watch::Sender<bool>,
    stop: watch::Receiver<bool>,
) -> Ended {
    let result = if arguments.leader_election {
        let candidacy = leader::Candidacy {
            lease: arguments.lease,
            namespace: arguments.namespace,
            identity: arguments.identity,
        };
        leader::elect(client, candidacy, leads, stop).await
    } else {
        leader::alone(leads, stop).await;
        Ok(())
    };
    ("the leader election", result.map_err(Failure::from))
}

/// A task that has no reason to end before the process does.
async fn never_ends(name: &'static str, task: impl Future<Output = ()>) -> Ended {
    task.await;
    (name, Ok(()))
}
