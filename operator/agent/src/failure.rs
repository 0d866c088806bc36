//! Failures: a stable reason and one sentence with the mend.

use fairway_protocol::{Cause, Failure};

/// A failure of the environment: waiting or mending them helps.
pub(crate) fn environment(reason: &str, message: impl Into<String>) -> Failure {
    Failure {
        cause: Cause::Environment,
        reason: reason.to_owned(),
        message: message.into(),
    }
}

/// A failure of the version that is being released: final.
pub(crate) fn version(reason: &str, message: impl Into<String>) -> Failure {
    Failure {
        cause: Cause::Version,
        reason: reason.to_owned(),
        message: message.into(),
    }
}
