//! An operator process: observes, plans, carries out, commits the status, and remembers what the real one does.

use super::cluster::Cluster;
use super::store::{ApiError, Objects, Stored};
use super::wire::Wire;
use crate::object::Kind;
use crate::observed::{
    AppObserved, BackupObserved, MigrationObserved, PodHealth, ProbeTarget, Refusal, ReleaseObserved,
    Settings,
};
use crate::snapshot::Snapshot;
use crate::{Decision, ObjectRef, Step, Wake, app, backup, build, labels, migration, names, release};
use fairway_crds::{
    App, AppStatus, Backup, BackupStatus, Migration, MigrationStatus, Release, ReleaseStatus,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How often one pass plans again because an answer was news.
const LESSONS: usize = 64;
/// First pause after a pass that failed; doubles up to a minute.
const PAUSE: SignedDuration = SignedDuration::from_secs(1);

/// One object that is reconciled. The order is that in which a burst of changes is worked off.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "each is Fairway's kind of the same name")]
pub enum Work {
    App(String),
    Release(String),
    Migration(String),
    Backup(String),
}

impl Work {
    /// Everything there is to reconcile.
    pub fn all(objects: &Objects) -> BTreeSet<Self> {
        let apps = objects.apps.keys().cloned().map(Self::App);
        let releases = objects.releases.keys().cloned().map(Self::Release);
        let migrations = objects.migrations.keys().cloned().map(Self::Migration);
        let backups = objects.backups.keys().cloned().map(Self::Backup);
        apps.chain(releases).chain(migrations).chain(backups).collect()
    }
}

/// What a planner decided about which object.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "each is Fairway's kind of the same name")]
pub enum Decided {
    App(Arc<App>, Decision<AppStatus>),
    Release(Arc<Release>, Decision<ReleaseStatus>),
    Migration(Arc<Migration>, Decision<MigrationStatus>),
    Backup(Arc<Backup>, Decision<BackupStatus>),
}

impl Decided {
    /// The writes that it asks for before the status.
    pub fn steps(&self) -> &[Step] {
        match self {
            Self::App(_, decision) => &decision.steps,
            Self::Release(_, decision) => &decision.steps,
            Self::Migration(_, decision) => &decision.steps,
            Self::Backup(_, decision) => &decision.steps,
        }
    }

    /// When to plan again.
    pub fn wake(&self) -> Wake {
        match self {
            Self::App(_, decision) => decision.wake,
            Self::Release(_, decision) => decision.wake,
            Self::Migration(_, decision) => decision.wake,
            Self::Backup(_, decision) => decision.wake,
        }
    }

    /// Whether the status differs from the one observed.
    pub fn has_news(&self) -> bool {
        match self {
            Self::App(app, decision) => app.status.as_ref() != Some(&decision.status),
            Self::Release(release, decision) => release.status.as_ref() != Some(&decision.status),
            Self::Migration(migration, decision) => migration.status.as_ref() != Some(&decision.status),
            Self::Backup(backup, decision) => backup.status.as_ref() != Some(&decision.status),
        }
    }
}

#[derive(Clone, Debug)]
struct Remembered {
    refusal: Refusal,
    times: u32,
    until: Timestamp,
}

/// One process. Everything in it is lost when it is killed.
#[derive(Clone, Debug)]
pub struct Operator {
    /// What is fixed for this process.
    pub settings: Settings,
    /// What is to be looked at.
    pub due: BTreeSet<Work>,
    timers: BTreeMap<Work, Timestamp>,
    pauses: BTreeMap<Work, u32>,
    asked: BTreeMap<String, BTreeMap<String, (ProbeTarget, PodHealth)>>,
    refused: BTreeMap<String, Remembered>,
    dry_run_passed: BTreeSet<String>,
    frozen: Frozen,
}

/// Frozen specs that were read already, by UID: they never change.
type Frozen = BTreeMap<String, Arc<Snapshot>>;

impl Operator {
    /// A process that has just started: it looks at everything.
    pub fn new(incarnation: u32, objects: &Objects) -> Self {
        Self {
            settings: Settings {
                agent_image: "fairway:1".to_owned(),
                agent_pull_secrets: Vec::new(),
                agent_pull_policy: "IfNotPresent".to_owned(),
                probe_token_sha256: names::sha256_hex(format!("token {incarnation}")),
            },
            due: Work::all(objects),
            timers: BTreeMap::new(),
            pauses: BTreeMap::new(),
            asked: BTreeMap::new(),
            refused: BTreeMap::new(),
            dry_run_passed: BTreeSet::new(),
            frozen: Frozen::new(),
        }
    }

    /// Marks what a timer asks for as due. Returns when the next one goes off.
    pub fn ring(&mut self, now: Timestamp) -> Option<Timestamp> {
        let due: Vec<Work> = self
            .timers
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(work, _)| work.clone())
            .collect();
        for work in due {
            self.timers.remove(&work);
            self.due.insert(work);
        }
        self.timers.values().min().copied()
    }

    /// Observes and plans. `None` when the object is gone.
    pub fn decide(&mut self, work: &Work, view: &Objects, now: Timestamp) -> Option<Decided> {
        self.refused.retain(|_, known| now < known.until);
        for revision in view.revisions.values() {
            let uid = revision.uid().unwrap_or_default();
            if let std::collections::btree_map::Entry::Vacant(entry) = self.frozen.entry(uid)
                && let Ok(snapshot) = build::control::snapshot_of(revision)
            {
                entry.insert(Arc::new(snapshot));
            }
        }
        match work {
            Work::App(name) => {
                let observed = observe_app(view, name, &self.frozen)?;
                let decision = app::plan(&observed, &self.settings, now);
                Some(Decided::App(observed.app, decision))
            }
            Work::Release(name) => {
                let Some(observed) = self.observe_release(view, name) else {
                    self.asked.remove(name);
                    return None;
                };
                let decision = release::plan(&observed, &self.settings, now);
                self.ask(name, release::probe_targets(&observed, &self.settings));
                Some(Decided::Release(observed.release, decision))
            }
            Work::Migration(name) => {
                let mut observed = observe_migration(view, name, &self.frozen)?;
                observed.refused = self.refusals();
                let decision = migration::plan(&observed, &self.settings, now);
                Some(Decided::Migration(observed.migration, decision))
            }
            Work::Backup(name) => {
                let mut observed = observe_backup(view, name, &self.frozen)?;
                observed.refused = self.refusals();
                let decision = backup::plan(&observed, &self.settings, now);
                Some(Decided::Backup(observed.backup, decision))
            }
        }
    }

    /// One pass.
    ///
    /// # Errors
    /// [`ApiError::Killed`] only: every other error is what the next pass is for.
    pub fn pass(&mut self, work: &Work, wire: &mut Wire) -> Result<(), ApiError> {
        for _ in 0..LESSONS {
            let view = wire.view();
            let now = wire.now();
            let Some(decided) = self.decide(work, &view, now) else {
                self.timers.remove(work);
                return Ok(());
            };
            if self.finish(work, &decided, wire)? == Finished::Done {
                return Ok(());
            }
        }
        self.due.insert(work.clone());
        Ok(())
    }

    /// Carries a decision out and commits the status.
    ///
    /// # Errors
    /// [`ApiError::Killed`] only.
    pub fn finish(&mut self, work: &Work, decided: &Decided, wire: &mut Wire) -> Result<Finished, ApiError> {
        for step in decided.steps() {
            match wire.step(step) {
                Ok(()) if matches!(step, Step::DryRun(_)) => {
                    if self
                        .dry_run_passed
                        .insert(format!("{}#{}", step.id(), step.hash()))
                    {
                        return Ok(Finished::Learned);
                    }
                }
                Ok(()) => {
                    self.refused.remove(&step.id());
                }
                Err(ApiError::Killed) => return Err(ApiError::Killed),
                Err(ApiError::Refused {
                    message,
                    conflict,
                    may_pass,
                }) => {
                    let refusal = Refusal {
                        hash: step.hash().into_owned(),
                        message,
                        conflict,
                        may_pass,
                    };
                    if self.learn(step.id(), refusal, wire.now()) {
                        return Ok(Finished::Learned);
                    }
                    return Ok(self.pause(work, wire.now()));
                }
                Err(_) => return Ok(self.pause(work, wire.now())),
            }
        }
        match wire.commit(decided) {
            Ok(()) => {}
            Err(ApiError::Killed) => return Err(ApiError::Killed),
            // The newer object's event is on its way.
            Err(ApiError::Conflict | ApiError::NotFound) => {
                self.timers
                    .insert(work.clone(), wire.now() + SignedDuration::from_secs(1));
                return Ok(Finished::Done);
            }
            Err(_) => return Ok(self.pause(work, wire.now())),
        }
        self.pauses.remove(work);
        match decided.wake() {
            Wake::OnChange => self.timers.remove(work),
            Wake::At(at) => self.timers.insert(work.clone(), at),
        };
        Ok(Finished::Done)
    }

    /// A pass that failed is repeated after a pause that grows.
    fn pause(&mut self, work: &Work, now: Timestamp) -> Finished {
        let times = self.pauses.entry(work.clone()).or_default();
        let pause = PAUSE
            .saturating_mul(1 << (*times).min(6))
            .min(SignedDuration::from_mins(1));
        *times += 1;
        self.timers.insert(work.clone(), now + pause);
        Finished::Done
    }

    /// Remembers a refusal. Returns whether it is news.
    fn learn(&mut self, id: String, refusal: Refusal, now: Timestamp) -> bool {
        let known = self.refused.get(&id);
        let is_news = known.is_none_or(|known| known.refusal != refusal);
        let times = known.map_or(0, |known| known.times);
        let pause = SignedDuration::from_secs((5_i64 << times.min(6)).min(300));
        let until = now + pause;
        // What was refused is put to the test again.
        for at in self.timers.values_mut() {
            *at = (*at).min(until);
        }
        self.refused.insert(
            id,
            Remembered {
                refusal,
                times: times + 1,
                until,
            },
        );
        is_news
    }

    /// When the first refusal is forgotten, after which its write is tried again.
    pub fn forgets(&self) -> Option<Timestamp> {
        self.refused.values().map(|known| known.until).min()
    }

    fn ask(&mut self, release: &str, targets: Vec<ProbeTarget>) {
        if targets.is_empty() {
            self.asked.remove(release);
            return;
        }
        let asked = self.asked.entry(release.to_owned()).or_default();
        asked.retain(|_, (target, _)| targets.contains(target));
        for target in targets {
            asked
                .entry(target.pod_uid.clone())
                .or_insert_with(|| (target, PodHealth::default()));
        }
    }

    /// One round of every health request. Returns whether a count is still on its way to being news.
    pub fn probe(&mut self, cluster: &Cluster) -> bool {
        let mut is_busy = false;
        for (release, asked) in &mut self.asked {
            for (uid, (target, health)) in asked {
                if count(health, target, answer(cluster, uid, target)) {
                    self.due.insert(Work::Release(release.clone()));
                }
                is_busy |= health.passes < target.success_threshold
                    && health.failures < target.failure_threshold
                    && health.unreachable < target.failure_threshold;
            }
        }
        is_busy
    }

    /// Passes in a row by pod, of those that are asked.
    pub fn passes(&self) -> impl Iterator<Item = (&String, u32)> {
        self.asked
            .values()
            .flatten()
            .map(|(uid, (_, health))| (uid, health.passes))
    }

    fn refusals(&self) -> BTreeMap<String, Refusal> {
        let known = self.refused.iter();
        known
            .map(|(id, known)| (id.clone(), known.refusal.clone()))
            .collect()
    }

    fn observe_release(&self, view: &Objects, name: &str) -> Option<ReleaseObserved> {
        let release = view.releases.get(name)?.clone();
        let app_name = release.spec.app.clone();
        let siblings = releases_of(view, &app_name)
            .into_iter()
            .filter(|sibling| sibling.name_any() != name);
        let asked = self.asked.get(name).into_iter().flatten();
        let snapshots = snapshots_of(view, &app_name, &self.frozen);
        Some(ReleaseObserved {
            claims: claims_of(view, &release, snapshots.get(name)),
            app: view.apps.get(&app_name).cloned(),
            siblings: siblings.collect(),
            snapshots,
            revisions: labelled(view, &app_name)
                .iter()
                .filter_map(|revision: &Arc<ControllerRevision>| {
                    ObjectRef::of(Kind::ControllerRevision, &revision.metadata)
                })
                .collect(),
            migrations: view
                .migrations
                .values()
                .filter(|found| found.spec.app == app_name)
                .cloned()
                .collect(),
            backups: view
                .backups
                .values()
                .filter(|found| found.spec.app == app_name)
                .cloned()
                .collect(),
            deployments: labelled(view, &app_name),
            pods: labelled(view, &app_name),
            jobs: labelled(view, &app_name),
            services: view.services.clone(),
            endpoint_slices: view.slices.values().cloned().collect(),
            probes: asked
                .map(|(uid, (_, health))| (uid.clone(), health.clone()))
                .collect(),
            refused: self.refusals(),
            dry_run_passed: self.dry_run_passed.clone(),
            release,
        })
    }
}

/// What became of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finished {
    /// The pass is over.
    Done,
    /// An answer has to be planned on first.
    Learned,
}

enum Answered {
    Passed,
    Failed,
    Unreachable,
}

fn answer(cluster: &Cluster, uid: &str, target: &ProbeTarget) -> Answered {
    let via = target.via.as_ref();
    if cluster.rules.probes_are_blocked || via.is_some_and(|via| via.address.is_none()) {
        return Answered::Unreachable;
    }
    match cluster.health(uid) {
        Some(true) => Answered::Passed,
        Some(false) => Answered::Failed,
        None => Answered::Unreachable,
    }
}

fn count(health: &mut PodHealth, target: &ProbeTarget, answered: Answered) -> bool {
    let told = |health: &mut PodHealth, what: &str| {
        let told_before = health.last_failure.as_deref() == Some(what);
        health.last_failure = Some(what.to_owned());
        !told_before
    };
    match answered {
        Answered::Passed => {
            health.passed += 1;
            health.passes += 1;
            (health.failures, health.unreachable) = (0, 0);
            health.proven |= health.passes >= target.success_threshold;
            health.passes == target.success_threshold
        }
        Answered::Failed => {
            health.failed += 1;
            health.failures += 1;
            (health.passes, health.unreachable) = (0, 0);
            told(health, "GET /health answered 500 instead of 200")
                || health.failures == target.failure_threshold
        }
        Answered::Unreachable => {
            health.failed += 1;
            health.unreachable += 1;
            (health.passes, health.failures) = (0, 0);
            told(health, "no connection could be made")
                || [1, target.failure_threshold].contains(&health.unreachable)
        }
    }
}

fn observe_app(view: &Objects, name: &str, frozen: &Frozen) -> Option<AppObserved> {
    Some(AppObserved {
        app: view.apps.get(name)?.clone(),
        releases: releases_of(view, name),
        snapshots: snapshots_of(view, name, frozen),
        deployments: labelled(view, name),
        pods: labelled(view, name),
        migrations: view
            .migrations
            .values()
            .filter(|found| found.spec.app == name)
            .cloned()
            .collect(),
    })
}

fn observe_migration(view: &Objects, name: &str, frozen: &Frozen) -> Option<MigrationObserved> {
    let migration = view.migrations.get(name)?.clone();
    let app = view.apps.get(&migration.spec.app).cloned();
    let release = migration
        .spec
        .release
        .as_deref()
        .and_then(|release| view.releases.get(release))
        .cloned();
    Some(MigrationObserved {
        snapshot: snapshot_for(view, app.as_ref(), migration.spec.release.as_deref(), frozen),
        app,
        release,
        jobs: working_for(view, name, &["migrate", "settle"]),
        pods: working_for(view, name, &["migrate", "settle"]),
        refused: BTreeMap::new(),
        migration,
    })
}

fn observe_backup(view: &Objects, name: &str, frozen: &Frozen) -> Option<BackupObserved> {
    let backup = view.backups.get(name)?.clone();
    let app = view.apps.get(&backup.spec.app).cloned();
    let release = backup
        .spec
        .release
        .as_deref()
        .and_then(|release| view.releases.get(release))
        .cloned();
    Some(BackupObserved {
        snapshot: snapshot_for(view, app.as_ref(), backup.spec.release.as_deref(), frozen),
        app,
        release,
        jobs: working_for(view, name, &["backup"]),
        pods: working_for(view, name, &["backup"]),
        refused: BTreeMap::new(),
        backup,
    })
}

fn releases_of(view: &Objects, app: &str) -> Vec<Arc<Release>> {
    let mut releases: Vec<_> = view
        .releases
        .values()
        .filter(|release| release.spec.app == app)
        .cloned()
        .collect();
    releases.sort_by_key(|release| release.spec.revision);
    releases
}

fn snapshots_of(view: &Objects, app: &str, frozen: &Frozen) -> Frozen {
    let names = releases_of(view, app)
        .into_iter()
        .map(|release| release.name_any());
    names
        .filter_map(|name| snapshot_of(view, &name, frozen).map(|snapshot| (name, snapshot)))
        .collect()
}

/// The claims that the real operator would ask for.
fn claims_of(
    view: &Objects,
    release: &Release,
    snapshot: Option<&Arc<Snapshot>>,
) -> BTreeMap<String, Arc<PersistentVolumeClaim>> {
    let snapshot = snapshot.filter(|_| !release::history::has_begun(release));
    let mounts = snapshot
        .into_iter()
        .flat_map(|snapshot| release::claims::mounts(snapshot));
    mounts
        .filter_map(|mount| Some((mount.claim.to_owned(), view.claims.get(mount.claim)?.clone())))
        .collect()
}

fn snapshot_of(view: &Objects, release: &str, frozen: &Frozen) -> Option<Arc<Snapshot>> {
    frozen.get(&view.revisions.get(release)?.uid()?).cloned()
}

fn snapshot_for(
    view: &Objects,
    app: Option<&Arc<App>>,
    release: Option<&str>,
    frozen: &Frozen,
) -> Option<Arc<Snapshot>> {
    match release {
        Some(release) => snapshot_of(view, release, frozen),
        None => app.map(|app| Arc::new(Snapshot::of(&app.spec))),
    }
}

fn labelled<T: Stored>(view: &Objects, app: &str) -> Vec<Arc<T>> {
    let ours = |object: &&Arc<T>| object.labels().get(labels::APP).is_some_and(|found| found == app);
    T::shelf(view).values().filter(ours).cloned().collect()
}

fn working_for<T: Stored>(view: &Objects, name: &str, works: &[&str]) -> Vec<Arc<T>> {
    let does = |object: &&Arc<T>| {
        let labels = object.labels();
        labels.get(labels::WORK_FOR).is_some_and(|found| found == name)
            && labels
                .get(labels::WORK)
                .is_some_and(|work| works.contains(&work.as_str()))
    };
    T::shelf(view).values().filter(does).cloned().collect()
}
