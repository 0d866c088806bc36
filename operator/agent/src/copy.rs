//! The task `copy`: a proven set is stored in a further store, as it is, and read back.
//!
//! The files are the same bytes, encrypted where the set is; only their objects have names of the further store's. So the
//! manifest names those, and has a seal of its own. It is written last, as in every set.

use fairway_protocol::{CopyEvidence, CopyReport, CopyTask, Failure, Reason};

use crate::{
    backup::{
        manifest::{Manifest, StoredFile},
        stream::{Meter, pump, stored_sha256},
    },
    blocking::blocking,
    environment::Environment,
    failure::environment as environment_failure,
    store::{self, Attempt, Content, Published, PutError, ReadFailed, SetPath, Store, StoredManifest, pipe},
    termination::Termination,
};

/// Copies the set, unless the further store already has it; then only its hashes are proven again.
pub(crate) async fn run(task: CopyTask, environment: &Environment) -> CopyReport {
    let (evidence, failure) = match unless_stopped(&task, environment).await {
        Ok(evidence) => (Some(evidence), None),
        Err(failure) => (None, Some(failure)),
    };
    CopyReport { evidence, failure }
}

/// The answer to a task that was not started.
pub(crate) fn not_run(failure: Failure) -> CopyReport {
    CopyReport {
        evidence: None,
        failure: Some(failure),
    }
}

async fn unless_stopped(task: &CopyTask, environment: &Environment) -> Result<CopyEvidence, Failure> {
    let set = SetPath::parse(&task.set)?;
    let to = store::open(&task.to, &environment.of_copy())?;
    let copying = Copying {
        from: Place {
            store: store::open(&task.store, environment)?,
            name: task.store.to_string(),
        },
        attempt: to.attempt(&set, &environment.pod_uid())?,
        to: Place {
            store: to,
            name: task.to.to_string(),
        },
        set,
        key: &task.backup_uid,
    };
    let mut termination = Termination::listen();
    tokio::select! {
        outcome = copying.copy() => outcome,
        () = termination.requested() => {
            copying.abort().await;
            Err(environment_failure(
                Reason::AgentFailed,
                "The copy's pod was stopped before the copy was done.",
            ))
        }
    }
}

/// A store, by the name that messages give it.
struct Place {
    store: Box<dyn Store>,
    name: String,
}

impl Place {
    /// The failure of a store that does not hold what it should.
    fn corrupt(&self, what: &str) -> Failure {
        environment_failure(
            Reason::StoreCorrupt,
            format!("{what} in {}. Check the disk or service behind it.", self.name),
        )
    }

    /// The failure of a store from which a file cannot be read.
    fn unreadable(&self, file: &StoredFile, error: &std::io::Error) -> Failure {
        let failed = ReadFailed::of(error).cloned();
        failed.unwrap_or_else(|| self.corrupt(&format!("{} cannot be read to its end ({error})", file.name)))
    }
}

/// One copy under way.
struct Copying<'a> {
    from: Place,
    to: Place,
    attempt: Box<dyn Attempt>,
    set: SetPath,
    /// Key of the seal of both manifests.
    key: &'a str,
}

impl Copying<'_> {
    async fn copy(&self) -> Result<CopyEvidence, Failure> {
        let original = self.original().await?;
        let mut unusable = None;
        if let Some(found) = self.to.store.find(&self.set).await? {
            match self.prove(&original, &found).await {
                Err(failure) if failure.reason == Reason::StoreCorrupt => {
                    tracing::warn!("{} Making another copy.", failure.message);
                    unusable = Some(found);
                }
                outcome => return outcome,
            }
        }
        match self.create(&original, unusable.as_ref()).await {
            Ok((Published::ThisAttempt, note)) => Ok(evidence(&original, note)),
            Ok((Published::AnotherAttempt(found), _)) => {
                tracing::info!("another pod has made this copy meanwhile; reading that one");
                self.abort().await;
                self.prove(&original, &found).await
            }
            Err(failure) => {
                self.abort().await;
                Err(failure)
            }
        }
    }

    /// The manifest of the set that is copied.
    async fn original(&self) -> Result<Manifest, Failure> {
        let Some(found) = self.from.store.find(&self.set).await? else {
            let what = format!("There is no backup {}", self.set.as_str());
            return Err(self.from.corrupt(&what));
        };
        let manifest = Manifest::parse(&found.manifest)?;
        manifest.check_seal(self.key)?;
        Ok(manifest)
    }

    async fn create(
        &self,
        original: &Manifest,
        unusable: Option<&StoredManifest>,
    ) -> Result<(Published, Option<String>), Failure> {
        self.attempt.begin().await?;
        let database = self.transfer(&original.database).await?;
        let globals = match &original.globals {
            Some(globals) => Some(self.transfer(globals).await?),
            None => None,
        };
        let kept = match unusable {
            Some(unusable) => self.attempt.set_aside(unusable).await?,
            None => None,
        };
        let note = kept.map(|name| {
            format!("What lay in the copy's place was corrupt or not its own, and is kept as {name}")
        });
        let manifest = Manifest {
            database,
            globals,
            corrupt_note: note.clone(),
            ..original.clone()
        };
        let manifest = manifest.sealed(self.key)?;
        let published = self.attempt.publish(&manifest.to_json()?).await?;
        Ok((published, note))
    }

    /// Stores a file in the further store and reads it back.
    async fn transfer(&self, file: &StoredFile) -> Result<StoredFile, Failure> {
        tracing::info!("copying {}", file.name);
        let source = self.from.store.read(&self.set, file.objects()).await?;
        let (mut writer, content) = pipe();
        let reading = blocking(move || {
            let mut source = Meter::new(source);
            let read = pump(&mut source, &mut writer);
            let complete = read.and_then(|()| writer.finish());
            Ok::<_, Failure>(complete.map(|()| source.finish()))
        });
        let (read, put) = tokio::join!(reading, self.attempt.put(&file.name, content));
        let (read, objects) = match (read?, put) {
            // Then reading fails too, but not by itself.
            (_, Err(PutError::Store(failure))) => return Err(failure),
            (Err(error), _) => return Err(self.from.unreadable(file, &error)),
            (Ok(_), Err(PutError::Incomplete)) => {
                let message = format!("The further store received only part of {}.", file.name);
                return Err(environment_failure(Reason::AgentFailed, message));
            }
            (Ok(read), Ok(objects)) => (read, objects),
        };
        if read != (file.bytes, file.sha256.clone()) {
            return Err(self
                .from
                .corrupt(&format!("{} is not what was stored", file.name)));
        }
        let copied = StoredFile {
            objects,
            ..file.clone()
        };
        let content = self.attempt.read(copied.objects()).await?;
        self.compare(&copied, content).await?;
        Ok(copied)
    }

    /// Proves that what the further store has in the set's place is a copy of it.
    async fn prove(&self, original: &Manifest, found: &StoredManifest) -> Result<CopyEvidence, Failure> {
        let manifest = Manifest::parse(&found.manifest)?;
        let is_own = manifest.check_seal(self.key).is_ok();
        let hashes = |manifest: &Manifest| -> Vec<String> {
            manifest.files().map(|file| file.sha256.clone()).collect()
        };
        if !is_own || hashes(&manifest) != hashes(original) {
            let what = format!("What lies at {} is not a copy of the backup", self.set.as_str());
            return Err(self.to.corrupt(&what));
        }
        for file in manifest.files() {
            let content = self.to.store.read(&self.set, file.objects()).await?;
            self.compare(file, content).await?;
        }
        Ok(evidence(original, manifest.corrupt_note))
    }

    /// Whether the further store returns a file as it was written.
    async fn compare(&self, file: &StoredFile, content: Content) -> Result<(), Failure> {
        match blocking(move || Ok::<_, Failure>(stored_sha256(content))).await? {
            Ok(sha256) if sha256 == file.sha256 => Ok(()),
            Ok(_) => Err(self.to.corrupt(&format!("{} is not what was written", file.name))),
            Err(error) => Err(self.to.unreadable(file, &error)),
        }
    }

    async fn abort(&self) {
        if let Err(failure) = self.attempt.abort().await {
            tracing::warn!(
                "an unfinished copy stays in the further store: {}",
                failure.message
            );
        }
    }
}

fn evidence(original: &Manifest, note: Option<String>) -> CopyEvidence {
    CopyEvidence {
        bytes: original.files().map(|file| file.bytes).sum(),
        note,
    }
}
