//! The store that is a folder of a WebDAV server.

use fairway_protocol::{Failure, STORE_PASSWORD_VARIABLE, STORE_USER_VARIABLE, Store, WebdavStore};
use opendal::{ErrorKind, services::Webdav};

use super::{
    http::Http,
    objects::{Objects, Publishing, Service},
};
use crate::environment::Environment;

/// Size of an object: the protocol has no uploads in parts, so that each is held in memory.
const LARGEST: usize = 16 * 1024 * 1024;

const SERVICE: Service = Service {
    part: LARGEST,
    concurrent: 1,
    largest: LARGEST as u64,
    publishing: Publishing::Unconditional,
    missing: ErrorKind::NotFound,
};

/// Opens a share.
///
/// # Errors
/// When what the options name cannot be used.
pub(super) fn open(
    webdav: &WebdavStore,
    options: &Store,
    environment: &Environment,
) -> Result<Objects, Failure> {
    let WebdavStore {
        endpoint,
        prefix,
        user_from,
        password_from: _,
        ca_from: _,
    } = webdav;
    let mut builder = Webdav::default()
        .endpoint(endpoint.trim_end_matches('/'))
        .root(prefix.as_deref().unwrap_or_default());
    if user_from.is_some() {
        let variable = |name| environment.get(name).unwrap_or_default();
        builder = builder
            .username(variable(STORE_USER_VARIABLE).trim())
            .password(variable(STORE_PASSWORD_VARIABLE).trim());
    }
    let http = Http::new(environment)?;
    Objects::build(builder, &http, options.to_string(), SERVICE)
}
