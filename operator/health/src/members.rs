//! Members of a JSON answer, compared piece by piece as it arrives.
//!
//! A pod may answer anything: 1 MiB of empty objects takes a hundred times its size as a tree. So no tree is built and
//! no body is kept. What is held is one token of at most [`TOKEN`] bytes and one entry per open object or list, of which
//! there are at most [`DEPTH`].

use std::collections::BTreeMap;

use serde::de::IgnoredAny;

/// Longest token that is kept, in bytes: the longest value of the API (1 KiB) with each character escaped.
const TOKEN: usize = 8 * 1024;
/// Most objects and lists within each other. A pointer of the API has at most 256 characters, so at most 256 steps.
const DEPTH: usize = 256;

/// Why an answer cannot be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// It is not JSON.
    NotJson,
    /// It is nested deeper than [`DEPTH`].
    TooDeep,
}

/// The comparison of one answer with the members that it must have.
#[derive(Debug)]
pub(crate) struct Members<'a> {
    expected: Vec<Expected<'a>>,
    open: Vec<Open>,
    state: State,
    token: Vec<u8>,
    /// Whether `token` lacks what came after its first [`TOKEN`] bytes.
    is_cut: bool,
}

/// A member that must be there.
#[derive(Debug)]
struct Expected<'a> {
    pointer: &'a str,
    steps: Vec<String>,
    text: &'a str,
    /// How many of the first steps lead to where the answer is read now.
    matched: usize,
    found: Option<Found>,
}

#[derive(Debug, PartialEq, Eq)]
enum Found {
    Equal,
    /// Another value, in a few words.
    Other(String),
}

/// What is open around the place that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    Object,
    /// A list, and the index of its current item.
    List(usize),
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Value,
    /// A value, or the end of a list that has just begun.
    FirstItem,
    /// A name, or the end of an object that has just begun.
    FirstName,
    Name,
    Colon,
    /// A comma or an end.
    Next,
    /// The rest of a string.
    Text(Role, Escape),
    /// The rest of a number or of `true`, `false` or `null`.
    Bare,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Name,
    Value,
}

/// Where in an escape sequence a string is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Escape {
    None,
    Begun,
    /// So many hexadecimal digits are missing.
    Digits(u8),
}

impl<'a> Members<'a> {
    /// A comparison with these values by JSON pointer.
    pub(crate) fn new(expected: &'a BTreeMap<String, String>) -> Self {
        let expected = expected.iter().map(|(pointer, text)| Expected {
            pointer,
            steps: pointer.split('/').skip(1).map(unescaped).collect(),
            text,
            matched: 0,
            found: None,
        });
        Self {
            expected: expected.collect(),
            open: Vec::new(),
            state: State::Value,
            token: Vec::new(),
            is_cut: false,
        }
    }

    /// Reads the next piece of the answer.
    pub(crate) fn read(&mut self, piece: &[u8]) -> Result<(), Unusable> {
        piece.iter().try_for_each(|byte| self.byte(*byte))
    }

    /// Ends the answer. Returns the first member that is not as expected, as half a sentence.
    pub(crate) fn end(mut self) -> Result<Option<String>, Unusable> {
        if self.state == State::Bare {
            self.bare()?;
        }
        if self.state != State::Next || !self.open.is_empty() {
            return Err(Unusable::NotJson);
        }
        Ok(self.expected.iter().find_map(Expected::difference))
    }

    fn byte(&mut self, byte: u8) -> Result<(), Unusable> {
        match self.state {
            State::Text(role, escape) => return self.text(role, escape, byte),
            State::Bare if is_bare(byte) => {
                self.keep(byte);
                return Ok(());
            }
            State::Bare => self.bare()?,
            _ => {}
        }
        if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
            return Ok(());
        }
        match (self.state, byte) {
            (State::FirstItem, b']') | (State::FirstName, b'}') => self.close(byte),
            (State::FirstName | State::Name, b'"') => {
                self.begin(State::Text(Role::Name, Escape::None), byte);
                Ok(())
            }
            (State::Colon, b':') => {
                self.state = State::Value;
                Ok(())
            }
            (State::Value | State::FirstItem, _) => self.value(byte),
            (State::Next, b',') => self.next(),
            (State::Next, b']' | b'}') => self.close(byte),
            _ => Err(Unusable::NotJson),
        }
    }

    fn value(&mut self, byte: u8) -> Result<(), Unusable> {
        match byte {
            b'{' => self.enter(Open::Object, "an object", State::FirstName),
            b'[' => self.enter(Open::List(0), "a list", State::FirstItem),
            b'"' => {
                self.begin(State::Text(Role::Value, Escape::None), byte);
                Ok(())
            }
            _ if is_bare(byte) => {
                self.begin(State::Bare, byte);
                Ok(())
            }
            _ => Err(Unusable::NotJson),
        }
    }

    fn begin(&mut self, state: State, byte: u8) {
        self.token.clear();
        self.is_cut = false;
        self.state = state;
        self.keep(byte);
    }

    fn keep(&mut self, byte: u8) {
        if self.token.len() < TOKEN {
            self.token.push(byte);
        } else {
            self.is_cut = true;
        }
    }

    fn text(&mut self, role: Role, escape: Escape, byte: u8) -> Result<(), Unusable> {
        self.keep(byte);
        let escape = match (escape, byte) {
            (_, ..0x20) => return Err(Unusable::NotJson),
            (Escape::None, b'"') => return self.text_ended(role),
            (Escape::None, b'\\') => Escape::Begun,
            (Escape::None, _) => Escape::None,
            (Escape::Begun, b'u') => Escape::Digits(4),
            (Escape::Begun, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Escape::None,
            (Escape::Digits(1), _) if byte.is_ascii_hexdigit() => Escape::None,
            (Escape::Digits(missing), _) if byte.is_ascii_hexdigit() => Escape::Digits(missing - 1),
            _ => return Err(Unusable::NotJson),
        };
        self.state = State::Text(role, escape);
        Ok(())
    }

    fn text_ended(&mut self, role: Role) -> Result<(), Unusable> {
        // One that is cut equals nothing that the API allows to expect.
        let text = match self.is_cut {
            true => None,
            false => Some(serde_json::from_slice::<String>(&self.token).map_err(|_| Unusable::NotJson)?),
        };
        match role {
            Role::Name => {
                self.step(|step| text.as_deref() == Some(step));
                self.state = State::Colon;
            }
            Role::Value => {
                self.found(|expected| match &text {
                    Some(text) if *text == expected => Found::Equal,
                    Some(text) => Found::Other(format!("`{}`", brief(text))),
                    None => Found::Other("a long text".to_owned()),
                });
                self.state = State::Next;
            }
        }
        Ok(())
    }

    /// Ends a number, or `true`, `false` or `null`.
    fn bare(&mut self) -> Result<(), Unusable> {
        let text = match std::str::from_utf8(&self.token) {
            Ok(text) if !self.is_cut && serde_json::from_str::<IgnoredAny>(text).is_ok() => text.to_owned(),
            _ => return Err(Unusable::NotJson),
        };
        self.found(|expected| match is_same(&text, expected) {
            true => Found::Equal,
            false => Found::Other(format!("`{}`", brief(&text))),
        });
        self.state = State::Next;
        Ok(())
    }

    fn enter(&mut self, open: Open, name: &str, state: State) -> Result<(), Unusable> {
        if self.open.len() == DEPTH {
            return Err(Unusable::TooDeep);
        }
        self.found(|_| Found::Other(name.to_owned()));
        self.open.push(open);
        self.state = state;
        if let Open::List(index) = open {
            self.step_to(index);
        }
        Ok(())
    }

    fn next(&mut self) -> Result<(), Unusable> {
        match self.open.last_mut() {
            Some(Open::Object) => self.state = State::Name,
            Some(Open::List(index)) => {
                *index += 1;
                let index = *index;
                self.step_to(index);
                self.state = State::Value;
            }
            None => return Err(Unusable::NotJson),
        }
        Ok(())
    }

    fn close(&mut self, byte: u8) -> Result<(), Unusable> {
        match (self.open.pop(), byte) {
            (Some(Open::Object), b'}') | (Some(Open::List(_)), b']') => {
                let depth = self.open.len();
                for expected in &mut self.expected {
                    expected.matched = expected.matched.min(depth);
                }
                self.state = State::Next;
                Ok(())
            }
            _ => Err(Unusable::NotJson),
        }
    }

    fn step_to(&mut self, index: usize) {
        let index = index.to_string();
        self.step(|step| *step == index);
    }

    /// Goes to a member of the innermost object or list.
    fn step(&mut self, is_it: impl Fn(&str) -> bool) {
        // The members of the outermost object are reached by the first step.
        let before = self.open.len().saturating_sub(1);
        for expected in &mut self.expected {
            expected.matched = expected.matched.min(before);
            let step = expected.steps.get(before);
            if expected.matched == before && step.is_some_and(|step| is_it(step)) {
                expected.matched += 1;
                // Of two members with the same name the last one counts, as most parsers have it.
                expected.found = None;
            }
        }
    }

    /// A value stands here.
    fn found(&mut self, compare: impl Fn(&str) -> Found) {
        let depth = self.open.len();
        for expected in &mut self.expected {
            if expected.matched == depth && expected.steps.len() == depth {
                expected.found = Some(compare(expected.text));
            }
        }
    }
}

impl Expected<'_> {
    fn difference(&self) -> Option<String> {
        let what = match self.pointer {
            "" => "the body".to_owned(),
            pointer => format!("`{pointer}`"),
        };
        let found = match &self.found {
            Some(Found::Equal) => return None,
            Some(Found::Other(found)) => format!("is {found}"),
            None => "is missing".to_owned(),
        };
        Some(format!("{what} {found}, expected `{}`", brief(self.text)))
    }
}

/// A step of a JSON pointer (RFC 6901, section 4).
fn unescaped(step: &str) -> String {
    step.replace("~1", "/").replace("~0", "~")
}

fn is_bare(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.')
}

/// Whether a number or word is the expected one; numbers are by value, so that `1.0` is `1`.
fn is_same(text: &str, expected: &str) -> bool {
    if text == expected {
        return true;
    }
    if let (Ok(number), Ok(expected)) = (text.parse::<i128>(), expected.parse::<i128>()) {
        return number == expected;
    }
    // `nan` and `inf` are numbers to Rust; as JSON they are nothing.
    let number = |text: &str| serde_json::from_str::<f64>(text).ok();
    number(text).is_some_and(|value| number(expected) == Some(value))
}

fn brief(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
