//! What a user can do about a release that did not succeed: the end of its message.

use crate::kubectl;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use std::fmt;

/// What a user can do about a release that did not succeed, in whole sentences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Advice<'a> {
    /// Apply the App, which was deleted.
    ApplyApp {
        /// Name of the App.
        app: &'a str,
    },
    /// Edit the App, or retry the release, which is the newest.
    EditOrRetry {
        /// Namespace of the release.
        namespace: &'a str,
        /// Name of the release.
        release: &'a str,
    },
    /// Edit the App: a newer release exists.
    Edit,
}

impl fmt::Display for Advice<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ApplyApp { app } => write!(formatter, "Apply App {app} to release again."),
            Self::EditOrRetry { namespace, release } => write!(
                formatter,
                "Fairway does not retry {release} by itself. Edit the App, or run: {}",
                kubectl::retry(namespace, release),
            ),
            Self::Edit => formatter.write_str(
                "It is not retried, because a newer release exists. To release again, edit the App.",
            ),
        }
    }
}

/// Replaces an advice at the end of messages.
pub(super) fn replace(conditions: &mut [Condition], before: Advice<'_>, now: Advice<'_>) {
    let before = before.to_string();
    for condition in conditions {
        if let Some(what) = condition.message.strip_suffix(&before) {
            condition.message = format!("{what}{now}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conditions::{self, Progress};
    use fairway_crds::Reason;
    use jiff::Timestamp;

    #[test]
    fn the_offer_of_a_retry_is_replaced_wherever_it_stands() {
        let offer = Advice::EditOrRetry {
            namespace: "shop",
            release: "crm-2",
        };
        let failed = Progress::failed(Reason::PodsNotReady, format!("crm-1 keeps serving. {offer}"));
        let desired = conditions::summary("Release crm-2", &failed);
        let mut conditions = conditions::set(&[], desired, None, Timestamp::UNIX_EPOCH);
        replace(&mut conditions, offer, Advice::Edit);
        let messages: Vec<_> = conditions
            .iter()
            .map(|condition| condition.message.as_str())
            .collect();
        let expected = "crm-1 keeps serving. It is not retried, because a newer release exists. To release again, edit \
                        the App.";
        let ready = "Release crm-2 did not succeed. Condition Succeeded says why.";
        assert_eq!(messages, [expected, ready, expected]);
    }
}
