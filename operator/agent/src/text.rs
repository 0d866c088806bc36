//! Texts for status messages.

/// At most `limit` bytes of a text, ending in `…` when the text was cut.
pub(crate) fn shortened(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(limit.saturating_sub('…'.len_utf8()));
    format!("{}…", &text[..end])
}

/// At most `limit` bytes of a message. When it is cut, its head and its tail are kept, whole words of each where they are short
/// enough: what happened stands first, and until when or what to do last.
pub(crate) fn abridged(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let kept = limit.saturating_sub('…'.len_utf8());
    let head = &text[..text.floor_char_boundary(kept - kept / 2)];
    let tail = &text[text.ceil_char_boundary(text.len() - kept / 2)..];
    let head = head
        .rfind(' ')
        .filter(|end| head.len() - end <= WORD)
        .map_or(head, |end| &head[..end]);
    let tail = tail
        .find(' ')
        .filter(|start| *start <= WORD)
        .map_or(tail, |start| &tail[start + 1..]);
    format!("{head}…{tail}")
}

/// Longest word that is left out whole, in bytes.
const WORD: usize = 40;

/// An error's text as a sentence: with a capital letter and a full stop.
pub(crate) fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    let start = characters
        .next()
        .map(|first| first.to_uppercase().to_string())
        .unwrap_or_default();
    format!("{start}{}.", characters.as_str().trim_end_matches('.'))
}

/// The first names of `count` objects, and how many more there are, such as `a, b and 2 more`. A name comes from a database: it is
/// shortened, and shown without control characters.
pub(crate) fn listed(count: usize, names: &[String]) -> String {
    let shown: Vec<_> = names
        .iter()
        .map(|name| {
            let printable: String = name.chars().filter(|c| !c.is_control()).collect();
            shortened(&printable, NAME)
        })
        .collect();
    match count.saturating_sub(names.len()) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Longest name in a list, in bytes.
const NAME: usize = 64;

/// Lower-case hexadecimal digits of some bytes.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing into a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// The text with `***` in place of a name, where it stands alone: where a letter or digit at either end of it goes on in
/// the text, it is a part of another word.
pub(crate) fn without_word(text: &str, name: &str) -> String {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let goes_on =
        |edge: Option<char>, beside: Option<char>| edge.is_some_and(is_word) && beside.is_some_and(is_word);
    let Some(first) = name.chars().next() else {
        return text.to_owned();
    };
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(name) {
        let (before, after) = (&rest[..at], &rest[at + name.len()..]);
        shown.push_str(before);
        let is_part = goes_on(Some(first), shown.chars().next_back())
            || goes_on(name.chars().next_back(), after.chars().next());
        if is_part {
            // The next one may begin inside of it.
            shown.push(first);
            rest = &rest[at + first.len_utf8()..];
        } else {
            shown.push_str("***");
            rest = after;
        }
    }
    shown + rest
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::whole("short", 10, "short")]
    #[case::words(
        "The lock is held since 2026-01-01T00:00:00Z, and is waited for until 2026-01-01T00:01:00Z.",
        75,
        "The lock is held since…for until 2026-01-01T00:01:00Z."
    )]
    #[case::one_word("0123456789", 7, "01…89")]
    #[case::between_two_characters("üüüüüüüüüü", 11, "üü…üü")]
    fn f19_a_text_is_not_cut_in_a_word(#[case] text: &str, #[case] limit: usize, #[case] expected: &str) {
        let abridged = abridged(text, limit);
        assert_eq!(abridged, expected);
        assert!(abridged.len() <= limit);
    }

    #[test]
    fn a_list_says_how_many_it_leaves_out() {
        let names = ["a".to_owned(), format!("b\n{}", "c".repeat(100))];
        assert_eq!(listed(1, &names[..1]), "a");
        let list = listed(5, &names);
        assert!(
            list.starts_with("a, bcc") && list.ends_with("… and 3 more"),
            "{list}"
        );
        assert!(list.len() < 90, "{list}");
    }

    #[rstest]
    #[case("role \"crm\" of crm_items", "crm", "role \"***\" of crm_items")]
    #[case("db, db2, db", "db", "***, db2, ***")]
    #[case("crmcrm crm", "crm", "crmcrm ***")]
    #[case("a-b-a-a", "a-a", "a-b-***")]
    #[case("ba-a-a", "a-a", "ba-***")]
    #[case("user@crm", "user@", "***crm")]
    #[case("anything", "", "anything")]
    fn a_name_is_hidden_where_it_stands_alone(#[case] text: &str, #[case] name: &str, #[case] shown: &str) {
        assert_eq!(without_word(text, name), shown);
    }
}
