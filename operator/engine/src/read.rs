//! Objects as the API server writes them, read as hostile input: one at a time, only what is looked at, and no more than
//! a bound of each.
//!
//! A tenant can make objects of any size, width and depth that the API server takes. One that goes beyond a bound is
//! [unreadable](Reading::Unreadable), and nobody's object but its own App's is in the way of anything.

mod bounded;
pub(crate) mod mask;
pub(crate) mod split;

use crate::answer::without_values;
use crate::caches::{Cached, version_of};
use crate::kinds::Maker;
use bounded::{Bound, Bounded, Place};
use fairway_crds::GROUP;
use fairway_plan::labels::FAIRWAY;
use fairway_plan::readings::{api_group, is_legacy};
use kube::core::{DynamicObject, ObjectMeta};
use mask::Mask;
use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::cell::RefCell;

/// What is read of an object's identity, at most.
const IDENTITY_BYTES: usize = 64 * 1024;
/// What is read of an answer, at most.
const ANSWER_BYTES: usize = 512 * 1024;

/// What a watch or list shows.
#[derive(Debug)]
pub enum Reading<K> {
    /// An object to keep.
    Object(K),
    /// An object that carries Fairway's label and was not made by Fairway. Of kinds that Fairway alone makes it is not
    /// kept, since whoever can write the label could fill the memory with it.
    Foreign(ObjectMeta),
    /// An object that cannot be read, with what identifies it and why, without values.
    Unreadable(ObjectMeta, String),
    /// Something that is no object: it has no name.
    Nameless(String),
}

/// Reads an object of a kind that is watched from its JSON.
pub fn read<K: Cached>(json: &[u8]) -> Reading<K> {
    let error = match parse::<K>(json, K::MASK, K::BYTES) {
        Ok(object) if version_of(object.meta()).is_none() => "its resourceVersion is not a number".to_owned(),
        Ok(mut object) => {
            let is_foreign = match K::MAKER {
                Maker::Others => false,
                Maker::FairwayAlone => !is_made_by_fairway(object.meta()),
                Maker::FairwayOrLegacy => !is_made_by_fairway(object.meta()) && !is_legacy(object.meta()),
            };
            if is_foreign {
                return Reading::Foreign(std::mem::take(object.meta_mut()));
            }
            return Reading::Object(object);
        }
        Err(error) => without_values(&error.to_string()),
    };
    let identity = identity(json, &mask::IDENTITY).or_else(|| identity(json, &mask::NAME));
    match identity {
        Some(metadata) if metadata.name.is_some() => Reading::Unreadable(metadata, error),
        _ => Reading::Nameless(error),
    }
}

/// The metadata of an object that may be broken, or cut off, behind it.
fn identity(json: &[u8], mask: &'static Mask) -> Option<ObjectMeta> {
    let found = RefCell::new(None);
    let bound = Bound::new(IDENTITY_BYTES);
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    // An error behind the metadata is of no more interest.
    let _ = Bounded::new(&mut deserializer, Place::whole(mask, &bound)).deserialize_map(Identity(&found));
    found.into_inner()
}

/// Finds the metadata of an object.
struct Identity<'a>(&'a RefCell<Option<ObjectMeta>>);

impl<'de> Visitor<'de> for Identity<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        // The mask shows nothing but the metadata.
        while let Some(IgnoredAny) = members.next_key()? {
            *self.0.borrow_mut() = Some(members.next_value()?);
        }
        Ok(())
    }
}

/// Reads the answer to a write: its metadata.
///
/// # Errors
/// When it is no object, or goes beyond a bound.
pub fn read_answer(json: &[u8]) -> Result<DynamicObject, serde_json::Error> {
    parse(json, &mask::ANSWER, ANSWER_BYTES)
}

/// Reads the answer to a read by name.
///
/// # Errors
/// When it is no object, or goes beyond a bound.
pub fn read_found(json: &[u8]) -> Result<DynamicObject, serde_json::Error> {
    parse(json, &mask::FOUND, ANSWER_BYTES)
}

/// Reads the answer to a list.
///
/// # Errors
/// When it is no list, or goes beyond a bound.
pub fn read_list(json: &[u8]) -> Result<Vec<DynamicObject>, serde_json::Error> {
    parse::<Listed>(json, &mask::LIST, ANSWER_BYTES).map(|list| list.items)
}

/// A list.
#[derive(Deserialize)]
struct Listed {
    items: Vec<DynamicObject>,
}

fn parse<T: DeserializeOwned>(
    json: &[u8],
    mask: &'static Mask,
    bytes: usize,
) -> Result<T, serde_json::Error> {
    let bound = Bound::new(bytes);
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let read = T::deserialize(Bounded::new(&mut deserializer, Place::whole(mask, &bound)))?;
    deserializer.end()?;
    Ok(read)
}

/// Whether Fairway wrote the object, or one of Fairway's kinds owns it. Both can be forged by somebody who writes the
/// object; what is kept of it is bounded all the same.
fn is_made_by_fairway(meta: &ObjectMeta) -> bool {
    let mut owners = meta.owner_references.iter().flatten();
    let is_owned = owners.any(|owner| api_group(owner) == GROUP);
    let mut managers = meta.managed_fields.iter().flatten();
    is_owned || managers.any(|entry| entry.manager.as_deref() == Some(FAIRWAY))
}

#[cfg(test)]
mod tests;
