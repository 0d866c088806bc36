//! Objects of a team that no watch shows, because they carry none of our labels: Services that Fairway has not
//! applied yet, and PersistentVolumeClaims. Each is asked for by name, and the answer holds for a while.

use crate::key::Key;
use crate::world::World;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Service};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long the answer about a Service holds. The first apply, not forced, finds out about what has changed since.
const SERVICE_HOLDS: Duration = Duration::from_secs(10);
/// How long the answer about a claim holds: for a burst of passes. Nothing else finds out about a claim that came,
/// or was made anew, before the release begins.
const CLAIM_HOLDS: Duration = Duration::from_secs(1);

/// Asks for what no watch shows.
pub(crate) struct Foreign {
    client: Client,
    world: Arc<World>,
    services: Answers<Service>,
    claims: Answers<PersistentVolumeClaim>,
}

/// An object could not be asked for.
#[derive(Debug, thiserror::Error)]
#[error("{kind} {key} could not be read")]
pub(crate) struct ForeignError {
    kind: &'static str,
    key: Key,
    #[source]
    source: kube::Error,
}

impl Foreign {
    /// Asks with this client for what `world` does not have.
    pub(crate) fn new(client: Client, world: Arc<World>) -> Self {
        Self {
            client,
            world,
            services: Answers::new("service", SERVICE_HOLDS),
            claims: Answers::new("claim", CLAIM_HOLDS),
        }
    }

    /// The Service of that name, if there is one.
    ///
    /// # Errors
    /// When the apiserver does not answer.
    pub(crate) async fn service(&self, key: &Key) -> Result<Option<Arc<Service>>, ForeignError> {
        if let Some(service) = self.world.service(key) {
            self.services.lock().remove(key);
            return Ok(Some(service));
        }
        self.services.ask(&self.client, key).await
    }

    /// The PersistentVolumeClaim of that name, if there is one.
    ///
    /// # Errors
    /// When the apiserver does not answer.
    pub(crate) async fn claim(&self, key: &Key) -> Result<Option<Arc<PersistentVolumeClaim>>, ForeignError> {
        self.claims.ask(&self.client, key).await
    }
}

/// By object: when it was asked for, and what there was.
type Known<K> = HashMap<Key, (Instant, Option<Arc<K>>)>;

/// Answers about objects of one kind.
struct Answers<K> {
    kind: &'static str,
    hold: Duration,
    known: Mutex<Known<K>>,
}

impl<K> Answers<K> {
    /// None yet.
    fn new(kind: &'static str, hold: Duration) -> Self {
        Self {
            kind,
            hold,
            known: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known<K>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K> Answers<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    /// The object of that name, as it is or was a short while ago.
    async fn ask(&self, client: &Client, key: &Key) -> Result<Option<Arc<K>>, ForeignError> {
        let now = Instant::now();
        let holds = |asked: Instant| now < asked + self.hold;
        let known = self.lock().get(key).filter(|(asked, _)| holds(*asked)).cloned();
        if let Some((_, object)) = known {
            return Ok(object);
        }
        let api: Api<K> = Api::namespaced(client.clone(), &key.namespace);
        let found = api
            .get_opt(&key.name)
            .await
            .map_err(|source| ForeignError {
                kind: self.kind,
                key: key.clone(),
                source,
            })?
            .map(Arc::new);
        let mut answers = self.lock();
        answers.retain(|_, (asked, _)| holds(*asked));
        answers.insert(key.clone(), (now, found.clone()));
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{apiserver, failure};
    use serde_json::json;

    fn claim() -> (u16, serde_json::Value) {
        let claim = json!({"metadata": {"namespace": "shop", "name": "uploads"}, "spec": {"accessModes": ["ReadWriteOnce"]}});
        (200, claim)
    }

    fn service(version: &str) -> (u16, serde_json::Value) {
        let service = json!({"metadata": {
            "namespace": "shop", "name": "uploads", "resourceVersion": version, "labels": {"fairway.dev/app": "crm"},
        }});
        (200, service)
    }

    #[tokio::test(start_paused = true)]
    async fn a_claim_is_asked_for_by_name_and_once_in_a_burst_of_passes() {
        let (client, mut server) = apiserver();
        let foreign = Foreign::new(client, Arc::default());
        let key = Key::new("shop", "uploads");
        let (found, asked) = tokio::join!(foreign.claim(&key), server.answer(claim()));
        assert_eq!(
            asked.what,
            "GET /api/v1/namespaces/shop/persistentvolumeclaims/uploads"
        );
        let first = found.unwrap().unwrap();
        let again = foreign.claim(&key).await.unwrap().unwrap();
        assert!(Arc::ptr_eq(&first, &again), "no second request");
        tokio::time::advance(CLAIM_HOLDS).await;
        let (gone, _) = tokio::join!(foreign.claim(&key), server.answer(failure(404, "NotFound")));
        assert!(gone.unwrap().is_none(), "that it is gone is seen");
        server.asked_nothing_more(foreign).await;
    }

    #[tokio::test]
    async fn a_claim_that_may_not_be_read_is_an_error_and_asked_for_again() {
        let (client, mut server) = apiserver();
        let foreign = Foreign::new(client, Arc::default());
        let key = Key::new("shop", "uploads");
        let (refused, _) = tokio::join!(foreign.claim(&key), server.answer(failure(403, "Forbidden")));
        assert_eq!(
            refused.unwrap_err().to_string(),
            "claim shop/uploads could not be read"
        );
        let (found, _) = tokio::join!(foreign.claim(&key), server.answer(claim()));
        assert!(found.unwrap().is_some());
        server.asked_nothing_more(foreign).await;
    }

    #[tokio::test]
    async fn a_service_that_a_watch_shows_is_not_asked_for() {
        let (client, mut server) = apiserver();
        let world = Arc::<World>::default();
        let foreign = Foreign::new(client, world.clone());
        let key = Key::new("shop", "uploads");
        let (found, asked) = tokio::join!(foreign.service(&key), server.answer(service("1")));
        assert_eq!(asked.what, "GET /api/v1/namespaces/shop/services/uploads");
        assert!(found.unwrap().is_some());
        let applied: Service = serde_json::from_value(service("2").1).unwrap();
        world.put(applied);
        let cached = foreign.service(&key).await.unwrap().unwrap();
        assert_eq!(cached.metadata.resource_version.as_deref(), Some("2"));
        server.asked_nothing_more(foreign).await;
    }
}
