//! Warnings that the API server gives beside an answer, in `Warning` headers:
//! <https://kubernetes.io/blog/2020/09/03/warnings/>, <https://www.rfc-editor.org/rfc/rfc7234#section-5.5>.

use crate::answer::shorten_to;

/// The only code that the API server uses, and that kubectl shows.
const MISCELLANEOUS_PERSISTENT: &str = "299";
/// Warnings of one answer that are kept.
const MOST: usize = 8;
/// Longest warning, in bytes: what PodSecurity says of one container has about 450.
const LONGEST: usize = 512;

/// Reads the warnings in the values of `Warning` headers: the first few, each one line without control characters.
pub fn read_warnings<'a>(headers: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
    let mut warnings: Vec<String> = Vec::new();
    for header in headers {
        let header = String::from_utf8_lossy(header);
        let mut rest = &*header;
        while warnings.len() < MOST
            && let Some((code, text, behind)) = first(rest)
        {
            let text = shorten_to(&text, LONGEST);
            if code == MISCELLANEOUS_PERSISTENT && !text.is_empty() && !warnings.contains(&text) {
                warnings.push(text);
            }
            rest = behind;
        }
    }
    warnings
}

/// Code and text of the first warning (`299 - "text"` or `299 - "text" "date"`), and the rest of the header. `None` if the
/// header is malformed from here on.
fn first(header: &str) -> Option<(&str, String, &str)> {
    let header = header.trim_start_matches([' ', '\t', ',']);
    let (code, rest) = header.split_once(' ')?;
    let (_agent, rest) = rest.split_once(' ')?;
    let (text, rest) = quoted(rest)?;
    let behind = quoted(rest.trim_start()).map_or(rest, |(_date, rest)| rest);
    Some((code, text, behind))
}

/// A quoted string with its backslash escapes undone, and what stands behind it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let text = text.strip_prefix('"')?;
    let mut said = String::new();
    let mut characters = text.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '"' => return Some((said, &text[index + 1..])),
            '\\' => said.extend(characters.next().map(|(_, escaped)| shown(escaped))),
            other => said.push(shown(other)),
        }
    }
    None
}

/// A character as it may stand in a status: a terminal obeys control characters, and some that change the direction of text
/// show another text than there is.
fn shown(character: char) -> char {
    match character {
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => ' ',
        control if control.is_control() => ' ',
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::of_the_api_server(r#"299 - "unknown field \"spec.a\"""#, &[r#"unknown field "spec.a""#])]
    #[case::with_an_agent_and_a_date(r#"299 api:6443 "a" "Tue, 15 Nov 1994 08:12:31 GMT""#, &["a"])]
    #[case::several_in_one_header(r#"299 - "a", 299 - "b\\c",299 - "d""#, &["a", r"b\c", "d"])]
    #[case::the_same_twice(r#"299 - "a", 299 - "a""#, &["a"])]
    #[case::with_a_comma_and_a_date_between(r#"299 - "a, b" "x", 299 - "c""#, &["a, b", "c"])]
    #[case::of_a_proxy(r#"110 proxy "Response is stale", 299 - "a""#, &["a"])]
    #[case::with_control_characters("299 - \"a\u{1b}[31mb\u{7}\tc\u{202e}d\"", &["a [31mb c d"])]
    #[case::that_does_not_end(r#"299 - "a"#, &[])]
    #[case::that_ends_in_an_escape(r#"299 - "a\"#, &[])]
    #[case::without_text(r#"299 - """#, &[])]
    #[case::that_is_none("a deprecated field", &[])]
    #[case::empty("", &[])]
    fn f11_a_warning_is_read(#[case] header: &str, #[case] expected: &[&str]) {
        assert_eq!(read_warnings([header.as_bytes()]), expected);
    }

    #[test]
    fn f11_warnings_are_bounded_in_number_and_length() {
        let headers: Vec<_> = (0..1000)
            .map(|number| format!("299 - \"{number} {}\"", "ü".repeat(100_000)))
            .collect();
        let warnings = read_warnings(headers.iter().map(String::as_bytes));
        assert_eq!(warnings.len(), MOST);
        assert!(
            warnings
                .iter()
                .all(|warning| warning.len() <= LONGEST + "…".len())
        );
        assert_eq!(read_warnings([&b"299 - \"\xff\xfe\""[..]]), ["\u{fffd}\u{fffd}"]);
    }
}
