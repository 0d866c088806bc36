use super::*;
use proptest::prelude::*;
use rstest::rstest;
use serde_json::{Value, json};

fn compare(expected: &[(&str, &str)], answer: &[u8]) -> Result<Option<String>, Unusable> {
    in_pieces(expected, answer, answer.len().max(1))
}

fn in_pieces(expected: &[(&str, &str)], answer: &[u8], size: usize) -> Result<Option<String>, Unusable> {
    let expected = expected
        .iter()
        .map(|(pointer, text)| ((*pointer).to_owned(), (*text).to_owned()))
        .collect();
    let mut members = Members::new(&expected);
    for piece in answer.chunks(size) {
        members.read(piece)?;
    }
    members.end()
}

/// S2: members by pointer, whatever is around them.
#[rstest]
#[case(&[("/a", "1")], r#"{"a":1}"#, None)]
#[case(&[("/a", "1")], r#"{"a":"1"}"#, None)]
#[case(&[("/a", "1")], r#"{"a":1.0}"#, None)]
#[case(&[("/a", "1")], r#" { "b" : [ ] , "a" : 1 } "#, None)]
#[case(&[("/a", "true")], r#"{"a":true}"#, None)]
#[case(&[("/a", "null")], r#"{"a":null}"#, None)]
#[case(&[("/a/b/1/c", "x")], r#"{"a":{"b":[{"c":"y"},{"c":"x"}],"c":"z"}}"#, None)]
#[case(&[("/a~1b", "x"), ("/m~0n", "y"), ("/", "z"), ("/ ", "s")], r#"{"a/b":"x","m~n":"y","":"z"," ":"s"}"#, None)]
#[case(&[("/a", "é\n")], r#"{"a":"\u00e9\n"}"#, None)]
#[case(&[("/\u{e9}", "x")], r#"{"\u00E9":"x"}"#, None)]
#[case(&[("", "ok")], r#""ok""#, None)]
#[case(&[("", "1")], "1", None)]
#[case(&[("/0/1", "7")], "[[5,7],[5,6]]", None)]
#[case(&[("/a", "2")], r#"{"a":1,"a":2}"#, None)]
#[case(&[("/a", "9007199254740993")], r#"{"a":9007199254740992}"#, Some("`/a` is `9007199254740992`, expected `9007199254740993`"))]
#[case(&[("/a", "nan")], r#"{"a":1}"#, Some("`/a` is `1`, expected `nan`"))]
#[case(&[("/a", "1")], r#"{"b":{"a":1}}"#, Some("`/a` is missing, expected `1`"))]
#[case(&[("/b/a", "1")], r#"{"b":{"c":{"a":1}},"a":1}"#, Some("`/b/a` is missing, expected `1`"))]
#[case(&[("/b/a", "1")], r#"{"b":{"c":0},"c":{"a":1}}"#, Some("`/b/a` is missing, expected `1`"))]
#[case(&[("/a", "1")], r#"{"a":{"a":1}}"#, Some("`/a` is an object, expected `1`"))]
#[case(&[("/a", "1")], r#"{"a":[1]}"#, Some("`/a` is a list, expected `1`"))]
#[case(&[("", "ok")], "{}", Some("the body is an object, expected `ok`"))]
#[case(&[("/a", "x")], "[1]", Some("`/a` is missing, expected `x`"))]
#[case(&[("/a/b", "1")], r#"{"a":{"b":1},"a":2}"#, Some("`/a/b` is missing, expected `1`"))]
#[case(&[("/a/b", "1")], r#"{"a":{"b":1},"c":2}"#, None)]
fn s2_members_are_found_by_pointer(
    #[case] expected: &[(&str, &str)],
    #[case] answer: &str,
    #[case] difference: Option<&str>,
) {
    for size in [1, 2, 3, 1000] {
        assert_eq!(
            in_pieces(expected, answer.as_bytes(), size),
            Ok(difference.map(str::to_owned)),
            "{size}"
        );
    }
}

#[rstest]
#[case("")]
#[case(" ")]
#[case("<html>")]
#[case("{")]
#[case("}")]
#[case("{]")]
#[case("[}")]
#[case("[1,]")]
#[case("[,1]")]
#[case("{\"a\"}")]
#[case("{\"a\":}")]
#[case("{\"a\":1,}")]
#[case("{1:2}")]
#[case("{\"a\":1} 2")]
#[case("1 2")]
#[case("tru")]
#[case("01")]
#[case("1e")]
#[case("\"a")]
#[case("\"\\x\"")]
#[case("\"\\u12g4\"")]
#[case("\"\n\"")]
fn s2_what_is_not_json_is_refused(#[case] answer: &str) {
    assert_eq!(
        compare(&[("/a", "1")], answer.as_bytes()),
        Err(Unusable::NotJson),
        "{answer}"
    );
}

/// S2: 1 MiB of opening brackets.
#[test]
fn s2_nesting_is_bounded() {
    let deep = vec![b'['; 1024 * 1024];
    assert_eq!(compare(&[("/a", "1")], &deep), Err(Unusable::TooDeep));
    let allowed = [vec![b'['; DEPTH], vec![b']'; DEPTH]].concat();
    assert!(compare(&[("/a", "1")], &allowed).is_ok_and(|difference| difference.is_some()));
}

/// S6: what is held of an answer does not grow with it.
#[test]
fn s6_a_long_answer_is_not_kept() {
    let expected = BTreeMap::from([("/a".to_owned(), "x".to_owned())]);
    let mut members = Members::new(&expected);
    members.read(b"[").unwrap();
    for _ in 0..100_000 {
        members.read(br#"{"":0},"#).unwrap();
    }
    members.read(b"\"").unwrap();
    for _ in 0..100_000 {
        members.read(b"0123456789").unwrap();
    }
    assert!(
        members.token.capacity() <= 2 * TOKEN,
        "{}",
        members.token.capacity()
    );
    assert!(members.open.capacity() <= DEPTH);
    members.read(b"\"]").unwrap();
    assert_eq!(
        members.end(),
        Ok(Some("`/a` is missing, expected `x`".to_owned()))
    );
}

#[test]
fn a_long_text_is_another_one() {
    let answer = format!(r#"{{"a":"{}"}}"#, "x".repeat(2 * TOKEN));
    assert_eq!(
        compare(&[("/a", "x")], answer.as_bytes()),
        Ok(Some("`/a` is a long text, expected `x`".to_owned()))
    );
    let shown = format!(r#"{{"a":"{}"}}"#, "é".repeat(100));
    let difference = compare(&[("/a", "x")], shown.as_bytes()).unwrap().unwrap();
    assert_eq!(difference, format!("`/a` is `{}…`, expected `x`", "é".repeat(60)));
}

/// JSON of a few names, so that pointers often lead somewhere.
fn documents() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3i64..4).prop_map(Value::from),
        "[a-b/~\"\\\\é\u{1}]{0,3}".prop_map(Value::from),
    ];
    scalar.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-b/~]{0,2}", inner, 0..4).prop_map(|members| json!(members)),
        ]
    })
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(_) | Value::Object(_) => None,
        other => Some(other.to_string()),
    }
}

proptest! {
    /// S2: the same verdict as serde_json's own pointers on the whole tree, in pieces of any size.
    #[test]
    fn s2_pointers_mean_what_they_mean_to_serde_json(
        document in documents(),
        pointer in "(/([a-b]|~0|~1|[0-3]){0,2}){0,3}",
        expected in "true|null|-1|2|[a-b]{0,1}",
        size in 1usize..9,
    ) {
        let answer = document.to_string();
        // serde_json takes `/01` for no index, and so does this.
        let found = document.pointer(&pointer).and_then(text);
        let difference = in_pieces(&[(&pointer, &expected)], answer.as_bytes(), size).unwrap();
        prop_assert_eq!(difference.is_none(), found.as_deref() == Some(&*expected), "{} {} {}", answer, pointer, expected);
    }

    /// S2: what serde_json refuses is refused, and what it reads is read.
    #[test]
    fn s2_json_is_what_serde_json_reads(answer in r#"[\[\]{}:,"a1\-.e \\tru]{0,12}"#, size in 1usize..5) {
        let verdict = in_pieces(&[("/a", "1")], answer.as_bytes(), size);
        prop_assert_eq!(verdict.is_ok(), serde_json::from_str::<Value>(&answer).is_ok(), "{}", answer);
    }
}
