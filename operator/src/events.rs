//! Kubernetes Events, written beside the passes: none waits for them.

use crate::metrics::Metrics;
use fairway_engine::{Announcement, shorten};
use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::PostParams;
use kube::core::ObjectMeta;
use kube::{Api, Client};
use tokio::sync::mpsc;

/// Who reports.
const CONTROLLER: &str = "fairway.dev/operator";

/// Events that may wait. More come only from thousands of objects changing at once, and those can be seen in
/// their status.
const WAITING: usize = 4096;

/// Where passes leave their Events.
#[derive(Clone, Debug)]
pub(crate) struct Events {
    sender: mpsc::Sender<Announcement>,
    metrics: Metrics,
}

impl Events {
    /// The two ends.
    pub(crate) fn new(metrics: Metrics) -> (Self, mpsc::Receiver<Announcement>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self { sender, metrics }, receiver)
    }

    /// Leaves an Event to be written.
    pub(crate) fn announce(&self, announcement: Announcement) {
        if self.sender.try_send(announcement).is_err() {
            self.metrics.lost_event();
        }
    }
}

/// Writes Events until nobody is left to announce any. What cannot be written is logged and dropped: an Event is
/// news, and status is the truth.
///
/// kube's Recorder would count repetitions, for which it keeps each Event for minutes; here an Event is only announced
/// when something has changed, so that nothing repeats.
pub(crate) async fn write(client: Client, identity: String, mut announcements: mpsc::Receiver<Announcement>) {
    while let Some(announcement) = announcements.recv().await {
        let event = event(announcement, &identity, Timestamp::now());
        let namespace = event.metadata.namespace.as_deref().unwrap_or("default");
        let api: Api<Event> = Api::namespaced(client.clone(), namespace);
        if let Err(error) = api.create(&PostParams::default(), &event).await {
            tracing::debug!(error = %error, reason = event.reason, "event was not written");
        }
    }
}

fn event(
    Announcement {
        about,
        severity,
        reason,
        message,
    }: Announcement,
    identity: &str,
    now: Timestamp,
) -> Event {
    let object = about.name.as_deref().unwrap_or_default();
    Event {
        metadata: ObjectMeta {
            namespace: about.namespace.clone(),
            // As client-go names them: unique without a random number.
            name: Some(format!("{object}.{:x}", now.as_nanosecond())),
            ..ObjectMeta::default()
        },
        action: Some("Reconcile".into()),
        event_time: Some(MicroTime(now)),
        // The API server's limit.
        reason: Some(reason.chars().take(128).collect()),
        note: Some(shorten(&message)),
        regarding: Some(about),
        reporting_controller: Some(CONTROLLER.into()),
        reporting_instance: Some(identity.into()),
        type_: Some(severity.as_str().into()),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairway_engine::Severity;
    use k8s_openapi::api::core::v1::ObjectReference;

    #[test]
    fn an_event_says_about_what_why_and_how_loud() {
        let about = ObjectReference {
            kind: Some("Release".into()),
            namespace: Some("shop".into()),
            name: Some("crm-2".into()),
            uid: Some("r-2".into()),
            ..ObjectReference::default()
        };
        let announcement = Announcement {
            about: about.clone(),
            severity: Severity::Warning,
            reason: "Unhealthy".into(),
            message: "pod x: 503".repeat(200),
        };
        let event = event(announcement, "fairway-0", Timestamp::UNIX_EPOCH);
        assert_eq!(event.metadata.name.as_deref(), Some("crm-2.0"));
        assert_eq!(event.metadata.namespace.as_deref(), Some("shop"));
        assert_eq!(
            (event.reason.as_deref(), event.type_.as_deref()),
            (Some("Unhealthy"), Some("Warning"))
        );
        assert_eq!(event.regarding, Some(about));
        assert!(event.note.unwrap().len() <= 1024);
    }
}
