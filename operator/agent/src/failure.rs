//! Failures: whose fault, a stable reason, and a message that says what happened and what to do.

use fairway_protocol::{Cause, Failure, Reason};

/// A failure of the environment, which waiting or a fix of the environment can end.
pub(crate) fn environment(reason: Reason, message: impl Into<String>) -> Failure {
    Failure {
        cause: Cause::Environment,
        reason,
        message: message.into(),
    }
}

/// A failure of the version that is being released: final.
pub(crate) fn version(reason: Reason, message: impl Into<String>) -> Failure {
    Failure {
        cause: Cause::Version,
        reason,
        message: message.into(),
    }
}
