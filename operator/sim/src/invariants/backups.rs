//! Backups of a schedule.

use super::{Checker, Observations};
use crate::cluster::Cluster;
use crate::store::Objects;
use fairway_crds::Backup;
use fairway_plan::names;

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
}
