//! SIGTERM, by which the kubelet asks a container to end.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The requests to end that this process receives from the moment on at which it began to listen.
///
/// Process 1 of a container does not end by SIGTERM unless it listens to it.
pub(crate) struct Termination(Option<Signal>);

impl Termination {
    /// Begins to listen. Where the kernel refuses, no request is ever received.
    pub(crate) fn listen() -> Self {
        let stream = signal(SignalKind::terminate());
        Self(
            stream
                .inspect_err(|error| tracing::warn!("SIGTERM cannot be received: {error}"))
                .ok(),
        )
    }

    /// Resolves at the next request to end.
    pub(crate) async fn requested(&mut self) {
        if let Some(stream) = &mut self.0
            && stream.recv().await.is_some()
        {
            return;
        }
        std::future::pending().await
    }

    /// Whether a request to end has come and was not yet taken.
    pub(crate) async fn is_requested(&mut self) -> bool {
        tokio::select! {
            biased;
            () = self.requested() => true,
            () = std::future::ready(()) => false,
        }
    }
}
