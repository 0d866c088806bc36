//! The task `backup`: the database is dumped under one snapshot, compressed, hashed, read back and decoded before a
//! manifest says that the backup exists.

pub(crate) mod decode;
pub(crate) mod diagnosis;
pub(crate) mod dump;
mod large_objects;
pub(crate) mod manifest;
mod notes;
pub(crate) mod process;
mod snapshot;
pub(crate) mod stream;
pub(crate) mod tools;

use std::{sync::Arc, time::Instant};

use fairway_protocol::{BackupEvidence, BackupReport, BackupTask, Failure, Reason};
use tokio_postgres::IsolationLevel;

use crate::{
    blocking::blocking,
    connection::Connection,
    counters::Counters,
    dumpable,
    environment::Environment,
    failure::environment as environment_failure,
    fingerprint::fingerprint,
    lock,
    session::{SearchPath, Session, cause, statement_failed},
    store::{self, Attempt, Published, SetPath, Store, StoredManifest},
    termination::Termination,
};
use large_objects::LargeObjects;
use manifest::{DumpFormat, FORMAT_VERSION, Manifest, StoredFile};
use process::Programs;
use snapshot::Snapshot;
use tools::{Kit, Login};

/// Takes the backup, unless the store already has it; then only its hashes are proven again.
pub(crate) async fn run(task: BackupTask, environment: &Environment) -> BackupReport {
    let (evidence, failure) = match unless_stopped(&task, environment).await {
        Ok(evidence) => (Some(evidence), None),
        Err(failure) => (None, Some(failure)),
    };
    BackupReport { evidence, failure }
}

/// The answer to a task that was not started.
pub(crate) fn not_run(failure: Failure) -> BackupReport {
    BackupReport {
        evidence: None,
        failure: Some(failure),
    }
}

async fn unless_stopped(task: &BackupTask, environment: &Environment) -> Result<BackupEvidence, Failure> {
    let set = SetPath::parse(&task.set)?;
    let store = store::open(&task.store, environment)?;
    let backup = Backup {
        task,
        environment,
        attempt: store.attempt(&set, &environment.pod_uid())?,
        store,
        set,
        programs: Arc::default(),
    };
    let mut termination = Termination::listen();
    tokio::select! {
        outcome = backup.take() => outcome,
        () = termination.requested() => {
            backup.programs.end();
            backup.abort().await;
            Err(environment_failure(
                Reason::AgentFailed,
                "The backup's pod was stopped before the backup was done.",
            ))
        }
    }
}

/// Proves that the image has the programs that a backup needs and that they reach the database.
pub(crate) async fn check_tools(
    environment: &Environment,
    connection: &Connection,
    major: u32,
) -> Result<(), Failure> {
    let tools = tools::find(environment, major)?;
    let login = Login::new(connection.clone(), major)?;
    let redactor = environment.redactor();
    blocking(move || dump::check_reach(&tools, &login, &redactor)).await
}

/// One backup under way.
struct Backup<'a> {
    task: &'a BackupTask,
    environment: &'a Environment,
    store: Box<dyn Store>,
    set: SetPath,
    attempt: Box<dyn Attempt>,
    programs: Arc<Programs>,
}

impl Backup<'_> {
    async fn take(&self) -> Result<BackupEvidence, Failure> {
        let mut unusable = None;
        if let Some(found) = self.store.find(&self.set).await? {
            tracing::info!("the store has this backup; reading it again");
            match self.prove_again(&found).await {
                Err(failure) if is_corrupt(&failure) => {
                    tracing::warn!("{} Taking another one.", failure.message);
                    unusable = Some(found);
                }
                outcome => return outcome,
            }
        }
        let connection = self.environment.connection()?;
        let mut session = Session::connect(&connection, SearchPath::Catalog).await?;
        let (server_version, major) = session
            .server_version()
            .await
            .map_err(|error| statement_failed("reading the server's version", &error))?;
        let kit = Kit {
            tools: tools::find(self.environment, major)?,
            major,
            login: Login::new(connection, major)?,
            scratch: self.task.scratch.then(|| self.environment.scratch_directory()),
            redactor: self.environment.redactor(),
            programs: self.programs.clone(),
        };
        match self
            .create(&mut session, &Arc::new(kit), server_version, unusable.as_ref())
            .await
        {
            Ok((Published::ThisAttempt, manifest)) => Ok(manifest.evidence()),
            Ok((Published::AnotherAttempt(found), _)) => {
                tracing::info!("another pod has taken this backup meanwhile; reading that one");
                self.abort().await;
                self.prove_again(&found).await
            }
            Err(failure) => {
                self.abort().await;
                // In a bucket, whoever completes a set removes what others have stored of it.
                match self.store.find(&self.set).await {
                    Ok(Some(found)) if Some(&found) != unusable.as_ref() => {
                        tracing::info!("another pod has taken this backup meanwhile; reading that one");
                        self.prove_again(&found).await
                    }
                    _ => Err(failure),
                }
            }
        }
    }

    async fn create(
        &self,
        session: &mut Session,
        kit: &Arc<Kit>,
        server_version: String,
        unusable: Option<&StoredManifest>,
    ) -> Result<(Published, Manifest), Failure> {
        dumpable::check_catalog(session, kit.major).await?;
        self.attempt.begin().await?;
        let start = Instant::now();
        let dumped = self.dump(session, kit).await?;
        tracing::info!("reading the dump back");
        self.prove(kit, &dumped).await?;
        let Dumped {
            database,
            globals,
            taken_at,
            fingerprint,
            counters,
            notes,
            large_objects: _,
        } = dumped;
        let (globals, globals_note) = match globals {
            Ok(stored) => (Some(stored), None),
            Err(note) => (None, Some(note)),
        };
        let kept = match unusable {
            Some(unusable) => self.attempt.set_aside(unusable).await?,
            None => None,
        };
        let manifest = Manifest {
            format_version: FORMAT_VERSION,
            requester: self.task.requester.clone(),
            images: self.task.images.clone(),
            level: "Decoded".to_owned(),
            taken_at,
            server_version,
            tool_version: kit.tools.version.clone(),
            fingerprint,
            database,
            database_format: DumpFormat::with_scratch(self.task.scratch),
            globals,
            globals_note,
            // Nobody needs more than milliseconds.
            seconds: (start.elapsed().as_secs_f64() * 1000.0).round() / 1000.0,
            corrupt_note: kept.map(|name| {
                format!("What lay in the backup's place was corrupt or not its own, and is kept as {name}")
            }),
            counters: Some(counters),
            notes,
            seal: String::new(),
        };
        let manifest = manifest.sealed(&self.task.backup_uid)?;
        let published = self.attempt.publish(&manifest.to_json()?).await?;
        Ok((published, manifest))
    }

    /// Dumps the database under one snapshot, with the fingerprint of its schema.
    async fn dump(&self, session: &mut Session, kit: &Arc<Kit>) -> Result<Dumped, Failure> {
        let doing = |error| statement_failed("taking the backup's snapshot", &error);
        let (client, mut loss) = session.parts();
        let transaction = client
            .build_transaction()
            .isolation_level(IsolationLevel::RepeatableRead)
            .read_only(true)
            .start()
            .await
            .map_err(doing)?;
        let other_dump = lock::other_dump(&transaction, &self.task.backup_uid)
            .await
            .map_err(doing)?;
        let migration = lock::migration(&transaction).await.map_err(doing)?;
        if let Some(failure) = other_dump.or(migration) {
            return Err(failure);
        }
        let snapshot = Snapshot::export(&transaction).await.map_err(doing)?;
        let counters = Counters::read(transaction.client()).await.map_err(doing)?;
        let fingerprint = fingerprint(transaction.client())
            .await
            .map_err(|error| statement_failed("reading the schema", &error))?;
        tracing::info!("dumping the database");
        let dump = async {
            let database = dump::database(kit, &snapshot, self.attempt.as_ref()).await?;
            let globals = dump::globals(kit, &snapshot, self.attempt.as_ref()).await?;
            Ok((database, globals))
        };
        tokio::pin!(dump);
        let (database, globals) = tokio::select! {
            biased;
            dumped = &mut dump => dumped?,
            // The snapshot is gone with the session; and pg_dump waits two hours for a server that vanished silently.
            () = loss.awaited() => {
                self.programs.end();
                // Only then is nothing written any more into what is removed next.
                let _ = dump.await;
                return Err(environment_failure(
                    Reason::DatabaseUnreachable,
                    "The database closed the session that holds the backup's snapshot. Check that the server runs and \
                     stays reachable.",
                ));
            }
        };
        let notes = notes::notes(transaction.client(), kit.major)
            .await
            .unwrap_or_else(|error| {
                tracing::warn!("what the dump leaves out is not known: {}", cause(&error));
                Vec::new()
            });
        let large_objects = match kit.scratch {
            Some(_) => LargeObjects::of(transaction.client()).await,
            None => None,
        };
        // The snapshot lives as long as this transaction.
        transaction.rollback().await.map_err(doing)?;
        Ok(Dumped {
            database,
            globals,
            taken_at: snapshot.taken_at.clone(),
            fingerprint,
            counters,
            notes,
            large_objects,
        })
    }

    /// Reads everything back from the store, and decodes the dump.
    async fn prove(&self, kit: &Arc<Kit>, dumped: &Dumped) -> Result<(), Failure> {
        if let Ok(globals) = &dumped.globals {
            decode::hashes(globals, self.attempt.read(globals.objects()).await?).await?;
        }
        decode::database(kit, &dumped.database, dumped.large_objects, self.attempt.as_ref()).await
    }

    async fn prove_again(&self, found: &StoredManifest) -> Result<BackupEvidence, Failure> {
        let manifest = Manifest::parse(&found.manifest)?;
        manifest.check_seal(&self.task.backup_uid)?;
        for file in manifest.files() {
            decode::hashes(file, self.store.read(&self.set, file.objects()).await?).await?;
        }
        Ok(manifest.evidence())
    }

    async fn abort(&self) {
        if let Err(failure) = self.attempt.abort().await {
            tracing::warn!("an unfinished backup stays in the store: {}", failure.message);
        }
    }
}

/// What is in the store after the dump.
struct Dumped {
    database: StoredFile,
    /// Roles and tablespaces, or the note that says why they are missing.
    globals: Result<StoredFile, String>,
    taken_at: String,
    fingerprint: String,
    counters: Counters,
    /// What somebody who restores it should know.
    notes: Vec<String>,
    /// What there is of large objects, where that is known and needed.
    large_objects: Option<LargeObjects>,
}

fn is_corrupt(failure: &Failure) -> bool {
    matches!(failure.reason, Reason::StoreCorrupt | Reason::DecodeFailed)
}
