//! Health requests to pod addresses, as the operator and the agent both make them.

pub(crate) mod prober;
pub(crate) mod request;
pub(crate) mod tls;
pub(crate) mod via;
