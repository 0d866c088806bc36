//! Stores that keep objects by name and cannot rename them: a bucket, a WebDAV share.
//!
//! An attempt's objects lie under a name of its own with a random part, so that nothing is ever written twice. The
//! manifest lies at the set's place and names them.

mod removal;

use std::{
    io,
    sync::{
        Mutex as StdMutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use fairway_health::tls::provider;
use fairway_protocol::{Failure, Reason};
use futures::TryStreamExt as _;
use opendal::{Buffer, Builder, ErrorKind, Operator, Writer, options::ReadOptions};
use tokio::sync::Mutex;

use super::{
    content::{Content, pipe},
    http::{Answer, Answers, Code, Http, Meaning, Protection, with_retries},
    port::{
        Attempt, LARGEST_MANIFEST, MANIFEST, Own, Published, PutError, Removal, SetPath, Store,
        StoredManifest,
    },
    uploads::Uploads,
    versions::Versions,
};
use crate::{failure::environment as environment_failure, text::hex};

/// End of the name under which an unusable manifest is kept.
const UNUSABLE: &str = ".unusable";
/// Content of the object by which a store is checked.
const TEST: &str = "fairway";
/// An entity tag that no object has: those of a bucket are longer.
const NO_ETAG: &str = "\"0\"";
/// How long ending unfinished uploads may take. The backup is complete without it.
const END_UPLOADS_TIMEOUT: Duration = Duration::from_secs(60);
/// Times that a manifest may be replaced while it is read.
const MOST_REPLACED: u32 = 4;

/// What to do about a store without room.
const ENLARGE: &str = "Enlarge it or its quota, or delete what is not needed.";

/// What one kind of storage service supports.
#[derive(Clone, Copy, Debug)]
pub(super) struct Service {
    /// Bytes of one request of an upload, which are held in memory.
    pub(super) part: usize,
    /// Requests of one upload at a time.
    pub(super) concurrent: usize,
    /// Largest object in bytes; a multiple of `part`. A longer file is stored in several objects.
    pub(super) largest: u64,
    /// How a manifest is published.
    pub(super) publishing: Publishing,
    /// The error that says that the bucket or share itself does not exist.
    pub(super) missing: ErrorKind,
}

/// How a manifest is published where another pod may publish one at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Publishing {
    /// By a conditional request: only one can succeed.
    Conditional,
    /// By an unconditional request with a look before and after it: of two at the same moment, both may look before either
    /// writes, and the later one is the set.
    Unconditional,
}

/// A store of objects.
#[derive(Clone, Debug)]
pub(super) struct Objects {
    retrying: Operator,
    without_retries: Operator,
    answers: Answers,
    protection: Protection,
    name: String,
    service: Service,
    uploads: Option<Uploads>,
    versions: Option<Versions>,
}

impl Objects {
    /// The store that a builder of opendal describes, by the name that messages give it.
    ///
    /// # Errors
    /// When what it describes cannot be used.
    pub(super) fn build(
        builder: impl Builder,
        http: &Http,
        name: String,
        service: Service,
    ) -> Result<Self, Failure> {
        let operator = Operator::new(builder).map_err(|error| {
            environment_failure(
                Reason::StoreUnreachable,
                format!(
                    "The backup store, {name}, cannot be used ({}). Correct spec.backup.store of the App.",
                    error.message()
                ),
            )
        })?;
        Ok(Self::new(operator, http, name, service))
    }

    /// The store behind an operator, by the name that messages give it.
    pub(super) fn new(operator: Operator, http: &Http, name: String, service: Service) -> Self {
        let without_retries = http.attach(operator);
        Self {
            retrying: with_retries(without_retries.clone()),
            without_retries,
            answers: http.answers.clone(),
            protection: http.protection.clone(),
            name,
            service,
            uploads: None,
            versions: None,
        }
    }

    /// This store, whose server keeps uploads that were not completed, and may keep versions of what was deleted.
    pub(super) fn of_bucket(self, uploads: Uploads, versions: Versions) -> Self {
        Self {
            uploads: Some(uploads),
            versions: Some(versions),
            ..self
        }
    }

    /// Begins an operation, whose failure earlier answers do not explain, and returns what sends its requests.
    fn operator(&self) -> &Operator {
        self.answers.clear();
        &self.retrying
    }

    /// Begins an operation that fails at the first error, because the caller retries it.
    fn operator_without_retries(&self) -> &Operator {
        self.answers.clear();
        &self.without_retries
    }

    /// The failure that an error of a request means. Answers of servers repeat what was sent, so none is quoted.
    fn failure(&self, doing: &str, error: &opendal::Error) -> Failure {
        let name = &self.name;
        let answer = self.answers.latest();
        let (reason, what, fix) = match (error.kind(), &answer) {
            (_, Some(Answer::Status(_, Some(code)))) => by_code(*code, doing),
            (kind, Some(Answer::Status(404, _))) if kind == self.service.missing => (
                Reason::StoreMissing,
                "does not exist".to_owned(),
                "Create it, or correct spec.backup.store of the App.",
            ),
            (_, Some(Answer::Status(401 | 403, _))) | (ErrorKind::PermissionDenied, _) => (
                Reason::StoreAccessDenied,
                format!("refuses access ({doing})"),
                "Check the credentials in the Secret that spec.backup.store of the App names, what they permit, and the clock of the node.",
            ),
            (_, Some(Answer::Status(413 | 507, _))) => {
                (Reason::StoreFull, format!("is full ({doing})"), ENLARGE)
            }
            (_, Some(Answer::Status(status, _))) => (
                Reason::StoreUnreachable,
                format!("answers with status {status} ({doing})"),
                "Check the service behind it.",
            ),
            (_, Some(Answer::NoResponse(why))) => (
                Reason::StoreUnreachable,
                format!("does not answer ({doing}: {why})"),
                "Check the endpoint in spec.backup.store of the App, the service behind it, and the NetworkPolicies of the namespace.",
            ),
            (_, None) => (
                Reason::StoreUnreachable,
                format!("did not answer completely, or not in time ({doing})"),
                "Check the service behind it, and the network on the way to it.",
            ),
        };
        environment_failure(reason, format!("The backup store, {name}, {what}. {fix}"))
    }

    /// Writes a test object, and reads it.
    async fn write_and_read_back(&self, path: &str) -> Result<(), Failure> {
        let write = self.operator_without_retries().write_with(path, TEST);
        match self.service.publishing {
            Publishing::Conditional => write.if_not_exists(true).await,
            Publishing::Unconditional => write.await,
        }
        .map_err(|error| self.failure("writing a test object", &error))?;
        let read = self.operator_without_retries().read(path).await;
        let read = read.map_err(|error| self.failure("reading a test object", &error))?;
        if read.to_vec() != TEST.as_bytes() {
            return Err(environment_failure(
                Reason::StoreCorrupt,
                format!(
                    "The backup store, {}, does not return what was written to it. Check the service behind it.",
                    self.name
                ),
            ));
        }
        Ok(())
    }

    /// Reads the manifest at a path.
    async fn read_manifest(&self, path: &str) -> Result<Option<StoredManifest>, Failure> {
        let failed = |error: &opendal::Error| self.failure("reading the manifest", error);
        let mut replaced = 0;
        loop {
            let about = match self.operator().stat(path).await {
                Ok(about) => about,
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(failed(&error)),
            };
            // A weak one matches nothing in a condition: https://www.rfc-editor.org/rfc/rfc9110#section-13.1.1.
            let etag = about.etag().filter(|etag| !etag.starts_with("W/"));
            let options = ReadOptions {
                range: (0..about.content_length().min(LARGEST_MANIFEST)).into(),
                if_match: etag.map(str::to_owned),
                ..ReadOptions::default()
            };
            match self.operator().read_options(path, options).await {
                Ok(read) => {
                    let stored = StoredManifest::of(read.to_vec());
                    let revision = match (self.service.publishing, etag) {
                        (Publishing::Conditional, Some(etag)) => etag.to_owned(),
                        // Apache's (`ap_make_etag`) is weak in the second after a change and strong later, of one manifest.
                        (Publishing::Unconditional, _) | (_, None) => stored.revision,
                    };
                    return Ok(Some(StoredManifest {
                        manifest: stored.manifest,
                        revision,
                    }));
                }
                // It was replaced between the two requests.
                Err(error) if error.kind() == ErrorKind::ConditionNotMatch && replaced < MOST_REPLACED => {
                    replaced += 1;
                }
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(failed(&error)),
            }
        }
    }

    /// Ends the uploads of objects whose paths start with `prefix`.
    async fn end_uploads(&self, prefix: &str) {
        let Some(uploads) = &self.uploads else {
            return;
        };
        // Permission to write does not include permission to list uploads; a lifecycle rule of the bucket then ends them.
        match tokio::time::timeout(END_UPLOADS_TIMEOUT, uploads.end(prefix)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!("unfinished uploads may stay in the store: {error}"),
            Err(_) => tracing::warn!("unfinished uploads may stay in the store: the server does not answer"),
        }
    }

    /// Reads objects of a set, one after the other.
    async fn read_objects(&self, set: &SetPath, objects: &[String]) -> Result<Content, Failure> {
        let paths: Vec<_> = objects
            .iter()
            .map(|object| format!("{}/{object}", set.as_str()))
            .collect();
        for (path, object) in paths.iter().zip(objects) {
            match self.operator().stat(path).await {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    return Err(environment_failure(
                        Reason::StoreCorrupt,
                        format!(
                            "The backup store, {}, does not have {object} of the backup {}. Check the service behind it.",
                            self.name,
                            set.as_str()
                        ),
                    ));
                }
                Err(error) => return Err(self.failure("reading the backup", &error)),
            }
        }
        let (writer, content) = pipe();
        let store = self.clone();
        tokio::spawn(async move {
            let pieces = futures::stream::iter(paths.into_iter().map(Ok::<_, io::Error>))
                .and_then(|path| {
                    let store = store.clone();
                    async move {
                        let failed = {
                            let store = store.clone();
                            move |error: opendal::Error| {
                                io::Error::other(ReadFailed(store.failure("reading the backup", &error)))
                            }
                        };
                        let reader = store.operator().reader(&path).await.map_err(&failed)?;
                        let stream = reader.into_stream(..).await.map_err(&failed)?;
                        Ok(stream.map_ok(|piece| piece.to_vec()).map_err(failed))
                    }
                })
                .try_flatten();
            writer.forward(std::pin::pin!(pieces)).await;
        });
        Ok(content)
    }
}

/// What a server's own code means: the reason, what the store does, and the fix.
fn by_code(code: Code, doing: &str) -> (Reason, String, &'static str) {
    let Code { name, meaning } = code;
    match meaning {
        Meaning::Full => (
            Reason::StoreFull,
            format!("is full, or over its quota ({doing}: {name})"),
            ENLARGE,
        ),
        Meaning::Expired => (
            Reason::StoreAccessDenied,
            format!("refuses access, because the credentials have expired ({doing}: {name})"),
            "Write new ones into the Secret that spec.backup.store of the App names, or let the pod's own identity last longer \
             than a backup takes.",
        ),
        Meaning::Unknown => (
            Reason::StoreAccessDenied,
            format!("does not know the access key or its session token ({doing}: {name})"),
            "Correct them in the Secret that spec.backup.store of the App names.",
        ),
        Meaning::WrongSecret => (
            Reason::StoreAccessDenied,
            format!(
                "refuses access, because the secret access key does not fit the access key ({doing}: {name})"
            ),
            "Correct it in the Secret that spec.backup.store of the App names.",
        ),
        Meaning::Clock => (
            Reason::StoreAccessDenied,
            format!("refuses access, because its clock and that of the node differ ({doing}: {name})"),
            "Synchronize the clock of the node.",
        ),
        Meaning::TooMany => (
            Reason::StoreUnreachable,
            format!("asks for fewer requests ({doing}: {name})"),
            "Wait, or raise the limit of the service behind it.",
        ),
    }
}

/// A store that failed while a file was read from it.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.message)]
pub(crate) struct ReadFailed(pub(crate) Failure);

impl ReadFailed {
    /// The failure of the store behind an error of reading, however deep.
    pub(crate) fn of(error: &io::Error) -> Option<&Failure> {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = error.get_ref().map(|inner| inner as _);
        while let Some(error) = cause {
            if let Some(Self(failure)) = error.downcast_ref() {
                return Some(failure);
            }
            let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            cause = inner.map(|inner| inner as _).or_else(|| error.source());
        }
        None
    }
}

#[async_trait]
impl Store for Objects {
    async fn check(&self, pod_uid: &str) -> Result<(), Failure> {
        // What a backup does, in miniature.
        let folder = format!(".fairway-preflight-{pod_uid}-{}", random()?);
        let path = format!("{folder}/{MANIFEST}");
        match self.operator_without_retries().stat(&path).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                return Err(self.failure(
                    "looking for a test object, which requires permission to list",
                    &error,
                ));
            }
            Ok(_) => {}
        }
        let checked = self.write_and_read_back(&path).await;
        // Also after an error: its answer may be all that was lost.
        for own in [path, format!("{folder}/")] {
            if let Err(error) = self.operator_without_retries().delete(&own).await {
                // A bucket may protect what it holds.
                tracing::warn!("the test object {own} may stay in the store: {}", error.kind());
            }
        }
        checked
    }

    async fn find(&self, set: &SetPath) -> Result<Option<StoredManifest>, Failure> {
        self.read_manifest(&manifest_of(set)).await
    }

    async fn read(&self, set: &SetPath, objects: &[String]) -> Result<Content, Failure> {
        self.read_objects(set, objects).await
    }

    fn attempt(&self, set: &SetPath, pod_uid: &str) -> Result<Box<dyn Attempt>, Failure> {
        Ok(Box::new(ObjectsAttempt {
            store: self.clone(),
            set: set.clone(),
            pod_uid: pod_uid.to_owned(),
            folder: format!("{pod_uid}-{}", random()?),
            upload: Mutex::default(),
            replaces: StdMutex::default(),
            sent: AtomicBool::default(),
        }))
    }

    async fn remove(&self, set: &SetPath, own: &Own) -> Result<Removal, Failure> {
        self.remove_set(set, own).await
    }
}

fn manifest_of(set: &SetPath) -> String {
    format!("{}/{MANIFEST}", set.as_str())
}

/// Eight random hex digits.
fn random() -> Result<String, Failure> {
    let mut bytes = [0; 4];
    provider()
        .secure_random
        .fill(&mut bytes)
        .map_err(|_| environment_failure(Reason::AgentFailed, "The system has no random numbers."))?;
    Ok(hex(&bytes))
}

struct ObjectsAttempt {
    store: Objects,
    set: SetPath,
    pod_uid: String,
    /// Folder of this attempt in the set's.
    folder: String,
    /// The upload that is under way.
    upload: Mutex<Option<Writer>>,
    /// Revision of the unusable manifest that this attempt replaces.
    replaces: StdMutex<Option<String>>,
    /// Whether the manifest was sent: then the server may publish it at any time, although no answer came.
    sent: AtomicBool,
}

impl ObjectsAttempt {
    /// Removes this set's attempt folders that `take` names, except those that a manifest names: the set's, or one that was
    /// kept because it is unusable.
    async fn remove(&self, take: impl Fn(&str) -> bool + Send) -> Result<(), Failure> {
        let store = &self.store;
        let failed = |error| self.store.failure("removing an unfinished backup", &error);
        let list = async |path: String| match store.operator().list(&path).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            listed => listed.map_err(failed),
        };
        let set = self.set.as_str();
        let entries = list(format!("{set}/")).await?;
        let mut manifests = self.store.find(&self.set).await?.map(text).unwrap_or_default();
        for kept in entries.iter().filter(|entry| entry.name().ends_with(UNUSABLE)) {
            let kept = self.store.read_manifest(kept.path()).await?;
            manifests.push_str(&kept.map(text).unwrap_or_default());
        }
        for folder in entries {
            let name = folder.name();
            // A server that names other paths than it was asked for is not trusted with a deletion.
            let is_here = name.ends_with('/') && folder.path() == format!("{set}/{name}");
            if !is_here || !take(name) || manifests.contains(name) {
                continue;
            }
            for object in list(folder.path().to_owned()).await? {
                if object.metadata().is_file() && object.path().starts_with(folder.path()) {
                    store.operator().delete(object.path()).await.map_err(failed)?;
                }
            }
            store.operator().delete(folder.path()).await.map_err(failed)?;
        }
        Ok(())
    }

    /// Ends the uploads of objects whose paths in this set's folder start with `prefix`.
    async fn end_uploads(&self, prefix: &str) {
        let prefix = format!("{}/{prefix}", self.set.as_str());
        self.store.end_uploads(&prefix).await;
    }

    /// Whether the server really refuses to write an object that is there, or that is another than the request names. Some
    /// accept a condition and ignore it.
    ///
    /// # Errors
    /// When the server's answers do not show it.
    async fn refuses_to_overwrite(&self) -> opendal::Result<bool> {
        let probe = format!("{}/{}/.condition", self.set.as_str(), self.folder);
        let refuses = self.refuses_conditions(&probe).await;
        if let Err(error) = self.store.operator().delete(&probe).await {
            tracing::warn!("{probe} stays in the store: {}", error.kind());
        }
        refuses
    }

    async fn refuses_conditions(&self, probe: &str) -> opendal::Result<bool> {
        let operator = self.store.operator();
        let create = || operator.write_with(probe, TEST).if_not_exists(true);
        // Also the first time: the path is random, so that what is there was written by a request whose answer was lost.
        if !is_refused(create().await)? && !is_refused(create().await)? {
            return Ok(false);
        }
        // A manifest that replaces a corrupt one is sent with this condition.
        is_refused(operator.write_with(probe, TEST).if_match(NO_ETAG).await)
    }

    /// Removes what killed pods have left of this set, which is published: whoever else still works on it finds it published.
    /// Where nothing keeps another pod from replacing the manifest, it may do so, and its objects must be there then.
    async fn clean(&self) {
        if self.store.service.publishing == Publishing::Unconditional {
            return;
        }
        match self.refuses_to_overwrite().await {
            Ok(true) => {}
            Ok(false) => {
                tracing::warn!(
                    "the store ignores conditions of requests (If-None-Match, If-Match), so that what killed pods have left stays \
                     in it"
                );
                return;
            }
            Err(error) => {
                tracing::warn!(
                    "the store did not show whether it honours conditions of requests (If-None-Match, If-Match), so that what \
                     killed pods have left stays in it: {}",
                    error.kind()
                );
                return;
            }
        }
        let is_of_others = |folder: &str| folder.trim_end_matches('/') != self.folder;
        if let Err(failure) = self.remove(is_of_others).await {
            tracing::warn!(
                "what killed pods have left stays in the store: {}",
                failure.message
            );
        }
        self.end_uploads("").await;
    }

    /// Whether the manifest that was sent may still become the set's: nothing in the store excludes it.
    async fn may_still_be_published(&self) -> Result<bool, Failure> {
        let is_conditional = self.store.service.publishing == Publishing::Conditional
            && self.refuses_to_overwrite().await.unwrap_or(false);
        if !is_conditional {
            return Ok(true);
        }
        let found = self.store.find(&self.set).await?.map(|found| found.revision);
        Ok(found == self.replaced())
    }

    /// Revision of the unusable manifest that this attempt replaces; none where there is no manifest yet.
    fn replaced(&self) -> Option<String> {
        let replaces = self.replaces.lock();
        replaces.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stores what is next of a file as one object; whether the file goes on after it.
    async fn put_object(&self, object: &str, content: &mut Content) -> Result<Follows, PutError> {
        let service = &self.store.service;
        let failed = |error| PutError::Store(self.store.failure(&format!("writing {object}"), &error));
        let path = format!("{}/{object}", self.set.as_str());
        let mut upload = self.upload.lock().await;
        let writer = upload.insert(
            self.store
                .operator()
                .writer_with(&path)
                .concurrent(service.concurrent)
                .await
                .map_err(failed)?,
        );
        let mut bytes = 0;
        let follows = loop {
            let (part, follows) = next_part(content, service.part).await?;
            bytes += part.len() as u64;
            if !part.is_empty() {
                writer.write(part).await.map_err(failed)?;
            }
            if follows == Follows::Nothing || bytes >= service.largest {
                break follows;
            }
        };
        writer.close().await.map_err(failed)?;
        *upload = None;
        Ok(follows)
    }

    async fn end_upload(&self) {
        if let Some(mut writer) = self.upload.lock().await.take()
            && let Err(error) = writer.abort().await
        {
            tracing::warn!("an unfinished upload stays in the store: {}", error.kind());
        }
    }
}

/// Whether a conditional request was refused because of its condition.
fn is_refused<T>(written: opendal::Result<T>) -> opendal::Result<bool> {
    match written {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == ErrorKind::ConditionNotMatch => Ok(true),
        Err(error) => Err(error),
    }
}

/// What follows in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Follows {
    More,
    Nothing,
}

/// The next `bytes` bytes of a file, fewer only at its end. `bytes` must be a multiple of the size of a piece.
async fn next_part(content: &mut Content, bytes: usize) -> Result<(Buffer, Follows), PutError> {
    let mut pieces = Vec::new();
    let mut gathered = 0;
    while gathered < bytes {
        match content.next().await {
            Ok(Some(piece)) => {
                gathered += piece.len();
                pieces.push(piece);
            }
            Ok(None) => return Ok((concatenate(pieces), Follows::Nothing)),
            Err(_) => return Err(PutError::Incomplete),
        }
    }
    Ok((concatenate(pieces), Follows::More))
}

/// A manifest as text, in which names can be looked for.
fn text(stored: StoredManifest) -> String {
    String::from_utf8_lossy(&stored.manifest).into_owned()
}

fn concatenate(pieces: Vec<Vec<u8>>) -> Buffer {
    pieces.into_iter().map(bytes::Bytes::from).collect()
}

#[async_trait]
impl Attempt for ObjectsAttempt {
    async fn begin(&self) -> Result<(), Failure> {
        self.remove(|folder| folder.starts_with(&self.pod_uid)).await?;
        self.end_uploads(&self.pod_uid).await;
        Ok(())
    }

    async fn put(&self, file: &str, mut content: Content) -> Result<Vec<String>, PutError> {
        let mut objects: Vec<String> = Vec::new();
        loop {
            // In the order in which a shell lists them, so that `cat` joins them.
            let object = match objects.len() {
                0 => format!("{}/{file}", self.folder),
                number => format!("{}/{file}.{number:06}", self.folder),
            };
            let stored = self.put_object(&object, &mut content).await;
            if stored.is_err() {
                self.end_upload().await;
            }
            objects.push(object);
            if stored? == Follows::Nothing {
                return Ok(objects);
            }
        }
    }

    async fn read(&self, objects: &[String]) -> Result<Content, Failure> {
        self.store.read_objects(&self.set, objects).await
    }

    async fn set_aside(&self, unusable: &StoredManifest) -> Result<Option<String>, Failure> {
        if self.store.find(&self.set).await?.as_ref() != Some(unusable) {
            return Ok(None);
        }
        // Only copied: the manifest at the set's place is replaced by the request that publishes.
        let kept = format!("{}/{}{UNUSABLE}", self.set.as_str(), self.folder);
        self.store
            .operator()
            .write(&kept, unusable.manifest.clone())
            .await
            .map_err(|error| self.store.failure("keeping a corrupt manifest", &error))?;
        *self.replaces.lock().unwrap_or_else(PoisonError::into_inner) = Some(unusable.revision.clone());
        Ok(Some(kept))
    }

    async fn publish(&self, manifest: &[u8]) -> Result<Published, Failure> {
        let path = manifest_of(&self.set);
        let replaces = self.replaced();
        if let Some(found) = self.store.read_manifest(&path).await?
            && replaces.as_ref() != Some(&found.revision)
        {
            return Ok(Published::AnotherAttempt(found));
        }
        if manifest.len() as u64 > LARGEST_MANIFEST {
            return Err(environment_failure(
                Reason::AgentFailed,
                format!(
                    "The manifest of the backup has {} bytes, because the database is stored in very many objects. Store \
                     backups in a bucket or a volume.",
                    manifest.len()
                ),
            ));
        }
        self.sent.store(true, Ordering::Relaxed);
        let write = self.store.operator().write_with(&path, manifest.to_owned());
        let written = match (self.store.service.publishing, replaces) {
            (Publishing::Conditional, None) => write.if_not_exists(true).await,
            (Publishing::Conditional, Some(revision)) => write.if_match(&revision).await,
            (Publishing::Unconditional, _) => write.await,
        };
        match written {
            Ok(_) => {}
            // Also when the answer to our own request was lost and the request was repeated.
            Err(error) if error.kind() == ErrorKind::ConditionNotMatch => {}
            Err(error) => return Err(self.store.failure("writing the manifest", &error)),
        }
        match self.store.read_manifest(&path).await? {
            Some(found) if found.manifest != manifest => Ok(Published::AnotherAttempt(found)),
            Some(_) => {
                self.clean().await;
                Ok(Published::ThisAttempt)
            }
            None => Err(environment_failure(
                Reason::StoreCorrupt,
                format!(
                    "The backup store, {}, accepted a manifest and does not have it. Check the service behind it.",
                    self.store.name
                ),
            )),
        }
    }

    async fn abort(&self) -> Result<(), Failure> {
        self.end_upload().await;
        if self.sent.load(Ordering::Relaxed) && self.may_still_be_published().await? {
            tracing::warn!("the manifest may still arrive, so that its objects stay in the store");
            return Ok(());
        }
        self.remove(|folder| folder.trim_end_matches('/') == self.folder)
            .await
    }
}
