//! Puts the operator together and runs it until it is stopped or one of its tasks ends.

use crate::args::OperatorArgs;
use crate::controller::app::AppController;
use crate::controller::backup::BackupController;
use crate::controller::migration::MigrationController;
use crate::controller::release::ReleaseController;
use crate::controller::{self, Context};
use crate::events::{self, Events, Loudness, Notice};
use crate::execute::Executor;
use crate::execute::memory::Memory;
use crate::http::{self, Health, Pages};
use crate::key::Reconciled;
use crate::metrics::Metrics;
use crate::observe::foreign::Foreign;
use crate::probe::prober::Prober;
use crate::probe::via::Token;
use crate::queue::Queue;
use crate::report::Reporter;
use crate::world::World;
use crate::world::cached::Cached;
use crate::world::watch::{OnUnreadable, Queues, feed, hand_out};
use crate::{client, leader, telemetry};
use fairway_crds::{App, Backup, Migration, Release};
use fairway_plan::observed::Settings;
use k8s_openapi::api::apps::v1::{ControllerRevision, Deployment};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
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
    let world = Arc::new(World::default());
    let queues: Queues = Reconciled::ALL
        .into_iter()
        .map(|kind| (kind, Arc::new(Queue::counted(metrics.adds(kind)))))
        .collect();
    // The pages are up before anything else, so that they can say what is missing.
    let listener = TcpListener::bind(arguments.metrics_address).await?;
    let pages = Pages::new(world.clone(), registry, metrics.clone(), health.clone());
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
    let (events, notices) = Events::new(metrics.clone());
    let writer = events::write(client.clone(), arguments.identity.clone(), notices);
    tasks.spawn(never_ends("the event writer", writer));
    feed_all(
        &mut tasks,
        &client,
        &arguments,
        &world,
        &queues,
        unreadable(events.clone()),
    );
    let context = Arc::new(context(
        client.clone(),
        &arguments,
        world.clone(),
        &queues,
        events,
        metrics,
    )?);
    tasks.spawn(follow_leadership(
        leading.clone(),
        arguments.lease.clone(),
        context.metrics.clone(),
        world,
        queues.clone(),
        context.prober.clone(),
    ));
    // Controllers and the leader end when they are told to, in this order.
    let mut controllers = JoinSet::new();
    run_all(
        &mut controllers,
        &context,
        &queues,
        arguments.concurrency,
        &leading,
        &stopped,
    );
    let (release, released) = watch::channel(false);
    let mut leader = tokio::spawn(lead(client, arguments, leads, released));

    let failed = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        Some(task) = tasks.join_next() => Some(task?),
        Some(task) = controllers.join_next() => Some(task?),
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
        while let Some(task) = controllers.join_next().await {
            task?.1?;
        }
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

fn context(
    client: Client,
    arguments: &OperatorArgs,
    world: Arc<World>,
    queues: &Queues,
    events: Events,
    metrics: Metrics,
) -> Result<Context, Failure> {
    let mut random = [0; 32];
    rustls::crypto::ring::default_provider()
        .secure_random
        .fill(&mut random)
        .map_err(|_| "the system gives no random numbers")?;
    let (token, probe_token_sha256) = Token::new(random);
    let memory = Arc::new(Memory::default());
    let releases: Arc<Queue> = queues.get(&Reconciled::Release).cloned().unwrap_or_default();
    Ok(Context {
        foreign: Foreign::new(client.clone(), world.clone()),
        prober: Arc::new(Prober::new(token, releases, metrics.clone())),
        executor: Executor::new(client.clone(), world.clone(), memory.clone()),
        reporter: Reporter::new(client, world.clone(), events, metrics.clone()),
        world,
        memory,
        metrics,
        settings: Settings {
            agent_image: arguments.agent_image.clone(),
            agent_pull_secrets: arguments.agent_pull_secrets.clone(),
            agent_pull_policy: arguments.agent_pull_policy.clone(),
            probe_token_sha256,
        },
    })
}

fn feed_all(
    tasks: &mut JoinSet<Ended>,
    client: &Client,
    arguments: &OperatorArgs,
    world: &Arc<World>,
    queues: &Queues,
    on_unreadable: OnUnreadable,
) {
    let mut watch = Feeds {
        tasks,
        client,
        arguments,
        world,
        queues,
        on_unreadable,
    };
    watch.start::<App>();
    watch.start::<Release>();
    watch.start::<Migration>();
    watch.start::<Backup>();
    watch.start::<ControllerRevision>();
    watch.start::<Deployment>();
    watch.start::<Pod>();
    watch.start::<Job>();
    watch.start::<Service>();
    watch.start::<EndpointSlice>();
}

struct Feeds<'a> {
    tasks: &'a mut JoinSet<Ended>,
    client: &'a Client,
    arguments: &'a OperatorArgs,
    world: &'a Arc<World>,
    queues: &'a Queues,
    on_unreadable: OnUnreadable,
}

impl Feeds<'_> {
    fn start<K: Cached>(&mut self) {
        let feed = feed::<K>(
            self.client.clone(),
            self.arguments.watch_namespace.clone(),
            self.world.clone(),
            self.queues.clone(),
            self.on_unreadable.clone(),
        );
        self.tasks.spawn(never_ends("a watch", feed));
    }
}

fn unreadable(events: Events) -> OnUnreadable {
    Arc::new(move |kind, about, message| {
        events.tell(Notice {
            about: about.clone(),
            kind: Loudness::Warning,
            reason: "Unreadable".into(),
            message: format!(
                "this {} cannot be read and is left alone: {message}; correct it or delete it",
                kind.as_str()
            ),
        });
    })
}

fn run_all(
    controllers: &mut JoinSet<Ended>,
    context: &Arc<Context>,
    queues: &Queues,
    concurrency: u16,
    leading: &watch::Receiver<bool>,
    stopped: &watch::Receiver<bool>,
) {
    macro_rules! run {
        ($controller:ty, $kind:expr, $name:expr) => {
            let (context, queue) = (
                context.clone(),
                queues.get(&$kind).cloned().unwrap_or_default(),
            );
            let (leading, stopped) = (leading.clone(), stopped.clone());
            controllers.spawn(async move {
                let run = controller::run::<$controller>(context, queue, concurrency, leading, stopped);
                ($name, run.await.map_err(Failure::from))
            });
        };
    }
    run!(AppController, Reconciled::App, "the app controller");
    run!(ReleaseController, Reconciled::Release, "the release controller");
    run!(
        MigrationController,
        Reconciled::Migration,
        "the migration controller"
    );
    run!(BackupController, Reconciled::Backup, "the backup controller");
}

/// A new leader looks at everything: timers and probes of its predecessor are gone. One that no longer leads asks
/// no pod any more.
async fn follow_leadership(
    mut leading: watch::Receiver<bool>,
    lease: String,
    metrics: Metrics,
    world: Arc<World>,
    queues: Queues,
    prober: Arc<Prober>,
) -> Ended {
    loop {
        let leads = *leading.borrow_and_update();
        metrics.set_leads(&lease, leads);
        if leads {
            hand_out(&queues, world.everything());
        } else {
            prober.stop();
        }
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
