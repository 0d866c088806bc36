//! What /metrics shows: controller-runtime's names, so that its dashboards work, and Fairway's own.

use crate::process::Process;
use fairway_engine::Engine;
use fairway_engine::kinds::{Kind, OwnKind};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Labels of a reconcile.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ControllerResult {
    controller: &'static str,
    result: &'static str,
}

/// How a pass ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PassLabel {
    /// It waits for a change.
    Success,
    /// It waits for a change or a time.
    RequeueAfter,
    /// It looks again at once.
    Requeue,
    /// It failed and backs off.
    Error,
}

impl PassLabel {
    /// Value of the label `result`, as controller-runtime writes it.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::RequeueAfter => "requeue_after",
            Self::Requeue => "requeue",
            Self::Error => "error",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Watch {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Controller {
    controller: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueueName {
    name: &'static str,
    controller: &'static str,
}

impl QueueName {
    /// The queue of a controller.
    const fn of(kind: OwnKind) -> Self {
        Self {
            name: kind.controller(),
            controller: kind.controller(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Election {
    name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    code: String,
    method: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AgentImage {
    image: String,
    pinned: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfApp {
    namespace: String,
    app: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RoundResult {
    result: &'static str,
}

/// The metrics of the process. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    reconciles: Family<ControllerResult, Counter>,
    errors: Family<Controller, Counter>,
    seconds: Family<Controller, Histogram, fn() -> Histogram>,
    active_workers: Family<Controller, Gauge>,
    concurrency: Family<Controller, Gauge>,
    depth: Family<QueueName, Gauge>,
    adds: Family<QueueName, Counter>,
    retries: Family<QueueName, Counter>,
    waited: Family<QueueName, Histogram, fn() -> Histogram>,
    worked: Family<QueueName, Histogram, fn() -> Histogram>,
    unfinished: Family<QueueName, Gauge<f64, AtomicU64>>,
    longest: Family<QueueName, Gauge<f64, AtomicU64>>,
    under_way: Arc<Mutex<UnderWay>>,
    leads: Family<Election, Gauge>,
    requests: Family<Request, Counter>,
    releases: Family<Outcome, Counter>,
    switches: Histogram,
    rounds: Family<RoundResult, Counter>,
    events_lost: Counter,
    unreadable: Gauge,
    failing: Family<Watch, Gauge>,
    last_verified: Family<OfApp, Gauge>,
    overdue: Family<OfApp, Gauge>,
    agent_image: Family<AgentImage, Gauge>,
}

/// When the passes that are under way began, by controller and number.
#[derive(Debug, Default)]
struct UnderWay {
    last: u64,
    since: BTreeMap<(&'static str, u64), Instant>,
}

/// A pass that is under way.
#[derive(Debug)]
pub(crate) struct PassUnderWay {
    kind: OwnKind,
    number: u64,
    since: Instant,
}

/// client-go's buckets of a work queue's seconds: from ten nanoseconds to a quarter of an hour.
fn queue_seconds() -> Histogram {
    Histogram::new(exponential_buckets(1e-8, 10.0, 12))
}

fn pass_seconds() -> Histogram {
    Histogram::new([
        0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0,
    ])
}

impl Metrics {
    /// The metrics and the registry that shows them.
    pub(crate) fn new() -> (Self, Registry) {
        let metrics = Self {
            reconciles: Family::default(),
            errors: Family::default(),
            seconds: Family::new_with_constructor(pass_seconds),
            active_workers: Family::default(),
            concurrency: Family::default(),
            depth: Family::default(),
            adds: Family::default(),
            retries: Family::default(),
            waited: Family::new_with_constructor(queue_seconds),
            worked: Family::new_with_constructor(queue_seconds),
            unfinished: Family::default(),
            longest: Family::default(),
            under_way: Arc::default(),
            leads: Family::default(),
            requests: Family::default(),
            releases: Family::default(),
            switches: Histogram::new([0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0]),
            rounds: Family::default(),
            events_lost: Counter::default(),
            unreadable: Gauge::default(),
            failing: Family::default(),
            last_verified: Family::default(),
            overdue: Family::default(),
            agent_image: Family::default(),
        };
        let mut registry = Registry::default();
        let m = &metrics;
        registry.register_collector(Box::new(Process::default()));
        registry.register(
            "fairway_build",
            "The version of this operator",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        registry.register(
            "fairway_agent_image_info",
            "The image that pods of the agent run, and whether it is named by digest",
            m.agent_image.clone(),
        );
        registry.register(
            "controller_runtime_reconcile",
            "Total number of reconciliations per controller",
            m.reconciles.clone(),
        );
        registry.register(
            "controller_runtime_reconcile_errors",
            "Total number of reconciliation errors per controller",
            m.errors.clone(),
        );
        registry.register(
            "controller_runtime_reconcile_time_seconds",
            "Length of time per reconciliation per controller",
            m.seconds.clone(),
        );
        registry.register(
            "controller_runtime_active_workers",
            "Number of currently used workers per controller",
            m.active_workers.clone(),
        );
        registry.register(
            "controller_runtime_max_concurrent_reconciles",
            "Maximum number of concurrent reconciles per controller",
            m.concurrency.clone(),
        );
        registry.register("workqueue_depth", "Current depth of workqueue", m.depth.clone());
        registry.register(
            "workqueue_adds",
            "Total number of adds handled by workqueue",
            m.adds.clone(),
        );
        registry.register(
            "workqueue_retries",
            "Total number of retries handled by workqueue",
            m.retries.clone(),
        );
        registry.register(
            "workqueue_queue_duration_seconds",
            "How long in seconds an item stays in workqueue before being requested, while this process leads",
            m.waited.clone(),
        );
        registry.register(
            "workqueue_work_duration_seconds",
            "How long in seconds processing an item from workqueue takes",
            m.worked.clone(),
        );
        registry.register(
            "workqueue_unfinished_work_seconds",
            "How many seconds of work is in progress and not yet observed by work_duration",
            m.unfinished.clone(),
        );
        registry.register(
            "workqueue_longest_running_processor_seconds",
            "How many seconds the longest running processor for workqueue has been running",
            m.longest.clone(),
        );
        registry.register(
            "leader_election_master_status",
            "1 while this process holds the Lease of that name",
            m.leads.clone(),
        );
        registry.register(
            "rest_client_requests",
            "Requests to the API server by method and status code",
            m.requests.clone(),
        );
        registry.register(
            "fairway_releases",
            "Releases that have ended, by outcome",
            m.releases.clone(),
        );
        registry.register(
            "fairway_switch_seconds",
            "Seconds from when a reconcile was due until it had switched a Service",
            m.switches.clone(),
        );
        registry.register(
            "fairway_probe_rounds",
            "Rounds of health requests by result",
            m.rounds.clone(),
        );
        registry.register(
            "fairway_events_lost",
            "Kubernetes Events that were not written because too many were waiting",
            m.events_lost.clone(),
        );
        registry.register(
            "fairway_unreadable_objects",
            "Objects that cannot be parsed: an App is not reconciled while one of its objects is",
            m.unreadable.clone(),
        );
        registry.register(
            "fairway_watch_failing",
            "Whether a kind is not watched: its list or watch fails, or its first list is under way",
            m.failing.clone(),
        );
        registry.register(
            "fairway_backup_last_verified_timestamp_seconds",
            "When the newest verified backup of an App with a schedule was taken",
            m.last_verified.clone(),
        );
        registry.register(
            "fairway_backup_overdue",
            "Whether no backup of an App was verified in the time that its schedule allows",
            m.overdue.clone(),
        );
        (metrics, registry)
    }

    /// Sets how many reconciles each controller may run at once.
    pub(crate) fn set_concurrency(&self, passes: u16) {
        for kind in OwnKind::ALL {
            let controller = kind.controller();
            self.concurrency
                .get_or_create(&Controller { controller })
                .set(passes.into());
        }
    }

    /// Records the start of a reconcile and how long it was queued.
    pub(crate) fn pass_started(&self, kind: OwnKind, waited: Duration) -> PassUnderWay {
        let since = Instant::now();
        self.waited
            .get_or_create(&QueueName::of(kind))
            .observe(waited.as_secs_f64());
        let mut under_way = self.under_way();
        under_way.last += 1;
        let number = under_way.last;
        under_way.since.insert((kind.controller(), number), since);
        PassUnderWay { kind, number, since }
    }

    /// A pass has ended.
    pub(crate) fn pass_ended(&self, pass: &PassUnderWay, result: PassLabel) {
        let PassUnderWay { kind, number, since } = *pass;
        let controller = kind.controller();
        let seconds = since.elapsed().as_secs_f64();
        self.under_way().since.remove(&(controller, number));
        self.reconciles
            .get_or_create(&ControllerResult {
                controller,
                result: result.as_str(),
            })
            .inc();
        self.seconds
            .get_or_create(&Controller { controller })
            .observe(seconds);
        self.worked.get_or_create(&QueueName::of(kind)).observe(seconds);
        if result == PassLabel::Error {
            self.errors.get_or_create(&Controller { controller }).inc();
            self.retries.get_or_create(&QueueName::of(kind)).inc();
        }
    }

    /// Brings up to date what depends on the time, and what the engine counts.
    pub(crate) fn refresh(&self, engine: &Engine) {
        let gauge = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        self.unreadable.set(gauge(engine.unreadable()));
        for kind in Kind::ALL {
            let mut failing = engine.failing().keys().chain(engine.missing().keys());
            let fails = failing.any(|watched| watched.kind == kind);
            let kind = kind.as_str();
            self.failing.get_or_create(&Watch { kind }).set(fails.into());
        }
        self.refresh_backups(engine);
        let under_way = self.under_way();
        for kind in OwnKind::ALL {
            let (load, controller) = (engine.load(kind), kind.controller());
            self.active_workers
                .get_or_create(&Controller { controller })
                .set(gauge(load.running));
            self.depth
                .get_or_create(&QueueName::of(kind))
                .set(gauge(load.ready));
            self.adds
                .get_or_create(&QueueName::of(kind))
                .inner()
                .store(load.added, Ordering::Relaxed);
            let passes = under_way
                .since
                .range((kind.controller(), 0)..=(kind.controller(), u64::MAX));
            let (sum, longest) = passes
                .map(|(_, since)| since.elapsed().as_secs_f64())
                .fold((0.0, 0.0), |(sum, longest): (f64, f64), seconds| {
                    (sum + seconds, longest.max(seconds))
                });
            let name = QueueName::of(kind);
            self.unfinished.get_or_create(&name).set(sum);
            self.longest.get_or_create(&name).set(longest);
        }
    }

    /// Brings up to date what is said of scheduled backups; an App that is gone is not shown any more.
    fn refresh_backups(&self, engine: &Engine) {
        self.last_verified.clear();
        self.overdue.clear();
        for (key, backups) in engine.backed_up() {
            let app = OfApp {
                namespace: key.namespace.to_string(),
                app: key.name.to_string(),
            };
            self.overdue.get_or_create(&app).set(backups.overdue.into());
            if let Some(at) = backups.last_verified {
                self.last_verified.get_or_create(&app).set(at);
            }
        }
    }

    fn under_way(&self) -> MutexGuard<'_, UnderWay> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this process holds that Lease.
    pub(crate) fn set_leads(&self, lease: &str, leads: bool) {
        let name = lease.to_owned();
        self.leads.get_or_create(&Election { name }).set(i64::from(leads));
    }

    /// A request to the API server was answered, or not (`<error>`).
    pub(crate) fn requested(&self, method: &str, code: Option<u16>) {
        let code = code.map_or_else(|| "<error>".to_owned(), |code| code.to_string());
        self.requests
            .get_or_create(&Request {
                code,
                method: method.to_owned(),
            })
            .inc();
    }

    /// Counts a Release that ended.
    pub(crate) fn release_ended(&self, outcome: String) {
        self.releases.get_or_create(&Outcome { outcome }).inc();
    }

    /// Records the time until a Service was switched.
    pub(crate) fn switched(&self, after: Duration) {
        self.switches.observe(after.as_secs_f64());
    }

    /// A round of health requests has ended.
    pub(crate) fn probed(&self, result: &'static str) {
        self.rounds.get_or_create(&RoundResult { result }).inc();
    }

    /// Which image pods of the agent run.
    pub(crate) fn set_agent_image(&self, image: &str, pinned: bool) {
        let image = image.to_owned();
        self.agent_image
            .get_or_create(&AgentImage { image, pinned })
            .set(1);
    }

    /// An Event was dropped.
    pub(crate) fn lost_event(&self) {
        self.events_lost.inc();
    }
}

/// The registry as text.
///
/// # Errors
/// None in practice: a `String` takes everything.
pub(crate) fn text(registry: &Registry) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    encode(&mut text, registry)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairway_engine::Now;

    const NOW: Now = Now {
        wall: jiff::Timestamp::UNIX_EPOCH,
        monotonic: fairway_engine::Instant::after_origin(std::time::Duration::ZERO),
    };

    /// The page of metrics.
    fn shown(metrics: &Metrics, registry: &Registry, engine: &Engine) -> String {
        metrics.refresh(engine);
        text(registry).unwrap()
    }

    /// S18g: a watch that fails shows in a metric.
    #[test]
    fn s18g_a_failing_watch_is_counted() {
        let (metrics, registry) = Metrics::new();
        let mut engine = crate::fake::engine();
        let shown = |engine: &Engine| shown(&metrics, &registry, engine);
        let failing = r#"fairway_watch_failing{kind="Deployment"} 1"#;
        assert!(
            shown(&engine).contains(failing),
            "the first list is not there yet"
        );
        crate::fake::complete(&mut engine, NOW);
        assert!(!shown(&engine).contains(failing));
        engine.watch_failed(
            Kind::Deployment.into(),
            "the API server answered 500".to_owned(),
            NOW,
        );
        assert!(shown(&engine).contains(failing));
        engine.watch_works(&Kind::Deployment.into());
        assert!(!shown(&engine).contains(failing));
    }

    #[test]
    fn an_overdue_backup_is_shown_by_app() {
        let (metrics, registry) = Metrics::new();
        let mut engine = crate::fake::engine();
        let shown = |engine: &Engine| shown(&metrics, &registry, engine);
        let overdue = r#"fairway_backup_overdue{namespace="shop",app="crm"} 1"#;
        let verified =
            r#"fairway_backup_last_verified_timestamp_seconds{namespace="shop",app="crm"} 1767320100"#;
        assert!(!shown(&engine).contains("fairway_backup_overdue{"));
        let mut app: fairway_crds::App = serde_json::from_value(serde_json::json!({
            "apiVersion": "fairway.dev/v1alpha1", "kind": "App",
            "metadata": {"name": "crm", "namespace": "shop", "uid": "u", "resourceVersion": "7"},
            "spec": {
                "components": [],
                "backup": {"store": {"volume": {"claimName": "backups"}}, "schedule": {"cron": "15 2 * * *"}},
            },
            "status": {
                "conditions": [{
                    "type": "BackupOverdue", "status": "True", "reason": "BackupOverdue", "message": "m",
                    "lastTransitionTime": "2026-01-03T02:15:00Z",
                }],
                "backup": {"lastVerified": {"name": "b", "takenAt": "2026-01-02T02:15:00Z", "level": "Decoded"}},
            },
        }))
        .unwrap();
        engine.put(app.clone(), NOW);
        let text = shown(&engine);
        assert!(text.contains(overdue) && text.contains(verified), "{text}");
        app.spec.backup = None;
        app.metadata.resource_version = Some("8".to_owned());
        engine.put(app, NOW);
        let text = shown(&engine);
        assert!(!text.contains("shop"), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn metrics_carry_the_names_that_dashboards_know() {
        let (metrics, registry) = Metrics::new();
        metrics.set_concurrency(16);
        let mut engine = crate::fake::engine();
        crate::fake::complete(&mut engine, NOW);
        engine.set_leads(true, NOW);
        for name in ["crm-1", "crm-2", "crm-3"] {
            engine.put(crate::fake::release(name), NOW);
        }
        let _under_way = engine.start(NOW);
        let failed = metrics.pass_started(OwnKind::Release, Duration::from_millis(3));
        tokio::time::advance(Duration::from_secs(2)).await;
        metrics.pass_ended(&failed, PassLabel::Error);
        let _first = metrics.pass_started(OwnKind::App, Duration::ZERO);
        tokio::time::advance(Duration::from_secs(1)).await;
        let _second = metrics.pass_started(OwnKind::App, Duration::ZERO);
        tokio::time::advance(Duration::from_secs(1)).await;
        metrics.refresh(&engine);
        metrics.set_leads("fairway", true);
        metrics.requested("PATCH", Some(200));
        metrics.requested("GET", None);
        metrics.release_ended("Succeeded".to_owned());
        metrics.switched(Duration::from_millis(12));
        metrics.probed("passed");
        metrics.set_agent_image("fairway@sha256:1", true);
        let text = text(&registry).unwrap();
        for line in [
            r#"controller_runtime_reconcile_total{controller="release",result="error"} 1"#,
            r#"controller_runtime_reconcile_errors_total{controller="release"} 1"#,
            r#"controller_runtime_reconcile_time_seconds_count{controller="release"} 1"#,
            r#"controller_runtime_active_workers{controller="release"} 1"#,
            r#"controller_runtime_max_concurrent_reconciles{controller="release"} 16"#,
            r#"workqueue_depth{name="release",controller="release"} 2"#,
            r#"workqueue_adds_total{name="release",controller="release"} 3"#,
            r#"workqueue_retries_total{name="release",controller="release"} 1"#,
            r#"workqueue_queue_duration_seconds_bucket{le="0.01",name="release",controller="release"} 1"#,
            r#"workqueue_work_duration_seconds_sum{name="release",controller="release"} 2.0"#,
            r#"workqueue_unfinished_work_seconds{name="app",controller="app"} 3.0"#,
            r#"workqueue_unfinished_work_seconds{name="release",controller="release"} 0.0"#,
            r#"workqueue_longest_running_processor_seconds{name="app",controller="app"} 2.0"#,
            r#"leader_election_master_status{name="fairway"} 1"#,
            r#"rest_client_requests_total{code="200",method="PATCH"} 1"#,
            r#"fairway_releases_total{outcome="Succeeded"} 1"#,
            r#"fairway_switch_seconds_bucket{le="0.025"} 1"#,
            r#"fairway_probe_rounds_total{result="passed"} 1"#,
            concat!(
                r#"fairway_build_info{version=""#,
                env!("CARGO_PKG_VERSION"),
                r#""} 1"#
            ),
            r#"fairway_agent_image_info{image="fairway@sha256:1",pinned="true"} 1"#,
            "process_cpu_seconds_total ",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
