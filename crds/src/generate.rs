//! Files that are generated from the types and kept in the repository: manifests and API reference.
//!
//! The binaries `crdgen` and `apidoc` write them, or name those that are out of date.

mod files;
mod manifests;
mod reference;

pub use files::{Error, File, Mode, main, settle};
pub use manifests::manifests;
pub use reference::reference;
