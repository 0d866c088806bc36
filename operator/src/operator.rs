//! Puts the operator together and runs it until it is stopped or one of its tasks ends.

use crate::args::OperatorArgs;
use crate::driver::{Driver, watch_all};
use crate::events::{self, Events};
use crate::http::{self, Health, Pages};
use crate::metrics::Metrics;
use crate::probe::prober::Prober;
use crate::probe::via::Token;
use crate::shared::SharedEngine;
use crate::{client, leader, telemetry};
use fairway_engine::Engine;
use fairway_plan::observed::Settings;
use kube::Client;
use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Longest time from a signal to the end of the process.
const STOP: Duration = Duration::from_secs(9);

type Failure = Box<dyn Error + Send + Sync>;
/// A task of the process: its name, and how it ended.
type Ended = (&'static str, Result<(), Failure>);

/// Runs the operator.
pub(crate) fn run(arguments: OperatorArgs) -> ExitCode {
    telemetry::init(arguments.log_format);
    // One provider of cryptography for everything that speaks TLS; only the first caller can set it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start the runtime");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(operate(arguments));
    // What is left are connections, whose ends nobody waits for.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(causes = ?causes(&*error), "the operator ends: {error}");
            ExitCode::FAILURE
        }
    }
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

async fn operate(arguments: OperatorArgs) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (metrics, registry) = Metrics::new();
    let health = Arc::new(Health::default());
    let (token, settings) = settings(&arguments)?;
    let engine = Arc::new(SharedEngine::new(Engine::new(settings, arguments.concurrency)));
    metrics.set_concurrency(arguments.concurrency);
    // The pages are up before anything else, so that they can say what is missing.
    let listener = TcpListener::bind(arguments.metrics_address).await?;
    let pages = Pages::new(engine.clone(), registry, metrics.clone(), health.clone());
    let client = client::connect(metrics.clone()).await?;
    let (stop, stopped) = watch::channel(false);
    let (leads, leading) = watch::channel(false);
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        identity = arguments.identity,
        "fairway operator starts"
    );

    let mut tasks = JoinSet::new();
    tasks.spawn(async {
        (
            "the HTTP server",
            http::serve(listener, pages).await.map_err(Failure::from),
        )
    });
    let (events, announcements) = Events::new(metrics.clone());
    let writer = events::write(client.clone(), arguments.identity.clone(), announcements);
    tasks.spawn(never_ends("the event writer", writer));
    let namespace = arguments.watch_namespace.as_deref();
    watch_all(&mut tasks, &client, namespace, &engine, &events, || {
        ("a watch", Ok(()))
    });
    tasks.spawn(follow_leadership(
        leading,
        arguments.lease.clone(),
        metrics.clone(),
        engine.clone(),
    ));
    // The driver and the leader end when they are asked to, in this order.
    let prober = Arc::new(Prober::new(token, engine.clone(), metrics.clone()));
    let driver = Arc::new(Driver::new(engine, client.clone(), prober, events, metrics));
    let mut driver = tokio::spawn(driver.run(stopped));
    let (release, released) = watch::channel(false);
    let mut leader = tokio::spawn(lead(client, arguments, leads, released));

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
    tracing::info!("stopping: passes under way are finished, then the Lease is given back");
    health.stopping();
    stop.send_replace(true);
    let graceful = async {
        driver.await??;
        release.send_replace(true);
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

/// The token for probe pods, and what is fixed for this process.
fn settings(arguments: &OperatorArgs) -> Result<(Token, Settings), Failure> {
    let mut random = [0; 32];
    rustls::crypto::ring::default_provider()
        .secure_random
        .fill(&mut random)
        .map_err(|_| "the system gives no random numbers")?;
    let (token, probe_token_sha256) = Token::new(random);
    let settings = Settings {
        agent_image: arguments.agent_image.clone(),
        agent_pull_secrets: arguments.agent_pull_secrets.clone(),
        agent_pull_policy: arguments.agent_pull_policy.clone(),
        probe_token_sha256,
    };
    Ok((token, settings))
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
