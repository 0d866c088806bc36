//! Status conditions: what they say, and when they change.

use crate::message::{self, fit, to_seconds};
use fairway_crds::Reason;
use fairway_crds::condition::{READY, RECONCILING, STALLED, SUCCEEDED};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The condition holds.
    True,
    /// The condition does not hold.
    False,
    /// Nobody can say yet whether the condition holds.
    Unknown,
}

impl Status {
    /// The status as the API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// A desired condition, without the times that [`set`] keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// Type of the condition, one of [`fairway_crds::condition`].
    pub type_: &'static str,
    /// Whether the condition holds.
    pub status: Status,
    /// Why, for machines.
    pub reason: Reason,
    /// Why, for people: whole sentences.
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
                message: fit(&desired.message, message::LIMIT),
                observed_generation: generation,
                last_transition_time: unchanged.map_or_else(
                    || Time(to_seconds(now)),
                    |condition| condition.last_transition_time.clone(),
                ),
            }
        })
        .collect()
}

/// What the condition `Succeeded` says, if anything.
pub(crate) fn succeeded_message(conditions: &[Condition]) -> Option<&str> {
    let message = succeeded(conditions)?.message.as_str();
    (!message.is_empty()).then_some(message)
}

/// Since when the condition `Succeeded` has its value.
pub(crate) fn succeeded_since(conditions: &[Condition]) -> Option<Timestamp> {
    Some(succeeded(conditions)?.last_transition_time.0)
}

fn succeeded(conditions: &[Condition]) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.type_ == SUCCEEDED)
}

/// Why a condition is as it is, unless another version of Fairway wrote it.
pub fn reason_of(condition: &Condition) -> Option<Reason> {
    condition.reason.parse().ok()
}

/// How far an object is that ends: a Release, a Migration, a Backup, or a rung that waits for the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Who or what moves next, or how it ended.
    pub state: State,
    /// Why it is so.
    pub reason: Reason,
    /// Why it is so, for people: whole sentences.
    pub message: String,
}

/// Who or what moves an object next, or how it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Machines are at work: `Reconciling`.
    Running,
    /// The clock of a bake or another release: neither reconciling nor stalled.
    Waiting,
    /// A user has to act, and then it goes on: `Stalled`.
    Stalled,
    /// It has succeeded.
    Succeeded,
    /// It has failed: `Stalled`, because no machine will change that.
    Failed,
}

impl Progress {
    /// An object in that state.
    pub fn new(state: State, reason: Reason, message: impl AsRef<str>) -> Self {
        Self {
            state,
            reason,
            message: message::sentence(message.as_ref()),
        }
    }

    /// An object at which machines are at work.
    pub fn running(reason: Reason, message: impl AsRef<str>) -> Self {
        Self::new(State::Running, reason, message)
    }

    /// An object for which a user has to act.
    pub fn stalled(reason: Reason, message: impl AsRef<str>) -> Self {
        Self::new(State::Stalled, reason, message)
    }

    /// An object that has succeeded.
    pub fn succeeded(reason: Reason, message: impl AsRef<str>) -> Self {
        Self::new(State::Succeeded, reason, message)
    }

    /// An object that has failed.
    pub fn failed(reason: Reason, message: impl AsRef<str>) -> Self {
        Self::new(State::Failed, reason, message)
    }
}

/// The conditions that sum an object up: `Succeeded` and `Ready`, both unknown until it ends, and `Reconciling` or
/// `Stalled` while that holds. `subject` is the object, as `Backup nightly`.
pub fn summary(subject: &str, progress: &Progress) -> Vec<Desired> {
    let Progress {
        state,
        reason,
        message,
    } = progress;
    let ended = match state {
        State::Running | State::Waiting | State::Stalled => Status::Unknown,
        State::Succeeded => Status::True,
        State::Failed => Status::False,
    };
    // The same message in every condition hides the others; it stands where people and tools look for it.
    let ready_message = match state {
        State::Failed => format!("{subject} did not succeed. Condition Succeeded says why."),
        _ => message.clone(),
    };
    let mut desired = vec![
        Desired::new(SUCCEEDED, ended, *reason, message),
        Desired::new(READY, ended, *reason, ready_message),
    ];
    desired.extend(passing(*state, *reason, message));
    desired
}

/// `Reconciling` or `Stalled`, while that holds.
pub fn passing(state: State, reason: Reason, message: &str) -> Option<Desired> {
    let type_ = match state {
        State::Running => RECONCILING,
        State::Stalled | State::Failed => STALLED,
        State::Waiting | State::Succeeded => return None,
    };
    Some(Desired::new(type_, Status::True, reason, message))
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
    #[case::running(State::Running, ["Unknown", "Unknown", "True", "absent"])]
    #[case::waiting(State::Waiting, ["Unknown", "Unknown", "absent", "absent"])]
    #[case::stalled(State::Stalled, ["Unknown", "Unknown", "absent", "True"])]
    #[case::succeeded(State::Succeeded, ["True", "True", "absent", "absent"])]
    #[case::failed(State::Failed, ["False", "False", "absent", "True"])]
    fn an_object_is_never_reconciling_and_stalled(#[case] state: State, #[case] expected: [&str; 4]) {
        let desired = summary("Backup nightly", &Progress::new(state, Reason::Live, "m"));
        let conditions = set(&[], desired, Some(1), at("2026-01-01T00:00:00Z"));
        let found = [SUCCEEDED, READY, RECONCILING, STALLED].map(|type_| status(&conditions, type_));
        assert_eq!(found, expected);
        assert!(
            conditions
                .iter()
                .all(|condition| !condition.reason.is_empty() && !condition.message.is_empty())
        );
    }

    #[test]
    fn messages_fit_their_limit() {
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
        assert_eq!(conditions[0].message.chars().count(), message::LIMIT);
    }
}
