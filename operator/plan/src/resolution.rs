//! The verdict of a user about a migration whose outcome nobody else can decide: the value of the annotation
//! `fairway.dev/resolve`.

use crate::protocol::Resolution;
use crate::requester;

const APPLIED: &str = "applied";
const NOT_APPLIED: &str = "not-applied";

/// The value for a verdict: `applied:<token>` or `not-applied:<token>`.
pub fn value(resolution: Resolution, token: &str) -> String {
    match resolution {
        Resolution::Applied => format!("{APPLIED}:{token}"),
        Resolution::NotApplied => format!("{NOT_APPLIED}:{token}"),
    }
}

/// The verdict and the token of a value, which may name its user; `None` when the value has another form.
pub fn parse(value: &str) -> Option<(Resolution, String)> {
    let (verdict, token) = requester::split(value).1.split_once(':')?;
    let resolution = match verdict {
        APPLIED => Resolution::Applied,
        NOT_APPLIED => Resolution::NotApplied,
        _ => return None,
    };
    (!token.is_empty()).then(|| (resolution, token.to_owned()))
}
