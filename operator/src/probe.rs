//! Health requests to the pods of releases under way.

mod budget;
pub(crate) mod prober;
pub(crate) mod via;
