//! Names and values in statements that take no parameters, and the names of a restore's own databases.

use sha2::{Digest as _, Sha256};

use crate::text::hex;

/// Length of the longest name in PostgreSQL, in bytes.
const LONGEST_NAME: usize = 63;

/// A quoted name.
pub(super) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A quoted value, for sessions with `standard_conforming_strings`.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Name of the database into which a set is restored, beside the one in use.
pub(super) fn beside(target: &str, restore_uid: &str) -> String {
    derived(target, "restore", restore_uid)
}

/// Name under which the database is kept that a restored one has replaced.
pub(super) fn replaced(target: &str, restore_uid: &str) -> String {
    derived(target, "replaced", restore_uid)
}

/// Name of the role that loads a set where the connection's role is a superuser.
pub(super) fn loader(restore_uid: &str) -> String {
    format!("fairway_restore_{}", short(restore_uid))
}

fn derived(target: &str, word: &str, restore_uid: &str) -> String {
    let suffix = format!("_fairway_{word}_{}", short(restore_uid));
    let head = target.floor_char_boundary(LONGEST_NAME - suffix.len());
    format!("{}{suffix}", &target[..head])
}

fn short(uid: &str) -> String {
    hex(&Sha256::digest(uid))[..8].to_owned()
}

/// Settings whose value is a list of names, which is written element by element, as `pg_dump` knows them
/// (`variable_is_guc_list_quote`).
const LISTS: [&str; 6] = [
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
];

/// `SET name TO value` for a setting as the catalog has it, `name=value`.
pub(super) fn setting(text: &str) -> String {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    let value = match LISTS.iter().any(|list| name.eq_ignore_ascii_case(list)) {
        true => elements(value)
            .iter()
            .map(|element| literal(element))
            .collect::<Vec<_>>()
            .join(", "),
        false => literal(value),
    };
    // A list without elements is written as one empty element.
    let value = if value.is_empty() { literal("") } else { value };
    format!("set {} to {value}", identifier(name))
}

/// The elements of a list of names: separated by commas, quoted where their characters ask for it.
fn elements(list: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut characters = list.trim().chars().peekable();
    while characters.peek().is_some() {
        let mut element = String::new();
        while characters.next_if(|c| c.is_whitespace()).is_some() {}
        if characters.next_if_eq(&'"').is_some() {
            while let Some(c) = characters.next() {
                match c {
                    '"' if characters.next_if_eq(&'"').is_none() => break,
                    c => element.push(c),
                }
            }
            while characters.next_if(|c| *c != ',').is_some() {}
        } else {
            while let Some(c) = characters.next_if(|c| *c != ',') {
                element.push(c);
            }
            element.truncate(element.trim_end().len());
        }
        characters.next();
        found.push(element);
    }
    found
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("work_mem=64MB", "set \"work_mem\" to '64MB'")]
    #[case("search_path=\"$user\", public", "set \"search_path\" to '$user', 'public'")]
    #[case("search_path=\"a\"\"b, c\",d", "set \"search_path\" to 'a\"b, c', 'd'")]
    #[case("search_path=\"\"", "set \"search_path\" to ''")]
    #[case("search_path=", "set \"search_path\" to ''")]
    #[case("app.tenant=it's=a", "set \"app.tenant\" to 'it''s=a'")]
    fn a_setting_is_written_as_it_was(#[case] stored: &str, #[case] written: &str) {
        assert_eq!(setting(stored), written);
    }

    #[test]
    fn derived_names_fit_and_differ() {
        let long = "ü".repeat(40);
        for name in [beside(&long, "uid"), replaced(&long, "uid")] {
            assert!(name.len() <= LONGEST_NAME && name.starts_with("üü"), "{name}");
        }
        assert_ne!(beside("crm", "a"), beside("crm", "b"));
        assert_ne!(beside("crm", "a"), replaced("crm", "a"));
    }
}
