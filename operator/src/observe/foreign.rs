//! Services that Fairway has not applied yet: a team may have made them, and they carry none of our labels, so no
//! watch shows them. Each is asked for by name, and the answer holds for a while.

use crate::key::Key;
use crate::world::World;
use k8s_openapi::api::core::v1::Service;
use kube::{Api, Client};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long an answer holds. The first apply, not forced, finds out about what has changed since.
const FRESH: Duration = Duration::from_secs(10);

/// When a Service was asked for, and what there was.
type Answers = HashMap<Key, (Instant, Option<Arc<Service>>)>;

/// Asks for Services.
pub(crate) struct Foreign {
    client: Client,
    world: Arc<World>,
    answers: Mutex<Answers>,
}

/// A Service could not be asked for.
#[derive(Debug, thiserror::Error)]
#[error("service {service} could not be read")]
pub(crate) struct ForeignError {
    service: Key,
    #[source]
    source: kube::Error,
}

impl Foreign {
    /// Asks with this client for what `world` does not have.
    pub(crate) fn new(client: Client, world: Arc<World>) -> Self {
        Self {
            client,
            world,
            answers: Mutex::default(),
        }
    }

    /// The Service of that name, if there is one.
    ///
    /// # Errors
    /// When the apiserver does not answer.
    pub(crate) async fn service(&self, key: &Key) -> Result<Option<Arc<Service>>, ForeignError> {
        if let Some(service) = self.world.service(key) {
            self.lock().remove(key);
            return Ok(Some(service));
        }
        let now = Instant::now();
        let known = self
            .lock()
            .get(key)
            .filter(|(asked, _)| now < *asked + FRESH)
            .cloned();
        if let Some((_, service)) = known {
            return Ok(service);
        }
        let api: Api<Service> = Api::namespaced(self.client.clone(), &key.namespace);
        let found = api
            .get_opt(&key.name)
            .await
            .map_err(|source| ForeignError {
                service: key.clone(),
                source,
            })?
            .map(Arc::new);
        let mut answers = self.lock();
        answers.retain(|_, (asked, _)| now < *asked + FRESH);
        answers.insert(key.clone(), (now, found.clone()));
        Ok(found)
    }

    fn lock(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
