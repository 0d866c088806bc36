//! An object store in memory, as S3 is one: no folders and no renaming, parts that are collected until an upload is
//! complete, and one conditional write. It proves that [`Store`] needs nothing that only a volume has.

use std::{
    collections::BTreeMap,
    io::Write as _,
    sync::{Arc, Mutex, MutexGuard},
};

use async_trait::async_trait;
use fairway_protocol::{Failure, Reason};

use super::{
    content::{Content, pipe},
    port::{Attempt, Found, MANIFEST, Published, PutError, SetPath, Store},
};
use crate::failure::environment as environment_failure;

/// Objects by key, and the parts of unfinished uploads by key.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    pub(super) objects: BTreeMap<String, Vec<u8>>,
    pub(super) uploads: BTreeMap<String, Vec<Vec<u8>>>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Objects(Arc<Mutex<Bucket>>);

impl Objects {
    pub(super) fn bucket(&self) -> MutexGuard<'_, Bucket> {
        self.0.lock().unwrap()
    }

    fn get(&self, key: &str) -> Result<Content, Failure> {
        let bytes = self.bucket().objects.get(key).cloned();
        let bytes = bytes.ok_or_else(|| {
            environment_failure(Reason::StoreCorrupt, format!("The bucket has no object {key}."))
        })?;
        let (mut writer, content) = pipe();
        tokio::task::spawn_blocking(move || writer.write_all(&bytes).and_then(|()| writer.finish()));
        Ok(content)
    }
}

#[async_trait]
impl Store for Objects {
    async fn check(&self, pod_uid: &str) -> Result<(), Failure> {
        let key = format!(".fairway-preflight-{pod_uid}");
        self.bucket().objects.insert(key.clone(), Vec::new());
        self.bucket().objects.remove(&key);
        Ok(())
    }

    async fn find(&self, set: &SetPath) -> Result<Option<Found>, Failure> {
        let key = format!("{}/{MANIFEST}", set.as_str());
        let manifest = self.bucket().objects.get(&key).cloned();
        Ok(manifest.map(|manifest| Found {
            revision: String::from_utf8_lossy(&manifest).into_owned(),
            manifest,
        }))
    }

    async fn read(&self, set: &SetPath, file: &str) -> Result<Content, Failure> {
        self.get(&format!("{}/{file}", set.as_str()))
    }

    fn attempt(&self, set: &SetPath, pod_uid: &str) -> Box<dyn Attempt> {
        Box::new(ObjectsAttempt {
            store: self.clone(),
            set: set.clone(),
            pod_uid: pod_uid.to_owned(),
        })
    }
}

struct ObjectsAttempt {
    store: Objects,
    set: SetPath,
    pod_uid: String,
}

impl ObjectsAttempt {
    fn prefix(&self) -> String {
        format!("{}/{}/", self.set.as_str(), self.pod_uid)
    }

    fn remove(&self) {
        let prefix = self.prefix();
        let mut bucket = self.store.bucket();
        bucket.objects.retain(|key, _| !key.starts_with(&prefix));
        bucket.uploads.retain(|key, _| !key.starts_with(&prefix));
    }
}

#[async_trait]
impl Attempt for ObjectsAttempt {
    async fn begin(&self) -> Result<(), Failure> {
        self.remove();
        Ok(())
    }

    async fn put(&self, file: &str, mut content: Content) -> Result<String, PutError> {
        let key = format!("{}{file}", self.prefix());
        self.store.bucket().uploads.insert(key.clone(), Vec::new());
        while let Some(part) = content.next().await.map_err(|_| PutError::CutOff)? {
            self.store
                .bucket()
                .uploads
                .entry(key.clone())
                .or_default()
                .push(part);
        }
        let mut bucket = self.store.bucket();
        let parts = bucket.uploads.remove(&key).unwrap_or_default();
        bucket.objects.insert(key, parts.concat());
        Ok(format!("{}/{file}", self.pod_uid))
    }

    async fn read(&self, file: &str) -> Result<Content, Failure> {
        self.store.get(&format!("{}/{file}", self.set.as_str()))
    }

    async fn publish(&self, manifest: &[u8], unusable: Option<&Found>) -> Result<Published, Failure> {
        // `If-None-Match: *` without an unusable manifest, `If-Match: <revision>` with one.
        if let Some(found) = self.store.find(&self.set).await? {
            if Some(&found.revision) != unusable.map(|unusable| &unusable.revision) {
                return Ok(Published::Theirs(found));
            }
            let mut bucket = self.store.bucket();
            bucket.objects.insert(self.kept_as(), found.manifest);
        }
        let key = format!("{}/{MANIFEST}", self.set.as_str());
        self.store.bucket().objects.insert(key, manifest.to_owned());
        Ok(Published::Ours)
    }

    fn kept_as(&self) -> String {
        format!("{}/{}.unusable", self.set.as_str(), self.pod_uid)
    }

    async fn abort(&self) -> Result<(), Failure> {
        self.remove();
        Ok(())
    }
}
