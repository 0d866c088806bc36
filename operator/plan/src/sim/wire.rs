//! Between an operator and the apiserver: every read and write of it passes here, and here things go wrong.

use super::cluster::Cluster;
use super::operator::Decided;
use super::store::{ApiError, Objects, Stored};
use super::transcript::Transcript;
use crate::invariants::Checker;
use crate::object::{Kind, Object, ObjectRef};
use crate::{Step, labels};
use fairway_crds::Release;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, Deployment};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::ResourceExt;
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
    /// That write never reaches the apiserver.
    RequestLost(usize),
    /// Every step is carried out twice.
    Twice,
    /// The operator sees these kinds as they were some writes ago, but never without its own last write of the
    /// kind.
    Lagging {
        /// Which kinds.
        kinds: Vec<&'static str>,
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
    pub kind: &'static str,
    /// Its name.
    pub name: String,
}

/// What is kept of an operator's traffic.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    /// What goes wrong.
    pub fault: Fault,
    /// Every write that reached the apiserver.
    pub writes: Vec<Written>,
    /// Up to which version each kind was seen: at least up to the last own write.
    seen: BTreeMap<&'static str, u64>,
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

impl Wire<'_> {
    /// The time.
    pub fn now(&self) -> Timestamp {
        self.cluster.now
    }

    /// All objects, as the operator's caches show them. A cache lags, but it never goes back.
    pub fn view(&mut self) -> Objects {
        let current = self.cluster.objects().clone();
        let Fault::Lagging { kinds, writes } = &self.traffic.fault else {
            return current;
        };
        let version = self.cluster.api.version();
        let lag = if self.traffic.has_caught_up {
            0
        } else {
            u64::try_from(*writes).unwrap_or(u64::MAX)
        };
        let mut view = current;
        for kind in kinds {
            let seen = self.traffic.seen.entry(kind).or_default();
            *seen = version.saturating_sub(lag).max(*seen);
            view = view.with_kinds_of(self.cluster.api.at(*seen), |other| other == *kind);
        }
        view
    }

    /// Carries out one step.
    ///
    /// # Errors
    /// What the apiserver answered, or what went wrong on the way.
    pub fn step(&mut self, step: &Step) -> Result<(), ApiError> {
        let (verb, kind, name) = match step {
            Step::Apply(object) => ("apply", object.kind(), name_of(object)),
            Step::DryRun(object) => ("dry run", object.kind(), name_of(object)),
            Step::Create(object) => ("create", object.kind(), name_of(object)),
            Step::Scale(target, _) => ("scale", target.kind, target.name.clone()),
            Step::Delete(target) => ("delete", target.kind, target.name.clone()),
        };
        let written = Written {
            verb,
            kind: kind.as_str(),
            name,
        };
        let times = if self.traffic.fault == Fault::Twice { 2 } else { 1 };
        let mut result = Ok(());
        for _ in 0..times {
            result = self.send(written.clone(), |cluster| carry_out(cluster, step));
            self.transcript.step(self.cluster.now, step, &result);
        }
        result
    }

    /// Writes the status if it is news.
    ///
    /// # Errors
    /// What the apiserver answered, or what went wrong on the way.
    pub fn commit(&mut self, decided: &Decided) -> Result<(), ApiError> {
        if !decided.has_news() {
            return Ok(());
        }
        match decided {
            Decided::App(app, decision) => {
                self.commit_of(&**app, |object| object.status = Some(decision.status.clone()))?;
            }
            Decided::Release(release, decision) => {
                self.commit_of(&**release, |object| object.status = Some(decision.status.clone()))?;
            }
            Decided::Migration(migration, decision) => {
                self.commit_of(&**migration, |object| {
                    object.status = Some(decision.status.clone())
                })?;
            }
            Decided::Backup(backup, decision) => {
                self.commit_of(&**backup, |object| object.status = Some(decision.status.clone()))?;
            }
        }
        Ok(())
    }

    fn commit_of<T: Stored>(&mut self, read: &T, status: impl FnOnce(&mut T)) -> Result<(), ApiError> {
        let kind = super::store::kind_of::<T>();
        let written = Written {
            verb: "status",
            kind,
            name: read.name_any(),
        };
        let before = self.cluster.objects().clone();
        let result = self.send(written, |cluster| cluster.api.commit(read, status));
        self.transcript.status(
            self.cluster.now,
            kind,
            &read.name_any(),
            &before,
            self.cluster.objects(),
        );
        result
    }

    fn send(
        &mut self,
        written: Written,
        write: impl FnOnce(&mut Cluster) -> Result<(), ApiError>,
    ) -> Result<(), ApiError> {
        let number = self.traffic.writes.len() + 1;
        if self.traffic.fault == Fault::RequestLost(number) {
            self.traffic.fault = Fault::None;
            return Err(ApiError::Lost);
        }
        let before = self.cluster.objects().clone();
        let kind = written.kind;
        let answer = write(self.cluster);
        self.traffic.writes.push(written);
        self.traffic.seen.insert(kind, self.cluster.api.version());
        self.checker.after_write(&before, self.cluster);
        match self.traffic.fault {
            Fault::KilledAfter(killed) if killed == number => Err(ApiError::Killed),
            Fault::AnswerLost(lost) if lost == number => Err(ApiError::Lost),
            _ => answer,
        }
    }
}

fn name_of(object: &Object) -> String {
    object.meta().name.clone().unwrap_or_default()
}

/// What the apiserver does with a step.
fn carry_out(cluster: &mut Cluster, step: &Step) -> Result<(), ApiError> {
    match step {
        Step::Apply(object) => match &**object {
            Object::Deployment(deployment) => apply_deployment(cluster, deployment),
            Object::Service(service) => apply_service(cluster, service),
            Object::Release(release) => apply_release(cluster, release),
            other => create(cluster, other),
        },
        Step::DryRun(object) => match &**object {
            Object::Deployment(deployment) => admit(cluster, deployment),
            Object::Service(service) => take_service(cluster, service),
            _ => Ok(()),
        },
        Step::Create(object) => create(cluster, object),
        Step::Scale(target, replicas) => {
            let found = cluster
                .api
                .get::<Deployment>(&target.name)
                .filter(|found| found.uid().as_deref() == Some(&target.uid));
            if found.is_some() && cluster.rules.deployments_are_kept {
                return Err(ApiError::Refused {
                    message: "admission policy keep denied request: ask the platform team".to_owned(),
                    conflict: false,
                    may_pass: true,
                });
            }
            // What has changed since it was decided is left alone.
            if found.is_some_and(|found| found.metadata.resource_version == target.resource_version) {
                cluster.api.change::<Deployment>(&target.name, |deployment| {
                    if let Some(spec) = &mut deployment.spec {
                        spec.replicas = Some(*replicas);
                    }
                });
            }
            Ok(())
        }
        Step::Delete(target) => {
            let is_there = match target.kind {
                Kind::ControllerRevision => uid_of::<ControllerRevision>(cluster, target),
                Kind::Release => uid_of::<Release>(cluster, target),
                Kind::Migration => uid_of::<fairway_crds::Migration>(cluster, target),
                Kind::Backup => uid_of::<fairway_crds::Backup>(cluster, target),
                Kind::Deployment => uid_of::<Deployment>(cluster, target),
                Kind::Service => uid_of::<Service>(cluster, target),
                Kind::Job => uid_of::<Job>(cluster, target),
                Kind::Pod => uid_of::<Pod>(cluster, target),
            };
            if is_there {
                cluster.delete(target.kind.as_str(), &target.name);
            }
            Ok(())
        }
    }
}

fn uid_of<T: Stored>(cluster: &Cluster, target: &ObjectRef) -> bool {
    cluster
        .api
        .get::<T>(&target.name)
        .is_some_and(|found| found.meta().uid.as_deref() == Some(&target.uid))
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

fn apply_deployment(cluster: &mut Cluster, desired: &Deployment) -> Result<(), ApiError> {
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
    Ok(())
}

fn selector(service: &Service) -> Option<BTreeMap<String, String>> {
    service.spec.as_ref().and_then(|spec| spec.selector.clone())
}

/// Whether the apiserver would take the Service.
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

fn apply_service(cluster: &mut Cluster, desired: &Service) -> Result<(), ApiError> {
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
    Ok(())
}

/// An apply with a resource version is only for the object of that version.
fn is_current<T: Stored>(cluster: &Cluster, desired: &T) -> Result<(), ApiError> {
    let version = &desired.meta().resource_version;
    let found = cluster.api.get::<T>(&desired.name_any());
    let same = version.is_none() || found.is_some_and(|found| found.meta().resource_version == *version);
    if same { Ok(()) } else { Err(ApiError::Conflict) }
}

/// The spec is immutable, so only metadata can change.
fn apply_release(cluster: &mut Cluster, desired: &Release) -> Result<(), ApiError> {
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
    Ok(())
}

/// Server-side apply of metadata: what is named is set, the rest stays.
fn merge(found: &mut kube::core::ObjectMeta, desired: &kube::core::ObjectMeta) {
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

fn create(cluster: &mut Cluster, object: &Object) -> Result<(), ApiError> {
    match object {
        Object::ControllerRevision(object) => create_or_adopt(cluster, object),
        Object::Release(object) => create_or_adopt(cluster, object),
        Object::Migration(object) => create_or_adopt(cluster, object),
        Object::Backup(object) => create_or_adopt(cluster, object),
        Object::Deployment(object) => create_or_adopt(cluster, object),
        Object::Service(object) => create_or_adopt(cluster, object),
        Object::Job(object) => create_or_adopt(cluster, object),
        Object::Pod(object) => create_or_adopt(cluster, object),
    }
}

fn create_or_adopt<T: Stored>(cluster: &mut Cluster, object: &T) -> Result<(), ApiError> {
    let now = cluster.now;
    match cluster.api.create(object.clone(), now) {
        Err(ApiError::AlreadyExists) => {}
        result => return result,
    }
    let Some(found) = cluster.api.get::<T>(&object.name_any()) else {
        return Err(ApiError::Lost);
    };
    let owners = |object: &T| -> Vec<String> {
        object
            .owner_references()
            .iter()
            .map(|owner| owner.uid.clone())
            .collect()
    };
    let (desired, existing) = (owners(object), owners(found));
    let ours = if desired.is_empty() {
        object.labels().get(labels::APP) == found.labels().get(labels::APP)
    } else {
        desired.iter().any(|owner| existing.contains(owner))
    };
    match (found.meta().deletion_timestamp.is_some(), ours) {
        (true, _) => Err(ApiError::Conflict),
        (false, true) => Ok(()),
        (false, false) => Err(ApiError::Refused {
            message: "it belongs to something else".to_owned(),
            conflict: false,
            may_pass: false,
        }),
    }
}
