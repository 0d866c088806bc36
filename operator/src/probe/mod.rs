//! Health requests to the pods of releases under way, and what was counted of them.

pub(crate) mod prober;
pub(crate) mod via;
