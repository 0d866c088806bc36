//! The last lines of a program's output: which line says why it failed, and with which SQLSTATE.

use std::collections::VecDeque;

use crate::{redact::Redactor, text::shortened};

/// Number of lines kept.
const LINES: usize = 80;
/// Length of the longest line kept, in bytes.
const LINE: usize = 4096;
/// Length of the longest line shown, in bytes.
const SHOWN: usize = 200;

/// Words by which a line is recognised as an error.
const ERROR_WORDS: [&str; 8] = [
    "error",
    "fatal",
    "panic",
    "exception",
    "failed",
    "denied",
    "refused",
    "cannot",
];

/// Classes of SQLSTATE, <https://www.postgresql.org/docs/current/errcodes-appendix.html>, but for success,
/// warnings and no data.
const CLASSES: [&str; 40] = [
    "03", "08", "09", "0A", "0B", "0F", "0L", "0P", "0Z", "20", "21", "22", "23", "24", "25", "26", "27",
    "28", "2B", "2D", "2F", "34", "38", "39", "3B", "3D", "3F", "40", "42", "44", "53", "54", "55", "57",
    "58", "72", "F0", "HV", "P0", "XX",
];

/// The last lines of a process's output, in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    lines: VecDeque<String>,
}

impl Tail {
    /// Adds one line without its break.
    pub(crate) fn push(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(&line[..line.len().min(LINE)]);
        let line = line.trim_end();
        if line.trim().is_empty() {
            return;
        }
        if self.lines.len() == LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line.to_owned());
    }

    /// The last line that names an error, or else the last line: redacted, at most 200 bytes.
    pub(crate) fn last_error(&self, redactor: &Redactor) -> Option<String> {
        // Indented lines are stack frames and details of the line above them.
        let names_error = |line: &&String| {
            let lower = line.to_lowercase();
            !line.starts_with(char::is_whitespace) && ERROR_WORDS.iter().any(|word| lower.contains(word))
        };
        let line = self
            .lines
            .iter()
            .rev()
            .find(names_error)
            .or_else(|| self.lines.back())?;
        // Hidden twice: control characters may be part of a value, or stand between its parts.
        let redacted = redactor.line(line);
        let printable: String = redacted.chars().filter(|c| !c.is_control()).collect();
        Some(shortened(redactor.line(printable.trim()).as_str(), SHOWN))
    }

    /// Whether any line holds this text.
    pub(crate) fn mentions(&self, text: &str) -> bool {
        self.any(|line| line.contains(text))
    }

    /// Whether any line is of this kind.
    pub(crate) fn any(&self, kind: impl Fn(&str) -> bool) -> bool {
        self.lines.iter().any(|line| kind(line))
    }

    /// The last SQLSTATE in the output.
    pub(crate) fn sqlstate(&self) -> Option<String> {
        self.lines.iter().rev().find_map(|line| sqlstate(line))
    }
}

/// A SQLSTATE in a line: five characters of a known class, right after `SQLSTATE`, `code` or in the place
/// where `psql` and the server's own messages put it (`ERROR:  42P07:`, `(42P07)`).
fn sqlstate(line: &str) -> Option<String> {
    let mut position = 0;
    let mut found = None;
    for token in line.split(|c: char| !c.is_ascii_alphanumeric()) {
        let before = &line[..position];
        let after = &line[position + token.len()..];
        position += token.len() + 1;
        // tokio-postgres' Debug writes `SqlState(E42P07)`.
        let code = if token.len() == 6 {
            token.strip_prefix('E').unwrap_or(token)
        } else {
            token
        };
        if is_code(code) && is_announced(before, after) {
            found = Some(code.to_owned());
        }
    }
    found
}

fn is_code(token: &str) -> bool {
    token.len() == 5
        && token
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase())
        && CLASSES.iter().any(|class| token.starts_with(class))
}

fn is_announced(before: &str, after: &str) -> bool {
    let lead = before
        .trim_end_matches(|c: char| !c.is_ascii_alphanumeric())
        .to_lowercase();
    let word = lead
        .rsplit(|c: char| !c.is_ascii_alphanumeric())
        .next()
        .unwrap_or_default();
    let announced = ["sqlstate", "code", "pgcode", "error", "fatal"].contains(&word);
    announced || (before.ends_with('(') && after.starts_with(')'))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn tail(text: &str) -> Tail {
        let mut tail = Tail::default();
        text.lines().for_each(|line| tail.push(line.as_bytes()));
        tail
    }

    #[rstest]
    #[case("  code: '42P07',", Some("42P07"))]
    #[case(r#"{"severity":"ERROR","code":"23505","detail":"x"}"#, Some("23505"))]
    #[case("SQLSTATE[42703]: Undefined column", Some("42703"))]
    #[case("ERROR:  42P07: relation \"a\" already exists", Some("42P07"))]
    #[case("ERROR: relation exists (SQLSTATE 42P07)", Some("42P07"))]
    #[case("pq: relation exists (42P07)", Some("42P07"))]
    #[case("Db { code: SqlState(E42P07) }", Some("42P07"))]
    #[case("error code 12345 in order 42000 of 40001 rows", None)]
    #[case("listening on port 42001", None)]
    fn the_sqlstate_is_found_where_drivers_write_it(#[case] line: &str, #[case] code: Option<&str>) {
        assert_eq!(tail(line).sqlstate().as_deref(), code);
    }

    #[test]
    fn an_error_is_found_before_its_stack_trace() {
        let output = "/app/client.js:526\n      Error.captureStackTrace(error)\n\nerror: relation \"a\" already exists\n    \
                      at Parser.parse (error.js:1)\n  severity: 'ERROR',\n  code: '42P07'\n}\n\nNode.js v22.23.3\n";
        let tail = tail(output);
        let nothing = Redactor::new([]);
        assert_eq!(
            tail.last_error(&nothing).as_deref(),
            Some("error: relation \"a\" already exists")
        );
        assert_eq!(tail.sqlstate().as_deref(), Some("42P07"));
    }

    #[test]
    fn without_an_error_the_last_line_is_shown() {
        let nothing = Redactor::new([]);
        assert_eq!(
            tail("one\n\n\u{1b}[31mtwo\u{1b}[0m\n")
                .last_error(&nothing)
                .as_deref(),
            Some("[31mtwo[0m")
        );
        assert_eq!(tail("").last_error(&nothing), None);
    }

    #[test]
    fn a_secret_in_the_last_line_is_hidden() {
        let redactor = Redactor::new(["hunter2-secret".to_owned()]);
        let line = tail("fatal: password hunter2-secret rejected").last_error(&redactor);
        assert_eq!(line.as_deref(), Some("fatal: password *** rejected"));
    }

    #[test]
    fn a_secret_with_control_characters_is_hidden() {
        let redactor = Redactor::new(["hun\tter2-secret".to_owned()]);
        for line in ["fatal: hun\tter2-secret", "fatal: hun\u{7}ter2-secret"] {
            assert_eq!(tail(line).last_error(&redactor).as_deref(), Some("fatal: ***"));
        }
    }
}
