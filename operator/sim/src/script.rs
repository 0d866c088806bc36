//! Stories: what people and the environment do to an App, in a text that a reviewer can read.
//!
//! A line that starts with `#` is a remark, one that starts with `>` a command; every other line is what came of
//! the command above it. Words and their meaning: [`Command::parse`].

mod app;
mod show;

pub use app::APP;

use crate::cluster::{Cluster, Propagation};
use crate::database::{Effect, State};
use crate::images::digest;
use crate::pod_run::Sidecar;
use crate::store::{NAMESPACE, Objects, Stored};
use crate::{Sim, Stuck};
use fairway_crds::app::annotation::FINAL_BACKUP;
use fairway_crds::backup::BackupSpec;
use fairway_crds::condition::{BACKUP_OVERDUE, READY, SUCCEEDED};
use fairway_crds::database::{MigrationCheck, OnStart};
use fairway_crds::migration::MigrationSpec;
use fairway_crds::release::annotation;
use fairway_crds::restore::{RestoreSource, RestoreSpec, RestoreTarget};
use fairway_crds::{App, Backup, Migration, Release, ReleaseSpec, Restore};
use fairway_engine::kinds::{ForeignSlice, Kind};
use fairway_plan::labels;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{
    Container, PersistentVolumeClaim, PersistentVolumeClaimSpec, PodSpec, PodTemplateSpec, Service,
    ServicePort, ServiceSpec,
};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    FieldsV1, LabelSelector, LabelSelectorRequirement, ManagedFieldsEntry,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use kube::core::ObjectMeta;
use std::collections::BTreeMap;
use std::sync::Arc;

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

    /// Plays the story from that line on: the text as far as it goes, and why it does not go on. `before` sees the
    /// simulation before each command.
    pub fn play(
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
    /// | `app web=crm:1 api=crm:1 worker=crm:1 replicas=2 migration=command bake=1m …` | a user applies the App |
    /// | `edit image=crm:2 replicas=3 worker=none suspend=true bake=0s …` | and edits it |
    /// | `edit /components/web/health/http/0/status=204` | or any field of it, by its path, with a value in JSON without spaces |
    /// | `annotate crm-2 abort=now`, `annotate migration once resolve=applied:now` | a user asks something of a Release, or of a Migration |
    /// | `annotate app final-backup=1` | a user asks for a final backup of the App |
    /// | `release crm-1 web=crm:1`, `… version=1.0 trigger=ci` | somebody applies a Release by hand |
    /// | `app old web=old:1 service=crm` | a user applies another App |
    /// | `apply backup nightly`, `apply backup nightly release=crm-1 reason=audit` | somebody applies a Backup by hand |
    /// | `apply restore noon backup=nightly`, `annotate restore noon restore=any:now abort=now` | or a Restore, and answers it |
    /// | `rows 11` | the application changes so many rows |
    /// | `apply migration once image=crm:1`, `… release=crm-1 component=worker container=web on-start=yes timeout=30s check=SELECT(1)` | or a Migration |
    /// | `delete app`, `delete release crm-2`, `delete service crm`, … `foreground` (`orphan`) | an object is deleted, and what it owns with it in the background, before it, or not at all |
    /// | `restore app` | the App comes back without its status |
    /// | `image crm:2 unhealthy` (`healthy`, `crashing`, `starting`, `unpullable`, `pullable`) | how a version behaves |
    /// | `migration crm:2 fails` (`changes`, `in-steps`, `nothing`, `halfway`, `hangs`) | and its migration |
    /// | `app … schedule=15_2_*_*_*@Europe/Warsaw`, `edit schedule=none` | the App has backups taken by a schedule |
    /// | `database down` (`up`, `locked-out`, `open`), `store full` (`empty`, `locked`, `unlocked`, `versioned`) | the environment |
    /// | `keep nightly 2027-01-31T00:00:00Z` | a user sets `keepUntil` of a Backup |
    /// | `probes blocked`, `quota used-up` (`3`, `raised`), `pods crm:2 forbidden` (`warned`), `template crm:2 refused` (`forbidden`, `accepted`), `service of-others`, `service crm-api of-others` (`… open`, `raised`, `accepted`, `ours`) | |
    /// | `sidecars endless` (`native`) | somebody injects such a container into every pod |
    /// | `claim uploads ReadWriteOncePod`, `app … mounts=uploads`, `edit mounts=uploads` | there is such a claim, and the web component mounts it |
    /// | `app … label=crm`, `edit label=none` | the pods of the web component have the label `app` |
    /// | `kill migration`, `evict migration`, `delete migration` | its node is lost, its pod or its Job deleted |
    /// | `app … worker-strategy=BlueGreen`, `app … workers=0`, `edit workers=2` | the worker runs side by side with its successor; how many of it |
    /// | `health flaps` (`needs-database`, `steady`) | every other health request fails, or all of them while the database is down |
    /// | `ledger lost` | the database has no ledger row any more, as after a failover to a replica that lacks it |
    /// | `deployments kept` (`released`) | an admission rule refuses every change of a Deployment that is there |
    /// | `refuse create Job` (`apply Service`, `scale Deployment`, `delete Pod`, `status App`, `get Release`, `list Pod`, `watch Pod`, …), `accept create Job` | another one, or a role, refuses such requests of the operator |
    /// | `accept everything` | no rule refuses anything any more, and no other manager owns a Service |
    /// | `delete nth pod 3`, … `foreground` (`orphan`) | the fourth object of that kind is deleted; if there are fewer, it is counted in a circle |
    /// | `annotate newest abort=now`, `annotate live rollback=now` | a user asks something of the newest Release, or of the one that serves |
    /// | `steps 7` | seven passes or seconds |
    /// | `legacy old-worker worker` | a Deployment of the team runs, from which that component takes over |
    /// | `slice crm 10.0.0.9` | somebody makes EndpointSlice `crm-by-hand` beside those of Service `crm` |
    /// | `service crm external` | a Service of the team has type ExternalName |
    /// | `service crm to-port 8080` | a Service of the team leads to that port |
    /// | `service crm of-app old`, `service crm of-team` | a Service of the team selects pods of App `old`, or none yet |
    /// | `scale crm-web-2 0`, `point crm crm-1`, `delete snapshot crm-2` | another client changes what is ours |
    /// | `set-image crm-web-2 other:9`, `add-container crm-web-2 spy:1` | another field manager changes a Deployment of ours |
    /// | `operator away`, `operator back` | nobody is there to act |
    /// | `pace linger=9 endpoints=2 ready=5 migration=9` | how many seconds things take |
    /// | `until crm-2 Migrating`, `until crm-2 ended`, `until crm-2 says Baking`, `until migration exists`, `until migration runs`, `until backup runs`, `until backup nightly ended`, `until removal runs`, `until app overdue` | time passes |
    /// | `wait 30s`, `settle` | time passes |
    /// | `show` | what serves and what runs at this moment |
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
            ["app"] => self.apply(cluster, APP),
            ["app", name] => self.apply(cluster, name),
            ["edit"] => {
                if let Err(why) = self.edit(cluster) {
                    sim.transcript
                        .add(sim.cluster.now, format!("the edit is refused: {why}"));
                }
            }
            ["annotate", "app"] => self.annotate::<App>(cluster, APP),
            ["annotate", release] => {
                if let Some(release) = release_named(cluster, release) {
                    self.annotate::<Release>(cluster, &release);
                }
            }
            ["annotate", "migration", name] => self.annotate::<Migration>(cluster, name),
            ["annotate", "restore", name] => self.annotate::<Restore>(cluster, name),
            ["release", name] => self.release(cluster, name),
            ["apply", "backup", name] => self.backup(cluster, name),
            ["apply", "restore", name] => self.restore(cluster, name),
            ["rows", number] => {
                let number: u64 = number.parse().map_err(|_| Failed::NotUnderstood)?;
                cluster.database.changes += number;
            }
            ["apply", "migration", name] => self.migration(cluster, name),
            ["delete", "app"] => cluster.delete(Kind::App, APP),
            ["delete", "app", how @ ("foreground" | "orphan")] => {
                cluster.delete_by(Kind::App, APP, propagation(&[how])?);
            }
            ["delete", "nth", kind, number, ref how @ ..] => {
                let (kind, how) = (kind_named(kind)?, propagation(how)?);
                let number = number.parse().map_err(|_| Failed::NotUnderstood)?;
                if let Some(name) = nth(cluster, kind, number) {
                    cluster.delete_by(kind, &name, how);
                }
            }
            ["delete", kind, name, ref how @ ..] => {
                cluster.delete_by(kind_named(kind)?, name, propagation(how)?);
            }
            ["restore", "app"] => restore(cluster),
            ["image", image, how] => behave(cluster, image, how)?,
            ["migration", image, effect] => migrate(cluster, image, effect)?,
            ["database", how] => match how {
                "down" | "up" => cluster.database.is_down = how == "down",
                "locked-out" | "open" => cluster.database.is_locked_out = how == "locked-out",
                _ => return Err(Failed::NotUnderstood),
            },
            ["store", how] => match how {
                "full" | "empty" => cluster.database.store_is_full = how == "full",
                "locked" | "unlocked" => cluster.database.store_is_locked = how == "locked",
                "versioned" => cluster.database.store_has_versions = true,
                _ => return Err(Failed::NotUnderstood),
            },
            ["keep", backup, until] => {
                let until = until.parse().map_err(|_| Failed::NotUnderstood)?;
                cluster
                    .api
                    .change::<Backup>(backup, |backup| backup.spec.keep_until = Some(until));
            }
            ["probes", how] => cluster.rules.probes_are_blocked = how == "blocked",
            ["health", how] => {
                cluster.rules.health_flaps = how == "flaps";
                cluster.rules.health_needs_database = how == "needs-database";
            }
            ["ledger", "lost"] => cluster.database.rows.clear(),
            ["refuse", verb, kind] => sim.refuse(verb, kind),
            ["accept", "everything"] => sim.accept_everything(),
            ["accept", verb, kind] => sim.accept(verb, kind),
            ["deployments", how] => cluster.rules.deployments_are_kept = how == "kept",
            ["sidecars", how] => {
                cluster.rules.sidecar = match how {
                    "native" => Some(Sidecar::Native),
                    "endless" => Some(Sidecar::Endless),
                    _ => return Err(Failed::NotUnderstood),
                };
            }
            ["quota", how] => {
                cluster.rules.pods_quota = match how {
                    "used-up" => Some(0),
                    "raised" => None,
                    pods => Some(pods.parse().map_err(|_| Failed::NotUnderstood)?),
                };
            }
            ["pods", image, how] => {
                match how {
                    "forbidden" => cluster.rules.forbidden_pods.insert(image.to_owned()),
                    "warned" => cluster.rules.warned_pods.insert(image.to_owned()),
                    "accepted" => cluster.rules.forbidden_pods.remove(image),
                    _ => return Err(Failed::NotUnderstood),
                };
            }
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
            ["legacy", deployment, component] => legacy(cluster, deployment, component),
            ["slice", service, address] => slice_by_hand(cluster, service, address),
            ["service", name, "to-port", port] => {
                let port = port.parse().map_err(|_| Failed::NotUnderstood)?;
                team_service(cluster, name, port);
            }
            ["service", name, "external"] => {
                team_service(cluster, name, 80);
                cluster.api.change::<Service>(name, |service| {
                    service.spec.get_or_insert_default().type_ = Some("ExternalName".to_owned());
                });
            }
            ["service", name, "of-app", app] => service_of_app(cluster, name, app),
            ["service", name, "of-team"] => service_of_team(cluster, name),
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
            ["set-image", deployment, image] => {
                change_deployment(cluster, deployment, "kubectl-set", |pods| {
                    if let Some(first) = pods.containers.first_mut() {
                        first.image = Some(image.to_owned());
                    }
                });
            }
            ["add-container", deployment, image] => {
                change_deployment(cluster, deployment, "kubectl-edit", |pods| {
                    pods.containers.push(Container {
                        name: "added".to_owned(),
                        image: Some(image.to_owned()),
                        ..Container::default()
                    });
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
            ["steps", number] => {
                let number: usize = number.parse().map_err(|_| Failed::NotUnderstood)?;
                for _ in 0..number {
                    sim.step()?;
                }
            }
            ["wait", span] => {
                let span: fairway_crds::duration::Duration =
                    span.parse().map_err(|_| Failed::NotUnderstood)?;
                sim.pass_time(span.signed())?;
            }
            ["settle"] => sim.settle()?,
            ["show"] => show::show(&sim.cluster, &mut sim.transcript),
            _ => return Err(Failed::NotUnderstood),
        }
        Ok(())
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.pairs.get(key).map(String::as_str)
    }

    fn apply(&self, cluster: &mut Cluster, name: &str) {
        for image in ["web", "worker", "api"]
            .into_iter()
            .filter_map(|component| self.get(component))
        {
            cluster.images.name(image);
        }
        let mut app = App::new(name, app::spec(&self.pairs));
        app.metadata.namespace = Some(NAMESPACE.to_owned());
        let _ = cluster.api.create(app, cluster.now);
    }

    /// Edits the App, unless its schema refuses that.
    fn edit(&self, cluster: &mut Cluster) -> Result<(), String> {
        for image in ["image", "web", "worker", "api"]
            .into_iter()
            .filter_map(|key| self.get(key))
        {
            cluster.images.name(image);
        }
        let Some(app) = cluster.api.get::<App>(APP) else {
            return Ok(());
        };
        let mut spec = serde_json::to_value(&app.spec).unwrap_or_default();
        for (key, value) in &self.pairs {
            app::change(&mut spec, key, value);
        }
        let spec = serde_json::from_value(spec).map_err(|error| error.to_string())?;
        app::admit(&spec)?;
        cluster.api.change::<App>(APP, |app| app.spec = spec);
        Ok(())
    }

    fn annotate<T: Stored>(&self, cluster: &mut Cluster, name: &str) {
        cluster.api.change::<T>(name, |object| {
            for (verb, token) in &self.pairs {
                let key = match verb.as_str() {
                    "abort" => annotation::ABORT,
                    "rollback" => annotation::ROLLBACK,
                    "retry" => annotation::RETRY,
                    "resolve" => annotation::RESOLVE,
                    "final-backup" => FINAL_BACKUP,
                    "restore" => annotation::RESTORE,
                    other => other,
                };
                object.annotations_mut().insert(key.to_owned(), token.clone());
            }
        });
    }

    fn release(&self, cluster: &mut Cluster, name: &str) {
        let revision = name
            .rsplit_once('-')
            .and_then(|(_, number)| number.parse().ok())
            .unwrap_or(1);
        let mut images = self.pairs.clone();
        let version = images.remove("version");
        let trigger = images.remove("trigger").unwrap_or_else(|| "ByHand".to_owned());
        for image in images.values() {
            cluster.images.name(image);
        }
        let spec = ReleaseSpec {
            app: APP.to_owned(),
            revision,
            images,
            version,
            trigger,
        };
        let _ = cluster.api.create(Release::new(name, spec), cluster.now);
    }

    fn backup(&self, cluster: &mut Cluster, name: &str) {
        let spec = BackupSpec {
            app: APP.to_owned(),
            release: self.get("release").map(str::to_owned),
            reason: self.get("reason").unwrap_or_default().to_owned(),
            keep_until: self.get("keep-until").and_then(|until| until.parse().ok()),
        };
        let _ = cluster.api.create(Backup::new(name, spec), cluster.now);
    }

    fn restore(&self, cluster: &mut Cluster, name: &str) {
        let spec = RestoreSpec {
            app: APP.to_owned(),
            from: RestoreSource {
                backup: self.get("backup").unwrap_or("nightly").to_owned(),
            },
            into: RestoreTarget::InPlace,
        };
        let _ = cluster.api.create(Restore::new(name, spec), cluster.now);
    }

    fn migration(&self, cluster: &mut Cluster, name: &str) {
        let image = self.get("image").unwrap_or("crm:1");
        cluster.images.name(image);
        let timeout = self.get("timeout").and_then(|text| text.parse().ok());
        let on_start = self.get("on-start").map(|_| OnStart {});
        let checks = self.get("check").map(|sql| MigrationCheck {
            name: "check".to_owned(),
            sql: sql.to_owned(),
            expect: "1".to_owned(),
        });
        let spec = MigrationSpec {
            app: APP.to_owned(),
            release: self.get("release").map(str::to_owned),
            image: format!("crm@{}", digest(image)),
            component: self.get("component").unwrap_or("web").to_owned(),
            container: self.get("container").map(str::to_owned),
            command: on_start.is_none().then(|| vec!["migrate".to_owned()]),
            on_start,
            timeout: timeout.unwrap_or_else(|| fairway_crds::duration::Duration::from_seconds(60)),
            checks: checks.into_iter().collect(),
        };
        let _ = cluster.api.create(Migration::new(name, spec), cluster.now);
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

/// The Release of that name; `newest` and `live` are found.
fn release_named(cluster: &Cluster, name: &str) -> Option<String> {
    let releases = &cluster.objects().releases;
    match name {
        "newest" => {
            let newest = releases.values().max_by_key(|release| release.spec.revision);
            newest.map(|release| release.name_any())
        }
        "live" => {
            let status = cluster.objects().apps.get(APP)?.status.as_ref()?;
            Some(status.live.as_ref()?.release.clone())
        }
        name => Some(name.to_owned()),
    }
}

/// Name of the object of that kind at that place, counted in a circle.
fn nth(cluster: &Cluster, kind: Kind, number: usize) -> Option<String> {
    let all = cluster.objects().all().into_iter();
    let names: Vec<_> = all
        .filter(|(found, _)| *found == kind)
        .filter_map(|(_, meta)| meta.name.clone())
        .collect();
    let place = number.checked_rem(names.len())?;
    names.get(place).cloned()
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

/// A Deployment that the team made, with the labels of the component that takes over from it.
fn legacy(cluster: &mut Cluster, name: &str, component: &str) {
    let of_pods = [("app".to_owned(), name.to_owned())].into();
    cluster.images.name("legacy:1");
    let deployment = Deployment {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(
                [
                    (labels::APP.to_owned(), APP.to_owned()),
                    (labels::COMPONENT.to_owned(), component.to_owned()),
                ]
                .into(),
            ),
            ..ObjectMeta::default()
        },
        spec: Some(DeploymentSpec {
            replicas: Some(1),
            selector: LabelSelector {
                match_labels: None,
                match_expressions: Some(vec![LabelSelectorRequirement {
                    key: "app".to_owned(),
                    operator: "In".to_owned(),
                    values: Some(vec![name.to_owned()]),
                }]),
            },
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(of_pods),
                    ..ObjectMeta::default()
                }),
                spec: Some(PodSpec {
                    containers: vec![Container {
                        name: component.to_owned(),
                        image: Some("legacy:1".to_owned()),
                        ..Container::default()
                    }],
                    ..PodSpec::default()
                }),
            },
            ..DeploymentSpec::default()
        }),
        status: None,
    };
    let _ = cluster.api.create(deployment, cluster.now);
}

/// An EndpointSlice that sends users of a Service to that address too.
fn slice_by_hand(cluster: &mut Cluster, service: &str, address: &str) {
    let slice = ForeignSlice(Arc::new(EndpointSlice {
        metadata: ObjectMeta {
            name: Some(format!("{service}-by-hand")),
            labels: Some([("kubernetes.io/service-name".to_owned(), service.to_owned())].into()),
            ..ObjectMeta::default()
        },
        address_type: "IPv4".to_owned(),
        endpoints: vec![Endpoint {
            addresses: vec![address.to_owned()],
            ..Endpoint::default()
        }],
        ports: None,
    }));
    let _ = cluster.api.create(slice, cluster.now);
}

/// A Service that the team made, without a selector, which leads to that port.
fn team_service(cluster: &mut Cluster, name: &str, port: i32) {
    let port = ServicePort {
        port: 80,
        target_port: Some(IntOrString::Int(port)),
        ..ServicePort::default()
    };
    let ports = Some(vec![port]);
    let service = Service {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec {
            ports: ports.clone(),
            ..ServiceSpec::default()
        }),
        status: None,
    };
    if cluster.api.create(service, cluster.now).is_err() {
        cluster.api.change::<Service>(name, |service| {
            service.spec.get_or_insert_default().ports = ports;
        });
    }
}

/// A Service that the team made, which selects pods of an App.
fn service_of_app(cluster: &mut Cluster, name: &str, app: &str) {
    let selector = [
        (labels::APP, app.to_owned()),
        (labels::COMPONENT, "web".to_owned()),
        (labels::RELEASE, format!("{app}-7")),
    ];
    let selector = selector.map(|(key, value)| (key.to_owned(), value));
    let service = Service {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec {
            selector: Some(selector.into()),
            ..ServiceSpec::default()
        }),
        status: None,
    };
    let _ = cluster.api.create(service, cluster.now);
}

/// Another field manager changes the pods of a Deployment.
fn change_deployment(
    cluster: &mut Cluster,
    deployment: &str,
    manager: &str,
    change: impl FnOnce(&mut PodSpec),
) {
    cluster.api.change::<Deployment>(deployment, |deployment| {
        let template = &mut deployment.spec.get_or_insert_default().template;
        change(template.spec.get_or_insert_default());
        let managers = deployment.metadata.managed_fields.get_or_insert_default();
        managers.push(ManagedFieldsEntry {
            manager: Some(manager.to_owned()),
            fields_v1: Some(FieldsV1(
                serde_json::json!({"f:spec": {"f:template": {"f:spec": {}}}}),
            )),
            ..ManagedFieldsEntry::default()
        });
    });
}

/// A Service that the team made, with a manifest that has no selector.
fn service_of_team(cluster: &mut Cluster, name: &str) {
    let service = Service {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec::default()),
        status: None,
    };
    let _ = cluster.api.create(service, cluster.now);
}

fn kind_named(name: &str) -> Result<Kind, Failed> {
    if name == "snapshot" {
        return Ok(Kind::ControllerRevision);
    }
    let mut kinds = Kind::ALL.into_iter();
    let found = kinds.find(|kind| kind.as_str().eq_ignore_ascii_case(name));
    found.ok_or(Failed::NotUnderstood)
}

fn propagation(words: &[&str]) -> Result<Propagation, Failed> {
    match words {
        [] => Ok(Propagation::Background),
        ["foreground"] => Ok(Propagation::Foreground),
        ["orphan"] => Ok(Propagation::Orphan),
        _ => Err(Failed::NotUnderstood),
    }
}

/// Another client has a Service select a release.
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

/// Whether a pod of the agent does that work.
fn works(objects: &Objects, work: labels::Work) -> bool {
    let mut pods = objects.pods.values();
    pods.any(|pod| {
        let done = pod.labels().get(labels::WORK);
        done.is_some_and(|done| done == work.as_str())
    })
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
        ["migration", "exists"] => !objects.migrations.is_empty(),
        ["backup", "runs"] => works(objects, labels::Work::Backup),
        ["removal", "runs"] => works(objects, labels::Work::Prune),
        ["backup", name, "ended"] => {
            let status = objects
                .backups
                .get(name)
                .and_then(|backup| backup.status.as_ref());
            status.is_some_and(|status| status.outcome.is_some())
        }
        ["app", "overdue"] => {
            let status = objects.apps.get(APP).and_then(|app| app.status.as_ref());
            status.is_some_and(|status| said(&status.conditions, BACKUP_OVERDUE).is_some())
        }
        ["app", "says", reason] => {
            let status = objects.apps.get(APP).and_then(|app| app.status.as_ref());
            status
                .and_then(|status| said(&status.conditions, READY))
                .as_deref()
                == Some(reason)
        }
        ["restore", name, "says", reason] => {
            let status = objects
                .restores
                .get(name)
                .and_then(|restore| restore.status.as_ref());
            status
                .and_then(|status| said(&status.conditions, SUCCEEDED))
                .as_deref()
                == Some(reason)
        }
        ["restore", "runs"] => objects.pods.values().any(|pod| {
            pod.labels()
                .get(labels::WORK)
                .is_some_and(|work| work == labels::Work::Restore.as_str())
        }),
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
