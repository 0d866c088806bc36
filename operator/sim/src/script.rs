//! Stories: what people and the environment do to an App, in a text that a reviewer can read.
//!
//! A line that starts with `#` is a remark, one that starts with `>` a command; every other line is what came of
//! the command above it. Words and their meaning: [`Command::parse`].

use crate::cluster::Cluster;
use crate::database::{Effect, State};
use crate::store::NAMESPACE;
use crate::{Sim, Stuck};
use fairway_crds::condition::{READY, SUCCEEDED};
use fairway_crds::release::annotation;
use fairway_crds::{App, AppSpec, Release, ReleaseSpec};
use fairway_engine::kinds::Kind;
use fairway_plan::labels;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, Service, ServiceSpec};
use kube::ResourceExt;
use kube::core::ObjectMeta;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Name of the App of every story.
pub const APP: &str = "crm";

/// A story.
#[derive(Clone, Debug)]
pub struct Story {
    lines: Vec<Line>,
}

#[derive(Clone, Debug)]
enum Line {
    Remark(String),
    Command(String, Command),
}

/// One command: its words, and `key=value` pairs.
#[derive(Clone, Debug)]
pub struct Command {
    words: Vec<String>,
    pairs: BTreeMap<String, String>,
}

/// Why a story does not go as it is written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoryError {
    /// A command that nobody understands.
    #[error("cannot understand {0:?}")]
    Unknown(String),
    /// A command at which the story got stuck.
    #[error("{stuck:?} at {command:?}")]
    Stuck {
        /// The command.
        command: String,
        /// How.
        stuck: Stuck,
    },
}

impl Story {
    /// Reads a story; what came of it last time is skipped.
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter_map(|line| match line.chars().next() {
            Some('>') => {
                let line = line.trim_start_matches('>').trim();
                Some(Line::Command(line.to_owned(), Command::parse(line)))
            }
            Some('#') => Some(Line::Remark(line.to_owned())),
            _ => None,
        });
        Self {
            lines: lines.collect(),
        }
    }

    /// Tells the story from that line on: the text as far as it goes, and why it does not go on. `before` sees the
    /// simulation before each command.
    pub fn tell(
        &self,
        sim: &mut Sim,
        from: usize,
        mut before: impl FnMut(usize, &Sim),
    ) -> (String, Result<(), StoryError>) {
        let mut text = String::new();
        for (number, line) in self.lines.iter().enumerate().skip(from) {
            match line {
                Line::Remark(remark) => text.push_str(&format!("{remark}\n")),
                Line::Command(written, command) => {
                    before(number, sim);
                    text.push_str(&format!("> {written}\n"));
                    let result = command.run(sim);
                    for line in sim.transcript.take() {
                        text.push_str(&format!("{line}\n"));
                    }
                    if let Err(error) = result {
                        return (text, Err(error.at(written)));
                    }
                }
            }
        }
        (text, Ok(()))
    }
}

enum Failed {
    NotUnderstood,
    Stuck(Stuck),
}

impl Failed {
    fn at(self, command: &str) -> StoryError {
        match self {
            Self::NotUnderstood => StoryError::Unknown(command.to_owned()),
            Self::Stuck(stuck) => StoryError::Stuck {
                command: command.to_owned(),
                stuck,
            },
        }
    }
}

impl From<Stuck> for Failed {
    fn from(stuck: Stuck) -> Self {
        Self::Stuck(stuck)
    }
}

impl Command {
    /// Reads a command.
    ///
    /// | command | what happens |
    /// |---|---|
    /// | `app web=crm:1 api=crm:1 worker=crm:1 replicas=2 migration=command bake=1m …` | a person applies the App |
    /// | `edit image=crm:2 replicas=3 worker=none suspend=true bake=0s …` | and edits it |
    /// | `annotate crm-2 abort=now` | a person asks something of a Release |
    /// | `release crm-1 web=crm:1` | somebody applies a Release by hand |
    /// | `delete app`, `restore app` | the App goes, or comes back without its status |
    /// | `image crm:2 unhealthy` (`healthy`, `crashing`, `starting`, `unpullable`, `pullable`) | how a version behaves |
    /// | `migration crm:2 fails` (`changes`, `in-steps`, `nothing`, `halfway`, `hangs`) | and its migration |
    /// | `database down` (`up`, `locked-out`, `open`), `store full` (`empty`) | the environment |
    /// | `probes blocked`, `quota used-up`, `template crm:2 refused` (`forbidden`, `accepted`), `service of-others`, `service crm-api of-others` (`… open`, `raised`, `accepted`, `ours`) | |
    /// | `claim uploads ReadWriteOnce`, `app … mounts=uploads`, `edit mounts=uploads` | there is such a claim, and the web component mounts it |
    /// | `kill migration`, `evict migration`, `delete migration` | its node is lost, its pod or its Job deleted |
    /// | `app … worker-strategy=BlueGreen`, `app … workers=0`, `edit workers=2` | the worker runs side by side with its successor; how many of it |
    /// | `deployments kept` (`released`) | an admission rule refuses every change of a Deployment that is there |
    /// | `scale crm-web-2 0`, `point crm crm-1` | another hand changes what is ours |
    /// | `operator away`, `operator back` | nobody is there to act |
    /// | `pace linger=9 endpoints=2 ready=5 migration=9` | how many seconds things take |
    /// | `until crm-2 Migrating`, `until crm-2 ended`, `until crm-2 says Baking`, `until migration runs`, `until backup runs` | time passes |
    /// | `wait 30s`, `settle` | time passes |
    pub fn parse(line: &str) -> Self {
        let (pairs, words): (Vec<&str>, Vec<&str>) =
            line.split_whitespace().partition(|word| word.contains('='));
        let pairs = pairs.into_iter().filter_map(|pair| pair.split_once('='));
        Self {
            words: words.into_iter().map(str::to_owned).collect(),
            pairs: pairs
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
        }
    }

    fn run(&self, sim: &mut Sim) -> Result<(), Failed> {
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        let cluster = &mut sim.cluster;
        match words[..] {
            ["app"] => self.apply(cluster),
            ["edit"] => self.edit(cluster),
            ["annotate", release] => self.annotate(cluster, release),
            ["release", name] => self.release(cluster, name),
            ["delete", "app"] => cluster.delete(Kind::App, APP),
            ["delete", "deployment", name] => cluster.delete(Kind::Deployment, name),
            ["restore", "app"] => restore(cluster),
            ["image", image, how] => behave(cluster, image, how)?,
            ["migration", image, effect] => migrate(cluster, image, effect)?,
            ["database", how] => match how {
                "down" | "up" => cluster.database.is_down = how == "down",
                "locked-out" | "open" => cluster.database.is_locked_out = how == "locked-out",
                _ => return Err(Failed::NotUnderstood),
            },
            ["store", how] => cluster.database.store_is_full = how == "full",
            ["probes", how] => cluster.rules.probes_are_blocked = how == "blocked",
            ["deployments", how] => cluster.rules.deployments_are_kept = how == "kept",
            ["quota", how] => cluster.rules.quota_is_used_up = how == "used-up",
            ["template", image, "refused"] => {
                cluster.rules.refused_images.insert(image.to_owned());
            }
            ["template", image, "forbidden"] => {
                cluster.rules.forbidden_images.insert(image.to_owned());
            }
            ["template", image, "accepted"] => {
                cluster.rules.refused_images.remove(image);
                cluster.rules.forbidden_images.remove(image);
            }
            ["claim", name, mode] => claim(cluster, name, mode),
            ["service", "of-others"] => foreign_service(cluster, APP),
            ["service", name, "of-others"] => foreign_service(cluster, name),
            ["service", "ours"] => cluster.rules.foreign_services.clear(),
            [what @ ("kill" | "evict" | "delete"), "migration"] => end_migration(cluster, what),
            ["scale", deployment, replicas] => {
                let replicas = replicas.parse().map_err(|_| Failed::NotUnderstood)?;
                cluster.api.change::<Deployment>(deployment, |deployment| {
                    deployment.spec.get_or_insert_default().replicas = Some(replicas);
                });
            }
            ["seize", service, release] => {
                point(cluster, service, release);
                cluster.rules.foreign_services.insert((*service).to_owned());
            }
            ["let-go", service] => {
                cluster.api.change::<Service>(service, |service| {
                    service.spec.get_or_insert_default().selector = None;
                });
                cluster.rules.foreign_services.remove(service);
            }
            ["point", service, release] => point(cluster, service, release),
            ["operator", how] => sim.set_away(how == "away"),
            ["pace"] => self.pace(cluster)?,
            ["until", ref what @ ..] => {
                let what: Vec<String> = what.iter().map(|word| (*word).to_owned()).collect();
                sim.until(|cluster| has_come(cluster, &what))?;
            }
            ["wait", span] => {
                let span: fairway_crds::duration::Duration =
                    span.parse().map_err(|_| Failed::NotUnderstood)?;
                sim.pass_time(span.signed())?;
            }
            ["settle"] => sim.settle()?,
            _ => return Err(Failed::NotUnderstood),
        }
        Ok(())
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.pairs.get(key).map(String::as_str)
    }

    fn apply(&self, cluster: &mut Cluster) {
        for image in ["web", "worker"]
            .into_iter()
            .filter_map(|component| self.get(component))
        {
            cluster.images.name(image);
        }
        let mut app = App::new(APP, self.spec());
        app.metadata.namespace = Some(NAMESPACE.to_owned());
        let _ = cluster.api.create(app, cluster.now);
    }

    fn spec(&self) -> AppSpec {
        let number = |key: &str, otherwise: i32| {
            self.get(key)
                .map_or(otherwise, |text| text.parse().unwrap_or(otherwise))
        };
        let mut components = Vec::new();
        if let Some(image) = self.get("web") {
            let mut web = component("web", image);
            web["replicas"] = json!(number("replicas", 2));
            if self.get("serves") != Some("no") {
                web["serves"] = json!({"service": APP, "port": 80, "targetPort": 3000});
            }
            let mut headers = Vec::new();
            if let Some(secret) = self.get("secret") {
                let key = json!({"name": secret, "key": "probe"});
                headers.push(json!({"name": "Authorization", "valueFrom": {"secretKeyRef": key}}));
            }
            let request = json!({"path": "/health", "port": 3000, "headers": headers});
            web["health"] = json!({"http": [request], "deadline": self.get("deadline").unwrap_or("2m")});
            if let Some(strategy) = self.get("strategy") {
                web["strategy"] = json!(strategy);
            }
            if let Some(claim) = self.get("mounts") {
                mount(&mut web, claim);
            }
            components.push(web);
        }
        if let Some(image) = self.get("api") {
            let mut api = component("api", image);
            api["serves"] = json!({"service": "crm-api", "port": 80, "targetPort": 3000});
            api["health"] = json!({"http": [{"path": "/health", "port": 3000}]});
            components.push(api);
        }
        if let Some(image) = self.get("worker") {
            let mut worker = component("worker", image);
            worker["strategy"] = json!(self.get("worker-strategy").unwrap_or("Recreate"));
            worker["replicas"] = json!(number("workers", 1));
            components.push(worker);
        }
        let mut spec = json!({
            "components": components,
            "policy": {"bake": {"for": self.get("bake").unwrap_or("1m")}},
        });
        if let Some(migration) = self.get("migration") {
            let url = json!({"urlFrom": {"secretKeyRef": {"name": "crm-db", "key": "url"}}});
            spec["database"] = json!({"image": "postgres:16", "connection": url});
            spec["backup"] = json!({"store": {"volume": {"claimName": "backups"}}});
            spec["migration"] = match migration {
                "onStart" => json!({"component": "web", "onStart": {}, "timeout": "1m"}),
                _ => json!({"component": "web", "command": ["migrate"], "timeout": "1m"}),
            };
        }
        serde_json::from_value(spec).unwrap_or_else(|error| panic!("the App of a story is invalid: {error}"))
    }

    fn edit(&self, cluster: &mut Cluster) {
        for image in ["image", "web", "worker"]
            .into_iter()
            .filter_map(|key| self.get(key))
        {
            cluster.images.name(image);
        }
        cluster.api.change::<App>(APP, |app| {
            let mut spec = serde_json::to_value(&app.spec).unwrap_or_default();
            for (key, value) in &self.pairs {
                change(&mut spec, key, value);
            }
            app.spec =
                serde_json::from_value(spec).unwrap_or_else(|error| panic!("the edit is invalid: {error}"));
        });
    }

    fn annotate(&self, cluster: &mut Cluster, release: &str) {
        cluster.api.change::<Release>(release, |release| {
            for (verb, token) in &self.pairs {
                let key = match verb.as_str() {
                    "abort" => annotation::ABORT,
                    "rollback" => annotation::ROLLBACK,
                    "retry" => annotation::RETRY,
                    "resolve" => annotation::RESOLVE,
                    other => other,
                };
                release.annotations_mut().insert(key.to_owned(), token.clone());
            }
        });
    }

    fn release(&self, cluster: &mut Cluster, name: &str) {
        let revision = name
            .rsplit_once('-')
            .and_then(|(_, number)| number.parse().ok())
            .unwrap_or(1);
        for image in self.pairs.values() {
            cluster.images.name(image);
        }
        let spec = ReleaseSpec {
            app: APP.to_owned(),
            revision,
            images: self.pairs.clone(),
            version: None,
            trigger: "ByHand".to_owned(),
        };
        let _ = cluster.api.create(Release::new(name, spec), cluster.now);
    }

    fn pace(&self, cluster: &mut Cluster) -> Result<(), Failed> {
        for (key, value) in &self.pairs {
            let seconds = value.parse().map_err(|_| Failed::NotUnderstood)?;
            match key.as_str() {
                "ready" => cluster.pace.ready = seconds,
                "linger" => cluster.pace.linger = seconds,
                "endpoints" => cluster.pace.endpoints = seconds,
                "migration" => cluster.pace.migration = seconds,
                _ => return Err(Failed::NotUnderstood),
            }
        }
        Ok(())
    }
}

fn component(name: &str, image: &str) -> Value {
    let mut container = json!({"name": name});
    if image != "?" {
        container["image"] = json!(image);
    }
    json!({"name": name, "replicas": 1, "template": {"spec": {"containers": [container]}}})
}

fn change(spec: &mut Value, key: &str, value: &str) {
    match key {
        "suspend" => spec["suspend"] = json!(value == "true"),
        "bake" => spec["policy"]["bake"]["for"] = json!(value),
        "replicas" | "workers" => {
            let of_web = key == "replicas";
            for component in of(spec, if of_web { "web" } else { "worker" }) {
                component["replicas"] = json!(value.parse::<i32>().unwrap_or(1));
            }
        }
        "web" | "worker" if value == "none" => {
            if let Some(components) = spec["components"].as_array_mut() {
                components.retain(|component| component["name"] != key);
            }
        }
        "worker" if of(spec, "worker").next().is_none() => {
            let mut worker = component("worker", value);
            worker["strategy"] = json!("Recreate");
            if let Some(components) = spec["components"].as_array_mut() {
                components.push(worker);
            }
        }
        "image" | "web" | "worker" => {
            for component in of(spec, key) {
                component["template"]["spec"]["containers"][0]["image"] = json!(value);
            }
        }
        "strategy" => {
            for component in of(spec, "web") {
                component["strategy"] = json!(value);
            }
        }
        "mounts" => {
            for component in of(spec, "web") {
                mount(component, value);
            }
        }
        _ => panic!("nobody knows how to edit {key}"),
    }
}

fn mount(component: &mut Value, claim: &str) {
    let source = json!({"claimName": claim});
    component["template"]["spec"]["volumes"] = json!([{"name": "files", "persistentVolumeClaim": source}]);
}

/// The component of that name; all of them for `image`.
fn of<'a>(spec: &'a mut Value, name: &'a str) -> impl Iterator<Item = &'a mut Value> {
    let components = spec["components"].as_array_mut().into_iter().flatten();
    components.filter(move |component| name == "image" || component["name"] == name)
}

/// As after a restore of the cluster: the object is new and nobody remembers what was in its status.
fn restore(cluster: &mut Cluster) {
    cluster.api.change::<App>(APP, |app| app.status = None);
}

fn behave(cluster: &mut Cluster, image: &str, how: &str) -> Result<(), Failed> {
    cluster.images.name(image);
    let images = &mut cluster.images;
    let image = image.to_owned();
    match how {
        "unhealthy" => images.unhealthy.insert(image),
        "healthy" => images.unhealthy.remove(&image),
        "crashing" => images.crashing.insert(image),
        "starting" => images.crashing.remove(&image),
        "unpullable" => images.unpullable.insert(image),
        "pullable" => images.unpullable.remove(&image),
        _ => return Err(Failed::NotUnderstood),
    };
    Ok(())
}

fn migrate(cluster: &mut Cluster, image: &str, effect: &str) -> Result<(), Failed> {
    let effect = match effect {
        "changes" => Effect::Changes,
        "in-steps" => Effect::ChangesInSteps,
        "nothing" => Effect::Nothing,
        "fails" => Effect::Fails,
        "halfway" => Effect::FailsHalfway,
        "hangs" => Effect::Hangs,
        _ => return Err(Failed::NotUnderstood),
    };
    cluster.images.name(image);
    cluster.database.effects.insert(image.to_owned(), effect);
    Ok(())
}

/// A claim with that access mode. The App's team makes it; no watch shows it.
fn claim(cluster: &mut Cluster, name: &str, mode: &str) {
    let claim = PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec![mode.to_owned()]),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    };
    cluster
        .api
        .objects
        .claims
        .insert(name.to_owned(), Arc::new(claim));
}

/// A Service whose selector another manager holds.
fn foreign_service(cluster: &mut Cluster, name: &str) {
    let service = Service {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec {
            selector: Some([("app".to_owned(), APP.to_owned())].into()),
            ..ServiceSpec::default()
        }),
        status: None,
    };
    let _ = cluster.api.create(service, cluster.now);
    cluster.rules.foreign_services.insert(name.to_owned());
}

/// Another hand has a Service select a release.
fn point(cluster: &mut Cluster, service: &str, release: &str) {
    cluster.api.change::<Service>(service, |service| {
        let spec = service.spec.get_or_insert_default();
        let selector = spec.selector.get_or_insert_default();
        selector.insert(labels::RELEASE.to_owned(), release.to_owned());
    });
}

fn end_migration(cluster: &mut Cluster, how: &str) {
    let is_migration = |labels: &BTreeMap<String, String>| {
        labels
            .get(labels::WORK)
            .is_some_and(|work| work == labels::Work::Migrate.as_str())
    };
    let pods = cluster
        .objects()
        .pods
        .values()
        .filter(|pod| is_migration(pod.labels()));
    let pods: Vec<String> = pods.map(|pod| pod.name_any()).collect();
    for pod in &pods {
        match how {
            "kill" => cluster.kill_pod(pod),
            "evict" => cluster.delete(Kind::Pod, pod),
            _ => {}
        }
    }
    if how == "delete" {
        let jobs = cluster
            .objects()
            .jobs
            .values()
            .filter(|job: &&std::sync::Arc<Job>| is_migration(job.labels()));
        for job in jobs.map(|job| job.name_any()).collect::<Vec<_>>() {
            cluster.delete(Kind::Job, &job);
        }
    }
}

fn has_come(cluster: &Cluster, what: &[String]) -> bool {
    let what: Vec<&str> = what.iter().map(String::as_str).collect();
    let objects = cluster.objects();
    let said = |conditions: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition], type_: &str| {
        conditions
            .iter()
            .find(|condition| condition.type_ == type_)
            .map(|condition| condition.reason.clone())
    };
    match what[..] {
        ["migration", "runs"] => cluster
            .database
            .rows
            .iter()
            .any(|row| row.state == State::Running),
        ["backup", "runs"] => objects.pods.values().any(|pod| {
            pod.labels()
                .get(labels::WORK)
                .is_some_and(|work| work == labels::Work::Backup.as_str())
        }),
        ["app", "says", reason] => {
            let status = objects.apps.get(APP).and_then(|app| app.status.as_ref());
            status
                .and_then(|status| said(&status.conditions, READY))
                .as_deref()
                == Some(reason)
        }
        [release, "says", reason] => {
            let status = objects
                .releases
                .get(release)
                .and_then(|release| release.status.as_ref());
            status
                .and_then(|status| said(&status.conditions, SUCCEEDED))
                .as_deref()
                == Some(reason)
        }
        [release, "ended"] => objects
            .releases
            .get(release)
            .is_some_and(|release| fairway_plan::release::history::has_ended(release)),
        [release, "exists"] => objects.releases.contains_key(release),
        [release, milestone] => objects.releases.get(release).is_some_and(|release| {
            let status = release.status.clone().unwrap_or_default();
            status
                .milestones
                .iter()
                .any(|found| format!("{:?}", found.kind) == milestone)
        }),
        _ => false,
    }
}
