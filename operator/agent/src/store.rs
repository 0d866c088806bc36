//! Stores: where backups are kept.
//!
//! The code of backups speaks only [`port`]. A new store is a file here that implements it, a variant of the API's
//! options, and an arm in [`open`].

mod content;
mod http;
mod objects;
mod port;
mod s3;
mod signed;
#[cfg(test)]
mod tests;
mod uploads;
mod versions;
mod volume;
mod webdav;

use fairway_protocol::{Failure, Store as StoreOptions};

pub(crate) use content::{Content, Writer, pipe};
pub(crate) use objects::ReadFailed;
pub(crate) use port::{Attempt, End, Own, Published, PutError, Removal, SetPath, Store, StoredManifest};

use crate::environment::Environment;

/// Opens the store that the API's options name. Nothing else knows which stores there are.
///
/// # Errors
/// When what the options name cannot be used, such as certificates that are none.
pub(crate) fn open(options: &StoreOptions, environment: &Environment) -> Result<Box<dyn Store>, Failure> {
    Ok(match options {
        StoreOptions::Volume(volume) => Box::new(volume::Volume::new(
            &environment.store_directory(),
            &volume.claim_name,
        )),
        StoreOptions::S3(s3) => Box::new(s3::open(s3, options, environment)?),
        StoreOptions::Webdav(webdav) => Box::new(webdav::open(webdav, options, environment)?),
    })
}
