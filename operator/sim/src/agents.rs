//! The agent in its pods: reads its task as the real one does, asks the database, answers in the termination
//! message.

use crate::cluster::Cluster;
use crate::database::{Claim, Effect, environment, report};
use crate::pod_run::{Answer, PodRun};
use fairway_plan::message::moment;
use fairway_plan::protocol::{
    BackupEvidence, BackupReport, BackupTask, GuardTask, MigrationOutcome, MigrationReport, MigrationTask,
    PreflightReport, PreflightTask, PruneOutcome, PruneReport, PruneTask, Reason, RestoreReport, RestoreStep,
    RestoreTask, RunIdentity, SettleTask, Task,
};
use jiff::SignedDuration;

/// Seconds for which an unreachable database is waited for.
const REACH: u32 = 3;
/// Seconds for which the lock is waited for.
const PATIENCE: u32 = 12;

impl Cluster {
    /// One second of an agent's life. Returns its answer once it has one.
    pub(crate) fn work(&mut self, uid: &str, run: &mut PodRun, task: &Task) -> Option<Answer> {
        run.worked += 1;
        match task {
            Task::Preflight(task) => self.preflight(run, task),
            Task::Backup(task) => self.back_up(uid, run, task),
            Task::Prune(task) => self.prune(run, task),
            Task::Migrate(task) => self.migrate(uid, run, task),
            Task::Guard(task) => self.guard(uid, run, task),
            Task::Settle(task) => self.settle(uid, run, task),
            Task::Probe(_) => None,
            Task::Restore(task) => self.restore(uid, run, task),
        }
    }

    fn preflight(&self, run: &PodRun, task: &PreflightTask) -> Option<Answer> {
        if run.worked < 2 {
            return None;
        }
        let unsettled = self.database.unsettled("").filter(|_| task.migrates).map(|row| {
            environment(
                Reason::MigrationUnresolved,
                format!("Migration {} is not settled.", row.identity.run_id),
            )
        });
        let full = || {
            let full = self.database.store_is_full && task.store.is_some();
            full.then(|| environment(Reason::StoreFull, "The store is full."))
        };
        let failure = self.database.refusal().or(unsettled).or_else(full);
        let exit_code = i32::from(failure.is_some());
        let report = PreflightReport {
            checks: vec![("database".to_owned(), failure.is_none())],
            failure,
            server_version: Some("16.4".to_owned()),
            database_bytes: Some(1 << 20),
        };
        Some(Answer::of(&report, exit_code))
    }

    fn back_up(&mut self, uid: &str, run: &PodRun, task: &BackupTask) -> Option<Answer> {
        let mut dumps = self.database.dumps.iter();
        let is_other = |(pod, backup): (&String, &String)| *backup != task.backup_uid && self.is_running(pod);
        if dumps.any(is_other) {
            let failure = environment(Reason::WaitingForBackup, "Another Backup dumps this database.");
            let report = BackupReport {
                evidence: None,
                failure: Some(failure),
            };
            return Some(Answer::of(&report, 1));
        }
        if run.worked == 1 && self.is_locked_by_other(uid) {
            let failure = environment(
                Reason::WaitingForMigration,
                "A migration runs on this database, and no dump begins beside it.",
            );
            let report = BackupReport {
                evidence: None,
                failure: Some(failure),
            };
            return Some(Answer::of(&report, 1));
        }
        if run.worked < 3 {
            self.database
                .dumps
                .insert(uid.to_owned(), task.backup_uid.clone());
            return None;
        }
        self.database.dumps.remove(uid);
        let full = self
            .database
            .store_is_full
            .then(|| environment(Reason::StoreFull, "The store is full."));
        let failure = self.database.refusal().or(full);
        if failure.is_none() {
            self.database.store(&task.set, &task.backup_uid);
        }
        let evidence = failure.is_none().then(|| BackupEvidence {
            level: "Decoded".to_owned(),
            bytes: 4096,
            sha256: fairway_plan::names::sha256_hex(self.database.fingerprint()),
            taken_at: moment(self.now - SignedDuration::from_secs(2)),
            server_version: "16.4".to_owned(),
            fingerprint: self.database.fingerprint(),
            seconds: 2.0,
            notes: Vec::new(),
        });
        Some(Answer::of(
            &BackupReport {
                evidence,
                failure: failure.clone(),
            },
            i32::from(failure.is_some()),
        ))
    }

    /// Removes the manifest of a set in the first second, and the rest in the second one.
    fn prune(&mut self, run: &PodRun, task: &PruneTask) -> Option<Answer> {
        let database = &mut self.database;
        let answer = |outcome, note: Option<&str>| {
            let report = PruneReport {
                outcome: Some(outcome),
                objects: 2,
                bytes: 4096,
                until: None,
                note: note.map(str::to_owned),
                failure: None,
            };
            Some(Answer::of(&report, 0))
        };
        if database.store_is_locked {
            return answer(PruneOutcome::Retained, Some("The store refuses to delete."));
        }
        match database.sets.get_mut(&task.set) {
            Some((uid, has_manifest)) if *uid != task.backup_uid && *has_manifest => {
                return answer(PruneOutcome::Retained, Some("The set is of another Backup."));
            }
            Some((_, has_manifest)) if run.worked < 2 => {
                *has_manifest = false;
                return None;
            }
            _ => {}
        }
        database.sets.remove(&task.set);
        match database.store_has_versions {
            true => answer(PruneOutcome::Hidden, Some("The bucket keeps versions.")),
            false => answer(PruneOutcome::Removed, None),
        }
    }

    fn restore(&mut self, uid: &str, run: &PodRun, task: &RestoreTask) -> Option<Answer> {
        if run.worked < 3 {
            return None;
        }
        let running = || {
            let is_locked = task.step != RestoreStep::Discard && self.is_locked_by_other(uid);
            is_locked.then(|| environment(Reason::MigrationRunning, "Another pod holds the lock."))
        };
        let report = match self.database.refusal().or_else(running) {
            None => self.database.restore(task),
            Some(failure) => RestoreReport {
                prepared: None,
                swapped: None,
                loss: None,
                failure: Some(failure),
            },
        };
        let exit_code = i32::from(report.failure.is_some());
        Some(Answer::of(&report, exit_code))
    }

    fn migrate(&mut self, uid: &str, run: &mut PodRun, task: &MigrationTask) -> Option<Answer> {
        if run.before.is_none() {
            return self.begin(uid, run, &task.run.requester.release, &task.run.identity);
        }
        run.migrated += 1;
        let hangs = self.effect(&task.run.identity) == Effect::Hangs;
        let lasts = if hangs {
            task.run.timeout_seconds
        } else {
            u64::from(self.pace.migration)
        };
        if u64::from(run.migrated) < lasts || self.database.is_down {
            return None;
        }
        self.database.lock = None;
        let report = self.database.conclude(&task.run.identity);
        Some(Answer::of_migration(&begun(run, report)))
    }

    fn guard(&mut self, uid: &str, run: &mut PodRun, task: &GuardTask) -> Option<Answer> {
        if run.before.is_none() {
            return self.begin(uid, run, &task.run.requester.release, &task.run.identity);
        }
        run.migrated += 1;
        let effect = self.effect(&task.run.identity);
        let is = |images: &std::collections::BTreeSet<String>| {
            images
                .iter()
                .any(|image| crate::images::digest(image) == task.run.identity.image_digest)
        };
        let exits = is(&self.images.crashing) || matches!(effect, Effect::Fails | Effect::FailsHalfway);
        let unhealthy = is(&self.images.unhealthy) || effect == Effect::Hangs;
        let report = if run.is_ending || exits && run.migrated >= self.pace.migration {
            run.application_exited = true;
            self.database
                .stopped(&task.run.identity, "exited before its health passed")
        } else if unhealthy && u64::from(run.migrated) >= task.run.timeout_seconds {
            self.database
                .give_up(&task.run.identity, "did not become healthy in time")
        } else if exits || unhealthy || run.migrated < self.pace.migration || self.database.is_down {
            return None;
        } else {
            self.database.conclude(&task.run.identity)
        };
        self.database.lock = None;
        Some(Answer::of_migration(&begun(run, report)))
    }

    /// Takes the lock, asks the ledger, and writes the row.
    fn begin(
        &mut self,
        uid: &str,
        run: &mut PodRun,
        release: &str,
        identity: &RunIdentity,
    ) -> Option<Answer> {
        let failure = match self.database.refusal() {
            Some(failure) if run.worked >= REACH => failure,
            Some(_) => return None,
            None if self.is_locked_by_other(uid) && run.worked < PATIENCE => return None,
            None if self.is_locked_by_other(uid) => {
                environment(Reason::MigrationRunning, "Another pod holds the lock.")
            }
            None => {
                return match self.database.claim(release, identity) {
                    Claim::Begun => {
                        self.database.lock = Some(uid.to_owned());
                        let row = self.database.row(&identity.run_id);
                        run.before = row.map(|row| row.before.clone());
                        None
                    }
                    Claim::Settled(report) => Some(Answer::of_migration(&report)),
                };
            }
        };
        Some(Answer::of_migration(&report(
            MigrationOutcome::NotStarted,
            Some(failure),
        )))
    }

    fn settle(&mut self, uid: &str, run: &PodRun, task: &SettleTask) -> Option<Answer> {
        let undecided = |failure| {
            Some(Answer::of_migration(&report(
                MigrationOutcome::Undecided,
                Some(failure),
            )))
        };
        if let Some(failure) = self.database.refusal() {
            return if run.worked < REACH {
                None
            } else {
                undecided(failure)
            };
        }
        let row = self.database.row(&task.run.run_id);
        let has_ended = row.is_some_and(|row| row.state != crate::database::State::Running);
        if (!has_ended || task.resolution.is_some()) && self.is_locked_by_other(uid) {
            let failure = environment(Reason::MigrationRunning, "Another pod holds the lock.");
            return if u64::from(run.worked) < task.timeout_seconds {
                None
            } else {
                undecided(failure)
            };
        }
        Some(Answer::of_migration(&self.database.settle(
            &task.run,
            task.resolution,
            task.before.as_deref(),
        )))
    }

    fn effect(&self, identity: &RunIdentity) -> Effect {
        let effects = &self.database.effects;
        let effect = effects
            .iter()
            .find(|(image, _)| crate::images::digest(image) == identity.image_digest);
        effect.map(|(_, effect)| *effect).unwrap_or_default()
    }

    fn is_locked_by_other(&self, uid: &str) -> bool {
        let holder = self.database.lock.as_deref();
        holder.is_some_and(|holder| holder != uid && self.is_running(holder))
    }
}

/// A report of a run that has begun says so.
fn begun(run: &PodRun, report: MigrationReport) -> MigrationReport {
    MigrationReport {
        before: report.before.or_else(|| run.before.clone()),
        ..report
    }
}
