//! Who asks for something by an annotation: its value is `<token>`, or `<user>/<token>`.
//!
//! The admission policies of the chart refuse another user's name, so that a name in a status can be believed.

use crate::message::quote;

/// The user that a value names, and the rest of it. A name may contain slashes, a token may not.
pub fn split(value: &str) -> (Option<&str>, &str) {
    match value.rsplit_once('/') {
        Some((user, rest)) if !user.is_empty() => (Some(user), rest),
        Some((_, rest)) => (None, rest),
        None => (None, value),
    }
}

/// Who gave a value, as the subject of a sentence.
pub fn subject(value: &str) -> String {
    match split(value).0 {
        Some(user) => format!("User {}", quote(user)),
        None => "A user".to_owned(),
    }
}

/// The value that a user has given, unless it is the one that was handled last.
pub fn pending<'a>(value: Option<&'a String>, handled: Option<&String>) -> Option<&'a str> {
    value.filter(|value| Some(*value) != handled).map(String::as_str)
}

/// Returns the unhandled value, if there is one, and records it as handled.
pub fn take<'a>(value: Option<&'a String>, handled: &mut Option<String>) -> Option<&'a str> {
    let pending = pending(value, handled.as_ref())?;
    *handled = Some(pending.to_owned());
    Some(pending)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::token("1700000000", None, "1700000000", "A user")]
    #[case::user("alice/17", Some("alice"), "17", "User “alice”")]
    #[case::issuer(
        "https://issuer.example.com/alice/applied:17",
        Some("https://issuer.example.com/alice"),
        "applied:17",
        "User “https://issuer.example.com/alice”"
    )]
    #[case::nobody("/17", None, "17", "A user")]
    fn value_names_its_user_before_the_last_slash(
        #[case] value: &str,
        #[case] user: Option<&str>,
        #[case] rest: &str,
        #[case] said: &str,
    ) {
        assert_eq!(split(value), (user, rest));
        assert_eq!(subject(value), said);
    }
}
