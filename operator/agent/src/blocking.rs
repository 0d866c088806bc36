//! Work that waits for programs and disks, away from the thread of the database sessions.

use fairway_protocol::{Failure, Reason};

use crate::failure::environment;

/// Does blocking work on a thread of its own.
///
/// # Errors
/// Those of the work; `AgentFailed` when it panicked.
pub(crate) async fn blocking<T: Send + 'static, E: From<Failure> + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        let message = format!("A thread of the agent ended unexpectedly: {error}.");
        Err(environment(Reason::AgentFailed, message).into())
    })
}
