//! Between an operator and the API server: every request of it passes here, and here things go wrong.

use crate::cluster::Cluster;
use crate::invariants::Checker;
use crate::store::{ApiError, Objects, Stored};
use crate::transcript::Transcript;
use fairway_engine::kinds::*;
use fairway_engine::{Answer, Now, Own, Request, Resource, read_warnings};
use fairway_plan::object::{Object, ObjectRef};
use fairway_plan::{Step, labels};
use kube::ResourceExt;
use kube::core::{DynamicObject, ObjectMeta, Selector, SelectorExt};
use std::collections::BTreeMap;

/// What goes wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// The operator is killed when that write has been done, before it hears of it.
    KilledAfter(usize),
    /// That write is done, but its answer is lost.
    AnswerLost(usize),
    /// That write never reaches the API server.
    RequestLost(usize),
    /// Every step is executed twice.
    Twice,
    /// The operator's watches of these kinds are some writes behind.
    Lagging {
        /// Which kinds.
        kinds: Vec<Kind>,
        /// How many writes ago.
        writes: usize,
    },
}

/// One write of an operator, for counting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// `create`, `apply`, `scale`, `delete`, `dry run` or `status`.
    pub verb: &'static str,
    /// Of what.
    pub kind: Kind,
    /// Its name.
    pub name: String,
}

/// What is kept of an operator's traffic.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    /// What goes wrong.
    pub fault: Fault,
    /// Every write that reached the API server.
    pub writes: Vec<Written>,
    /// Up to which version the watch of each kind has come.
    shown: BTreeMap<Kind, u64>,
    /// Caches lag only while things move; in a quiet moment they catch up.
    pub has_caught_up: bool,
}

impl Traffic {
    /// Traffic in which that goes wrong.
    pub fn with(fault: Fault) -> Self {
        Self {
            fault,
            ..Self::default()
        }
    }
}

/// The connection of one operator to the cluster.
pub struct Wire<'a> {
    /// The cluster.
    pub cluster: &'a mut Cluster,
    /// What is kept of the traffic.
    pub traffic: &'a mut Traffic,
    /// The story so far.
    pub transcript: &'a mut Transcript,
    /// Who watches the invariants.
    pub checker: &'a mut Checker,
}

/// The operator was killed before it heard the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Killed;

impl Traffic {
    /// All objects, as the operator's watches show them now. A watch lags, but it never goes back.
    pub(crate) fn view(&mut self, cluster: &Cluster) -> Objects {
        let mut view = cluster.objects().clone();
        let Fault::Lagging { kinds, writes } = &self.fault else {
            return view;
        };
        let version = cluster.api.version();
        let lag = if self.has_caught_up {
            0
        } else {
            u64::try_from(*writes).unwrap_or(u64::MAX)
        };
        for kind in kinds {
            let shown = self.shown.entry(*kind).or_default();
            *shown = version.saturating_sub(lag).max(*shown);
            view = view.with_kind_of(cluster.api.at(*shown), *kind);
        }
        view
    }
}

impl Wire<'_> {
    /// The time.
    pub fn now(&self) -> Now {
        self.cluster.clock()
    }

    /// Sends a request and brings back the answer.
    ///
    /// # Errors
    /// When the operator is killed meanwhile.
    pub fn ask(&mut self, request: &Request) -> Result<Answer, Killed> {
        match request {
            Request::Write(step) => self.step(step),
            Request::Commit(object) => self.commit(object),
            Request::Read(resource, _) if self.refuses("get", &resource.api_resource().kind) => {
                Ok(answer_of(Err(denied())))
            }
            Request::List(kind, ..) if self.refuses("list", kind.as_str()) => Ok(answer_of(Err(denied()))),
            Request::Read(resource, key) => Ok(read(self.cluster, *resource, &key.name)),
            Request::List(kind, _, selector) => Ok(list(self.cluster, *kind, selector)),
        }
    }

    fn refuses(&self, verb: &str, kind: &str) -> bool {
        self.cluster.rules.refuse(verb, kind)
    }

    fn step(&mut self, step: &Step) -> Result<Answer, Killed> {
        let (verb, kind, name) = match step {
            Step::Apply(object) => ("apply", object.kind(), name_of(object)),
            Step::Replace(object, _) => ("replace", object.kind(), name_of(object)),
            Step::DryRun(object) => ("dry run", object.kind(), name_of(object)),
            Step::Create(object) => ("create", object.kind(), name_of(object)),
            Step::Scale(target, _) | Step::TakeOver(target, _) => ("scale", target.kind, target.name.clone()),
            Step::Delete(target) => ("delete", target.kind, target.name.clone()),
        };
        let written = Written {
            verb,
            kind: kind.into(),
            name,
        };
        let times = if self.traffic.fault == Fault::Twice { 2 } else { 1 };
        let mut answer = Err(ApiError::Lost);
        for _ in 0..times {
            let next = self.send(written.clone(), |cluster| execute(cluster, step))?;
            self.transcript.step(self.cluster.now, step, &next);
            // The first answer counts, since a probe pod is known by the UID that it brings. What follows when it is lost
            // is a fault of its own.
            if answer.is_err() {
                answer = next;
            }
        }
        Ok(match (step, answer) {
            (Step::DryRun(object), Ok(_)) => Answer::Passed(warnings(self.cluster, object)),
            (_, answer) => answer_of(answer),
        })
    }

    fn commit(&mut self, object: &Own) -> Result<Answer, Killed> {
        let (kind, name) = (object.kind().kind(), object.key().name.to_string());
        let written = Written {
            verb: "status",
            kind,
            name: name.clone(),
        };
        let before = self.cluster.objects().clone();
        let answer = self.send(written, |cluster| {
            if cluster.rules.refuse("status", kind.as_str()) {
                return Err(denied());
            }
            cluster.api.commit_any(object).map(Some)
        });
        self.transcript
            .status(self.cluster.now, kind, &name, &before, self.cluster.objects());
        answer.map(answer_of)
    }

    fn send(
        &mut self,
        written: Written,
        write: impl FnOnce(&mut Cluster) -> Result<Option<ObjectMeta>, ApiError>,
    ) -> Result<Result<Option<ObjectMeta>, ApiError>, Killed> {
        let number = self.traffic.writes.len() + 1;
        if self.traffic.fault == Fault::RequestLost(number) {
            self.traffic.fault = Fault::None;
            return Ok(Err(ApiError::Lost));
        }
        let before = self.cluster.objects().clone();
        let answer = write(self.cluster);
        self.traffic.writes.push(written);
        self.checker.after_write(&before, self.cluster);
        match self.traffic.fault {
            Fault::KilledAfter(killed) if killed == number => Err(Killed),
            Fault::AnswerLost(lost) if lost == number => Ok(Err(ApiError::Lost)),
            _ => Ok(answer),
        }
    }
}

/// What the API server warns of when it accepts an object.
fn warnings(cluster: &Cluster, object: &Object) -> Vec<String> {
    let pods = match object {
        Object::Deployment(deployment) => deployment.spec.as_ref().map(|spec| &spec.template.spec),
        Object::Pod(pod) => Some(&pod.spec),
        _ => None,
    };
    read_warnings(cluster.warning_of_pod(pods.and_then(|spec| spec.as_ref())))
}

fn answer_of(answer: Result<Option<ObjectMeta>, ApiError>) -> Answer {
    match answer {
        Ok(Some(metadata)) => Answer::Object(Box::new(DynamicObject {
            types: None,
            metadata,
            data: serde_json::Value::Null,
        })),
        Ok(None) => Answer::Done,
        Err(error) => match error.status() {
            Some(status) => Answer::Error(Box::new(status)),
            None => Answer::Lost("no answer came"),
        },
    }
}

/// What the API server answers to a read.
pub(crate) fn read(cluster: &Cluster, resource: Resource, name: &str) -> Answer {
    let objects = cluster.objects();
    let found = match resource {
        Resource::Of(kind) => objects.json(kind, name),
        Resource::Claim => objects
            .claims
            .get(name)
            .and_then(|claim| serde_json::to_value(&**claim).ok()),
    };
    match found.and_then(|found| serde_json::from_value(found).ok()) {
        Some(object) => Answer::Object(Box::new(object)),
        None => answer_of(Err(ApiError::NotFound)),
    }
}

/// What the API server answers to a list.
pub(crate) fn list(cluster: &Cluster, kind: Kind, selector: &Selector) -> Answer {
    let objects = cluster.objects();
    let all = objects.all().into_iter();
    let labels = |meta: &ObjectMeta| meta.labels.clone().unwrap_or_default();
    let found = all.filter(|(of, meta)| *of == kind && selector.matches(&labels(meta)));
    let found = found.filter_map(|(_, meta)| objects.json(kind, meta.name.as_deref()?));
    Answer::Objects(
        found
            .filter_map(|found| serde_json::from_value(found).ok())
            .collect(),
    )
}

fn name_of(object: &Object) -> String {
    object.meta().name.clone().unwrap_or_default()
}

/// What the API server answers when a role or an admission rule refuses a request.
fn denied() -> ApiError {
    ApiError::Refused {
        message: "admission webhook \"policy.team\" denied the request: ask the platform team".to_owned(),
        conflict: false,
        may_pass: true,
    }
}

/// Whether an admission rule refuses a write.
fn is_refused(cluster: &Cluster, step: &Step) -> bool {
    let (verb, kind) = match step {
        Step::Apply(object) | Step::DryRun(object) => ("apply", object.kind()),
        Step::Replace(object, _) => ("replace", object.kind()),
        Step::Create(object) => ("create", object.kind()),
        Step::Scale(target, _) | Step::TakeOver(target, _) => ("scale", target.kind),
        Step::Delete(target) => ("delete", target.kind),
    };
    cluster.rules.refuse(verb, kind.as_str())
}

/// What the API server does with a step.
fn execute(cluster: &mut Cluster, step: &Step) -> Result<Option<ObjectMeta>, ApiError> {
    if is_refused(cluster, step) {
        return Err(denied());
    }
    match step {
        Step::Apply(object) => match &**object {
            Object::Deployment(deployment) => apply_deployment(cluster, deployment).map(Some),
            Object::Service(service) => apply_service(cluster, service).map(Some),
            Object::Release(release) => apply_release(cluster, release).map(Some),
            other => cluster.api.create_any(other, cluster.now).map(Some),
        },
        Step::Replace(object, _) => match &**object {
            Object::Deployment(deployment) => replace_deployment(cluster, deployment).map(Some),
            _ => Err(ApiError::NotFound),
        },
        Step::DryRun(object) => {
            match &**object {
                Object::Deployment(deployment) => admit(cluster, deployment),
                Object::Service(service) => take_service(cluster, service),
                Object::Pod(pod) if pod.labels().contains_key(labels::COMPONENT) => {
                    match cluster.refusal_of_pod(pod.spec.as_ref()) {
                        Some(message) => Err(ApiError::Refused {
                            message,
                            conflict: false,
                            may_pass: true,
                        }),
                        None => Ok(()),
                    }
                }
                _ => Ok(()),
            }?;
            Ok(Some(object.meta().clone()))
        }
        Step::Create(object) => cluster.api.create_any(object, cluster.now).map(Some),
        Step::Scale(target, replicas) => scale(cluster, target, *replicas).map(Some),
        Step::TakeOver(target, replicas) => {
            scale(cluster, target, 0)?;
            cluster.api.change::<Deployment>(&target.name, |deployment| {
                let annotations = deployment.annotations_mut();
                annotations.insert(labels::REPLICAS.to_owned(), replicas.to_string());
            });
            meta_of::<Deployment>(cluster, &target.name).map(Some)
        }
        Step::Delete(target) => {
            match cluster.objects().meta(target.kind.into(), &target.name) {
                None => return Err(ApiError::NotFound),
                Some(meta) if meta.uid.as_ref() != Some(&target.uid) => return Err(ApiError::Conflict),
                Some(meta)
                    if target.kind.is_deleted_unchanged()
                        && meta.resource_version != target.resource_version =>
                {
                    return Err(ApiError::Conflict);
                }
                Some(_) => cluster.delete(target.kind.into(), &target.name),
            }
            // A pod ends later.
            Ok(cluster
                .api
                .get::<Pod>(&target.name)
                .filter(|pod| pod.uid().as_ref() == Some(&target.uid))
                .map(|pod| pod.metadata.clone()))
        }
    }
}

fn scale(cluster: &mut Cluster, target: &ObjectRef, replicas: i32) -> Result<ObjectMeta, ApiError> {
    let found = cluster.api.get::<Deployment>(&target.name);
    let Some(found) = found.filter(|found| found.uid().as_ref() == Some(&target.uid)) else {
        return Err(ApiError::NotFound);
    };
    if cluster.rules.deployments_are_kept {
        return Err(ApiError::Refused {
            message: "admission policy keep denied request: ask the platform team".to_owned(),
            conflict: false,
            may_pass: true,
        });
    }
    if found.metadata.resource_version != target.resource_version {
        return Err(ApiError::Conflict);
    }
    cluster.api.change::<Deployment>(&target.name, |deployment| {
        if let Some(spec) = &mut deployment.spec {
            spec.replicas = Some(replicas);
        }
    });
    meta_of::<Deployment>(cluster, &target.name)
}

fn meta_of<T: Stored>(cluster: &Cluster, name: &str) -> Result<ObjectMeta, ApiError> {
    let found = cluster.api.get::<T>(name).ok_or(ApiError::NotFound)?;
    Ok(found.meta().clone())
}

fn admit(cluster: &Cluster, deployment: &Deployment) -> Result<(), ApiError> {
    let pod = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.template.spec.as_ref());
    let images = pod
        .into_iter()
        .flat_map(|pod| &pod.containers)
        .filter_map(|container| container.image.as_deref())
        .map(|image| cluster.images.tag(image));
    for image in images {
        if cluster.rules.refused_images.contains(image) {
            let message =
                "spec.template.spec.containers[0].image: Invalid value: must come from our registry";
            return Err(ApiError::Refused {
                message: message.to_owned(),
                conflict: false,
                may_pass: false,
            });
        }
        if cluster.rules.forbidden_images.contains(image) {
            return Err(ApiError::Refused {
                message: "exceeded quota: deployments".to_owned(),
                conflict: false,
                may_pass: true,
            });
        }
    }
    Ok(())
}

fn apply_deployment(cluster: &mut Cluster, desired: &Deployment) -> Result<ObjectMeta, ApiError> {
    admit(cluster, desired)?;
    let name = desired.name_any();
    if cluster.api.get::<Deployment>(&name).is_none() {
        return cluster.api.create(desired.clone(), cluster.now);
    }
    is_current::<Deployment>(cluster, desired)?;
    cluster.api.change::<Deployment>(&name, |found| {
        found.spec.clone_from(&desired.spec);
        merge(&mut found.metadata, &desired.metadata);
    });
    meta_of::<Deployment>(cluster, &name)
}

/// What other managers have changed goes, and who owns which field is forgotten.
fn replace_deployment(cluster: &mut Cluster, desired: &Deployment) -> Result<ObjectMeta, ApiError> {
    admit(cluster, desired)?;
    let name = desired.name_any();
    let found = cluster.api.get::<Deployment>(&name).ok_or(ApiError::NotFound)?;
    if found.metadata.uid != desired.metadata.uid {
        return Err(ApiError::Conflict);
    }
    is_current::<Deployment>(cluster, desired)?;
    cluster.api.change::<Deployment>(&name, |found| {
        found.spec.clone_from(&desired.spec);
        found.metadata.managed_fields = None;
    });
    meta_of::<Deployment>(cluster, &name)
}

fn selector(service: &Service) -> Option<BTreeMap<String, String>> {
    service.spec.as_ref().and_then(|spec| spec.selector.clone())
}

/// Whether the API server would take the Service.
fn take_service(cluster: &Cluster, desired: &Service) -> Result<(), ApiError> {
    let name = desired.name_any();
    match cluster.api.get::<Service>(&name) {
        Some(found)
            if cluster.rules.foreign_services.contains(&name) && selector(found) != selector(desired) =>
        {
            let message = ".spec.selector: conflict with \"argocd-controller\"";
            Err(ApiError::Refused {
                message: message.to_owned(),
                conflict: true,
                may_pass: true,
            })
        }
        Some(_) => is_current::<Service>(cluster, desired),
        None => Ok(()),
    }
}

fn apply_service(cluster: &mut Cluster, desired: &Service) -> Result<ObjectMeta, ApiError> {
    take_service(cluster, desired)?;
    let name = desired.name_any();
    if cluster.api.get::<Service>(&name).is_none() {
        return cluster.api.create(desired.clone(), cluster.now);
    }
    cluster.api.change::<Service>(&name, |found| {
        if let Some(spec) = &mut found.spec {
            spec.selector = selector(desired);
            if let Some(ports) = desired.spec.as_ref().and_then(|spec| spec.ports.clone()) {
                spec.ports = Some(ports);
            }
        }
        merge(&mut found.metadata, &desired.metadata);
    });
    meta_of::<Service>(cluster, &name)
}

/// An apply with a resource version is only for the object of that version.
fn is_current<T: Stored>(cluster: &Cluster, desired: &T) -> Result<(), ApiError> {
    let version = &desired.meta().resource_version;
    let found = cluster.api.get::<T>(&desired.name_any());
    let same = version.is_none() || found.is_some_and(|found| found.meta().resource_version == *version);
    if same { Ok(()) } else { Err(ApiError::Conflict) }
}

/// The spec is immutable, so only metadata can change.
fn apply_release(cluster: &mut Cluster, desired: &Release) -> Result<ObjectMeta, ApiError> {
    let name = desired.name_any();
    match cluster.api.get::<Release>(&name) {
        None => return cluster.api.create(desired.clone(), cluster.now),
        Some(found) if found.spec != desired.spec => {
            let message = "a Release is immutable".to_owned();
            return Err(ApiError::Refused {
                message,
                conflict: false,
                may_pass: false,
            });
        }
        Some(_) => {}
    }
    cluster
        .api
        .change::<Release>(&name, |found| merge(&mut found.metadata, &desired.metadata));
    meta_of::<Release>(cluster, &name)
}

/// Server-side apply of metadata: what is named is set, the rest stays.
fn merge(found: &mut ObjectMeta, desired: &ObjectMeta) {
    found
        .labels
        .get_or_insert_default()
        .extend(desired.labels.clone().unwrap_or_default());
    found
        .annotations
        .get_or_insert_default()
        .extend(desired.annotations.clone().unwrap_or_default());
    if desired.owner_references.is_some() {
        found.owner_references.clone_from(&desired.owner_references);
    }
}
