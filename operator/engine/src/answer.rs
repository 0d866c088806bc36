//! What the API server's answers mean, and what they say: fit for status, Events and logs, without anyone's values.

use fairway_plan::observed::Refusal;
use kube::core::Status;

/// Longest message.
const LIMIT: usize = 400;

/// What an error answer means for a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// Repeating the same write will not help.
    Refused(Refusal),
    /// The object, or its namespace, is not there.
    NotFound,
    /// The object was changed or replaced meanwhile.
    Conflict,
    /// The name of an object to be created is taken.
    AlreadyExists,
    /// The namespace is being deleted, and nothing can be created in it any more.
    NamespaceTerminating,
    /// The API server is overloaded, stopping, or answers later.
    Unavailable(String),
}

impl Meaning {
    /// What is wrong with the object that was written or read.
    pub(crate) fn into_message(self) -> String {
        match self {
            Self::Refused(refusal) => refusal.message,
            Self::NotFound => "it or its namespace does not exist".to_owned(),
            Self::Conflict => "it was changed meanwhile".to_owned(),
            Self::AlreadyExists => "it already exists".to_owned(),
            Self::NamespaceTerminating => "the namespace is being deleted".to_owned(),
            Self::Unavailable(message) => message,
        }
    }
}

/// Reads an error answer.
pub(crate) fn meaning(status: &Status) -> Meaning {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let owned = causes
        .clone()
        .filter(|cause| cause.reason == "FieldManagerConflict");
    let conflicts: Vec<_> = owned.map(|cause| cause.field.clone()).collect();
    let ending = causes.clone().any(|cause| cause.reason == "NamespaceTerminating");
    let refused = |conflicts, may_pass| {
        Meaning::Refused(Refusal {
            message: message(status),
            conflicts,
            may_pass,
        })
    };
    match status.code {
        404 => Meaning::NotFound,
        409 if !conflicts.is_empty() => refused(conflicts, true),
        409 if status.reason == "AlreadyExists" => Meaning::AlreadyExists,
        409 => Meaning::Conflict,
        403 if ending => Meaning::NamespaceTerminating,
        403 => refused(Vec::new(), true),
        400 | 413 | 415 | 422 => refused(Vec::new(), false),
        401 => Meaning::Unavailable("the API server does not accept the operator's credentials".into()),
        code => Meaning::Unavailable(format!("the API server answered {code} {}", status.reason)),
    }
}

/// The message of an error answer in one line, without values of the object: field paths and what must hold
/// there, not what was there.
pub(crate) fn message(status: &Status) -> String {
    let causes: Vec<_> = status
        .details
        .iter()
        .flat_map(|details| &details.causes)
        .filter(|cause| !cause.field.is_empty())
        .take(3)
        .map(|cause| format!("{}: {}", cause.field, without_value(&cause.message)))
        .collect();
    let text = if causes.is_empty() {
        // A typed patch that does not fit quotes the value behind these words.
        status
            .message
            .split(", got &")
            .next()
            .unwrap_or_default()
            .to_owned()
    } else {
        causes.join("; ")
    };
    shorten(&text)
}

/// A parser's error without the values that it quotes.
pub fn without_values(error: &str) -> String {
    let mut text = String::new();
    let mut rest = error;
    while let Some(start) = rest.find("string \"") {
        text.push_str(&rest[..start]);
        text.push_str("a string");
        rest = after_quoted(&rest[start + "string ".len()..]);
    }
    text.push_str(rest);
    shorten(&text)
}

/// `Invalid value: "x": must be…` becomes `Invalid value: must be…`.
fn without_value(cause: &str) -> String {
    for prefix in ["Invalid value: ", "Unsupported value: ", "Duplicate value: "] {
        let Some(rest) = cause.strip_prefix(prefix) else {
            continue;
        };
        let rest = if rest.starts_with('"') {
            after_quoted(rest).trim_start_matches(": ")
        } else {
            rest.split_once(": ").map_or("", |(_, detail)| detail)
        };
        return if rest.is_empty() {
            prefix.trim_end_matches(": ").to_owned()
        } else {
            format!("{prefix}{rest}")
        };
    }
    cause.to_owned()
}

/// What follows a quoted string (with backslash escapes) at the start of `text`.
fn after_quoted(text: &str) -> &str {
    let mut escaped = false;
    for (index, character) in text.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return &text[index + 1..],
            _ => {}
        }
    }
    ""
}

/// One line of at most [`LIMIT`] bytes.
pub fn shorten(text: &str) -> String {
    shorten_to(text, LIMIT)
}

/// One line of at most so many bytes, and a sign that there was more.
pub(crate) fn shorten_to(text: &str, limit: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.len() <= limit {
        return line;
    }
    let end = (0..=limit)
        .rev()
        .find(|index| line.is_char_boundary(*index))
        .unwrap_or_default();
    format!("{}…", &line[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn status(value: serde_json::Value) -> Status {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn an_invalid_object_is_refused_with_fields_and_without_values() {
        let answer = meaning(&status(json!({
            "status": "Failure", "code": 422, "reason": "Invalid",
            "message": "Deployment.apps \"crm\" is invalid: spec.env[0].value: Invalid value: \"hunter2\": must be short",
            "details": {"causes": [
                {"reason": "FieldValueInvalid", "field": "spec.env[0].value", "message": "Invalid value: \"hun\\\"ter2\": must be short"},
                {"reason": "FieldValueRequired", "field": "spec.containers[0].image", "message": "Required value"},
            ]},
        })));
        let Meaning::Refused(refused) = answer else {
            panic!("{answer:?}")
        };
        assert_eq!(
            refused.message,
            "spec.env[0].value: Invalid value: must be short; spec.containers[0].image: Required value"
        );
        assert!(refused.conflicts.is_empty() && !refused.may_pass);
    }

    #[test]
    fn a_field_of_another_manager_is_a_conflict_that_may_pass() {
        let answer = meaning(&status(json!({
            "status": "Failure", "code": 409, "reason": "Conflict",
            "message": "Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\" using v1: .spec.selector",
            "details": {"causes": [{
                "reason": "FieldManagerConflict", "field": ".spec.selector",
                "message": "conflict with \"kubectl-client-side-apply\" using v1",
            }]},
        })));
        let Meaning::Refused(refused) = answer else {
            panic!("{answer:?}")
        };
        assert_eq!(
            refused.message,
            ".spec.selector: conflict with \"kubectl-client-side-apply\" using v1"
        );
        assert_eq!(refused.conflicts, [".spec.selector"]);
        assert!(refused.may_pass);
    }

    #[rstest]
    #[case(409, Meaning::Conflict)]
    #[case(404, Meaning::NotFound)]
    #[case(503, Meaning::Unavailable("the API server answered 503 X".into()))]
    fn other_answers_are_retried(#[case] code: u16, #[case] expected: Meaning) {
        assert_eq!(
            meaning(&status(json!({"status": "Failure", "code": code, "reason": "X"}))),
            expected
        );
    }

    #[test]
    fn a_terminating_namespace_is_no_refusal() {
        let answer = meaning(&status(json!({
            "status": "Failure", "code": 403, "reason": "Forbidden", "message": "…",
            "details": {"causes": [{"reason": "NamespaceTerminating", "field": "metadata.namespace", "message": "…"}]},
        })));
        assert_eq!(answer, Meaning::NamespaceTerminating);
    }

    #[test]
    fn a_typed_patch_that_does_not_fit_shows_no_value() {
        let message = message(&status(json!({
            "code": 400,
            "message": "failed to create typed patch object (shop/crm; apps/v1, Kind=Deployment): .spec.template.spec.containers: expected list, got &{map[password:hunter2]}",
        })));
        assert!(message.ends_with("expected list"), "{message}");
    }

    #[test]
    fn parser_errors_show_no_value() {
        assert_eq!(
            without_values(r#"invalid type: string "hun\"ter2", expected u32"#),
            "invalid type: a string, expected u32"
        );
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let text = shorten(&"ü".repeat(500));
        assert!(text.len() <= LIMIT + "…".len() && text.ends_with('…'));
    }
}
