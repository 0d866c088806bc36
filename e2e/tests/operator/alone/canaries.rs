//! Values that are found wherever they should not be: those of Secrets anywhere but in the Secret, those that an App
//! states anywhere but in what says how its pods run.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, ensure};
use fairway_crds::database::MigrationCheck;
use fairway_crds::release::ReleaseOutcome;
use fairway_crds::{App, Backup, Migration, Release};
use fairway_e2e::apps::{self, crm};
use fairway_e2e::ns::{Context, alone};
use fairway_e2e::volumes::{self, Behaviour};
use fairway_e2e::{manifest, operator, seen};
use futures::{AsyncReadExt, StreamExt};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{ControllerRevision, Deployment, ReplicaSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::LogParams;
use kube::runtime::watcher;
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// What is common to all values of Secrets, and to all spellings of them.
const SECRET: &str = "secret-canary";
/// A password that needs quoting in a URL and in a shell.
const PASSWORD: &str = "secret-canary'7f3 $x";
/// The same in a URL.
const PASSWORD_IN_URL: &str = "secret-canary%277f3%20%24x";
/// What is common to all values that the App states.
const LITERAL: &str = "literal-canary";
/// The Secret of the application, beside that of its database.
const SECRETS: &str = "canaries";
/// Beginning of the name of the pod whose migration prints what it knows.
const PRINTS: &str = "crm-2-run";

/// S5, S7, S18: a release with a migration and a backup, one whose migration fails and prints what it knows, and two
/// whose template is refused with its values in the refusal.
#[tokio::test]
async fn s7_canaries_stay_where_they_were_put() -> Result<()> {
    alone(|context| async move {
        let verbose = operator::start_verbose(&context).await?;
        let seen = Seen::from_now_on(&context, &verbose);
        let outcome = released(&context).await;
        let metrics = operator::metrics(&context, &verbose).await;
        operator::stop_verbose(&context).await?;
        outcome?;
        seen.hold_no_canary()?;
        let metrics = metrics?;
        ensure!(metrics.contains("fairway_releases"), "no metrics:\n{metrics}");
        without_canaries("the metrics", &metrics)?;
        stored_files(&context)
    })
    .await
}

async fn released(context: &Context) -> Result<()> {
    volumes::claim(context, "backups", "1Gi", Behaviour::Good).await?;
    let secret = |name: &str, values: Value| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": values});
    let url = format!("postgres://postgres:{PASSWORD_IN_URL}@crm-db:5432/crm");
    for object in manifest::read(&context.target, "crm/database.yaml")? {
        let object = match object["kind"] == "Secret" {
            true => secret(crm::DATABASE, json!({"password": PASSWORD, "url": url})),
            false => object,
        };
        manifest::apply_object(context, object).await?;
    }
    let values = json!({
        "printed": "secret-canary-printed",
        "header": "secret-canary-header",
        "FROM_SECRET": "secret-canary-from",
    });
    manifest::apply_object(context, secret(SECRETS, values)).await?;

    let mut app = crm::app(context, "v1")?;
    state_canaries(&mut app)?;
    crm::first(context, &mut app).await?;

    crm::set_version(context, &mut app, "v2");
    apps::set_env(&mut app, "web", "CRM_FAULT_MIGRATE", "fail");
    apps::apply(context, &app).await?;
    seen::ended(context, "crm-2", ReleaseOutcome::Failed, crm::PATIENCE).await?;

    // The API server's refusals repeat what they refuse.
    apps::unset_env(&mut app, "web", "CRM_FAULT_MIGRATE");
    let container = |app: &mut App, member: &str, value: Value| {
        apps::component(app, "web").template["spec"]["containers"][0][member] = value;
    };
    container(&mut app, "imagePullPolicy", json!("literal-canary-policy"));
    apps::apply(context, &app).await?;
    seen::ended(context, "crm-3", ReleaseOutcome::Failed, crm::PATIENCE).await?;
    container(&mut app, "imagePullPolicy", json!("IfNotPresent"));
    container(
        &mut app,
        "env",
        json!([{"name": "MAP", "value": {"literal-canary-key": "literal-canary-map"}}]),
    );
    apps::apply(context, &app).await?;
    seen::ended(context, "crm-4", ReleaseOutcome::Failed, crm::PATIENCE).await?;
    Ok(())
}

/// Puts a canary in each place of the App that takes a value, of a Secret or its own.
fn state_canaries(app: &mut App) -> Result<()> {
    let of_secret = |key: &str| json!({"secretKeyRef": {"name": SECRETS, "key": key}});
    apps::set_env(app, "web", "LITERAL", "literal-canary-env");
    let web = apps::component(app, "web");
    let container = &mut web.template["spec"]["containers"][0];
    container["envFrom"] = json!([{"secretRef": {"name": SECRETS}}]);
    let variables = container["env"]
        .as_array_mut()
        .context("web has no environment")?;
    variables.push(json!({"name": "CRM_SECRET", "valueFrom": of_secret("printed")}));
    variables.push(json!({"name": "CRM_PROBE_TOKEN", "valueFrom": of_secret("header")}));
    let health = web.health.as_mut().context("web has no health")?;
    health.http.push(serde_json::from_value(json!({
        "path": "/api/private-health",
        "json": {"/ok": "true"},
        "headers": [
            {"name": "authorization", "valueFrom": of_secret("header")},
            {"name": "x-canary", "value": "literal-canary-header"},
        ],
    }))?);
    let migration = app.spec.migration.as_mut().context("the App has no migration")?;
    migration.checks.push(MigrationCheck {
        name: "leads".to_owned(),
        sql: "select 'literal-canary-sql' <> '' from leads having true".to_owned(),
        expect: "true".to_owned(),
    });
    Ok(())
}

/// All that a namespace and the operator have shown since the beginning, also of objects that are gone.
struct Seen {
    found: Arc<Found>,
    tasks: JoinSet<()>,
}

#[derive(Default)]
struct Found {
    objects: Mutex<Vec<(String, Value)>>,
    /// Logs by pod and container, as far as they have come.
    logs: Mutex<BTreeMap<String, String>>,
}

impl Seen {
    fn from_now_on(context: &Context, operator: &Pod) -> Self {
        let mut seen = Self {
            found: Arc::default(),
            tasks: JoinSet::new(),
        };
        seen.watch::<App>(context);
        seen.watch::<Release>(context);
        seen.watch::<Migration>(context);
        seen.watch::<Backup>(context);
        seen.watch::<ControllerRevision>(context);
        seen.watch::<Deployment>(context);
        seen.watch::<ReplicaSet>(context);
        seen.watch::<Job>(context);
        seen.watch::<Service>(context);
        seen.watch::<EndpointSlice>(context);
        seen.watch::<Event>(context);
        seen.watch::<Pod>(context);
        seen.follow_pods(context);
        let pods = Api::namespaced(context.client.clone(), &operator.namespace().unwrap_or_default());
        let found = seen.found.clone();
        let name = operator.name_any();
        seen.tasks
            .spawn(async move { found.follow(&pods, &name, "operator").await });
        seen
    }

    fn watch<K>(&mut self, context: &Context)
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + DeserializeOwned
            + Serialize
            + Send
            + 'static,
    {
        let mut events = watcher(context.api::<K>(), watcher::Config::default()).boxed();
        let found = self.found.clone();
        self.tasks.spawn(async move {
            while let Some(event) = events.next().await {
                if let Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) = event
                    && let Ok(json) = serde_json::to_value(&object)
                {
                    locked(&found.objects).push((K::kind(&()).into_owned(), json));
                }
            }
        });
    }

    /// Reads the log of each agent's container from its first line.
    fn follow_pods(&mut self, context: &Context) {
        let pods = context.api::<Pod>();
        let config = watcher::Config::default().labels(seen::WORK);
        let mut events = watcher(pods.clone(), config).boxed();
        let found = self.found.clone();
        self.tasks.spawn(async move {
            let mut followed = JoinSet::new();
            let mut begun = Vec::new();
            while let Some(event) = events.next().await {
                let Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) = event else {
                    continue;
                };
                for container in started(&pod) {
                    let name = pod.name_any();
                    let key = format!("{name}/{container}");
                    if !begun.contains(&key) {
                        begun.push(key);
                        let (found, pods) = (found.clone(), pods.clone());
                        followed.spawn(async move { found.follow(&pods, &name, &container).await });
                    }
                }
            }
        });
    }

    fn hold_no_canary(&self) -> Result<()> {
        let objects = locked(&self.found.objects);
        let states = |value: &Value| value.to_string().contains(LITERAL);
        ensure!(
            objects
                .iter()
                .any(|(kind, object)| kind == "Pod" && states(object)),
            "the App's own pods were not seen"
        );
        for (kind, object) in objects.iter() {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            let text = object.to_string();
            ensure!(
                !text.contains(SECRET),
                "a value of a Secret is in {kind} {name}: {text}"
            );
            let text = without_what_the_app_states(kind, object.clone()).to_string();
            ensure!(
                !text.contains(LITERAL),
                "a value of the App is in {kind} {name}: {text}"
            );
        }
        let logs = locked(&self.found.logs);
        let mut of_migration = logs.iter().filter(|(name, _)| name.starts_with(PRINTS));
        ensure!(
            of_migration.any(|(_, log)| log.contains(SECRET)),
            "the migration has printed nothing: {:?}",
            logs.keys()
        );
        for (name, log) in logs.iter() {
            // The team's own migration may print what it likes; its output is not Fairway's.
            if !name.starts_with(PRINTS) {
                without_canaries(&format!("the log of {name}"), log)?;
            }
        }
        let of_operator = logs.iter().find(|(name, _)| name.ends_with("/operator"));
        ensure!(
            of_operator.is_some_and(|(_, log)| log.contains("TRACE") || log.contains("DEBUG")),
            "the operator's log is not at its highest level"
        );
        Ok(())
    }
}

impl Found {
    /// Reads the log of a container until its end.
    async fn follow(&self, pods: &Api<Pod>, pod: &str, container: &str) {
        let parameters = LogParams {
            container: Some(container.to_owned()),
            follow: true,
            ..LogParams::default()
        };
        let Ok(log) = pods.log_stream(pod, &parameters).await else {
            return;
        };
        let mut log = Box::pin(log);
        let mut piece = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = log.read(&mut piece).await {
            let text = String::from_utf8_lossy(&piece[..read]).into_owned();
            locked(&self.logs)
                .entry(format!("{pod}/{container}"))
                .or_default()
                .push_str(&text);
        }
    }
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Containers of a pod that have begun to run.
fn started(pod: &Pod) -> Vec<String> {
    let status = pod.status.iter();
    let containers = status.flat_map(|status| {
        let of_start = status.init_container_statuses.iter().flatten();
        of_start.chain(status.container_statuses.iter().flatten())
    });
    let begun = containers.filter(|container| {
        let state = container.state.as_ref();
        state.is_some_and(|state| state.running.is_some() || state.terminated.is_some())
    });
    begun.map(|container| container.name.clone()).collect()
}

/// An object without that in which the API itself holds what an App states: how pods run.
fn without_what_the_app_states(kind: &str, mut object: Value) -> Value {
    let work = object["metadata"]["labels"][seen::WORK].as_str();
    let member = match kind {
        // A Migration holds the checks of the App.
        "App" | "Deployment" | "ReplicaSet" | "Migration" => Some("spec"),
        "ControllerRevision" => Some("data"),
        // The migration runs in the application's pod, and the probe pod holds the headers of health requests.
        "Pod" | "Job" if matches!(work, None | Some("migrate" | "probe")) => Some("spec"),
        _ => None,
    };
    if let (Some(member), Some(members)) = (member, object.as_object_mut()) {
        members.remove(member);
    }
    object
}

fn without_canaries(place: &str, text: &str) -> Result<()> {
    for canary in [SECRET, LITERAL] {
        if let Some(at) = text.find(canary) {
            let line = text[..at].rfind('\n').map_or(0, |end| end + 1);
            let line = text[line..].lines().next().unwrap_or_default();
            anyhow::bail!("{canary} is in {place}: {line}");
        }
    }
    Ok(())
}

/// Names of the files of the backups, and their manifests. The folders of another cluster's volumes are out of reach.
fn stored_files(context: &Context) -> Result<()> {
    if !context.target.is_embedded() {
        return Ok(());
    }
    let mut manifests = 0;
    let mut folders = vec![volumes::path(context, "backups")?];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))? {
            let path = entry?.path();
            without_canaries("the name of a stored file", &path.display().to_string())?;
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "json") {
                manifests += 1;
                without_canaries(&path.display().to_string(), &text(&path)?)?;
            }
        }
    }
    ensure!(manifests > 0, "no manifest is stored");
    Ok(())
}

fn text(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("read {}", file.display()))
}
