//! What is worth a Kubernetes Event.

use fairway_crds::condition::{STALLED, WARNED};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

/// An Event about an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Announcement {
    /// The object.
    pub about: ObjectReference,
    /// Normal or Warning.
    pub severity: Severity,
    /// CamelCase, stable, with a runbook page.
    pub reason: String,
    /// One sentence or two.
    pub message: String,
}

/// How loud an Event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Things go as they should.
    Normal,
    /// A user may want to look.
    Warning,
}

impl Severity {
    /// Type of the Event.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// The condition that sums an object up, when its reason or verdict has changed, and how loud to say it.
pub(crate) fn news<'a>(
    headline: &str,
    before: &[Condition],
    after: &'a [Condition],
) -> Option<(Severity, &'a Condition)> {
    let of = |kind: &str| after.iter().find(|condition| condition.type_ == kind);
    let now = of(headline)?;
    let is_unchanged = before
        .iter()
        .any(|then| then.type_ == headline && then.reason == now.reason && then.status == now.status);
    let is_stalled = of(STALLED).is_some_and(|stalled| stalled.status == "True");
    let severity = if now.status == "False" || is_stalled {
        Severity::Warning
    } else {
        Severity::Normal
    };
    (!is_unchanged).then_some((severity, now))
}

/// The condition `Warned`, when an object is warned of something else than before.
pub(crate) fn warning<'a>(before: &[Condition], after: &'a [Condition]) -> Option<&'a Condition> {
    let now = after.iter().find(|condition| condition.type_ == WARNED)?;
    let is_unchanged = before
        .iter()
        .any(|then| then.type_ == WARNED && then.reason == now.reason);
    (!is_unchanged).then_some(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairway_crds::condition::SUCCEEDED;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn condition(kind: &str, status: &str, reason: &str) -> Condition {
        Condition {
            type_: kind.into(),
            status: status.into(),
            reason: reason.into(),
            message: format!("{reason}, in a sentence"),
            last_transition_time: Time(jiff::Timestamp::UNIX_EPOCH),
            observed_generation: Some(1),
        }
    }

    #[test]
    fn only_a_new_reason_or_verdict_is_news_and_failures_are_warnings() {
        let before = [condition(SUCCEEDED, "Unknown", "Baking")];
        assert!(news(SUCCEEDED, &before, &before).is_none());
        let failed = [
            condition(SUCCEEDED, "False", "Unhealthy"),
            condition(STALLED, "True", "Unhealthy"),
        ];
        let severity = |after: &[Condition]| news(SUCCEEDED, &before, after).map(|(severity, _)| severity);
        assert_eq!(severity(&failed), Some(Severity::Warning));
        let waits = [
            condition(SUCCEEDED, "Unknown", "MigrationUnknown"),
            condition(STALLED, "True", "MigrationUnknown"),
        ];
        assert_eq!(severity(&waits), Some(Severity::Warning));
        let done = [condition(SUCCEEDED, "True", "Succeeded")];
        assert_eq!(severity(&done), Some(Severity::Normal));
    }

    #[test]
    fn a_warning_is_news_once() {
        let before = [condition(SUCCEEDED, "Unknown", "BackingUp")];
        let after = [
            condition(SUCCEEDED, "True", "Succeeded"),
            condition(WARNED, "True", "BackupShrank"),
        ];
        assert_eq!(
            warning(&before, &after).map(|found| found.reason.as_str()),
            Some("BackupShrank")
        );
        assert!(warning(&after, &after).is_none());
        assert!(warning(&after, &before).is_none(), "the end of one is none");
    }
}
