//! What the API server holds, as far as releases touch it, and the rules by which it changes.

use fairway_engine::kinds::*;
use fairway_engine::{Cached, Engine, NamespacedName, Now, Own, for_each_kind};
use fairway_plan::Object;
use fairway_plan::names::short_hash;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::core::{ObjectMeta, Status};
use kube::{Resource, ResourceExt};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Namespace of everything.
pub const NAMESPACE: &str = "shop";

/// Objects of one kind by name; everything lives in one namespace.
pub type ByName<T> = BTreeMap<String, Arc<T>>;

/// A kind that is stored.
pub trait Stored: Cached + PartialEq {
    /// Objects of the kind.
    fn all(objects: &Objects) -> &ByName<Self>;
    /// Objects of the kind, to be changed.
    fn all_mut(objects: &mut Objects) -> &mut ByName<Self>;
}

macro_rules! store {
    (
        ()
        own { $($own:ident $own_store:ident $member:ident { $($own_row:tt)* })* }
        built_in { $($kind:ident $store:ident { $($row:tt)* })* }
    ) => {
        /// All objects at one moment. Cheap to clone: objects are shared.
        #[derive(Clone, Debug, Default)]
        #[allow(missing_docs, reason = "each member holds the objects of one kind")]
        pub struct Objects {
            $(pub $own_store: ByName<$own>,)*
            $(pub $store: ByName<$kind>,)*
            /// Asked for by name: no watch shows them, so they never lag, and nobody hears of their changes.
            pub claims: ByName<PersistentVolumeClaim>,
        }

        store!(@stored $($own $own_store,)* $($kind $store,)*);

        impl ApiServer {
            /// Writes the status of an object of whatever kind of our own.
            ///
            /// # Errors
            /// Those of [`ApiServer::commit`].
            pub(crate) fn commit_any(&mut self, object: &Own) -> Result<ObjectMeta, ApiError> {
                match object {
                    $(Own::$own(object) => self.commit(&**object),)*
                }
            }
        }
    };
    (@stored $($kind:ident $store:ident,)*) => {
        $(
            impl Stored for $kind {
                fn all(objects: &Objects) -> &ByName<Self> {
                    &objects.$store
                }

                fn all_mut(objects: &mut Objects) -> &mut ByName<Self> {
                    &mut objects.$store
                }
            }
        )*

        impl Objects {
            /// Metadata of everything, with its kind.
            pub fn all(&self) -> Vec<(Kind, &ObjectMeta)> {
                let mut all = Vec::new();
                $(all.extend(self.$store.values().map(|object| (Kind::$kind, object.meta())));)*
                all
            }

            /// Metadata of one object.
            pub fn meta(&self, kind: Kind, name: &str) -> Option<&ObjectMeta> {
                match kind {
                    $(Kind::$kind => Some(self.$store.get(name)?.meta()),)*
                }
            }

            /// Removes an object by kind and name.
            fn remove(&mut self, kind: Kind, name: &str) {
                match kind {
                    $(Kind::$kind => { self.$store.remove(name); })*
                }
            }

            /// One object as the API server would write it.
            pub fn json(&self, kind: Kind, name: &str) -> Option<serde_json::Value> {
                match kind {
                    $(Kind::$kind => Some(json(&**self.$store.get(name)?)),)*
                }
            }

            /// The same objects, but one kind as it was at another moment.
            pub fn with_kind_of(mut self, other: &Self, kind: Kind) -> Self {
                match kind {
                    $(Kind::$kind => self.$store = other.$store.clone(),)*
                }
                self
            }

            /// Shows an engine what has changed since an earlier moment, as its watches would.
            pub(crate) fn show(&self, before: &Self, version: u64, engine: &mut Engine, now: Now) {
                $(
                    for (name, object) in &self.$store {
                        if before.$store.get(name).is_none_or(|old| !Arc::ptr_eq(old, object)) {
                            engine.put($kind::clone(object), now);
                        }
                    }
                    for (name, old) in &before.$store {
                        if !self.$store.contains_key(name) {
                            let mut meta = old.metadata.clone();
                            meta.resource_version = Some(version.to_string());
                            engine.remove::<$kind>(&NamespacedName::new(NAMESPACE, name), &meta, now);
                        }
                    }
                )*
            }

            /// Shows an engine everything, as its first lists would.
            pub(crate) fn list(&self, engine: &mut Engine, now: Now) {
                self.show(&Self::default(), 0, engine, now);
                $(
                    let listed = self.$store.keys().map(|name| NamespacedName::new(NAMESPACE, name));
                    engine.listed::<$kind>(None, &listed.collect(), now);
                )*
            }
        }

        impl ApiServer {
            /// Changes the metadata of an object of whatever kind.
            pub(crate) fn change_meta(&mut self, kind: Kind, name: &str, change: impl FnOnce(&mut ObjectMeta)) {
                match kind {
                    $(Kind::$kind => {
                        self.change::<$kind>(name, |object| change(&mut object.metadata));
                    })*
                }
            }

            /// Stores a new object of whatever kind.
            ///
            /// # Errors
            /// [`ApiError::AlreadyExists`].
            pub(crate) fn create_any(&mut self, object: &Object, now: Timestamp) -> Result<ObjectMeta, ApiError> {
                let value = json(object);
                match Kind::from(object.kind()) {
                    $(Kind::$kind => self.create::<$kind>(parsed(value)?, now),)*
                }
            }
        }
    };
}

for_each_kind!(store);

fn parsed<T: Stored>(value: serde_json::Value) -> Result<T, ApiError> {
    serde_json::from_value(value).map_err(|error| ApiError::Refused {
        message: error.to_string(),
        conflict: false,
        may_pass: false,
    })
}

/// Why the API server did not do what it was asked.
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
        /// What the API server says.
        message: String,
        /// Another field manager owns a field.
        conflict: bool,
        /// It can be fixed elsewhere, so that the same write is worth another attempt.
        may_pass: bool,
    },
    /// The answer never came; the write may have happened.
    Lost,
}

impl ApiError {
    /// The error as the API server words it; `None` when no answer came.
    pub(crate) fn status(&self) -> Option<Status> {
        let status = |code, reason: &str, message: &str| Status {
            code,
            reason: reason.to_owned(),
            message: message.to_owned(),
            ..Status::default()
        };
        Some(match self {
            Self::AlreadyExists => status(409, "AlreadyExists", "the name is taken"),
            Self::NotFound => status(404, "NotFound", "there is no such object"),
            Self::Conflict => status(409, "Conflict", "the object has been modified"),
            Self::Refused {
                message,
                conflict: true,
                ..
            } => {
                let (field, what) = message.split_once(": ").unwrap_or(("", message));
                let cause =
                    serde_json::json!({"reason": "FieldManagerConflict", "field": field, "message": what});
                let causes = serde_json::json!({"causes": [cause]});
                Status {
                    details: serde_json::from_value(causes).ok(),
                    ..status(409, "Conflict", message)
                }
            }
            Self::Refused {
                message,
                may_pass: true,
                ..
            } => status(403, "Forbidden", message),
            Self::Refused { message, .. } => status(422, "Invalid", message),
            Self::Lost => return None,
        })
    }
}

/// The API server: objects, and what it counts.
#[derive(Clone, Debug, Default)]
pub struct ApiServer {
    /// All objects now.
    pub objects: Objects,
    /// All objects after each write, in order; only kept when somebody may look back.
    history: Vec<Objects>,
    keep_history: bool,
    version: u64,
    /// How often each name was used, so that another object with the same name gets another UID, and the same one in every run.
    incarnations: BTreeMap<String, u32>,
}

impl ApiServer {
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
        T::all(&self.objects).get(name)
    }

    /// Number of the last write.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Stores a new object.
    ///
    /// # Errors
    /// [`ApiError::AlreadyExists`].
    pub fn create<T: Stored>(&mut self, object: T, now: Timestamp) -> Result<ObjectMeta, ApiError> {
        let name = object.name_any();
        if T::all(&self.objects).contains_key(&name) {
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
        meta.namespace = Some(NAMESPACE.to_owned());
        meta.creation_timestamp = Some(Time(Timestamp::from_second(now.as_second()).unwrap_or(now)));
        Ok(self.put(object))
    }

    /// Changes an object, whoever changed it meanwhile. Nothing is written when nothing changes. Returns
    /// whether something did; `None` when there is no such object.
    pub fn change<T: Stored>(&mut self, name: &str, change: impl FnOnce(&mut T)) -> Option<bool> {
        let before = T::all(&self.objects).get(name)?.clone();
        let mut after = T::clone(&before);
        change(&mut after);
        if *before == after {
            return Some(false);
        }
        // Pods and slices change often, and nobody looks at their generation.
        let has_generation = [Kind::App, Kind::Deployment].contains(&T::KIND);
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
    pub fn commit<T: Stored>(&mut self, desired: &T) -> Result<ObjectMeta, ApiError> {
        let found = T::all(&self.objects).get(&desired.name_any());
        let found = found
            .filter(|found| found.meta().uid == desired.meta().uid)
            .ok_or(ApiError::NotFound)?;
        if found.meta().resource_version != desired.meta().resource_version {
            return Err(ApiError::Conflict);
        }
        // The status subresource: whatever else the object says is ignored.
        let mut object = json(&**found);
        object["status"] = json(desired).get("status").cloned().unwrap_or_default();
        Ok(self.put::<T>(parsed(object)?))
    }

    /// Removes an object at once.
    pub fn remove(&mut self, kind: Kind, name: &str) {
        self.objects.remove(kind, name);
        self.wrote();
    }

    fn put<T: Stored>(&mut self, mut object: T) -> ObjectMeta {
        object.meta_mut().resource_version = Some((self.version + 1).to_string());
        let meta = object.meta().clone();
        T::all_mut(&mut self.objects).insert(object.name_any(), Arc::new(object));
        self.wrote();
        meta
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

/// The object as it comes back from the API server: what JSON does not keep is lost, and a new object of ours
/// has the default status of its CRD.
fn as_json<T: Stored>(object: T, is_new: bool) -> T {
    let mut value = json(&object);
    if is_new && T::group(&()) == fairway_crds::GROUP {
        value["status"] = serde_json::json!({"observedGeneration": -1});
    }
    serde_json::from_value(value).unwrap_or(object)
}
