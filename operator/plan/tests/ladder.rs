//! The tables of the ladder in `docs/concepts.md` are what its rungs say. `make docs` writes them.

#![allow(
    clippy::disallowed_methods,
    reason = "an environment variable asks for the table to be written"
)]

use fairway_plan::release::{BACKWARD, FORWARD, Rung};
use std::fmt::Write as _;
use std::path::Path;

const CONCEPTS: &str = include_str!("../../../docs/concepts.md");

fn table(ladder: &[Rung]) -> String {
    let mut table = "| rung | met when | evidence |\n|---|---|---|\n".to_owned();
    for rung in ladder {
        let _ = writeln!(table, "| {} | {} | {} |", rung.name, rung.met_when, rung.evidence);
    }
    table
}

/// The text with what is between the two comments of that name replaced.
fn with_section(text: &str, name: &str, section: &str) -> String {
    let (begin, end) = (format!("<!-- {name}:begin -->\n"), format!("<!-- {name}:end -->"));
    let missing = || format!("docs/concepts.md has no {begin}");
    let (before, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("{}", missing()));
    let (_, after) = rest.split_once(&end).unwrap_or_else(|| panic!("{}", missing()));
    format!("{before}{begin}{section}{end}{after}")
}

#[test]
fn the_concepts_show_the_ladder_as_it_is() {
    let forward = with_section(CONCEPTS, "ladder", &table(FORWARD));
    let expected = with_section(&forward, "backward-ladder", &table(BACKWARD));
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/concepts.md");
        std::fs::write(path, expected).unwrap();
        return;
    }
    assert!(
        CONCEPTS == expected,
        "docs/concepts.md does not show the ladder as it is; run `make docs` and commit the result"
    );
}

#[test]
fn every_rung_has_a_name_of_its_own() {
    let mut names: Vec<_> = FORWARD.iter().chain(BACKWARD).map(|rung| rung.name).collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all);
}
