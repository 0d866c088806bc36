//! The API of Fairway, group `fairway.dev`, version `v1alpha1`, all namespaced.
//!
//! - [`App`] is what runs and how it is released; the only object that you must write. Editing it releases it.
//! - [`Release`] is one immutable attempt to bring an App's spec to production; Fairway creates it.
//! - [`Migration`] is one run of a database migration, executed at most once.
//! - [`Backup`] is one proven copy of the database; it outlives its App.
//! - [`Restore`] is one return of the database to what a Backup holds.
//!
//! The crate contains types, defaults and admission rules; it has no client.

#![allow(
    unreachable_pub,
    reason = "kube-derive repeats each struct inside a function for its schema"
)]

pub mod agent;
pub mod app;
pub mod attempts;
pub mod backup;
pub mod component;
pub mod condition;
pub mod database;
pub mod duration;
pub mod generate;
pub mod health;
pub mod migration;
pub mod reason;
pub mod release;
pub mod restore;
pub mod store;

mod schema;
mod text;

pub use app::{App, AppSpec, AppStatus};
pub use backup::{Backup, BackupSpec, BackupStatus};
pub use migration::{Migration, MigrationSpec, MigrationStatus};
pub use reason::Reason;
pub use release::{Release, ReleaseSpec, ReleaseStatus};
pub use restore::{Restore, RestoreSpec, RestoreStatus};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

/// The API group of every kind.
pub const GROUP: &str = "fairway.dev";
/// The only served version.
pub const VERSION: &str = "v1alpha1";

/// Every CustomResourceDefinition, in the order in which a reader meets the kinds.
///
/// Each has a default of `{"observedGeneration": -1}` for `status`: kstatus, which Flux and Helm use to wait,
/// considers an object without a status healthy, even if no controller has seen it yet.
pub fn all_crds() -> Vec<CustomResourceDefinition> {
    use kube::CustomResourceExt;
    [
        App::crd(),
        Release::crd(),
        Migration::crd(),
        Backup::crd(),
        Restore::crd(),
    ]
    .into_iter()
    .map(schema::finish)
    .collect()
}
