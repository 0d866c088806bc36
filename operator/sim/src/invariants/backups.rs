//! Backups of a schedule, and the removal of backups.

use super::{Checker, Observations, changed, same_in};
use crate::cluster::Cluster;
use crate::store::Objects;
use fairway_crds::Backup;
use fairway_crds::backup::Removal;
use fairway_plan::proof::{is_verified, taken_at};
use fairway_plan::release::history::has_ended;
use fairway_plan::{labels, names};
use jiff::Timestamp;
use kube::ResourceExt;
use std::collections::BTreeMap;
use std::sync::Arc;

fn removal_of(backup: &Backup) -> Option<&Removal> {
    backup.status.as_ref()?.removal.as_ref()
}

impl Checker {
    /// A run of a schedule has at most one Backup, not before its time, and not beside that of another run.
    pub(super) fn scheduled(&mut self, before: &Objects, cluster: &Cluster) {
        let after = cluster.objects();
        let run_of = |name: &str, backup: &Backup| names::scheduled_run(&backup.spec.app, name);
        let gone = before.backups.keys();
        for name in gone.filter(|name| !after.backups.contains_key(*name)) {
            self.scheduled.remove(name);
        }
        for (name, backup) in &after.backups {
            let Some(run) = run_of(name, backup) else { continue };
            if before.backups.contains_key(name) {
                continue;
            }
            if !self.scheduled.insert(name.clone()) {
                self.violated(format!("Backup {name} was created twice"));
            }
            if run > cluster.now {
                self.violated(format!("Backup {name} was created before its time"));
            }
            let mut others = before.backups.iter();
            let is_beside = others.any(|(other, found)| {
                let status = found.status.as_ref();
                let has_ended = status.is_some_and(|status| status.outcome.is_some());
                found.spec.app == backup.spec.app
                    && run_of(other, found).is_some()
                    && !has_ended
                    && found.metadata.deletion_timestamp.is_none()
            });
            if is_beside && self.observations == Observations::Current {
                self.violated(format!(
                    "Backup {name} was created beside another one of the schedule"
                ));
            }
        }
    }

    /// A set goes only when that is stored in its Backup, while its App is there, and never the newest verified one of those
    /// in the store; and nothing that a release refers to is to be removed before it has ended and a later one serves.
    pub(super) fn removals(&mut self, before: &Objects, cluster: &Cluster) {
        let after = cluster.objects();
        for (name, backup) in changed(&before.backups, &after.backups) {
            self.decided(before, after, name, backup);
            let set = backup.status.as_ref().and_then(|status| status.set.as_ref());
            if let (true, Some(set), Some(taken)) = (is_verified(backup), set, taken_at(backup)) {
                let verified = (taken, name.clone());
                self.verified.insert(set.path.clone(), verified);
            }
        }
        self.begun(before, after);
        let sets: BTreeMap<String, bool> = cluster
            .database
            .sets
            .iter()
            .map(|(path, (_, has_manifest))| (path.clone(), *has_manifest))
            .collect();
        let earlier = std::mem::replace(&mut self.sets, sets.clone());
        for (path, had_manifest) in earlier {
            // Between two checks the manifest may go alone, or with the rest.
            let has_manifest = sets.get(&path).is_some_and(|has_manifest| *has_manifest);
            if had_manifest && !has_manifest {
                self.going(after, &path);
            }
        }
    }

    /// It is decided of a Backup that nobody needs, and for good.
    fn decided(&mut self, before: &Objects, after: &Objects, name: &str, backup: &Arc<Backup>) {
        let old = same_in(&before.backups, backup).map(|old| removal_of(old).is_some());
        match (old, removal_of(backup).is_some()) {
            (Some(true), false) => {
                self.violated(format!("Backup {name} came back after its removal was decided"));
            }
            (Some(false), true) if self.observations == Observations::Current => {
                let app = after.apps.get(&backup.spec.app);
                let live = app.and_then(|app| app.status.as_ref()?.live.as_ref());
                let mut releases = after.releases.values();
                let holder = releases.find(|release| {
                    let evidence = release.status.as_ref();
                    let evidence = evidence.and_then(|status| status.evidence.backup.as_ref());
                    let refers = backup.spec.release.as_ref() == Some(&release.name_any())
                        || evidence.is_some_and(|evidence| evidence.name == name);
                    let is_replaced = live.is_some_and(|live| release.spec.revision < live.revision);
                    refers && !(has_ended(release) && is_replaced)
                });
                if let Some(holder) = holder {
                    self.violated(format!(
                        "Backup {name} is to be removed, and {} refers to it",
                        holder.name_any()
                    ));
                }
            }
            _ => {}
        }
    }

    /// A Job that removes a set begins only when that is stored, and its App is there.
    fn begun(&mut self, before: &Objects, after: &Objects) {
        let jobs = after.jobs.iter().filter(|(name, job)| {
            let work = job.labels().get(labels::WORK);
            work.is_some_and(|work| work == labels::Work::Prune.as_str()) && !before.jobs.contains_key(*name)
        });
        let begun: Vec<_> = jobs
            .map(|(name, job)| (name.clone(), job.labels().get(labels::WORK_FOR).cloned()))
            .collect();
        for (name, work_for) in begun {
            let backup = work_for.and_then(|work_for| before.backups.get(&work_for));
            let attempts = backup.and_then(|backup| removal_of(backup)?.attempts.as_ref());
            if attempts.is_none() && self.observations == Observations::Current {
                self.violated(format!("Job {name} began before its attempt was stored"));
            }
            let keeps = backup
                .and_then(|backup| before.apps.get(&backup.spec.app))
                .is_some_and(|app| {
                    let settings = app.spec.backup.as_ref();
                    let stays = app.metadata.deletion_timestamp.is_none() && !app.spec.suspend;
                    stays && settings.is_some_and(|settings| settings.keep.is_some())
                });
            if !keeps && self.observations == Observations::Current {
                self.violated(format!("Job {name} began although its App wants no removal"));
            }
        }
    }

    /// The manifest of a set is removed, and perhaps the rest of the set, too.
    fn going(&mut self, after: &Objects, path: &str) {
        let decided = after.backups.values().any(|backup| {
            let removal = removal_of(backup);
            removal.is_some_and(|removal| removal.set.path == path)
        });
        // A user may have deleted the Backup while its Job was at work.
        let was_of_a_backup = after.backups.values().any(|backup| {
            let set = backup.status.as_ref().and_then(|status| status.set.as_ref());
            set.is_some_and(|set| set.path == path)
        });
        if was_of_a_backup && !decided {
            self.violated(format!("set {path} goes, and no Backup says so"));
        }
        let Some(own) = self.verified.get(path).cloned() else {
            return;
        };
        let is_newer = |(other, taken): (&String, &(Timestamp, String))| {
            *taken > own && self.sets.get(other).is_some_and(|has_manifest| *has_manifest)
        };
        if !self.verified.iter().any(is_newer) {
            self.violated(format!("set {path} goes, the newest verified one in the store"));
        }
    }
}
