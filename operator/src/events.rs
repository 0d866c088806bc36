//! Kubernetes Events, written beside the passes: none waits for them.

use crate::execute::refusal::shorten;
use crate::metrics::Metrics;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc;

/// Events that may wait. More come only from thousands of objects changing at once, and those can be seen in
/// their status.
const WAITING: usize = 4096;

/// Where passes leave their Events.
#[derive(Clone, Debug)]
pub(crate) struct Events {
    sender: mpsc::Sender<Notice>,
    metrics: Metrics,
}

/// An Event about an object.
#[derive(Clone, Debug)]
pub(crate) struct Notice {
    /// The object.
    pub(crate) about: ObjectReference,
    /// Normal or Warning.
    pub(crate) kind: EventType,
    /// CamelCase, stable, with a runbook page.
    pub(crate) reason: String,
    /// One sentence.
    pub(crate) message: String,
}

impl Events {
    /// The two ends.
    pub(crate) fn new(metrics: Metrics) -> (Self, mpsc::Receiver<Notice>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self { sender, metrics }, receiver)
    }

    /// Leaves an Event to be written.
    pub(crate) fn tell(&self, notice: Notice) {
        if self.sender.try_send(notice).is_err() {
            self.metrics.lost_event();
        }
    }
}

/// Writes Events until nobody is left to tell any. What cannot be written is logged and dropped: an Event is
/// news, and status is the truth.
pub(crate) async fn write(client: Client, identity: String, mut notices: mpsc::Receiver<Notice>) {
    let reporter = Reporter {
        controller: "fairway.dev/operator".into(),
        instance: Some(identity),
    };
    let recorder = Recorder::new(client, reporter);
    while let Some(Notice {
        about,
        kind,
        reason,
        message,
    }) = notices.recv().await
    {
        let event = Event {
            type_: kind,
            // The apiserver's limit.
            reason: reason.chars().take(128).collect(),
            note: Some(shorten(&message)),
            action: "Reconcile".into(),
            secondary: None,
        };
        if let Err(error) = recorder.publish(&event, &about).await {
            let object = about.name.as_deref().unwrap_or_default();
            tracing::debug!(error = %error, object, reason = event.reason, "event was not written");
        }
    }
}
