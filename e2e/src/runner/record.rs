//! The last result of each part of `make test-long`, as a table in `e2e/README.md`.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use jiff::Timestamp;

use super::parts::{PARTS, Part};
use super::report::Report;
use crate::command::run;
use crate::paths::repository;
use crate::progress::seconds;

/// What stands around the table.
const BEGIN: &str = "<!-- written by `make test-long` -->\n";
const END: &str = "<!-- end -->\n";

const HEAD: &str = "| part | proves | commit | ended | took | passed | failed | figures |\n|---|---|---|---|---|---|---|---|\n";

/// Writes how a part ended to its row of the table.
///
/// # Errors
/// When the page has no table, or Git cannot name the commit.
pub fn write(part: &Part, report: &Report) -> Result<()> {
    let file = page();
    let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    let row = [
        commit()?,
        Timestamp::now().strftime("%Y-%m-%d").to_string(),
        seconds(report.took),
        report.passed().to_string(),
        report.failed().to_string(),
        report.figures(),
    ];
    let text = with_row(&text, part.name, &row)?;
    fs::write(&file, text).with_context(|| format!("write {}", file.display()))
}

fn page() -> PathBuf {
    repository().join("e2e/README.md")
}

/// The commit that is checked out; with a `+` when more than this table has changed since.
fn commit() -> Result<String> {
    let git = |arguments: &[&str]| run(Command::new("git").current_dir(repository()).args(arguments));
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changed = git(&[
        "status",
        "--porcelain",
        "--untracked-files=no",
        "--",
        ".",
        ":!e2e/README.md",
    ])?;
    let mark = if changed.is_empty() { "" } else { "+" };
    Ok(format!("{}{mark}", commit.trim()))
}

/// The page with another row for this part, and the rows that it has for the others.
fn with_row(page: &str, part: &str, row: &[String; 6]) -> Result<String> {
    let missing = || format!("e2e/README.md has no table between {BEGIN:?} and {END:?}");
    let (before, rest) = page.split_once(BEGIN).with_context(missing)?;
    let (table, after) = rest.split_once(END).with_context(missing)?;
    let rows = PARTS.iter().map(|other| {
        let result = match other.name == part {
            true => row.join(" | "),
            false => result_of(table, other.name).unwrap_or_else(|| "| | | | |".to_owned()),
        };
        format!("| `{}` | {} | {result} |\n", other.name, other.proves)
    });
    Ok(format!(
        "{before}{BEGIN}{HEAD}{}{END}{after}",
        rows.collect::<String>()
    ))
}

/// The last six cells of a part's row.
fn result_of(table: &str, part: &str) -> Option<String> {
    let row = table
        .lines()
        .find(|line| line.starts_with(&format!("| `{part}` |")))?;
    let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
    Some(cells.get(2..8)?.join(" | "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(commit: &str) -> [String; 6] {
        [commit, "2026-01-01", "9.5s", "4", "0", "7 steps"].map(ToOwned::to_owned)
    }

    #[test]
    fn the_page_has_a_table_to_write_to() {
        let page = fs::read_to_string(page()).unwrap();
        with_row(&page, "scale", &row("c0ffee")).unwrap();
    }

    #[test]
    fn a_result_replaces_the_one_before_and_keeps_those_of_other_parts() {
        let page = format!("above\n{BEGIN}{END}below\n");
        let page = with_row(&page, "scale", &row("old")).unwrap();
        let page = with_row(&page, "kills", &row("other")).unwrap();
        let page = with_row(&page, "scale", &row("new")).unwrap();
        assert!(page.starts_with("above\n") && page.ends_with("below\n"), "{page}");
        assert!(
            page.contains("| new | 2026-01-01 | 9.5s | 4 | 0 | 7 steps |\n"),
            "{page}"
        );
        assert!(
            page.contains("| other | 2026-01-01 | 9.5s | 4 | 0 | 7 steps |\n"),
            "{page}"
        );
        assert!(!page.contains("| old |"), "{page}");
        assert_eq!(page.matches("| `").count(), PARTS.len());
    }
}
