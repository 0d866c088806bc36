//! What is told: status, Events, metrics.

use crate::events::{Events, Loudness, Notice};
use crate::execute::refusal::{self, Answer};
use crate::key::Key;
use crate::metrics::Metrics;
use crate::world::World;
use crate::world::cached::Cached;
use fairway_crds::condition::{READY, STALLED, SUCCEEDED};
use fairway_crds::{
    App, AppStatus, Backup, BackupStatus, Migration, MigrationStatus, Release, ReleaseStatus,
};
use fairway_plan::labels;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::PostParams;
use kube::{Api, Client};
use serde::Serialize;
use std::sync::Arc;

/// A kind whose status is reported.
pub(crate) trait Reported: Cached + Serialize {
    /// Its status.
    type Status: Clone + PartialEq + Send + Sync;

    /// The condition that sums it up: its reasons become Events.
    const HEADLINE: &'static str;

    /// The status observed.
    fn status(&self) -> Option<&Self::Status>;

    /// The same object with another status.
    fn with_status(&self, status: Self::Status) -> Self;

    /// The conditions of a status.
    fn conditions(status: &Self::Status) -> &[Condition];

    /// How it ended, for those whose ends are counted.
    fn outcome(_status: &Self::Status) -> Option<&'static str> {
        None
    }
}

macro_rules! reported {
    ($kind:ident, $status:ident, $headline:ident $(, $outcome:item)?) => {
        impl Reported for $kind {
            type Status = $status;
            const HEADLINE: &'static str = $headline;

            fn status(&self) -> Option<&$status> {
                self.status.as_ref()
            }

            fn with_status(&self, status: $status) -> Self {
                Self { status: Some(status), ..self.clone() }
            }

            fn conditions(status: &$status) -> &[Condition] {
                &status.conditions
            }

            $($outcome)?
        }
    };
}

reported!(App, AppStatus, READY);
reported!(Migration, MigrationStatus, SUCCEEDED);
reported!(Backup, BackupStatus, SUCCEEDED);
reported!(
    Release,
    ReleaseStatus,
    SUCCEEDED,
    fn outcome(status: &ReleaseStatus) -> Option<&'static str> {
        use fairway_crds::release::ReleaseOutcome;
        Some(match status.outcome? {
            ReleaseOutcome::Succeeded => "Succeeded",
            ReleaseOutcome::Failed => "Failed",
            ReleaseOutcome::RolledBack => "RolledBack",
            ReleaseOutcome::Superseded => "Superseded",
            ReleaseOutcome::Aborted => "Aborted",
        })
    }
);

/// Reports.
#[derive(Clone)]
pub(crate) struct Reporter {
    client: Client,
    world: Arc<World>,
    events: Events,
    metrics: Metrics,
}

/// What became of a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Committed {
    /// It is on record.
    Yes,
    /// It already was: nothing was asked of the apiserver.
    Unchanged,
    /// The object was changed or deleted meanwhile; its event leads to another pass.
    Outdated,
}

/// The status could not be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("status could not be written: {message}")]
pub(crate) struct ReportError {
    message: String,
}

impl Reporter {
    /// A reporter.
    pub(crate) fn new(client: Client, world: Arc<World>, events: Events, metrics: Metrics) -> Self {
        Self {
            client,
            world,
            events,
            metrics,
        }
    }

    /// Puts a status on record if it differs from the one observed, for exactly the object observed.
    ///
    /// # Errors
    /// When the apiserver cannot be reached or refuses it.
    pub(crate) async fn commit<K: Reported>(
        &self,
        app: &Key,
        observed: &Arc<K>,
        status: K::Status,
    ) -> Result<Committed, ReportError> {
        if observed.status() == Some(&status) {
            return Ok(Committed::Unchanged);
        }
        let desired = observed.with_status(status);
        let meta = desired.meta();
        let (namespace, name) = (
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default(),
        );
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let parameters = PostParams {
            dry_run: false,
            field_manager: Some(labels::FAIRWAY.to_owned()),
        };
        match api.replace_status(name, &parameters, &desired).await {
            Ok(stored) => {
                self.world.wrote::<K>(app, stored.meta());
                self.announce(&**observed, &desired);
                Ok(Committed::Yes)
            }
            Err(kube::Error::Api(answer)) => match refusal::read(&answer) {
                Answer::Conflict | Answer::NotFound | Answer::NamespaceEnding => Ok(Committed::Outdated),
                Answer::Refused(refused) => Err(ReportError {
                    message: refused.message,
                }),
                Answer::Unavailable(message) => Err(ReportError { message }),
            },
            Err(_) => Err(ReportError {
                message: "the apiserver cannot be reached".into(),
            }),
        }
    }

    /// Tells of a pass that failed.
    pub(crate) fn failed<K: Reported>(&self, object: &K, reason: &str, message: String) {
        self.events.tell(Notice {
            about: object.object_ref(&()),
            kind: Loudness::Warning,
            reason: reason.to_owned(),
            message,
        });
    }

    fn announce<K: Reported>(&self, before: &K, after: &K) {
        let Some(status) = after.status() else { return };
        if let Some(outcome) = K::outcome(status)
            && before.status().and_then(K::outcome).is_none()
        {
            self.metrics.released(outcome);
        }
        let before = before.status().map(K::conditions).unwrap_or_default();
        if let Some((kind, headline)) = news(K::HEADLINE, before, K::conditions(status)) {
            self.events.tell(Notice {
                about: after.object_ref(&()),
                kind,
                reason: headline.reason.clone(),
                message: headline.message.clone(),
            });
        }
    }
}

/// The headline, when its reason or verdict has changed, and how loud to say it.
fn news<'a>(
    headline: &str,
    before: &[Condition],
    after: &'a [Condition],
) -> Option<(Loudness, &'a Condition)> {
    let of = |conditions: &'a [Condition], kind: &str| conditions.iter().find(|c| c.type_ == kind);
    let now = of(after, headline)?;
    let unchanged = before
        .iter()
        .any(|then| then.type_ == headline && then.reason == now.reason && then.status == now.status);
    let stalled = of(after, STALLED).is_some_and(|stalled| stalled.status == "True");
    let kind = if now.status == "False" || stalled {
        Loudness::Warning
    } else {
        Loudness::Normal
    };
    (!unchanged).then_some((kind, now))
}

#[cfg(test)]
mod tests;
