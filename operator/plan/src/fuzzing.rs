//! What must hold of all texts that planners read of others: the fuzz targets in `operator/fuzz` call these functions with
//! what libFuzzer finds, the unit tests below with the seeds that it begins with.

use crate::message::{self, fit, one_line, quote};
use crate::protocol::{
    BackupReport, Begun, Failure, MigrationReport, PinReport, PreflightReport, ProbeVerdict, PruneReport,
};
use crate::{requester, resolution};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Longest quotation with its marks, in characters.
const QUOTATION: usize = 302;

/// The value of an annotation names its user before the last slash, and asks for one thing at most.
pub fn annotation(data: &[u8]) {
    let Ok(value) = std::str::from_utf8(data) else {
        return;
    };
    let (user, rest) = requester::split(value);
    assert!(!rest.contains('/'));
    if let Some(user) = user {
        assert_eq!(format!("{user}/{rest}"), value);
    }
    let subject = requester::subject(value);
    assert!(
        subject.chars().count() <= QUOTATION + "User ".len(),
        "{subject:?}"
    );
    if let Some((resolution, token)) = resolution::parse(value) {
        assert!(!token.is_empty() && !token.contains('/'));
        assert_eq!(
            resolution::parse(&resolution::value(resolution, &token)),
            Some((resolution, token))
        );
    }
    text(value);
}

/// The words of others are one quotation on one line, of a length that has a bound.
fn text(words: &str) {
    let quoted = quote(words);
    assert!(quoted.chars().count() <= QUOTATION, "{quoted:?}");
    assert!(!quoted.contains(['\n', '\r']), "{quoted:?}");
    let inside = quoted.trim_start_matches('“').trim_end_matches('”');
    assert!(!inside.contains(['“', '”']), "{quoted:?}");
    let line = one_line(words);
    assert_eq!(one_line(&line), line);
    for limit in [message::LIMIT, 100] {
        let whole = message::sentences([message::quoting("It failed", Some(words)), words.to_owned()]);
        let fitted = fit(&whole, limit);
        assert!(fitted.chars().count() <= limit, "{fitted:?}");
        assert_eq!(fit(&fitted, limit), fitted);
    }
}

/// A termination message, or the answer of a probe pod, is read and can be written again, or is not read at all.
pub fn report(data: &[u8]) {
    as_written::<PreflightReport>(data);
    as_written::<BackupReport>(data);
    as_written::<PruneReport>(data);
    as_written::<MigrationReport>(data);
    as_written::<Begun>(data);
    as_written::<PinReport>(data);
    as_written::<ProbeVerdict>(data);
    if let Some(failure) = as_written::<Failure>(data) {
        text(&failure.message);
    }
}

fn as_written<T: DeserializeOwned + Serialize + std::fmt::Debug>(data: &[u8]) -> Option<T> {
    let read: T = serde_json::from_slice(data).ok()?;
    let written = serde_json::to_vec(&read).unwrap_or_default();
    assert!(serde_json::from_slice::<T>(&written).is_ok(), "{read:?}");
    Some(read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::annotation(annotation, include_str!("../../fuzz/seeds/annotation.txt"))]
    #[case::report(report, include_str!("../../fuzz/seeds/report.txt"))]
    fn what_fuzz_targets_check_holds_for_their_seeds(#[case] check: fn(&[u8]), #[case] seeds: &str) {
        seeds.lines().for_each(|seed| check(seed.as_bytes()));
    }
}
