//! Health requests to the pods of releases under way.

pub(crate) mod prober;
pub(crate) mod via;
