//! Durations as they are written in Kubernetes objects: `500ms`, `30s`, `5m`, `1h30m`.

use schemars::{Schema, json_schema};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A duration, written as whole numbers with the units `ms`, `s`, `m` and `h` in any order, such as `1h30m`. At
/// most 20 characters, and 6 digits per number. Zero is written `0s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Duration(std::time::Duration);

/// Text that is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a duration: use whole numbers with ms, s, m or h, such as 30s or 1h30m")]
pub struct InvalidDuration {
    text: String,
}

impl Duration {
    /// A duration of whole seconds.
    pub const fn from_seconds(seconds: u64) -> Self {
        Self(std::time::Duration::from_secs(seconds))
    }

    /// The duration as a [`std::time::Duration`].
    pub const fn get(self) -> std::time::Duration {
        self.0
    }

    /// Whole seconds, rounded down.
    pub const fn seconds(self) -> u64 {
        self.0.as_secs()
    }

    /// The duration as a [`jiff::SignedDuration`]; durations beyond its range (about 292 billion years) saturate.
    pub fn signed(self) -> jiff::SignedDuration {
        jiff::SignedDuration::try_from(self.0).unwrap_or(jiff::SignedDuration::MAX)
    }
}

impl std::str::FromStr for Duration {
    type Err = InvalidDuration;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).map(Self).ok_or_else(|| InvalidDuration {
            text: text.to_owned(),
        })
    }
}

fn parse(text: &str) -> Option<std::time::Duration> {
    let mut rest = text;
    let mut milliseconds: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|character: char| !character.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let (unit, length) = match rest.as_bytes() {
            [b'm', b's', ..] => (1, 2),
            [b's', ..] => (1_000, 1),
            [b'm', ..] => (60_000, 1),
            [b'h', ..] => (3_600_000, 1),
            _ => return None,
        };
        milliseconds = milliseconds.checked_add(number.checked_mul(unit)?)?;
        rest = &rest[length..];
    }
    (!text.is_empty()).then(|| std::time::Duration::from_millis(milliseconds))
}

impl TryFrom<String> for Duration {
    type Error = InvalidDuration;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Duration> for String {
    fn from(duration: Duration) -> Self {
        duration.to_string()
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = self.0.as_millis();
        if milliseconds == 0 {
            return formatter.write_str("0s");
        }
        let mut rest = milliseconds;
        for (unit, name) in [(3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")] {
            if rest >= unit {
                write!(formatter, "{}{name}", rest / unit)?;
                rest %= unit;
            }
        }
        Ok(())
    }
}

/// The schema of a duration within bounds. The message of its rule contains the example.
///
/// 20 characters hold at most 240 years, which CEL's `duration()` can represent (292).
pub(crate) fn between(shortest: &str, longest: &str, example: &str) -> Schema {
    let rule = format!(
        "self.matches('^([0-9]{{1,6}}(ms|s|m|h))+$') && duration(self) >= duration('{shortest}') \
         && duration(self) <= duration('{longest}')"
    );
    let message = format!(
        "must be a duration from {shortest} to {longest}; use whole numbers with ms, s, m or h, such as {example}"
    );
    json_schema!({
        "type": "string",
        "maxLength": 20,
        "x-kubernetes-validations": [{"rule": rule, "message": message}],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("500ms", 500, "500ms")]
    #[case("30s", 30_000, "30s")]
    #[case("90s", 90_000, "1m30s")]
    #[case("1h30m", 5_400_000, "1h30m")]
    #[case("0s", 0, "0s")]
    fn durations_read_and_write(#[case] text: &str, #[case] milliseconds: u128, #[case] written: &str) {
        let duration: Duration = text.parse().unwrap();
        assert_eq!(duration.get().as_millis(), milliseconds);
        assert_eq!(duration.to_string(), written);
    }

    #[rstest]
    #[case("")]
    #[case("5")]
    #[case("five minutes")]
    #[case("1d")]
    #[case("-5s")]
    #[case("99999999999999999999h")]
    fn invalid_durations_are_refused_with_an_example(#[case] text: &str) {
        let error = text.parse::<Duration>().unwrap_err().to_string();
        assert!(error.contains("such as 30s or 1h30m"), "{error}");
    }
}
