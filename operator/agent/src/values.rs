//! Values of rows in the messages of a database: they are the users' data and stand in no status.
//!
//! The server's own sentences name tables, columns and constraints. Values come in the details of an error, in messages on
//! data that a type cannot read, and in the statements that some programs print with them.

use tokio_postgres::error::DbError;

/// The text in place of a value.
const HIDDEN: &str = "***";

/// Messages on data, which quote what could not be read.
const ON_DATA: [&str; 12] = [
    "invalid input syntax",
    "invalid input value",
    "out of range",
    "malformed ",
    "could not be parsed",
    "invalid value ",
    "invalid regular expression",
    "unrecognized ",
    "invalid byte sequence",
    "bad literal",
    "invalid token",
    " is invalid",
];

/// What stands before data on the rest of a line, whoever writes it.
const BEFORE_DATA: [&str; 9] = [
    "failing row contains",
    "detail:",
    "detail=",
    "\"detail\":",
    "context:",
    "json data,",
    "parameters:",
    "parameters=",
    "bindings:",
];

/// What ends a clause `Key (columns)=(values)` of a detail.
const AFTER_KEY: [&str; 5] = [
    " already exists",
    " is not present in table",
    " is still referenced from table",
    " conflicts with existing key",
    " is duplicated",
];

/// Parts of statements that have literals.
const OF_STATEMENTS: [&str; 5] = ["insert into ", "values (", " set ", " where ", "copy "];

/// A line of a database, or of a program that prints such lines, without values of rows.
pub(crate) fn without_values(line: &str) -> String {
    let mut line = line.to_owned();
    hide_keys(&mut line);
    hide_quoted_data(&mut line);
    hide_literals(&mut line);
    hide_rest(&mut line);
    line
}

/// The message of a database error without values of rows: its SQLSTATE alone where a function wrote the message, which
/// may say anything.
pub(crate) fn message(error: &DbError) -> String {
    let code = error.code().code();
    match code.starts_with("P0") {
        true => code.to_owned(),
        false => format!("{code}: {}", without_values(error.message())),
    }
}

/// `(email)=(a@b.org) already exists`: the values end before the last words of the server's own.
fn hide_keys(line: &mut String) {
    let Some(start) = line.find(")=(").map(|at| at + ")=(".len()) else {
        return;
    };
    let after = AFTER_KEY
        .iter()
        .filter_map(|after| line[start..].rfind(&format!("){after}")))
        .max();
    let mut rest = match after {
        Some(at) => line[start + at..].to_owned(),
        // It was cut off, or is the key that another one conflicts with.
        None => ")".to_owned(),
    };
    hide_keys(&mut rest);
    line.truncate(start);
    line.push_str(HIDDEN);
    line.push_str(&rest);
}

/// `invalid input syntax for type integer: "a@b.org"`: from the first quotation mark to the last.
fn hide_quoted_data(line: &mut String) {
    let lower = line.to_ascii_lowercase();
    let Some(phrase) = ON_DATA.iter().filter_map(|phrase| lower.find(phrase)).min() else {
        return;
    };
    // `value "99999" is out of range`, `Token "x" is invalid` have it before the phrase.
    let before = ["value \"", "token \"", "value \\\"", "token \\\""];
    let start = before
        .iter()
        .filter_map(|word| lower[..phrase].rfind(word))
        .max()
        .unwrap_or(phrase);
    let quoted = &line[start..];
    let (Some(first), Some(last)) = (quoted.find('"'), quoted.rfind('"')) else {
        return;
    };
    if first < last {
        line.replace_range(start + first + 1..start + last, HIDDEN);
    }
}

/// `values ('a@b.org')`: the literals of a statement.
fn hide_literals(line: &mut String) {
    let lower = line.to_ascii_lowercase();
    if !OF_STATEMENTS.iter().any(|part| lower.contains(part)) {
        return;
    }
    let mut shown = String::with_capacity(line.len());
    for (number, part) in line.split('\'').enumerate() {
        match number % 2 {
            0 => shown.push_str(part),
            _ => shown.push_str("'***'"),
        }
    }
    *line = shown;
}

/// `DETAIL:  …`, `[parameters: …`: all that follows, unless it says that there is none.
fn hide_rest(line: &mut String) {
    let lower = line.to_ascii_lowercase();
    for before in BEFORE_DATA {
        let Some(start) = lower.find(before).map(|at| at + before.len()) else {
            continue;
        };
        let rest = line[start..].trim_start();
        let is_empty = ["None", "null", "undefined", "nil", "\"\"", "[]", "''"]
            .iter()
            .any(|none| rest.starts_with(none));
        // What is left of a key has been hidden, and says more than nothing.
        if !is_empty && !rest.is_empty() && !rest.contains(")=(***)") {
            line.replace_range(start.., " ***");
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::duplicate(
        "DETAIL:  Key (email)=(ann@example.org) already exists.",
        "DETAIL:  Key (email)=(***) already exists."
    )]
    #[case::hostile_value(
        "Key (name)=(x) already exists. Her secret) already exists.",
        "Key (name)=(***) already exists."
    )]
    #[case::reference(
        "Key (user_id, \"group\")=(7, staff) is not present in table \"users\".",
        "Key (user_id, \"group\")=(***) is not present in table \"users\"."
    )]
    #[case::exclusion(
        "Key (room, during)=(1, [2026-01-01,)) conflicts with existing key (room, during)=(1, [2025-12-31,)).",
        "Key (room, during)=(***) conflicts with existing key (room, during)=(***)"
    )]
    #[case::cut_off("Key (email)=(ann@exam", "Key (email)=(***)")]
    #[case::row(
        "Failing row contains (1, ann@example.org, null).",
        "Failing row contains ***"
    )]
    #[case::cast(
        "invalid input syntax for type integer: \"ann@example.org\"",
        "invalid input syntax for type integer: \"***\""
    )]
    #[case::quoted_quotation(
        "ERROR: invalid input syntax for type json: \"{\"name\": \"Ann\"}\" (SQLSTATE 22P02)",
        "ERROR: invalid input syntax for type json: \"***\" (SQLSTATE 22P02)"
    )]
    #[case::range(
        "value \"99999999999\" is out of range for type integer",
        "value \"***\" is out of range for type integer"
    )]
    #[case::enumeration(
        "invalid input value for enum mood: \"Ann is sad\"",
        "invalid input value for enum mood: \"***\""
    )]
    #[case::copy("CONTEXT:  COPY users, line 1, column id: \"ann\"", "CONTEXT: ***")]
    #[case::knex(
        "insert into \"users\" (\"email\") values ('ann@example.org') - duplicate key value violates unique constraint \"users_email_key\"",
        "insert into \"users\" (\"email\") values ('***') - duplicate key value violates unique constraint \"users_email_key\""
    )]
    #[case::parameters("[parameters: {'email': 'ann@example.org'}]", "[parameters: ***")]
    #[case::json(
        r#"{"severity":"ERROR","code":"23505","detail":"Key (email)=(ann@example.org) already exists.","table":"users"}"#,
        r#"{"severity":"ERROR","code":"23505","detail":"Key (email)=(***) already exists.","table":"users"}"#
    )]
    #[case::names("relation \"users\" already exists", "relation \"users\" already exists")]
    #[case::no_detail("detail: undefined, code: '42P07'", "detail: undefined, code: '42P07'")]
    fn s18e_values_of_rows_are_hidden(#[case] line: &str, #[case] shown: &str) {
        assert_eq!(without_values(line), shown);
    }
}
