//! The story as a reviewer reads it: each write of the operator and each change of a status is one line.

use crate::store::{ApiError, Objects};
use crate::traffic::destination;
use fairway_crds::Reason;
use fairway_crds::app::BackupState;
use fairway_crds::condition::{READY, SUCCEEDED, WARNED};
use fairway_crds::release::ReleaseOutcome;
use fairway_engine::kinds::Kind;
use fairway_plan::Step;
use fairway_plan::object::Object;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use kube::core::ObjectMeta;
use std::sync::Arc;

/// Lines so far.
#[derive(Clone, Debug)]
pub struct Transcript {
    begin: Timestamp,
    lines: Vec<String>,
    is_kept: bool,
}

impl Transcript {
    /// An empty one; times are counted from `begin`.
    pub fn new(begin: Timestamp) -> Self {
        Self {
            begin,
            lines: Vec::new(),
            is_kept: true,
        }
    }

    /// Keeps nothing, where nobody reads it.
    pub fn silent(begin: Timestamp) -> Self {
        Self {
            is_kept: false,
            ..Self::new(begin)
        }
    }

    /// Takes the lines added since the last time.
    pub fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.lines)
    }

    /// Adds a line.
    pub fn add(&mut self, now: Timestamp, line: impl AsRef<str>) {
        if self.is_kept {
            let seconds = now.duration_since(self.begin).as_secs();
            self.lines
                .push(format!("{:>6} {}", format!("+{seconds}s"), line.as_ref()));
        }
    }

    /// Adds a line for a step.
    pub(crate) fn step(
        &mut self,
        now: Timestamp,
        step: &Step,
        result: &Result<Option<ObjectMeta>, ApiError>,
    ) {
        if !self.is_kept {
            return;
        }
        let what = match step {
            Step::Apply(object) => format!("apply {}", described(object)),
            Step::Replace(object, managers) => {
                format!(
                    "replace {}, changed by {}",
                    described(object),
                    managers.join(", ")
                )
            }
            Step::DryRun(object) => format!("dry run {}", described(object)),
            Step::Create(object) => format!("create {}", described(object)),
            Step::Scale(target, replicas) => {
                format!("scale {} {} to {replicas}", target.kind.as_str(), target.name)
            }
            Step::TakeOver(target, replicas) => {
                format!(
                    "take over from {} {}, which had {replicas} replicas",
                    target.kind.as_str(),
                    target.name
                )
            }
            Step::Delete(target) => format!("delete {} {}", target.kind.as_str(), target.name),
        };
        let ending = match result {
            Ok(_) => String::new(),
            Err(ApiError::Refused { message, .. }) => format!(" (refused: {message})"),
            Err(error) => format!(" ({error:?})"),
        };
        self.add(now, format!("{what}{ending}"));
    }

    /// Adds a line for each difference of a status from the one before.
    pub(crate) fn status(
        &mut self,
        now: Timestamp,
        kind: Kind,
        name: &str,
        before: &Objects,
        after: &Objects,
    ) {
        if !self.is_kept {
            return;
        }
        let (old, new) = (
            described_status(before, kind, name),
            described_status(after, kind, name),
        );
        let news: Vec<_> = new.into_iter().filter(|line| !old.contains(line)).collect();
        if news.is_empty() && before_is_other(before, after, kind, name) {
            self.add(now, format!("{} {name}: evidence kept", kind.as_str()));
        }
        for line in news {
            self.add(now, format!("{} {name}: {line}", kind.as_str()));
        }
    }
}

fn before_is_other(before: &Objects, after: &Objects, kind: Kind, name: &str) -> bool {
    let version = |objects: &Objects| objects.meta(kind, name)?.resource_version.clone();
    version(before) != version(after)
}

fn described(object: &Object) -> String {
    let name = object.meta().name.clone().unwrap_or_default();
    let kind = object.kind().as_str();
    match object {
        Object::Deployment(deployment) => {
            let replicas = deployment
                .spec
                .as_ref()
                .and_then(|spec| spec.replicas)
                .unwrap_or_default();
            format!("{kind} {name} with {replicas} replicas")
        }
        Object::Service(service) => {
            let release = destination(&Arc::new(service.clone()));
            let release = release.as_deref().unwrap_or("nothing");
            format!("{kind} {name} selecting {release}")
        }
        _ => format!("{kind} {name}"),
    }
}

/// What a status says, as lines.
fn described_status(objects: &Objects, kind: Kind, name: &str) -> Vec<String> {
    match kind {
        Kind::App => objects
            .apps
            .get(name)
            .and_then(|app| app.status.as_ref())
            .map_or_else(Vec::new, |status| {
                let mut lines = Vec::new();
                lines.extend(
                    status
                        .revision
                        .map(|revision| format!("revision {revision} is recorded")),
                );
                lines.extend(
                    status
                        .live
                        .as_ref()
                        .map(|live| format!("live is {}", live.release)),
                );
                lines.extend(conditions(&status.conditions, READY));
                lines.extend(status.backup.iter().flat_map(of_backups));
                lines.extend(conditions_of_backups(&status.conditions));
                lines
            }),
        Kind::Release => objects
            .releases
            .get(name)
            .and_then(|found| found.status.as_ref())
            .map_or_else(Vec::new, |status| {
                let mut lines: Vec<_> = status
                    .milestones
                    .iter()
                    .map(|milestone| format!("milestone {:?}", milestone.kind))
                    .collect();
                lines.extend(status.outcome.map(|outcome| format!("outcome {outcome:?}")));
                lines.extend(conditions(&status.conditions, SUCCEEDED));
                let warned = status
                    .conditions
                    .iter()
                    .filter(|condition| condition.type_ == WARNED);
                lines.extend(warned.map(|condition| format!("{}: {}", condition.reason, condition.message)));
                lines
            }),
        Kind::Migration => objects
            .migrations
            .get(name)
            .and_then(|found| found.status.as_ref())
            .map_or_else(Vec::new, |status| {
                let mut lines: Vec<_> = status
                    .run_id
                    .iter()
                    .map(|_| "run is recorded".to_owned())
                    .collect();
                lines.extend(status.outcome.map(|outcome| format!("outcome {outcome:?}")));
                lines.extend(conditions(&status.conditions, SUCCEEDED));
                lines
            }),
        Kind::Backup => objects
            .backups
            .get(name)
            .and_then(|found| found.status.as_ref())
            .map_or_else(Vec::new, |status| {
                let mut lines = Vec::new();
                lines.extend(status.outcome.map(|outcome| format!("outcome {outcome:?}")));
                lines.extend(conditions(&status.conditions, SUCCEEDED));
                let kept = status.kept_because.join(", ");
                lines.extend((!kept.is_empty()).then(|| format!("kept because of {kept}")));
                let removal = status.removal.as_ref();
                lines.extend(removal.map(|removal| format!("removal {:?}", removal.state)));
                lines
            }),
        Kind::Restore => objects
            .restores
            .get(name)
            .and_then(|found| found.status.as_ref())
            .map_or_else(Vec::new, |status| {
                let mut lines = Vec::new();
                lines.extend(status.agreed.as_ref().map(|agreed| match agreed.rows {
                    Some(rows) => format!("agreed to lose {rows} row changes"),
                    None => "agreed to lose any".to_owned(),
                }));
                lines.extend(status.outcome.map(|outcome| format!("outcome {outcome:?}")));
                lines.extend(conditions(&status.conditions, SUCCEEDED));
                lines
            }),
        _ => Vec::new(),
    }
}

/// What an App says of its scheduled backups.
fn of_backups(state: &BackupState) -> Vec<String> {
    let next = state.next_runs.first();
    let next = next.map(|next| format!("the next scheduled backup begins at {next}"));
    let newest = state.last_verified.as_ref();
    let newest = newest.map(|newest| format!("Backup {} is the newest verified one", newest.name));
    next.into_iter().chain(newest).collect()
}

/// What an App's conditions say of its backups.
fn conditions_of_backups(conditions: &[Condition]) -> Vec<String> {
    let is_of_backups = |condition: &&Condition| {
        let reasons = [
            Reason::BackupOverdue,
            Reason::ScheduleInvalid,
            Reason::FinalBackupTaken,
            Reason::BackupFailed,
        ]
        .map(Reason::as_str);
        reasons.contains(&condition.reason.as_str())
    };
    let shown = conditions.iter().filter(is_of_backups);
    shown
        .map(|condition| format!("{}: {}", condition.reason, condition.message))
        .collect()
}

/// The leading condition with reason and message, and every other one that is true.
fn conditions(conditions: &[Condition], leading: &str) -> Vec<String> {
    let first = conditions.iter().find(|condition| condition.type_ == leading);
    let first = first.map(|condition| {
        format!(
            "{}={} {}: {}",
            condition.type_, condition.status, condition.reason, condition.message
        )
    });
    let others = conditions.iter().filter(|condition| {
        condition.status == "True" && !["Ready", "Succeeded"].contains(&condition.type_.as_str())
    });
    first
        .into_iter()
        .chain(others.map(|condition| format!("{}=True", condition.type_)))
        .collect()
}

/// Names and outcomes at the end of a story, without what differs between runs that end alike: times, versions,
/// attempts.
pub fn end_state(objects: &Objects) -> String {
    let mut lines = Vec::new();
    for (name, app) in &objects.apps {
        let status = app.status.clone().unwrap_or_default();
        let live = status.live.map(|live| live.release);
        lines.push(format!(
            "App {name}: revision {:?} desired {:?} live {live:?} {}",
            status.revision,
            status.desired,
            summary(&status.conditions)
        ));
    }
    for (name, release) in &objects.releases {
        let status = release.status.clone().unwrap_or_default();
        let milestones: Vec<_> = status.milestones.iter().map(|milestone| milestone.kind).collect();
        // How far a release came before another took its place is chance.
        let came = match status.outcome {
            Some(ReleaseOutcome::Superseded) => String::new(),
            _ => format!("previous {:?} digests {}", status.previous, status.digests.len()),
        };
        lines.push(format!(
            "Release {name}: {:?} {milestones:?} {came} {}",
            status.outcome,
            summary(&status.conditions)
        ));
    }
    for (name, migration) in &objects.migrations {
        let status = migration.status.clone().unwrap_or_default();
        lines.push(format!(
            "Migration {name}: {:?} {}",
            status.outcome,
            summary(&status.conditions)
        ));
    }
    for (name, backup) in &objects.backups {
        let status = backup.status.clone().unwrap_or_default();
        lines.push(format!(
            "Backup {name}: {:?} {}",
            status.outcome,
            summary(&status.conditions)
        ));
    }
    for (name, restore) in &objects.restores {
        let status = restore.status.clone().unwrap_or_default();
        lines.push(format!(
            "Restore {name}: {:?} {}",
            status.outcome,
            summary(&status.conditions)
        ));
    }
    for name in objects.revisions.keys() {
        // Whether a release that another one superseded was given a snapshot is chance too.
        let release = objects
            .releases
            .get(name)
            .and_then(|release| release.status.as_ref());
        if release.and_then(|status| status.outcome) == Some(ReleaseOutcome::Superseded) {
            continue;
        }
        lines.push(format!("ControllerRevision {name}"));
    }
    for (name, deployment) in &objects.deployments {
        let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas);
        lines.push(format!("Deployment {name}: {replicas:?}"));
    }
    for (name, service) in &objects.services {
        lines.push(format!("Service {name} selecting {:?}", destination(service)));
    }
    for (name, job) in &objects.jobs {
        // How often the environment was checked is no part of how it ends.
        lines.push(format!(
            "Job {}",
            name.trim_end_matches(|last: char| last.is_ascii_digit() || last == '-')
        ));
        let _ = job;
    }
    for pod in objects.pods.values() {
        let labels = pod.labels();
        let of = |key: &str| labels.get(key).map(String::as_str).unwrap_or_default();
        lines.push(format!(
            "Pod of {} {}{} {}",
            of(fairway_plan::labels::RELEASE),
            of(fairway_plan::labels::COMPONENT),
            of(fairway_plan::labels::WORK),
            pod.status
                .as_ref()
                .and_then(|status| status.phase.as_deref())
                .unwrap_or("new")
        ));
    }
    lines.sort();
    lines.join("\n")
}

fn summary(conditions: &[Condition]) -> String {
    let mut parts: Vec<_> = conditions
        .iter()
        .map(|condition| format!("{}={}/{}", condition.type_, condition.status, condition.reason))
        .collect();
    parts.sort();
    parts.join(" ")
}
