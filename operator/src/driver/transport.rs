//! Requests of the engine as kube sends them. Decides nothing: each is idempotent or create-once, and what an answer
//! means is the engine's.

use fairway_engine::kinds::Kind;
use fairway_engine::{Answer, FIELD_MANAGER, Key, Own, Ownership, Request, Resource};
use fairway_plan::object::{Object, ObjectRef, Step};
use kube::Resource as _;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::{ApiResource, DynamicObject};
use kube::{Api, Client};
use serde_json::json;

/// Carries requests to the API server and answers back.
#[derive(Clone)]
pub(super) struct Transport {
    client: Client,
}

/// Whether a write lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Persisted,
    DryRun,
}

impl Transport {
    /// A transport over this client.
    pub(super) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Sends a request and brings back the answer.
    pub(super) async fn ask(&self, request: &Request) -> Answer {
        let answer = match request {
            Request::Write(step) => self.write(step).await,
            Request::Commit(object) => self.commit(object).await,
            Request::Read(resource, key) => self.read(*resource, key).await,
        };
        answer.unwrap_or_else(|error| match error {
            kube::Error::Api(status) => Answer::Error(status),
            kube::Error::Auth(_) => Answer::Lost("the operator's credentials cannot be read"),
            _ => Answer::Lost("the API server cannot be reached or its answer cannot be read"),
        })
    }

    async fn write(&self, step: &Step) -> Result<Answer, kube::Error> {
        match step {
            Step::Apply(object) => self.apply(object, Effect::Persisted).await,
            Step::DryRun(object) => self.apply(object, Effect::DryRun).await,
            Step::Create(object) => self.create(object).await,
            Step::Scale(target, replicas) => self.scale(target, *replicas).await,
            Step::Delete(target) => self.delete(target).await,
        }
    }

    async fn apply(&self, object: &Object, effect: Effect) -> Result<Answer, kube::Error> {
        let mut parameters = PatchParams::apply(FIELD_MANAGER).validation_strict();
        parameters.force = Ownership::of(object) == Ownership::Exclusive;
        parameters.dry_run = effect == Effect::DryRun;
        let (api, name) = self.place(object);
        let applied = api.patch(name, &parameters, &Patch::Apply(object)).await?;
        Ok(Answer::Object(Box::new(applied)))
    }

    async fn create(&self, object: &Object) -> Result<Answer, kube::Error> {
        let resource = Kind::from(object.kind()).api_resource();
        let namespace = object.meta().namespace.as_deref().unwrap_or_default();
        let body = serde_json::to_vec(object).map_err(kube::Error::SerdeError)?;
        let request = kube::core::Request::new(DynamicObject::url_path(&resource, Some(namespace)))
            .create(&post(), body)
            .map_err(kube::Error::BuildRequest)?;
        let created = self.client.request(request).await?;
        Ok(Answer::Object(Box::new(created)))
    }

    async fn scale(&self, target: &ObjectRef, replicas: i32) -> Result<Answer, kube::Error> {
        let parameters = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        // The UID makes the API server refuse another object with the same name, the version what has changed since it
        // was decided.
        let metadata = json!({"uid": target.uid, "resourceVersion": target.resource_version});
        let patch = json!({"metadata": metadata, "spec": {"replicas": replicas}});
        let api = self.api(&Kind::from(target.kind).api_resource(), &target.namespace);
        let scaled = api.patch(&target.name, &parameters, &Patch::Merge(patch)).await?;
        Ok(Answer::Object(Box::new(scaled)))
    }

    async fn delete(&self, target: &ObjectRef) -> Result<Answer, kube::Error> {
        let parameters = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(target.uid.clone()),
                resource_version: None,
            }),
            // Without it a Job would leave its pods behind.
            ..DeleteParams::background()
        };
        let api = self.api(&Kind::from(target.kind).api_resource(), &target.namespace);
        let answer = api.delete(&target.name, &parameters).await?;
        Ok(answer
            .left()
            .map_or(Answer::Done, |object| Answer::Object(Box::new(object))))
    }

    async fn commit(&self, object: &Own) -> Result<Answer, kube::Error> {
        let (key, resource) = (object.key(), object.kind().kind().api_resource());
        let body = serde_json::to_vec(object).map_err(kube::Error::SerdeError)?;
        let request = kube::core::Request::new(DynamicObject::url_path(&resource, Some(&key.namespace)))
            .replace_subresource("status", &key.name, &post(), body)
            .map_err(kube::Error::BuildRequest)?;
        let stored = self.client.request(request).await?;
        Ok(Answer::Object(Box::new(stored)))
    }

    async fn read(&self, resource: Resource, key: &Key) -> Result<Answer, kube::Error> {
        let api = self.api(&resource.api_resource(), &key.namespace);
        let found = api.get(&key.name).await?;
        Ok(Answer::Object(Box::new(found)))
    }

    fn place<'a>(&self, object: &'a Object) -> (Api<DynamicObject>, &'a str) {
        let meta = object.meta();
        let resource = Kind::from(object.kind()).api_resource();
        (
            self.api(&resource, meta.namespace.as_deref().unwrap_or_default()),
            meta.name.as_deref().unwrap_or_default(),
        )
    }

    fn api(&self, resource: &ApiResource, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, resource)
    }
}

fn post() -> PostParams {
    PostParams {
        dry_run: false,
        field_manager: Some(FIELD_MANAGER.to_owned()),
    }
}

#[cfg(test)]
mod tests;
