//! Stores: where backups are kept.
//!
//! The code of backups speaks only [`port`]. A new store is a file here that implements it, a variant of the API's
//! options, and an arm in [`open`].

mod content;
#[cfg(test)]
mod objects;
mod port;
#[cfg(test)]
mod tests;
mod volume;

use fairway_protocol::Store as StoreOptions;

pub(crate) use content::{Content, Writer, pipe};
pub(crate) use port::{Attempt, Found, Published, PutError, SetPath, Store};

use crate::environment::Environment;

/// Opens the store that the API's options name. Nothing else knows which stores there are.
pub(crate) fn open(options: &StoreOptions, environment: &Environment) -> Box<dyn Store> {
    let StoreOptions { volume } = options;
    Box::new(volume::Volume::new(
        &environment.store_directory(),
        &volume.claim_name,
    ))
}
