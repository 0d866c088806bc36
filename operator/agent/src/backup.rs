//! A backup: dumped under one snapshot, compressed, hashed, read back and decoded before its manifest says that
//! it exists.

mod decode;
mod dump;
mod manifest;
pub(crate) mod store;
mod stream;
mod tools;

use std::{path::PathBuf, sync::Arc, time::Instant};

use fairway_protocol::{BackupEvidence, BackupReport, BackupTask, Failure, reason};
use tokio_postgres::{IsolationLevel, Transaction};

use super::{
    connection::Connection,
    environment::Environment,
    failure::environment as environment_failure,
    fingerprint::fingerprint,
    migrate::{connection, stopped, terminated, termination},
    redact::Redactor,
    session::{SearchPath, Session, statement_failed},
};
use dump::{Programs, Source};
use manifest::{FORMAT_VERSION, Manifest, StoredFile};
use store::{Folder, Found, Published};
use tools::{Login, Tools};

/// Takes the backup, unless the store already has it; then only its hashes are proven again.
pub(crate) async fn run(task: BackupTask, environment: &Environment) -> BackupReport {
    match Folder::of_set(&environment.store_directory(), &task.set) {
        Ok(set) => report(unless_stopped(&task, environment, &set).await),
        Err(failure) => report(Err(failure)),
    }
}

fn report(outcome: Result<BackupEvidence, Failure>) -> BackupReport {
    let (evidence, failure) = match outcome {
        Ok(evidence) => (Some(evidence), None),
        Err(failure) => (None, Some(failure)),
    };
    BackupReport { evidence, failure }
}

async fn unless_stopped(
    task: &BackupTask,
    environment: &Environment,
    set: &Folder,
) -> Result<BackupEvidence, Failure> {
    let own = set.of_try(&environment.pod_uid());
    let mut terminate = termination();
    tokio::select! {
        outcome = take(task, environment, set, &own) => outcome,
        () = terminated(&mut terminate) => {
            remove(&own);
            Err(stopped("The backup's pod was stopped before it was done."))
        }
    }
}

fn remove(own: &Folder) {
    if let Err(error) = own.remove() {
        tracing::warn!("an unfinished backup could not be removed: {error}");
    }
}

async fn take(
    task: &BackupTask,
    environment: &Environment,
    set: &Folder,
    own: &Folder,
) -> Result<BackupEvidence, Failure> {
    let mut unusable = None;
    if let Some(found) = set.found()? {
        tracing::info!("the store has this backup; reading it again");
        match prove_again(set.clone(), &found).await {
            Err(failure) if is_corrupt(&failure) => {
                tracing::warn!("{} Making another.", failure.message);
                unusable = Some(found);
            }
            outcome => return outcome,
        }
    }
    let connection = connection(environment)?;
    let mut session = Session::connect(&connection, SearchPath::Catalog).await?;
    let (server_version, major) = session
        .server_version()
        .await
        .map_err(|error| statement_failed("asking for the server's version", &error))?;
    let work = Work {
        tools: tools::find(environment, major)?,
        login: Login::new(connection)?,
        folder: own.clone(),
        scratch: task.scratch.then(|| environment.scratch_directory()),
        redactor: environment.redactor(),
        programs: Arc::default(),
    };
    own.begin()?;
    let published = make(task, &mut session, Arc::new(work), server_version)
        .await
        .and_then(|mut manifest| {
            manifest.corrupt_note = unusable.as_ref().map(|_| {
                format!(
                    "an earlier copy that proved corrupt is kept as {}",
                    own.kept_name()
                )
            });
            own.commit(&manifest)?;
            own.publish(set, unusable.as_ref())
                .map(|published| (published, manifest))
        });
    match published {
        Ok((Published::Ours, manifest)) => Ok(manifest.evidence()),
        Ok((Published::Theirs(found), _)) => {
            tracing::info!("another pod made this backup meanwhile; reading that");
            remove(own);
            prove_again(set.clone(), &found).await
        }
        Err(failure) => {
            remove(own);
            Err(failure)
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
    let login = Login::new(connection.clone())?;
    let redactor = environment.redactor();
    blocking(move || dump::check_reach(&tools, &login, &redactor)).await
}

/// What the blocking parts of a backup share.
struct Work {
    tools: Tools,
    login: Login,
    folder: Folder,
    scratch: Option<PathBuf>,
    redactor: Redactor,
    programs: Arc<Programs>,
}

async fn make(
    task: &BackupTask,
    session: &mut Session,
    work: Arc<Work>,
    server_version: String,
) -> Result<Manifest, Failure> {
    let start = Instant::now();
    let doing = |error| statement_failed("taking the backup's snapshot", &error);
    let (client, mut loss) = session.parts();
    let transaction = client
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await
        .map_err(doing)?;
    let (snapshot, taken_at) = export_snapshot(&transaction).await.map_err(doing)?;
    let fingerprint = fingerprint(&transaction).await.map_err(doing)?;
    tracing::info!("dumping the database");
    let dump = {
        let work = work.clone();
        blocking(move || work.dump(&snapshot))
    };
    tokio::pin!(dump);
    let dumped = tokio::select! {
        biased;
        dumped = &mut dump => dumped?,
        // The snapshot is gone with it; and pg_dump waits two hours for a server that vanished without a word.
        () = loss.awaited() => {
            work.programs.end();
            // Only then does nobody write into the folder that is removed next.
            let _ = dump.await;
            return Err(environment_failure(
                reason::DATABASE_UNREACHABLE,
                "The database went away during the backup (the session that holds its snapshot was lost); see that it \
                 stays reachable.",
            ));
        }
    };
    // The snapshot lives as long as this transaction.
    transaction.rollback().await.map_err(doing)?;
    tracing::info!("reading the dump back");
    let Dumped { database, globals } = dumped;
    let (globals, globals_note) = match globals {
        Ok(stored) => (Some(stored), None),
        Err(note) => (None, Some(note)),
    };
    let (database, globals, tool_version) = blocking(move || {
        work.prove(&database, globals.as_ref())
            .map(|()| (database, globals, work.tools.version.clone()))
    })
    .await?;
    Ok(Manifest {
        format_version: FORMAT_VERSION,
        requester: task.requester.clone(),
        images: task.images.clone(),
        level: "Decoded".to_owned(),
        taken_at,
        server_version,
        tool_version,
        fingerprint,
        database,
        database_format: if task.scratch { "directory" } else { "custom" }.to_owned(),
        globals,
        globals_note,
        // Nobody reads more than milliseconds.
        seconds: (start.elapsed().as_secs_f64() * 1000.0).round() / 1000.0,
        corrupt_note: None,
    })
}

async fn export_snapshot(transaction: &Transaction<'_>) -> Result<(String, String), tokio_postgres::Error> {
    let row = transaction
        .query_one(
            "select pg_export_snapshot(), \
             to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')",
            &[],
        )
        .await?;
    Ok((row.get(0), row.get(1)))
}

/// What is in the store after the dump.
struct Dumped {
    database: StoredFile,
    globals: Result<StoredFile, String>,
}

impl Work {
    fn dump(&self, snapshot: &str) -> Result<Dumped, Failure> {
        let source = Source {
            tools: &self.tools,
            login: &self.login,
            snapshot,
            redactor: &self.redactor,
            programs: &self.programs,
        };
        let database = match &self.scratch {
            Some(scratch) => dump::directory(&source, &self.folder, scratch)?,
            None => dump::custom(&source, &self.folder)?,
        };
        Ok(Dumped {
            database,
            globals: dump::globals(&source, &self.folder)?,
        })
    }

    fn prove(&self, database: &StoredFile, globals: Option<&StoredFile>) -> Result<(), Failure> {
        if let Some(globals) = globals {
            decode::hashes(&self.folder, globals)?;
        }
        decode::database(
            &self.tools,
            &self.folder,
            database,
            self.scratch.as_deref(),
            &self.redactor,
        )
    }
}

fn is_corrupt(failure: &Failure) -> bool {
    [reason::STORE_CORRUPT, reason::DECODE_FAILED].contains(&failure.reason.as_str())
}

async fn prove_again(folder: Folder, found: &Found) -> Result<BackupEvidence, Failure> {
    let manifest = found.manifest()?;
    let files: Vec<StoredFile> = std::iter::once(&manifest.database)
        .chain(&manifest.globals)
        .cloned()
        .collect();
    blocking(move || files.iter().try_for_each(|file| decode::hashes(&folder, file))).await?;
    Ok(manifest.evidence())
}

/// Runs work that waits for programs and disks away from the sessions' task.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(environment_failure(
            reason::AGENT_FAILED,
            format!("The backup ended unexpectedly: {error}."),
        ))
    })
}
