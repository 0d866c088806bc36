//! A deserializer around another one that shows of the input what a [`Mask`] shows, and no more than a bound.
//!
//! What the mask hides is skipped where it stands: it costs no memory, whatever its size and depth.

use super::mask::Mask;
use serde::Deserializer;
use serde::de::value::StrDeserializer;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::cell::Cell;
use std::fmt;

/// Objects and lists within each other. serde_json gives up at 128.
const DEPTH: usize = 64;
/// What a value takes in memory beside its text: about what one takes in a list.
const OF_VALUE: usize = 64;
/// What an object takes in memory: a B-tree has at least one node, of eleven entries.
const OF_OBJECT: usize = 640;

/// What may still be read.
#[derive(Debug)]
pub(super) struct Bound {
    total: usize,
    left: Cell<usize>,
}

impl Bound {
    /// So many bytes, as estimated of what is read: text, and what holds it.
    pub(super) fn new(bytes: usize) -> Self {
        Self {
            total: bytes,
            left: Cell::new(bytes),
        }
    }

    fn take<E: Error>(&self, bytes: usize) -> Result<(), E> {
        let left = self.left.get().checked_sub(bytes).ok_or_else(|| {
            E::custom(format_args!(
                "it is too large: what Fairway reads of it takes more than {} KiB of memory",
                self.total / 1024
            ))
        })?;
        self.left.set(left);
        Ok(())
    }
}

/// Where in the input something stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    mask: &'static Mask,
    bound: &'a Bound,
    depth: usize,
}

impl<'a> Place<'a> {
    /// The whole input.
    pub(super) fn whole(mask: &'static Mask, bound: &'a Bound) -> Self {
        Self {
            mask,
            bound,
            depth: 0,
        }
    }

    fn within<E: Error>(self) -> Result<Self, E> {
        if self.depth == DEPTH {
            return Err(E::custom(format_args!("it is nested deeper than {DEPTH} levels")));
        }
        Ok(Self {
            depth: self.depth + 1,
            ..self
        })
    }

    fn text<E: Error>(self, text: &str) -> Result<(), E> {
        self.bound.take(OF_VALUE + text.len())
    }
}

/// A deserializer, visitor, seed or access to what a container holds, at a place.
pub(super) struct Bounded<'a, T> {
    inner: T,
    place: Place<'a>,
}

impl<'a, T> Bounded<'a, T> {
    /// Bounds `inner`, which stands at that place.
    pub(super) fn new(inner: T, place: Place<'a>) -> Self {
        Self { inner, place }
    }
}

macro_rules! forward {
    ($($method:ident($($argument:ident: $type:ty),*);)*) => {
        $(
            fn $method<V: Visitor<'de>>(self, $($argument: $type,)* visitor: V) -> Result<V::Value, D::Error> {
                self.inner.$method($($argument,)* Bounded::new(visitor, self.place))
            }
        )*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Bounded<'_, D> {
    type Error = D::Error;

    forward! {
        deserialize_any();
        deserialize_bool();
        deserialize_i8();
        deserialize_i16();
        deserialize_i32();
        deserialize_i64();
        deserialize_u8();
        deserialize_u16();
        deserialize_u32();
        deserialize_u64();
        deserialize_f32();
        deserialize_f64();
        deserialize_char();
        deserialize_str();
        deserialize_string();
        deserialize_bytes();
        deserialize_byte_buf();
        deserialize_option();
        deserialize_unit();
        deserialize_unit_struct(name: &'static str);
        deserialize_newtype_struct(name: &'static str);
        deserialize_seq();
        deserialize_tuple(length: usize);
        deserialize_tuple_struct(name: &'static str, length: usize);
        deserialize_map();
        deserialize_struct(name: &'static str, fields: &'static [&'static str]);
        deserialize_identifier();
    }

    /// Of the API's types only enums of plain names, which are text.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.place.bound.take(OF_VALUE)?;
        self.inner.deserialize_enum(name, variants, visitor)
    }

    /// Nothing is kept of it.
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_ignored_any(visitor)
    }
}

macro_rules! scalar {
    ($($method:ident: $type:ty),* $(,)?) => {
        $(
            fn $method<E: Error>(self, value: $type) -> Result<V::Value, E> {
                self.place.bound.take(OF_VALUE)?;
                self.inner.$method(value)
            }
        )*
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Bounded<'_, V> {
    type Value = V::Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(formatter)
    }

    scalar! {
        visit_bool: bool,
        visit_i64: i64,
        visit_u64: u64,
        visit_f64: f64,
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<V::Value, E> {
        let value = self.place.mask.text(value);
        self.place.text(value)?;
        self.inner.visit_str(value)
    }

    fn visit_borrowed_str<E: Error>(self, value: &'de str) -> Result<V::Value, E> {
        let value = self.place.mask.text(value);
        self.place.text(value)?;
        self.inner.visit_borrowed_str(value)
    }

    fn visit_string<E: Error>(self, value: String) -> Result<V::Value, E> {
        if self.place.mask.text(&value).len() < value.len() {
            return self.visit_str(&value);
        }
        self.place.text(&value)?;
        self.inner.visit_string(value)
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.place.bound.take(OF_VALUE)?;
        self.inner.visit_unit()
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_some<D: Deserializer<'de>>(self, value: D) -> Result<V::Value, D::Error> {
        self.inner.visit_some(Bounded::new(value, self.place))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, value: D) -> Result<V::Value, D::Error> {
        self.inner.visit_newtype_struct(Bounded::new(value, self.place))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<V::Value, A::Error> {
        self.place.bound.take(OF_VALUE)?;
        self.inner.visit_seq(Bounded::new(items, self.place.within()?))
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<V::Value, A::Error> {
        self.place.bound.take(OF_OBJECT)?;
        self.inner.visit_map(Members {
            inner: members,
            place: self.place.within()?,
            member: self.place.mask,
        })
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Bounded<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.inner.deserialize(Bounded::new(deserializer, self.place))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Bounded<'_, A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.inner.next_element_seed(Bounded::new(seed, self.place))
    }
}

/// Members of an object that the mask shows.
struct Members<'a, A> {
    inner: A,
    place: Place<'a>,
    /// What the mask shows of the current member.
    member: &'static Mask,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Members<'_, A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        while let Some(name) = self.inner.next_key::<std::borrow::Cow<'de, str>>()? {
            if let Some(mask) = self.place.mask.member(&name) {
                self.place.text(&name)?;
                self.member = mask;
                return seed.deserialize(StrDeserializer::new(&name)).map(Some);
            }
            self.inner.next_value::<IgnoredAny>()?;
        }
        Ok(None)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        let place = Place {
            mask: self.member,
            ..self.place
        };
        self.inner.next_value_seed(Bounded::new(seed, place))
    }
}
