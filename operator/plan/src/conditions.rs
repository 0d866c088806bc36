//! Status conditions: what they say, and when they change.

use fairway_crds::Reason;
use fairway_crds::condition::{READY, RECONCILING, STALLED, SUCCEEDED};
use fairway_crds::duration::Duration;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Longest message of a condition, in characters. Kubernetes allows 32,768; nobody reads those.
pub const MESSAGE_LIMIT: usize = 1024;
/// Longest text of others (the kubelet, the apiserver) that is passed on inside a message, in characters.
const QUOTE_LIMIT: usize = 300;

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Not known yet.
    Unknown,
}

impl Status {
    /// As the API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// A condition as a planner wants it, without the times that [`set`] keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// Its type, one of [`fairway_crds::condition`].
    pub type_: &'static str,
    /// Whether it holds.
    pub status: Status,
    /// Why: CamelCase, stable, for machines.
    pub reason: Reason,
    /// Why, for people.
    pub message: String,
}

impl Desired {
    /// A desired condition.
    pub fn new(type_: &'static str, status: Status, reason: Reason, message: impl Into<String>) -> Self {
        Self {
            type_,
            status,
            reason,
            message: message.into(),
        }
    }
}

/// The conditions to write, in the order in which they are desired. `lastTransitionTime` only moves when a
/// condition's status does, so a pass that found nothing new writes what is there already.
pub fn set(
    previous: &[Condition],
    desired: Vec<Desired>,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    desired
        .into_iter()
        .map(|desired| {
            let before = previous.iter().find(|condition| condition.type_ == desired.type_);
            let unchanged = before.filter(|condition| condition.status == desired.status.as_str());
            Condition {
                type_: desired.type_.to_owned(),
                status: desired.status.as_str().to_owned(),
                reason: desired.reason.into(),
                message: capped(&desired.message, MESSAGE_LIMIT),
                observed_generation: generation,
                last_transition_time: unchanged.map_or_else(
                    || Time(to_seconds(now)),
                    |condition| condition.last_transition_time.clone(),
                ),
            }
        })
        .collect()
}

/// Where bounded work (a Migration, a Backup) stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Machines are at it.
    Running {
        /// What is being done or waited for.
        reason: Reason,
        /// The same, for people.
        message: String,
    },
    /// A person must do something, and then it goes on.
    Waiting {
        /// What is wrong.
        reason: Reason,
        /// What to do.
        message: String,
    },
    /// It is done, for good.
    Succeeded {
        /// How.
        reason: Reason,
        /// The same, for people.
        message: String,
    },
    /// It has failed, for good.
    Failed {
        /// Why.
        reason: Reason,
        /// One sentence with the mend.
        message: String,
    },
}

impl Progress {
    /// Machines are at it.
    pub fn running(reason: Reason, message: impl Into<String>) -> Self {
        Self::Running {
            reason,
            message: message.into(),
        }
    }

    /// A person must do something.
    pub fn waiting(reason: Reason, message: impl Into<String>) -> Self {
        Self::Waiting {
            reason,
            message: message.into(),
        }
    }

    /// It is done.
    pub fn succeeded(reason: Reason, message: impl Into<String>) -> Self {
        Self::Succeeded {
            reason,
            message: message.into(),
        }
    }

    /// It has failed.
    pub fn failed(reason: Reason, message: impl Into<String>) -> Self {
        Self::Failed {
            reason,
            message: message.into(),
        }
    }
}

/// The conditions of bounded work: `Succeeded` and `Ready`, and `Reconciling` or `Stalled` while one of them holds.
pub fn bounded(
    previous: &[Condition],
    progress: &Progress,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    use Status::{False, True, Unknown};
    let (succeeded, ready, passing, reason, message) = match progress {
        Progress::Running { reason, message } => (Unknown, False, Some(RECONCILING), reason, message),
        Progress::Waiting { reason, message } => (Unknown, False, Some(STALLED), reason, message),
        Progress::Succeeded { reason, message } => (True, True, None, reason, message),
        Progress::Failed { reason, message } => (False, False, Some(STALLED), reason, message),
    };
    // A long message in every condition hides the others; it stands where people and tools look for it.
    let ready_message = match succeeded {
        False => "it did not succeed: the condition Succeeded says why",
        _ => message,
    };
    let mut desired = vec![
        Desired::new(SUCCEEDED, succeeded, *reason, message),
        Desired::new(READY, ready, *reason, ready_message),
    ];
    desired.extend(passing.map(|type_| Desired::new(type_, True, *reason, message)));
    set(previous, desired, generation, now)
}

/// A moment as messages write it: RFC 3339 in UTC, whole seconds.
pub fn moment(at: Timestamp) -> String {
    to_seconds(at).to_string()
}

/// A span of time as messages write it: `1h30m`.
pub fn duration(span: SignedDuration) -> String {
    Duration::from_seconds(u64::try_from(span.as_secs()).unwrap_or_default()).to_string()
}

/// A text of others made fit for a message: one line, without what may be a credential in a URL, at most 300
/// characters.
pub fn shorten(text: &str) -> String {
    let words: Vec<String> = text.split_whitespace().map(without_credentials).collect();
    capped(&words.join(" "), QUOTE_LIMIT)
}

/// A URL keeps neither its user information nor its query.
fn without_credentials(word: &str) -> String {
    let Some((scheme, rest)) = word.split_once("://") else {
        return word.to_owned();
    };
    let (authority, path) = match rest.find(['/', '?']) {
        Some(end) => rest.split_at(end),
        None => (rest, ""),
    };
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    match path.split_once('?') {
        None => format!("{scheme}://{host}{path}"),
        Some((path, query)) => {
            // What follows the URL in a quoted sentence (`": 401`) is kept.
            let end = query.find(['"', '\'', ')', ',']).unwrap_or(query.len());
            format!("{scheme}://{host}{path}?…{}", &query[end..])
        }
    }
}

fn capped(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        None => text.to_owned(),
        Some(_) => text.chars().take(limit - 1).chain(['…']).collect(),
    }
}

fn to_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn status<'a>(conditions: &'a [Condition], type_: &str) -> &'a str {
        let found = conditions.iter().find(|condition| condition.type_ == type_);
        found.map_or("absent", |condition| &condition.status)
    }

    #[test]
    fn the_time_of_a_condition_moves_only_with_its_status() {
        let desired = |status, message: &str| vec![Desired::new(READY, status, Reason::Live, message)];
        let first = set(
            &[],
            desired(Status::False, "one"),
            Some(1),
            at("2026-01-01T00:00:00.9Z"),
        );
        let again = set(
            &first,
            desired(Status::False, "two"),
            Some(2),
            at("2026-01-01T01:00:00Z"),
        );
        assert_eq!(again[0].last_transition_time, Time(at("2026-01-01T00:00:00Z")));
        assert_eq!(
            (again[0].message.as_str(), again[0].observed_generation),
            ("two", Some(2))
        );
        let turned = set(
            &again,
            desired(Status::True, "two"),
            Some(2),
            at("2026-01-01T02:00:00Z"),
        );
        assert_eq!(turned[0].last_transition_time, Time(at("2026-01-01T02:00:00Z")));
    }

    #[rstest]
    #[case::running(Progress::running(Reason::Live, "m"), ["Unknown", "False", "True", "absent"])]
    #[case::waiting_for_a_person(Progress::waiting(Reason::Live, "m"), ["Unknown", "False", "absent", "True"])]
    #[case::succeeded(Progress::succeeded(Reason::Live, "m"), ["True", "True", "absent", "absent"])]
    #[case::failed(Progress::failed(Reason::Live, "m"), ["False", "False", "absent", "True"])]
    fn bounded_work_is_never_reconciling_and_stalled(
        #[case] progress: Progress,
        #[case] expected: [&str; 4],
    ) {
        let conditions = bounded(&[], &progress, Some(1), at("2026-01-01T00:00:00Z"));
        let found = [SUCCEEDED, READY, RECONCILING, STALLED].map(|type_| status(&conditions, type_));
        assert_eq!(found, expected);
        assert!(
            conditions
                .iter()
                .all(|condition| !condition.reason.is_empty() && !condition.message.is_empty())
        );
    }

    #[rstest]
    #[case("pull  failed:\n not found", "pull failed: not found")]
    #[case("GET https://me:secret@host/v2/a", "GET https://host/v2/a")]
    #[case(
        r#"request "https://auth/token?account=me&t=1": 401"#,
        r#"request "https://auth/token?…": 401"#
    )]
    fn texts_of_others_are_one_line_without_credentials(#[case] given: &str, #[case] shortened: &str) {
        assert_eq!(shorten(given), shortened);
    }

    #[test]
    fn long_messages_are_cut_at_a_character() {
        let conditions = set(
            &[],
            vec![Desired::new(
                READY,
                Status::False,
                Reason::NotReady,
                "ü".repeat(3000),
            )],
            None,
            Timestamp::UNIX_EPOCH,
        );
        assert_eq!(conditions[0].message.chars().count(), MESSAGE_LIMIT);
        assert!(conditions[0].message.ends_with('…'));
    }

    #[test]
    fn moments_and_spans_are_short() {
        assert_eq!(moment(at("2026-01-01T00:00:00.123Z")), "2026-01-01T00:00:00Z");
        assert_eq!(duration(SignedDuration::from_mins(90)), "1h30m");
    }
}
