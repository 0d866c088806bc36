//! What a restore writes on its databases: a comment, which survives a rename. It says what a database is, also when the pod
//! that made it is gone, and nothing is dropped or put in place without it.

use serde::{Deserialize, Serialize};

/// The word by which a comment of Fairway's is known.
const WORD: &str = "restore";

/// The comment on a database of a restore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Mark {
    fairway: String,
    /// UID of the Restore.
    pub(super) restore: String,
    /// What the database is.
    pub(super) state: State,
    /// SHA-256 of the stored dump that was restored.
    pub(super) sha256: String,
    /// The moment whose state the set has.
    pub(super) taken_at: String,
    /// When the database was replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) at: Option<String>,
    /// The comment that the database had before it was replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) comment: Option<String>,
}

/// What a database of a restore is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum State {
    /// The set is being restored into it. When no pod works on it, it is worth nothing.
    Restoring,
    /// It holds all of the set, and was proven.
    Restored,
    /// It is about to be put in place: it and the database in use accept no connections.
    Swapping,
    /// It was in use, until a restored one took its place.
    Replaced,
}

impl Mark {
    /// The mark of a database into which a set is being restored.
    pub(super) fn new(restore_uid: &str, sha256: &str, taken_at: &str) -> Self {
        Self {
            fairway: WORD.to_owned(),
            restore: restore_uid.to_owned(),
            state: State::Restoring,
            sha256: sha256.to_owned(),
            taken_at: taken_at.to_owned(),
            at: None,
            comment: None,
        }
    }

    /// This mark in another state.
    pub(super) fn in_state(&self, state: State) -> Self {
        Self {
            state,
            ..self.clone()
        }
    }

    /// The mark of the database that was in use until that moment, with that comment.
    pub(super) fn replaced(&self, at: String, comment: Option<String>) -> Self {
        Self {
            at: Some(at),
            comment,
            ..self.in_state(State::Replaced)
        }
    }

    /// The mark in a comment, if it is one of that Restore.
    pub(super) fn parse(comment: &str, restore_uid: &str) -> Option<Self> {
        let mark: Self = serde_json::from_str(comment).ok()?;
        (mark.fairway == WORD && mark.restore == restore_uid).then_some(mark)
    }

    /// The comment.
    pub(super) fn comment(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_comment_of_this_restore_is_a_mark() {
        let mark = Mark::new("uid", "ab", "2026-01-01T00:00:00Z");
        assert_eq!(Mark::parse(&mark.comment(), "uid"), Some(mark.clone()));
        assert_eq!(Mark::parse(&mark.comment(), "other"), None);
        for comment in ["", "the CRM", "{}", "null"] {
            assert_eq!(Mark::parse(comment, "uid"), None);
        }
    }
}
