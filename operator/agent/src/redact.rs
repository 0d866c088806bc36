//! Redaction: no secret is in the one line of a migration's output that reaches status.
//!
//! The agent does not know which of its variables came from a Secret, so it hides the values of all of them.

use std::collections::BTreeSet;

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::Value;

use crate::{connection::pairs, text::without_word};

/// The text in place of a hidden value.
const HIDDEN: &str = "***";
/// Length of the shortest value that is hidden. Shorter ones (`1`, `80`, `yes`) are no secrets, and hiding them would
/// hide everything.
const SHORTEST: usize = 4;
/// Keys of a connection string whose values are no secrets, and without which no message makes sense.
const SHOWN: [&str; 13] = [
    "host", "hostaddr", "server", "port", "dbname", "database", "user", "username", "user id", "uid",
    "sslmode", "ssl mode", "pooling",
];

/// The values that must not be shown.
pub(crate) struct Redactor {
    /// Longest first, so that a value inside another one does not leave the rest of it visible.
    hidden: Vec<String>,
    /// Names of roles and hosts, which are hidden where they stand alone.
    names: Vec<String>,
}

impl Redactor {
    /// A redactor that hides these values in every form in which programs print them.
    pub(crate) fn new(values: impl IntoIterator<Item = String>) -> Self {
        let mut hidden = BTreeSet::new();
        for value in values {
            collect(&value, &mut hidden);
        }
        let mut hidden: Vec<_> = hidden.into_iter().collect();
        hidden.sort_by_key(|value| std::cmp::Reverse(value.len()));
        Self {
            hidden,
            names: Vec::new(),
        }
    }

    /// This redactor, which also hides these names where they stand alone.
    pub(crate) fn with_names(mut self, names: Vec<String>) -> Self {
        self.names = names;
        self
    }

    /// The line with every hidden value replaced.
    pub(crate) fn line(&self, line: &str) -> String {
        let line = self.hidden.iter().fold(line.to_owned(), |line, value| {
            match line.contains(value.as_str()) {
                true => line.replace(value.as_str(), HIDDEN),
                false => line,
            }
        });
        self.names
            .iter()
            .fold(line, |line, name| without_word(&line, name))
    }
}

fn collect(value: &str, hidden: &mut BTreeSet<String>) {
    insert_forms(value.trim(), hidden);
    // A key or a certificate: an error would show one of its lines.
    for line in value.lines() {
        insert_forms(line.trim(), hidden);
    }
    for part in url_secrets(value) {
        insert_forms(part, hidden);
    }
    for part in pair_secrets(value) {
        insert_forms(&part, hidden);
    }
    if let Ok(json @ (Value::Object(_) | Value::Array(_))) = serde_json::from_str(value) {
        collect_json(&json, hidden);
    }
}

fn collect_json(json: &Value, hidden: &mut BTreeSet<String>) {
    match json {
        Value::String(text) => collect(text, hidden),
        Value::Array(items) => items.iter().for_each(|item| collect_json(item, hidden)),
        Value::Object(members) => members.values().for_each(|member| collect_json(member, hidden)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn insert_forms(value: &str, hidden: &mut BTreeSet<String>) {
    let decoded = percent_decode_str(value).decode_utf8_lossy().into_owned();
    let encoded = utf8_percent_encode(value, NON_ALPHANUMERIC).to_string();
    let escaped = serde_json::to_string(value)
        .unwrap_or_default()
        .trim_matches('"')
        .to_owned();
    let without_controls = value.chars().filter(|c| !c.is_control()).collect();
    for form in [
        value.to_owned(),
        without_controls,
        decoded,
        encoded.to_lowercase(),
        encoded,
        escaped,
    ] {
        if form.len() >= SHORTEST {
            hidden.insert(form);
        }
    }
}

/// The password of a URL, and the values of its query.
fn url_secrets(value: &str) -> Vec<&str> {
    let Some((_, rest)) = value.split_once("://") else {
        return Vec::new();
    };
    let (location, query) = rest.split_once('?').unwrap_or((rest, ""));
    let password = location
        .rsplit_once('@')
        .and_then(|(credentials, _)| credentials.split_once(':'));
    password
        .map(|(_, password)| password)
        .into_iter()
        .chain(
            query
                .split('&')
                .filter_map(|pair| pair.split_once('=').map(|(_, value)| value)),
        )
        .collect()
}

/// The values of `key=value` pairs, as libpq and .NET separate them. A text that is not well formed for one of them
/// is still read as the other, and a quote may be a part of a value as well as enclose it.
fn pair_secrets(value: &str) -> Vec<String> {
    let is_secret = |name: &str| !SHOWN.contains(&name.trim().to_lowercase().as_str());
    let mut within = None;
    let outside_quotes = move |c: char| {
        match within {
            Some(quote) if quote == c => within = None,
            None if ['"', '\''].contains(&c) => within = Some(c),
            _ => {}
        }
        c == ';' && within.is_none()
    };
    let pairs = value.split(';').chain(value.split(outside_quotes));
    let of_dot_net = pairs
        .filter_map(|pair| pair.split_once('='))
        .filter(|(name, _)| value.contains(';') && is_secret(name))
        .map(|(_, value)| value.trim().trim_matches(['"', '\'']).to_owned());
    let of_libpq = pairs::libpq(value).unwrap_or_default();
    let of_libpq = of_libpq.into_iter().filter(|(name, _)| is_secret(name));
    of_dot_net.chain(of_libpq.map(|(_, value)| value)).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(
        "postgres://crm:p%40ss%2Fword@db/shop",
        "password p@ss/word rejected",
        "password *** rejected"
    )]
    #[case(
        "postgres://crm:p%40ss%2Fword@db/shop",
        "url postgres://crm:p%40ss%2Fword@db/shop",
        "url ***"
    )]
    #[case("p@ss/word", "encoded p%40ss%2Fword and p%40ss%2fword", "encoded *** and ***")]
    #[case("a\"quoted\"one", r#"{"key":"a\"quoted\"one"}"#, r#"{"key":"***"}"#)]
    #[case("line-one\nline-two\n", "saw line-two here", "saw *** here")]
    #[case("yes", "yes it stays", "yes it stays")]
    #[case(
        "host=db dbname=shop user=crm password=hunter2secret",
        "cannot connect to shop with hunter2secret",
        "cannot connect to shop with ***"
    )]
    #[case(
        "Host=db;Database=shop;Username=crm;Password='hun;ter2secret'",
        "cannot connect with hun;ter2secret",
        "cannot connect with ***"
    )]
    #[case(
        "Host=db;Username=crm;Password=hunter2'secret",
        "cannot connect with hunter2'secret",
        "cannot connect with ***"
    )]
    #[case(
        r#"{"database":{"password":"hunter2secret","url":"postgres://crm:other2secret@db/shop"}}"#,
        "hunter2secret and other2secret",
        "*** and ***"
    )]
    #[case("hun\tter2secret", "saw hunter2secret", "saw ***")]
    fn every_form_of_a_value_is_hidden(#[case] value: &str, #[case] line: &str, #[case] shown: &str) {
        assert_eq!(Redactor::new([value.to_owned()]).line(line), shown);
    }

    #[test]
    fn a_longer_value_is_hidden_before_a_shorter_one_in_it() {
        let redactor = Redactor::new(["secret".to_owned(), "secret-and-more".to_owned()]);
        assert_eq!(redactor.line("secret-and-more, secret"), "***, ***");
    }
}
