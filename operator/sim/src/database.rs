//! A database with its ledger, by the rules of the agent: one run at a time under a lock, a row before anything
//! is executed, an image and command that are in the ledger never again.

use fairway_plan::names::short_hash;
use fairway_plan::protocol::{
    Cause, Failure, Loss, MigrationOutcome, MigrationReport, PreparedDatabase, Reason, Resolution,
    RestoreReport, RestoreStep, RestoreTask, RunIdentity, SwappedDatabase,
};
use std::collections::{BTreeMap, BTreeSet};

/// How far a run came, as the ledger has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its process may be alive.
    Running,
    /// It did its work.
    Committed,
    /// It failed and the schema is what it was.
    Failed,
    /// It failed and the schema changed.
    Partial,
    /// What it did cannot be decided.
    Unknown,
}

/// One row of the ledger.
#[derive(Clone, Debug)]
pub struct Row {
    /// Which run.
    pub identity: RunIdentity,
    /// How far it came.
    pub state: State,
    /// A user's verdict.
    pub resolution: Option<Resolution>,
    /// Fingerprint of the schema before the run.
    pub before: String,
    after: Option<String>,
    message: String,
    /// Whether it was written because the row was lost of a run that had begun.
    replaces_lost: bool,
}

/// A migration that was really executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Execution {
    /// For which release.
    pub release: String,
    /// Which run.
    pub identity: RunIdentity,
}

/// What a version's migration does to the schema.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Effect {
    /// It changes the schema at its end, in one transaction.
    #[default]
    Changes,
    /// It changes the schema when it begins and again at its end.
    ChangesInSteps,
    /// It succeeds without changing anything.
    Nothing,
    /// It fails and leaves the schema as it was.
    Fails,
    /// It fails after it has changed the schema.
    FailsHalfway,
    /// It never ends by itself.
    Hangs,
}

/// Whether a run may start.
#[derive(Clone, Debug)]
pub enum Claim {
    /// The row is written, the run must be executed.
    Begun,
    /// Nothing is to be run.
    Settled(Box<MigrationReport>),
}

/// The database.
#[derive(Clone, Debug, Default)]
pub struct Database {
    /// Rows in the order in which they were written.
    pub rows: Vec<Row>,
    /// What was really executed, in order: the truth behind the ledger.
    pub executions: Vec<Execution>,
    /// It cannot be reached.
    pub is_down: bool,
    /// The Secret holds a wrong password.
    pub is_locked_out: bool,
    /// The store for backups is full.
    pub store_is_full: bool,
    /// The store for backups refuses to delete anything.
    pub store_is_locked: bool,
    /// The store for backups keeps versions of what is deleted.
    pub store_has_versions: bool,
    /// Sets of backups in the store by path: UID of the Backup, and whether the manifest is there.
    pub sets: BTreeMap<String, (String, bool)>,
    /// By image: what its migration does.
    pub effects: BTreeMap<String, Effect>,
    /// UID of the pod that holds the lock.
    pub lock: Option<String>,
    /// Dumps under way: UID of the pod, and of its Backup.
    pub dumps: BTreeMap<String, String>,
    /// Row changes that the application has made.
    pub changes: u64,
    /// UIDs of the Restores whose database is prepared, and which set it has.
    pub prepared: BTreeMap<String, String>,
    /// UIDs of the Restores whose database is, or was, in use.
    pub replaced: Vec<String>,
    contents: BTreeMap<String, Contents>,
    reverted: BTreeSet<String>,
    schema: Vec<String>,
}

/// What a backup holds.
#[derive(Clone, Debug, Default)]
struct Contents {
    rows: Vec<Row>,
    schema: Vec<String>,
    changes: u64,
}

impl Database {
    /// Why the database cannot be asked, if so.
    pub fn refusal(&self) -> Option<Failure> {
        if self.is_down {
            return Some(environment(
                Reason::DatabaseUnreachable,
                "The database does not answer.",
            ));
        }
        self.is_locked_out
            .then(|| environment(Reason::PasswordRejected, "The password is not accepted."))
    }

    /// A run whose outcome is open, other than that one.
    pub fn unsettled(&self, except: &str) -> Option<&Row> {
        self.rows.iter().find(|row| {
            row.identity.run_id != except
                && row.resolution.is_none()
                && matches!(row.state, State::Running | State::Partial | State::Unknown)
        })
    }

    /// Whether the ledger says that this image and command have done their work.
    pub fn has_applied(&self, identity: &RunIdentity) -> bool {
        self.rows.iter().any(|row| {
            row.did_its_work()
                && row.identity.image_digest == identity.image_digest
                && row.identity.command_hash == identity.command_hash
        })
    }

    /// The schema's fingerprint.
    pub fn fingerprint(&self) -> String {
        short_hash(self.schema.join(" "))
    }

    /// Asks the ledger, under the lock, and writes the row if the run may start.
    pub fn claim(&mut self, release: &str, identity: &RunIdentity) -> Claim {
        if let Some(row) = self.row(&identity.run_id) {
            if row.state == State::Running {
                self.cut_off(&identity.run_id);
            }
            return Claim::Settled(Box::new(self.report(identity)));
        }
        if let Some(other) = self.unsettled(&identity.run_id) {
            let message = format!("Migration {} is not settled.", other.identity.run_id);
            let failure = environment(Reason::MigrationUnresolved, message);
            return Claim::Settled(Box::new(report(MigrationOutcome::Blocked, Some(failure))));
        }
        if self.has_applied(identity) {
            let schema_ahead = self.is_ahead_of(identity);
            let settled = report(MigrationOutcome::AlreadyApplied, None);
            return Claim::Settled(Box::new(MigrationReport {
                schema_ahead,
                ..settled
            }));
        }
        self.rows.push(Row {
            identity: identity.clone(),
            state: State::Running,
            resolution: None,
            before: self.fingerprint(),
            after: None,
            message: String::new(),
            replaces_lost: false,
        });
        self.executions.push(Execution {
            release: release.to_owned(),
            identity: identity.clone(),
        });
        if matches!(
            self.effect(identity),
            Effect::ChangesInSteps | Effect::FailsHalfway
        ) {
            self.schema.push(format!("{} begun", identity.image_digest));
        }
        Claim::Begun
    }

    /// The process of a run has ended by itself.
    pub fn conclude(&mut self, identity: &RunIdentity) -> MigrationReport {
        let effect = self.effect(identity);
        match effect {
            Effect::Changes | Effect::ChangesInSteps => self.schema.push(identity.image_digest.clone()),
            Effect::Nothing | Effect::Fails | Effect::FailsHalfway | Effect::Hangs => {}
        }
        let succeeded = matches!(effect, Effect::Changes | Effect::ChangesInSteps | Effect::Nothing);
        let what = if effect == Effect::Hangs {
            "did not end in time"
        } else {
            "exited with code 1"
        };
        self.finish(&identity.run_id, succeeded, what, State::Partial);
        self.report(identity)
    }

    /// The process of a run was stopped before it succeeded.
    pub fn stopped(&mut self, identity: &RunIdentity, what: &str) -> MigrationReport {
        self.finish(&identity.run_id, false, what, State::Partial);
        self.report(identity)
    }

    /// The guard of a run gives it up; what it did is judged when its pod is gone.
    pub fn give_up(&mut self, identity: &RunIdentity, what: &str) -> MigrationReport {
        if let Some(row) = self.row_mut(&identity.run_id) {
            what.clone_into(&mut row.message);
        }
        let failure = Failure {
            cause: Cause::Version,
            reason: Reason::MigrationTimedOut,
            message: format!("The migration {what}."),
        };
        report(MigrationOutcome::Undecided, Some(failure))
    }

    /// Settles a run whose pod is gone. `before` is the fingerprint before it, where it is known to have begun.
    pub fn settle(
        &mut self,
        identity: &RunIdentity,
        resolution: Option<Resolution>,
        before: Option<&str>,
    ) -> MigrationReport {
        match self.row(&identity.run_id).map(|row| row.state) {
            None if self.reverted.contains(&identity.run_id) => {
                let failure = Failure {
                    cause: Cause::Version,
                    reason: Reason::MigrationNotApplied,
                    message: "A restore took the migration's work away.".to_owned(),
                };
                return report(MigrationOutcome::Failed, Some(failure));
            }
            None if before.is_some() || resolution.is_some() => self.rows.push(Row {
                identity: identity.clone(),
                state: State::Unknown,
                resolution: None,
                before: before.unwrap_or_default().to_owned(),
                after: None,
                message: "The ledger has no row of this run any more.".to_owned(),
                replaces_lost: true,
            }),
            None => {
                let failure = environment(Reason::MigrationNotStarted, "The ledger has no row of this run.");
                return report(MigrationOutcome::NotStarted, Some(failure));
            }
            Some(State::Running) => self.cut_off(&identity.run_id),
            Some(_) => {}
        }
        if let Some(row) = self.row_mut(&identity.run_id)
            && matches!(row.state, State::Partial | State::Unknown)
            && row.resolution.is_none()
        {
            row.resolution = resolution;
        }
        self.report(identity)
    }

    /// Stores a backup of this moment, that of the Backup with this UID.
    pub fn store(&mut self, set: &str, backup_uid: &str) {
        let contents = Contents {
            rows: self.rows.clone(),
            schema: self.schema.clone(),
            changes: self.changes,
        };
        self.sets.insert(set.to_owned(), (backup_uid.to_owned(), true));
        self.contents.insert(set.to_owned(), contents);
    }

    /// Does a step of a restore.
    pub fn restore(&mut self, task: &RestoreTask) -> RestoreReport {
        let failed = |failure| RestoreReport {
            prepared: None,
            swapped: None,
            loss: None,
            failure: Some(failure),
        };
        let final_failure = |reason, message: &str| {
            failed(Failure {
                cause: Cause::Version,
                reason,
                message: message.to_owned(),
            })
        };
        let nothing = RestoreReport {
            prepared: None,
            swapped: None,
            loss: None,
            failure: None,
        };
        let uid = &task.restore_uid;
        let is_replaced = self.replaced.contains(uid);
        let swapped = || SwappedDatabase {
            replaced: "crm_fairway_replaced".to_owned(),
            at: "2026-01-01T00:00:00Z".to_owned(),
            refused_milliseconds: Some(40),
        };
        if let (RestoreStep::Swap { .. } | RestoreStep::Discard, true) = (&task.step, is_replaced) {
            return RestoreReport {
                swapped: Some(swapped()),
                ..nothing
            };
        }
        if is_replaced {
            return final_failure(Reason::RestoreFailed, "The restored database is in use.");
        }
        if task.step == RestoreStep::Discard {
            self.prepared.remove(uid);
            return nothing;
        }
        let of_the_backup = (task.backup_uid.clone(), true);
        let is_there = self.sets.get(&task.set) == Some(&of_the_backup);
        let Some(contents) = self.contents.get(&task.set).filter(|_| is_there).cloned() else {
            return final_failure(Reason::RestoreFailed, "The store has no such backup.");
        };
        let is_missing = |row: &&Row| {
            let mut kept = contents.rows.iter();
            row.did_its_work() && !kept.any(|other| other.identity.run_id == row.identity.run_id)
        };
        let reverts = self.rows.iter().any(|row| is_missing(&row));
        let loss = Loss {
            rows: self.changes.saturating_sub(contents.changes),
            tables: 1,
            largest: Vec::new(),
            uncounted: None,
        };
        if task.step == RestoreStep::Prepare {
            self.prepared.insert(uid.clone(), task.set.clone());
        }
        if reverts && !task.may_revert {
            return final_failure(
                Reason::RestoreRevertsMigration,
                "The backup is from before a migration.",
            );
        }
        let RestoreStep::Swap { agreed_rows } = task.step else {
            return RestoreReport {
                prepared: Some(PreparedDatabase {
                    database: "crm_fairway_restore".to_owned(),
                    taken_at: "2026-01-01T00:00:00Z".to_owned(),
                    fingerprint: self.fingerprint(),
                    bytes: 4096,
                    seconds: 2.0,
                }),
                loss: Some(loss),
                ..nothing
            };
        };
        if self.prepared.get(uid) != Some(&task.set) {
            return final_failure(Reason::RestoreFailed, "The restored database is not there.");
        }
        if agreed_rows.is_some_and(|agreed| loss.rows > agreed) {
            let message = format!("The restore would lose at least {} row changes.", loss.rows);
            return RestoreReport {
                loss: Some(loss),
                ..failed(environment(Reason::RestoreLosesMore, message))
            };
        }
        let runs = self.rows.iter().map(|row| row.identity.run_id.clone());
        let gone = runs.filter(|run| !contents.rows.iter().any(|row| row.identity.run_id == *run));
        self.reverted.extend(gone.collect::<Vec<_>>());
        self.prepared.remove(uid);
        self.replaced.push(uid.clone());
        self.rows = contents.rows;
        self.schema = contents.schema;
        self.changes = contents.changes;
        RestoreReport {
            swapped: Some(swapped()),
            loss: Some(loss),
            ..nothing
        }
    }

    /// The row of a run.
    pub fn row(&self, run_id: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.identity.run_id == run_id)
    }

    fn row_mut(&mut self, run_id: &str) -> Option<&mut Row> {
        self.rows.iter_mut().find(|row| row.identity.run_id == run_id)
    }

    /// What the ledger says of a run.
    pub fn report(&self, identity: &RunIdentity) -> MigrationReport {
        let Some(row) = self.row(&identity.run_id) else {
            return report(MigrationOutcome::Unknown, None);
        };
        let outcome = match (row.state, row.resolution) {
            (State::Committed, _) | (_, Some(Resolution::Applied)) => MigrationOutcome::Applied,
            (State::Failed, _) | (_, Some(Resolution::NotApplied)) => MigrationOutcome::Failed,
            (State::Partial, None) => MigrationOutcome::Partial,
            (State::Running | State::Unknown, None) => MigrationOutcome::Unknown,
        };
        let reason = match (outcome, row.state) {
            (MigrationOutcome::Partial, _) => Reason::MigrationPartial,
            (MigrationOutcome::Unknown, _) => Reason::MigrationUnknown,
            (_, State::Failed) => Reason::MigrationFailed,
            _ => Reason::MigrationNotApplied,
        };
        let failure = (outcome != MigrationOutcome::Applied).then(|| Failure {
            cause: Cause::Version,
            reason,
            message: match row.resolution {
                Some(Resolution::NotApplied) => "A user resolved the migration as not applied.".to_owned(),
                _ => row.message.clone(),
            },
        });
        MigrationReport {
            before: Some(row.before.clone()),
            after: row.after.clone(),
            seconds: (!row.replaces_lost).then_some(3.0),
            schema_ahead: self.is_ahead_of(identity),
            row_missing: row.replaces_lost && outcome == MigrationOutcome::Unknown,
            ..report(outcome, failure)
        }
    }

    fn cut_off(&mut self, run_id: &str) {
        let stop_reason = self.row(run_id).map(|row| row.message.clone());
        match stop_reason.filter(|what| !what.is_empty()) {
            Some(what) => self.finish(run_id, false, &what, State::Partial),
            None => self.finish(run_id, false, "was interrupted before it ended", State::Unknown),
        }
    }

    fn finish(&mut self, run_id: &str, succeeded: bool, what: &str, changed: State) {
        let after = self.fingerprint();
        let Some(row) = self.row_mut(run_id) else { return };
        let unchanged = row.before == after;
        row.after = Some(after);
        (row.state, row.message) = match (succeeded, unchanged) {
            (true, _) => (State::Committed, String::new()),
            (false, true) => (
                State::Failed,
                format!("The migration {what} (the schema is unchanged)."),
            ),
            (false, false) => (changed, format!("The migration {what}. The schema has changed.")),
        };
    }

    fn is_ahead_of(&self, identity: &RunIdentity) -> bool {
        let newest = self.rows.iter().rfind(|row| row.did_its_work());
        newest.is_some_and(|row| row.identity.image_digest != identity.image_digest)
    }

    fn effect(&self, identity: &RunIdentity) -> Effect {
        let effect = self
            .effects
            .iter()
            .find(|(image, _)| crate::images::digest(image) == identity.image_digest);
        effect.map(|(_, effect)| *effect).unwrap_or_default()
    }
}

impl Row {
    fn did_its_work(&self) -> bool {
        self.state == State::Committed || self.resolution == Some(Resolution::Applied)
    }
}

/// A failure of the environment.
pub fn environment(reason: Reason, message: impl Into<String>) -> Failure {
    Failure {
        cause: Cause::Environment,
        reason,
        message: message.into(),
    }
}

/// A migration report that says only how it ended.
pub fn report(outcome: MigrationOutcome, failure: Option<Failure>) -> MigrationReport {
    MigrationReport {
        outcome,
        failure,
        before: None,
        after: None,
        seconds: None,
        exit_code: None,
        sqlstate: None,
        last_error: None,
        schema_ahead: false,
        failed_check: None,
        row_missing: false,
        note: None,
    }
}
