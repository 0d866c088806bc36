//! Requests of the engine as kube sends them. Decides nothing: each is idempotent or create-once, and what an answer
//! means is the engine's.

use super::stream::{self, Failure};
use fairway_engine::kinds::Kind;
use fairway_engine::{
    Answer, FIELD_MANAGER, NamespacedName, Own, Ownership, Request, Resource, read_answer, read_found,
    read_list,
};
use fairway_plan::labels;
use fairway_plan::object::{Object, ObjectRef, Step};
use kube::api::{DeleteParams, GetParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::{DynamicObject, Selector};
use kube::{Client, Resource as _};
use serde_json::{Value, json};

/// Largest answer that is read; an object as JSON is up to six times what the API server stores of it.
const LARGEST: usize = 16 * 1024 * 1024;

/// Objects of a list that are read: of those that no watch shows, the first few say enough.
const LISTED: u32 = 100;

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
            Request::List(kind, namespace, selector) => self.list(*kind, namespace, selector).await,
        };
        answer.unwrap_or_else(|failure| match failure {
            Failure::Answered(status) => Answer::Error(status),
            Failure::Credentials => Answer::Lost("the operator's credentials cannot be read"),
            Failure::Unreachable | Failure::Malformed => {
                Answer::Lost("the API server cannot be reached or its answer cannot be read")
            }
        })
    }

    /// Sends a request, of whose answer so much is read.
    async fn send(
        &self,
        request: Result<hyper::Request<Vec<u8>>, kube::core::request::Error>,
        read: fn(&[u8]) -> Result<DynamicObject, serde_json::Error>,
    ) -> Result<Answer, Failure> {
        let request = request.map_err(|_| Failure::Malformed)?;
        let answer = stream::send(&self.client, request).await?;
        let object = read(&answer.whole(LARGEST).await?).map_err(|_| Failure::Malformed)?;
        let is_status = object.types.as_ref().is_some_and(|types| types.kind == "Status");
        Ok(match is_status {
            true => Answer::Done,
            false => Answer::Object(Box::new(object)),
        })
    }

    /// Sends the request of a dry run, of whose answer the warnings alone matter.
    async fn send_dry_run(
        &self,
        request: Result<hyper::Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<Answer, Failure> {
        let request = request.map_err(|_| Failure::Malformed)?;
        let answer = stream::send(&self.client, request).await?;
        let warnings = answer.warnings();
        read_answer(&answer.whole(LARGEST).await?).map_err(|_| Failure::Malformed)?;
        Ok(Answer::Passed(warnings))
    }

    async fn write(&self, step: &Step) -> Result<Answer, Failure> {
        match step {
            Step::Apply(object) => self.apply(object, Effect::Persisted).await,
            // A pod is never applied, so that no verb for it is needed.
            Step::DryRun(object) if object.kind() == fairway_plan::object::Kind::Pod => {
                self.create(object, Effect::DryRun).await
            }
            Step::DryRun(object) => self.apply(object, Effect::DryRun).await,
            Step::Create(object) => self.create(object, Effect::Persisted).await,
            Step::Replace(object, _) => self.replace(object).await,
            Step::Scale(target, replicas) => self.scale(target, *replicas).await,
            Step::TakeOver(target, replicas) => self.take_over(target, *replicas).await,
            Step::Delete(target) => self.delete(target).await,
        }
    }

    async fn apply(&self, object: &Object, effect: Effect) -> Result<Answer, Failure> {
        let mut parameters = PatchParams::apply(FIELD_MANAGER).validation_strict();
        parameters.force = Ownership::of(object) == Ownership::Exclusive;
        parameters.dry_run = effect == Effect::DryRun;
        let meta = object.meta();
        let path = path(
            object.kind().into(),
            meta.namespace.as_deref().unwrap_or_default(),
        );
        let name = meta.name.as_deref().unwrap_or_default();
        let request = path.patch(name, &parameters, &Patch::Apply(object));
        match effect {
            Effect::Persisted => self.send(request, read_answer).await,
            Effect::DryRun => self.send_dry_run(request).await,
        }
    }

    /// An update would need another verb. The UID and the version make the API server refuse another object with the same
    /// name, and one that has changed since. What other managers own is forgotten, as in
    /// <https://kubernetes.io/docs/reference/using-api/server-side-apply/#clearing-managedfields>; one entry stays, because the
    /// API server tracks no further changes of an object that has none.
    async fn replace(&self, object: &Object) -> Result<Answer, Failure> {
        let meta = object.meta();
        let desired = serde_json::to_value(object).map_err(|_| Failure::Malformed)?;
        let set = |path: &str, value: &Value| json!({"op": "add", "path": path, "value": value});
        let annotations = &desired["metadata"]["annotations"];
        let ours = json!({
            "manager": FIELD_MANAGER, "operation": "Apply", "apiVersion": desired["apiVersion"], "fieldsType": "FieldsV1",
            "fieldsV1": {"f:metadata": {"f:labels": {format!("f:{}", labels::APP): {}}}},
        });
        let patch = json!([
            set("/metadata/uid", &desired["metadata"]["uid"]),
            set(
                "/metadata/resourceVersion",
                &desired["metadata"]["resourceVersion"]
            ),
            set("/metadata/managedFields", &json!([ours])),
            set(
                "/metadata/annotations/fairway.dev~1applied-hash",
                &annotations[labels::APPLIED_HASH]
            ),
            set("/spec", &desired["spec"]),
        ]);
        let patch = serde_json::from_value(patch).map_err(|_| Failure::Malformed)?;
        let parameters = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let path = path(
            object.kind().into(),
            meta.namespace.as_deref().unwrap_or_default(),
        );
        let name = meta.name.as_deref().unwrap_or_default();
        let request = path.patch(name, &parameters, &Patch::Json::<()>(patch));
        self.send(request, read_answer).await
    }

    async fn create(&self, object: &Object, effect: Effect) -> Result<Answer, Failure> {
        let namespace = object.meta().namespace.as_deref().unwrap_or_default();
        let body = serde_json::to_vec(object).map_err(|_| Failure::Malformed)?;
        let path = path(object.kind().into(), namespace);
        let request = path.create(&post(effect), body);
        match effect {
            Effect::Persisted => self.send(request, read_answer).await,
            Effect::DryRun => self.send_dry_run(request).await,
        }
    }

    async fn scale(&self, target: &ObjectRef, replicas: i32) -> Result<Answer, Failure> {
        self.merge(target, json!({"spec": {"replicas": replicas}})).await
    }

    async fn take_over(&self, target: &ObjectRef, replicas: i32) -> Result<Answer, Failure> {
        let annotations = json!({labels::REPLICAS: replicas.to_string()});
        let patch = json!({"metadata": {"annotations": annotations}, "spec": {"replicas": 0}});
        self.merge(target, patch).await
    }

    async fn merge(&self, target: &ObjectRef, mut patch: Value) -> Result<Answer, Failure> {
        let parameters = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        // The UID makes the API server refuse another object with the same name, the version what has changed since it
        // was decided.
        patch["metadata"]["uid"] = json!(target.uid);
        patch["metadata"]["resourceVersion"] = json!(target.resource_version);
        let path = path(target.kind.into(), &target.namespace);
        let request = path.patch(&target.name, &parameters, &Patch::Merge(patch));
        self.send(request, read_answer).await
    }

    async fn delete(&self, target: &ObjectRef) -> Result<Answer, Failure> {
        let parameters = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(target.uid.clone()),
                resource_version: target
                    .resource_version
                    .clone()
                    .filter(|_| target.kind.is_deleted_unchanged()),
            }),
            // Without it a Job would leave its pods behind.
            ..DeleteParams::background()
        };
        let path = path(target.kind.into(), &target.namespace);
        self.send(path.delete(&target.name, &parameters), read_answer)
            .await
    }

    async fn commit(&self, object: &Own) -> Result<Answer, Failure> {
        let key = object.key();
        let body = serde_json::to_vec(object).map_err(|_| Failure::Malformed)?;
        let path = path(object.kind().kind(), &key.namespace);
        let request = path.replace_subresource("status", &key.name, &post(Effect::Persisted), body);
        self.send(request, read_answer).await
    }

    async fn read(&self, resource: Resource, key: &NamespacedName) -> Result<Answer, Failure> {
        let path = DynamicObject::url_path(&resource.api_resource(), Some(&key.namespace));
        let request = kube::core::Request::new(path).get(&key.name, &GetParams::default());
        self.send(request, read_found).await
    }

    async fn list(&self, kind: Kind, namespace: &str, selector: &Selector) -> Result<Answer, Failure> {
        let parameters = ListParams::default().labels(&selector.to_string()).limit(LISTED);
        let request = path(kind, namespace)
            .list(&parameters)
            .map_err(|_| Failure::Malformed)?;
        let answer = stream::send(&self.client, request).await?;
        let answer = answer.whole(LARGEST).await?;
        let objects = read_list(&answer).map_err(|_| Failure::Malformed)?;
        Ok(Answer::Objects(objects))
    }
}

fn path(kind: Kind, namespace: &str) -> kube::core::Request {
    kube::core::Request::new(DynamicObject::url_path(&kind.api_resource(), Some(namespace)))
}

fn post(effect: Effect) -> PostParams {
    PostParams {
        dry_run: effect == Effect::DryRun,
        field_manager: Some(FIELD_MANAGER.to_owned()),
    }
}

#[cfg(test)]
mod tests;
