//! Lists of pairs: libpq's `key=value` and .NET's `Key=Value;`. Quotes are theirs, keys are read elsewhere.

use super::error::ConnectionError;

/// A pair as it was written, without its quotes.
pub(crate) type Pair = (String, String);

/// Reads libpq's form: pairs with white space between them, values in single quotes, backslashes before any character,
/// <https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-KEYWORD-VALUE>.
pub(crate) fn libpq(text: &str) -> Result<Vec<Pair>, ConnectionError> {
    let is_space = |c: &char| c.is_ascii_whitespace();
    let mut pairs = Vec::new();
    let mut characters = text.chars().peekable();
    loop {
        while characters.next_if(is_space).is_some() {}
        if characters.peek().is_none() {
            return Ok(pairs);
        }
        let name: String =
            std::iter::from_fn(|| characters.next_if(|c| *c != '=' && !c.is_ascii_whitespace())).collect();
        while characters.next_if(is_space).is_some() {}
        if characters.next() != Some('=') {
            return Err(ConnectionError::NotPostgres);
        }
        while characters.next_if(is_space).is_some() {}
        let quoted = characters.next_if_eq(&'\'').is_some();
        let mut value = String::new();
        loop {
            match characters.next() {
                Some('\\') => value.extend(characters.next()),
                Some('\'') if quoted => break,
                None if quoted => return Err(ConnectionError::invalid("quoting")),
                Some(c) if c.is_ascii_whitespace() && !quoted => break,
                Some(c) => value.push(c),
                None => break,
            }
        }
        pairs.push((name, value));
    }
}

/// Reads .NET's form: pairs with semicolons between them, values in single or double quotes that are doubled inside,
/// `==` for an equals sign in a key. A quote inside of a value that does not begin with one is a part of it; at its end
/// it is an error,
/// <https://learn.microsoft.com/dotnet/api/system.data.common.dbconnectionstringbuilder.connectionstring>.
pub(crate) fn dot_net(text: &str) -> Result<Vec<Pair>, ConnectionError> {
    let invalid = || ConnectionError::invalid("quoting");
    let mut pairs = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches(|c: char| c == ';' || c.is_whitespace());
        if rest.is_empty() {
            return Ok(pairs);
        }
        let (name, after) = dot_net_name(rest).ok_or(ConnectionError::NotPostgres)?;
        let value;
        (value, rest) = match after.chars().next() {
            Some(quote @ ('"' | '\'')) => {
                let (value, after) = dot_net_quoted(&after[1..], quote).ok_or_else(invalid)?;
                let after = after.trim_start();
                (
                    value,
                    after
                        .strip_prefix(';')
                        .or(after.is_empty().then_some(""))
                        .ok_or_else(invalid)?,
                )
            }
            _ => {
                let (value, after) = after.split_once(';').unwrap_or((after, ""));
                let value = value.trim();
                if value.ends_with(['"', '\'']) || value.chars().any(char::is_control) {
                    return Err(invalid());
                }
                (value.to_owned(), after)
            }
        };
        pairs.push((name, value));
    }
}

/// The key at the start of a text, and what follows its equals sign.
fn dot_net_name(text: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut rest = text;
    loop {
        let (part, after) = rest.split_once('=')?;
        if part.contains(';') {
            return None;
        }
        name.push_str(part);
        match after.strip_prefix('=') {
            Some(after) => {
                name.push('=');
                rest = after;
            }
            None => return Some((name.trim().to_owned(), after.trim_start())),
        }
    }
}

/// The value up to its closing quote, and what follows it.
fn dot_net_quoted(text: &str, quote: char) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut rest = text;
    loop {
        let (part, after) = rest.split_once(quote)?;
        value.push_str(part);
        match after.strip_prefix(quote) {
            Some(after) => {
                value.push(quote);
                rest = after;
            }
            None => return Some((value, after)),
        }
    }
}
