//! What the apiserver holds, as far as releases touch it, and the rules by which it changes.

use crate::names::short_hash;
use fairway_crds::{App, Backup, Migration, Release};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, Deployment};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::core::ObjectMeta;
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Objects of one kind by name; everything lives in one namespace.
pub type Shelf<T> = BTreeMap<String, Arc<T>>;

/// All objects at one moment. Cheap to clone: objects are shared.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs, reason = "each member holds the kind of the same name")]
pub struct Objects {
    pub apps: Shelf<App>,
    pub releases: Shelf<Release>,
    pub migrations: Shelf<Migration>,
    pub backups: Shelf<Backup>,
    pub revisions: Shelf<ControllerRevision>,
    pub deployments: Shelf<Deployment>,
    pub services: Shelf<Service>,
    pub jobs: Shelf<Job>,
    pub pods: Shelf<Pod>,
    pub slices: Shelf<EndpointSlice>,
    /// Asked for by name: no watch shows them, so they never lag, and nobody hears of their changes.
    pub claims: Shelf<PersistentVolumeClaim>,
}

/// A kind that is stored.
pub trait Stored: Resource<DynamicType = ()> + Clone + PartialEq + Serialize + DeserializeOwned {
    /// Where it is.
    fn shelf(objects: &Objects) -> &Shelf<Self>;
    /// Where it is, to be changed.
    fn shelf_mut(objects: &mut Objects) -> &mut Shelf<Self>;
}

macro_rules! stored {
    ($($kind:ty => $shelf:ident),*) => {
        $(impl Stored for $kind {
            fn shelf(objects: &Objects) -> &Shelf<Self> {
                &objects.$shelf
            }
            fn shelf_mut(objects: &mut Objects) -> &mut Shelf<Self> {
                &mut objects.$shelf
            }
        })*

        impl Objects {
            /// Metadata of everything, with its kind.
            pub fn all(&self) -> Vec<(&'static str, &ObjectMeta)> {
                let mut all = Vec::new();
                $(all.extend(self.$shelf.values().map(|object| (kind_of::<$kind>(), object.meta())));)*
                all
            }

            /// Removes an object by kind and name.
            pub(super) fn remove(&mut self, kind: &str, name: &str) {
                $(if kind == kind_of::<$kind>() {
                    self.$shelf.remove(name);
                })*
            }

            /// The same objects, but those kinds that `choose` names as they were at another moment.
            pub fn with_kinds_of(&self, other: &Self, choose: impl Fn(&str) -> bool) -> Self {
                Self {
                    claims: self.claims.clone(),
                    $($shelf: if choose(kind_of::<$kind>()) { &other.$shelf } else { &self.$shelf }.clone()),*
                }
            }
        }
    };
}

stored!(
    App => apps,
    Release => releases,
    Migration => migrations,
    Backup => backups,
    ControllerRevision => revisions,
    Deployment => deployments,
    Service => services,
    Job => jobs,
    Pod => pods,
    EndpointSlice => slices
);

/// Names of all kinds that are watched.
pub const KINDS: [&str; 10] = [
    "App",
    "Release",
    "Migration",
    "Backup",
    "ControllerRevision",
    "Deployment",
    "Service",
    "Job",
    "Pod",
    "EndpointSlice",
];

/// Name of a kind.
pub fn kind_of<T: Stored>() -> &'static str {
    let kind = T::kind(&());
    KINDS
        .into_iter()
        .find(|known| *known == kind)
        .unwrap_or("Unknown")
}

/// Why the apiserver did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiError {
    /// The name is taken.
    AlreadyExists,
    /// There is no such object, or it has another UID.
    NotFound,
    /// The object was changed since it was read.
    Conflict,
    /// It may not be.
    Refused {
        /// What the apiserver says.
        message: String,
        /// Another field manager owns a field.
        conflict: bool,
        /// It can be mended elsewhere, so that the same write is worth another try.
        may_pass: bool,
    },
    /// The answer never came; the write may have happened.
    Lost,
    /// The caller was killed.
    Killed,
}

/// The apiserver: objects, and what it counts.
#[derive(Clone, Debug, Default)]
pub struct Apiserver {
    /// All objects now.
    pub objects: Objects,
    /// All objects after each write, in order; only kept when somebody may look back.
    history: Vec<Objects>,
    keep_history: bool,
    version: u64,
    /// How often each name was used, so that a another object with the same name gets another UID, and the same one in every run.
    incarnations: BTreeMap<String, u32>,
}

impl Apiserver {
    /// Starts to remember former states, for observers that lag.
    pub fn remember(&mut self) {
        self.keep_history = true;
    }

    /// All objects as they were after the write of that number.
    pub fn at(&self, version: u64) -> &Objects {
        let index = usize::try_from(version).unwrap_or_default().checked_sub(1);
        index
            .and_then(|index| self.history.get(index))
            .unwrap_or(&self.objects)
    }

    /// The object of that name.
    pub fn get<T: Stored>(&self, name: &str) -> Option<&Arc<T>> {
        T::shelf(&self.objects).get(name)
    }

    /// Number of the last write.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Stores a new object.
    ///
    /// # Errors
    /// [`ApiError::AlreadyExists`].
    pub fn create<T: Stored>(&mut self, object: T, now: Timestamp) -> Result<(), ApiError> {
        let name = object.name_any();
        if T::shelf(&self.objects).contains_key(&name) {
            return Err(ApiError::AlreadyExists);
        }
        let key = format!("{}/{name}", T::kind(&()));
        let incarnation = self.incarnations.entry(key.clone()).or_default();
        *incarnation += 1;
        let uid = short_hash(format!("{key}/{incarnation}"));
        let mut object = as_json(object, true);
        let meta = object.meta_mut();
        meta.uid = Some(uid);
        meta.generation = Some(1);
        meta.namespace = Some(super::NAMESPACE.to_owned());
        meta.creation_timestamp = Some(Time(Timestamp::from_second(now.as_second()).unwrap_or(now)));
        self.put(object);
        Ok(())
    }

    /// Changes an object, whoever changed it meanwhile. Nothing is written when nothing changes. Returns
    /// whether something did; `None` when there is no such object.
    pub fn change<T: Stored>(&mut self, name: &str, change: impl FnOnce(&mut T)) -> Option<bool> {
        let before = T::shelf(&self.objects).get(name)?.clone();
        let mut after = T::clone(&before);
        change(&mut after);
        if *before == after {
            return Some(false);
        }
        // Pods and slices change often, and nobody looks at their generation.
        let has_generation = ["App", "Deployment"].contains(&kind_of::<T>());
        if has_generation && json(&*before).get("spec") != json(&after).get("spec") {
            let generation = after.meta().generation.unwrap_or(1) + 1;
            after.meta_mut().generation = Some(generation);
        }
        self.put(after);
        Some(true)
    }

    /// Writes a status if the object has not changed since it was read.
    ///
    /// # Errors
    /// [`ApiError::NotFound`], [`ApiError::Conflict`].
    pub fn commit<T: Stored>(&mut self, read: &T, status: impl FnOnce(&mut T)) -> Result<(), ApiError> {
        let found = T::shelf(&self.objects).get(&read.name_any());
        let found = found
            .filter(|found| found.meta().uid == read.meta().uid)
            .ok_or(ApiError::NotFound)?;
        if found.meta().resource_version != read.meta().resource_version {
            return Err(ApiError::Conflict);
        }
        let mut object = T::clone(found);
        status(&mut object);
        self.put(as_json(object, false));
        Ok(())
    }

    /// Removes an object at once.
    pub fn remove(&mut self, kind: &str, name: &str) {
        self.objects.remove(kind, name);
        self.wrote();
    }

    fn put<T: Stored>(&mut self, mut object: T) {
        self.version += 1;
        object.meta_mut().resource_version = Some(self.version.to_string());
        T::shelf_mut(&mut self.objects).insert(object.name_any(), Arc::new(object));
        self.version -= 1;
        self.wrote();
    }

    fn wrote(&mut self) {
        self.version += 1;
        if self.keep_history {
            self.history.push(self.objects.clone());
        }
    }
}

fn json<T: Serialize>(object: &T) -> serde_json::Value {
    serde_json::to_value(object).unwrap_or_default()
}

/// The object as it comes back from the apiserver: what JSON does not keep is lost, and a new object of ours
/// has the default status of its CRD.
fn as_json<T: Stored>(object: T, is_new: bool) -> T {
    let mut value = json(&object);
    if is_new && T::group(&()) == fairway_crds::GROUP {
        value["status"] = serde_json::json!({"observedGeneration": -1});
    }
    serde_json::from_value(value).unwrap_or(object)
}
