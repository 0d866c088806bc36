//! Desired objects: what Fairway writes, one file per kind. Pure functions from specs to objects.

pub mod agent;
pub mod control;
pub mod deployment;
pub mod nodes;
pub mod service;
pub(crate) mod template;

pub use template::InvalidTemplate;

use crate::json::json;
use crate::labels;
use crate::names;
use kube::core::ObjectMeta;
use serde::Serialize;
use std::collections::BTreeMap;

/// Labels by which an object is found, with Fairway as who made it.
pub(crate) fn labels_of<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs
        .into_iter()
        .chain([(labels::MANAGED_BY, labels::FAIRWAY)])
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// Hash of an object as it is about to be applied; members are written in the order of their keys.
pub(crate) fn hash_of(object: &impl Serialize) -> String {
    names::short_hash(json(object).to_string())
}

/// The hash with which an object was applied.
pub(crate) fn applied_hash(meta: &ObjectMeta) -> Option<&str> {
    meta.annotations
        .as_ref()?
        .get(labels::APPLIED_HASH)
        .map(String::as_str)
}

pub(crate) fn annotate(meta: &mut ObjectMeta, key: &str, value: String) {
    meta.annotations
        .get_or_insert_default()
        .insert(key.to_owned(), value);
}
