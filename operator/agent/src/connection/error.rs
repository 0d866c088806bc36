//! Why a connection string is refused.

/// Why a connection string cannot be used. The text names a key, never a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConnectionError {
    #[error("neither a connection string nor its parts are given")]
    Nothing,
    #[error(
        "the connection string is neither a postgres:// URL, a jdbc:postgresql:// URL, nor a list of key=value pairs"
    )]
    NotPostgres,
    #[error("the connection string names no {0}")]
    Missing(&'static str),
    #[error("the connection string's {0} is not valid")]
    Invalid(String),
    #[error("Fairway does not know the key {0} of the connection string")]
    Unknown(String),
    #[error(
        "the connection string has a key that is no name, next to {0}; quote or percent-encode the characters that end \
         that value"
    )]
    NotAKey(String),
    #[error("Fairway does not support {0} in the connection string")]
    Unsupported(String),
    #[error(
        "{0} is in the connection string more than once, and drivers disagree which one counts; keep one"
    )]
    Twice(String),
    #[error("drivers disagree what {part} of the connection string is; {fix}")]
    Ambiguous {
        /// What is read in two ways.
        part: String,
        /// How to write it so that all read the same.
        fix: &'static str,
    },
}

impl ConnectionError {
    /// The value of a key cannot be read, or is outside of what the key takes.
    pub(super) fn invalid(part: impl Into<String>) -> Self {
        Self::Invalid(part.into())
    }
}
