//! What must hold of all that the API server shows and answers, whatever bytes it is: the fuzz targets in `operator/fuzz`
//! call these functions with what libFuzzer finds, the unit tests below with the seeds that it begins with.

use crate::answer::{meaning, message};
use crate::caches::{Cached, ForKind, for_each, version_of};
use crate::kinds::Kind;
use crate::read::split::{Malformed, Part, Splitter};
use crate::read::{Reading, read, read_answer, read_found, read_list};
use crate::{read_warnings, without_values};
use kube::core::Status;
use serde_json::Value;

/// Longest line that is made of others' words, in bytes.
const LINE: usize = 410;

/// Longest warning, in bytes.
const WARNING: usize = 520;

/// An object of a watched kind is read, refused by name, or has no name. The kind comes first, up to a space.
pub fn object(data: &[u8]) {
    struct Of<'a> {
        kind: Kind,
        json: &'a [u8],
    }

    impl ForKind for Of<'_> {
        fn visit<K: Cached>(&mut self) {
            if K::KIND == self.kind {
                of_kind::<K>(self.json);
            }
        }
    }

    let end = data.iter().position(|byte| *byte == b' ').unwrap_or_default();
    let (name, json) = data.split_at(end);
    let named = Kind::ALL.iter().find(|kind| kind.as_str().as_bytes() == name);
    let other = name.first().map_or(0, |byte| usize::from(*byte)) % Kind::ALL.len();
    let kind = *named.unwrap_or(&Kind::ALL[other]);
    for_each(&mut Of { kind, json });
    let _ = read_answer(json);
    let _ = read_found(json);
    let _ = read_list(json);
}

fn of_kind<K: Cached>(json: &[u8]) {
    match read::<K>(json) {
        Reading::Object(object) => {
            assert!(version_of(object.meta()).is_some());
            let _ = object.owner();
            let _ = object.keep();
        }
        Reading::Unreadable(metadata, why) => {
            assert!(metadata.name.is_some());
            is_line(&why);
        }
        Reading::Nameless(why) => is_line(&why),
        Reading::Foreign(_) => {}
    }
}

/// A stream is split into the same parts whatever pieces it comes in, and its items are those that serde_json finds. The
/// first byte says the member (`i` for `items`), the second the size of the pieces.
pub fn stream(data: &[u8]) {
    let &[member, size, ref bytes @ ..] = data else {
        return;
    };
    let member = if member == b'i' { "items" } else { "object" };
    let whole = split(member, bytes, bytes.len());
    assert_eq!(split(member, bytes, usize::from(size % 8)), whole);
    let (Ok(parts), Ok(Value::Object(frame))) = (whole, serde_json::from_slice::<Value>(bytes)) else {
        return;
    };
    let text = String::from_utf8_lossy(bytes);
    // Where a member stands twice, serde_json keeps the last one; and one can be spelled with escapes.
    if text.matches(member).count() != 1 || text.contains('\\') {
        return;
    }
    let expected: Vec<Value> = match frame.get(member) {
        Some(Value::Array(items)) => items.clone(),
        Some(object @ Value::Object(_)) => vec![object.clone()],
        _ => Vec::new(),
    };
    // The API server lists objects alone.
    if expected.iter().all(Value::is_object) {
        let items = parts.iter().filter(|(part, _)| *part == Part::Item);
        let items: Vec<Value> = items
            .filter_map(|(_, item)| serde_json::from_slice(item).ok())
            .collect();
        assert_eq!(items, expected);
    }
}

fn split(member: &'static str, bytes: &[u8], size: usize) -> Result<Vec<(Part, Vec<u8>)>, Malformed> {
    let mut splitter = Splitter::new(member);
    let mut parts = Vec::new();
    for mut piece in bytes.chunks(size.max(1)) {
        while !piece.is_empty() {
            let (read, part) = splitter.read(piece)?;
            piece = &piece[read..];
            parts.extend(part.map(|part| match part {
                Part::Item => (part, splitter.item().to_vec()),
                Part::Frame => (part, splitter.frame().to_vec()),
            }));
        }
    }
    Ok(parts)
}

/// An error answer says one line, a parser's error no text that it quotes, and a warning nothing that a terminal obeys.
pub fn answer(data: &[u8]) {
    for warning in read_warnings(data.split(|byte| *byte == b'\n')) {
        assert!(
            warning.len() <= WARNING && !warning.contains(char::is_control),
            "{warning:?}"
        );
    }
    if let Ok(status) = serde_json::from_slice::<Status>(data) {
        let _ = meaning(&status);
        is_line(&message(&status));
    }
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    is_line(&without_values(text));
    assert_eq!(
        without_values(&format!("invalid type: string {text:?}, expected u32")),
        "invalid type: a string, expected u32"
    );
}

fn is_line(text: &str) {
    assert!(text.len() <= LINE && !text.contains(['\n', '\r']), "{text:?}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::object(object, include_str!("../../fuzz/seeds/object.txt"))]
    #[case::stream(stream, include_str!("../../fuzz/seeds/stream.txt"))]
    #[case::answer(answer, include_str!("../../fuzz/seeds/answer.txt"))]
    fn what_fuzz_targets_check_holds_for_their_seeds(#[case] check: fn(&[u8]), #[case] seeds: &str) {
        seeds.lines().for_each(|seed| check(seed.as_bytes()));
    }
}
