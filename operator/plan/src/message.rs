//! Messages of conditions, Events and attempts: whole sentences, quotations of what others said, and one way to
//! shorten.
//!
//! A quotation stands between “ and ”, also in a message that was stored and is read again. So [`fit`] knows what is
//! Fairway's own, which stays whole (names, times, advice), and what may be shortened.

use fairway_crds::duration::Duration;
use jiff::{SignedDuration, Timestamp};

/// Longest message of a condition or an Event, in characters. Events have no room for more; conditions have, and
/// nobody reads it.
pub const LIMIT: usize = 1024;
/// Longest quotation, in characters.
const QUOTE_LIMIT: usize = 300;
/// Shortest form of a quotation when a message has to fit.
const QUOTE_LEAST: usize = 40;
const OPEN: char = '“';
const CLOSE: char = '”';

/// A text as a whole sentence: its first word capitalised unless it is a name, and a full stop at its end. A command
/// at its end is followed by nothing, so that it can be pasted.
pub fn sentence(text: &str) -> String {
    let text = text.trim();
    let is_whole = text.ends_with(['.', '!', '?', '…'])
        || text.ends_with(".”")
        || text.is_empty()
        || ends_with_command(text);
    let stop = if is_whole { "" } else { "." };
    let first = text.split(' ').next().unwrap_or_default();
    let is_word = first
        .chars()
        .all(|letter| letter.is_ascii_lowercase() || letter == ',');
    match text.chars().next() {
        Some(letter) if is_word => format!("{}{}{stop}", letter.to_ascii_uppercase(), &text[1..]),
        _ => format!("{text}{stop}"),
    }
}

/// Several sentences as one message; empty ones are left out, and what ends with a command comes last.
pub fn sentences<Text: AsRef<str>>(texts: impl IntoIterator<Item = Text>) -> String {
    let whole = texts.into_iter().map(|text| sentence(text.as_ref()));
    let mut whole: Vec<_> = whole.filter(|text| !text.is_empty()).collect();
    whole.sort_by_key(|text| ends_with_command(text));
    whole.join(" ")
}

fn ends_with_command(text: &str) -> bool {
    text.rfind(": kubectl ")
        .is_some_and(|start| !text[start..].contains(". ") && !text.ends_with('.'))
}

/// A statement with what the kubelet, the API server or another program said about it, as one sentence.
pub fn quoting(statement: &str, words: Option<&str>) -> String {
    match words.map(quote).filter(|quoted| !quoted.is_empty()) {
        Some(quoted) => sentence(&format!("{statement}: {quoted}")),
        None => sentence(statement),
    }
}

/// Words of others as a quotation: one line, without what may be a credential in a URL, at most 300 characters.
/// Empty when nothing was said.
pub fn quote(words: &str) -> String {
    let line = one_line(words);
    if line.is_empty() {
        return line;
    }
    format!("{OPEN}{}{CLOSE}", middle_cut(&line, QUOTE_LIMIT))
}

/// Words of others on one line, without what may be a credential in a URL, and without the marks of a quotation.
pub fn one_line(words: &str) -> String {
    let words = words.split_whitespace().map(without_credentials);
    words.collect::<Vec<_>>().join(" ").replace([OPEN, CLOSE], "\"")
}

/// A message that is at most `limit` characters long. Its quotations are shortened, the longest first, each in its
/// middle; Fairway's own sentences stay whole, unless they alone are too long.
pub fn fit(text: &str, limit: usize) -> String {
    let mut text = text.to_owned();
    loop {
        let surplus = length(&text).saturating_sub(limit);
        if surplus == 0 {
            return text;
        }
        let longest = quotations(&text)
            .into_iter()
            .max_by_key(|(start, end)| length(&text[*start..*end]));
        let Some((start, end)) = longest.filter(|(start, end)| length(&text[*start..*end]) > QUOTE_LEAST)
        else {
            return without_sentences(&text, limit);
        };
        let kept = length(&text[start..end]).saturating_sub(surplus).max(QUOTE_LEAST);
        let shortened = middle_cut(&text[start..end], kept);
        text.replace_range(start..end, &shortened);
    }
}

/// The first and the last sentences of a message: the cause stands first, deadline and advice last, and neither is cut.
fn without_sentences(text: &str, limit: usize) -> String {
    let ends = text.match_indices(". ").map(|(at, end)| at + end.len());
    let bounds: Vec<usize> = std::iter::once(0).chain(ends).chain([text.len()]).collect();
    let sentences: Vec<&str> = bounds.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
    let (mut head, mut tail) = (0, sentences.len());
    let mut room = limit.saturating_sub(2);
    // From both ends, the last ones first: they are short.
    while head < tail {
        let next = if head < sentences.len() - tail {
            head
        } else {
            tail - 1
        };
        let Some(left) = room.checked_sub(length(sentences[next])) else {
            break;
        };
        room = left;
        if next == head { head += 1 } else { tail -= 1 }
    }
    if head == 0 || head == tail {
        return middle_cut(text, limit);
    }
    format!("{}… {}", sentences[..head].concat(), sentences[tail..].concat())
}

/// Where the quotations of a message are, without their marks.
fn quotations(text: &str) -> Vec<(usize, usize)> {
    let opened = text.match_indices(OPEN).map(|(at, mark)| at + mark.len());
    opened
        .filter_map(|start| Some((start, start + text[start..].find(CLOSE)?)))
        .collect()
}

/// The head and the tail of a text: programs say what they were doing first, and why it failed last.
fn middle_cut(text: &str, limit: usize) -> String {
    let all = length(text);
    if all <= limit {
        return text.to_owned();
    }
    let kept = limit.saturating_sub(1);
    let tail = kept / 2;
    let head: String = text.chars().take(kept - tail).collect();
    let tail: String = text.chars().skip(all - tail).collect();
    format!("{head}…{tail}")
}

fn length(text: &str) -> usize {
    text.chars().count()
}

/// A moment as messages write it: RFC 3339 in UTC, whole seconds.
pub fn moment(at: Timestamp) -> String {
    to_seconds(at).to_string()
}

/// A number of things as messages write it: `1 table`, `2 tables`.
pub fn counted(count: i64, thing: &str) -> String {
    match count {
        1 => format!("1 {thing}"),
        _ => format!("{count} {thing}s"),
    }
}

/// A span of time as messages write it: `1h30m`.
pub fn duration(span: SignedDuration) -> String {
    Duration::from_seconds(u64::try_from(span.as_secs()).unwrap_or_default()).to_string()
}

/// A moment without its fraction of a second, as Kubernetes writes times.
pub(crate) fn to_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

/// A URL keeps neither its user information nor its query. A word may hold several URLs.
fn without_credentials(word: &str) -> String {
    let Some((scheme, rest)) = word.split_once("://") else {
        return word.to_owned();
    };
    let is_of_scheme = |letter: char| letter.is_ascii_alphanumeric() || "+-.".contains(letter);
    if let Some(mark) = rest.find("://").filter(|mark| !rest[..*mark].contains('?')) {
        let next = rest[..mark].trim_end_matches(is_of_scheme).len();
        let first = without_credentials(&word[..word.len() - rest.len() + next]);
        return first + &without_credentials(&rest[next..]);
    }
    let (authority, path) = match rest.find(['/', '?']) {
        Some(end) => rest.split_at(end),
        None => (rest, ""),
    };
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    match path.split_once('?') {
        None => format!("{scheme}://{host}{path}"),
        Some((path, query)) => {
            // What follows the URL in a quoted sentence (`": 401`) is kept.
            let end = query.find(['"', '\'', ')', ',']).unwrap_or(query.len());
            format!("{scheme}://{host}{path}?…{}", without_credentials(&query[end..]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("the store is full", "The store is full.")]
    #[case("crm-42 serves", "crm-42 serves.")]
    #[case("pg_dump is missing", "pg_dump is missing.")]
    #[case("Whole.", "Whole.")]
    #[case("the kubelet says: “not found.”", "The kubelet says: “not found.”")]
    #[case("to see why: kubectl get pods", "To see why: kubectl get pods")]
    #[case("", "")]
    fn sentences_are_capitalised_and_stopped(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(sentence(text), expected);
    }

    #[test]
    fn a_command_ends_a_message_without_a_full_stop() {
        let message = sentences(["to see why: kubectl -n shop get pods", "it failed", ""]);
        assert_eq!(message, "It failed. To see why: kubectl -n shop get pods");
    }

    #[rstest]
    #[case("pull  failed:\n not found", "“pull failed: not found”")]
    #[case("GET https://me:secret@host/v2/a", "“GET https://host/v2/a”")]
    #[case(
        r#"request "https://auth/token?account=me&t=1": 401"#,
        r#"“request "https://auth/token?…": 401”"#
    )]
    #[case("one of amqp://me:secret@a,amqp://me:secret@b", "“one of amqp://a,amqp://b”")]
    #[case("https://a/b?c=d,postgres://me:secret@e/f", "“https://a/b?…,postgres://e/f”")]
    #[case("https://a/b?to=https://me:secret@c", "“https://a/b?…”")]
    #[case("", "")]
    fn quotations_are_one_line_without_credentials(#[case] words: &str, #[case] expected: &str) {
        assert_eq!(quote(words), expected);
    }

    #[test]
    fn long_quotations_keep_head_and_tail() {
        let quoted = quote(&format!("failed to pull {} not found", "x".repeat(500)));
        assert_eq!(quoted.chars().count(), QUOTE_LIMIT + 2);
        assert!(quoted.starts_with("“failed to pull") && quoted.ends_with("not found”"));
    }

    #[test]
    fn only_quotations_are_shortened() {
        let long = "ü".repeat(200);
        let text =
            format!("Pod crm-x cannot start: “{long}”. Attempt 2 begins at 2026-01-01T00:00:05Z: “no”.");
        let fitted = fit(&text, 150);
        assert_eq!(fitted.chars().count(), 150);
        assert!(
            fitted.starts_with("Pod crm-x cannot start: “ü") && fitted.contains('…'),
            "{fitted}"
        );
        assert!(
            fitted.ends_with("ü”. Attempt 2 begins at 2026-01-01T00:00:05Z: “no”."),
            "{fitted}"
        );
        assert_eq!(fit(&text, 1000), text);
    }

    #[test]
    fn f19_a_deadline_is_never_cut() {
        let advice = "Correct this. ".repeat(100);
        let until = "Attempt 2 begins at 2026-01-01T00:00:05Z, and none begins after 2026-01-01T01:00:00Z.";
        let fitted = fit(&format!("The store is full. {advice}{until}"), 200);
        assert!(
            fitted.starts_with("The store is full. Correct this. "),
            "{fitted}"
        );
        assert!(
            fitted.ends_with(&format!(". … Correct this. Correct this. Correct this. {until}")),
            "{fitted}"
        );
        assert!(length(&fitted) <= 200, "{fitted}");
    }

    #[test]
    fn a_message_without_quotations_keeps_head_and_tail() {
        let fitted = fit(&format!("Begin {} end.", "x".repeat(3000)), LIMIT);
        assert_eq!(fitted.chars().count(), LIMIT);
        assert!(fitted.starts_with("Begin ") && fitted.ends_with(" end."));
    }

    #[test]
    fn moments_and_spans_are_short() {
        let at = "2026-01-01T00:00:00.123Z".parse().unwrap();
        assert_eq!(moment(at), "2026-01-01T00:00:00Z");
        assert_eq!(duration(SignedDuration::from_mins(90)), "1h30m");
    }
}
