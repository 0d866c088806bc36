//! What a user sees with kubectl at the end of a story, compared with a file beside this one.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use fairway_e2e::command::run;
use fairway_e2e::ns::Context;
use regex::Regex;

/// What differs from run to run, and what stands for it. The longer forms come first.
const PLACEHOLDERS: &[(&str, &str)] = &[
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "<time>"),
    (r"sha256:[0-9a-f]{64}", "sha256:<digest>"),
    (r"\b[0-9a-f]{64}\b", "<sha256>"),
    // Pods, by their ReplicaSet's hash and their own; Backups, by the UID of their Release.
    (r"\b(crm-\w+-\d+)-[0-9a-z]{5,10}-[0-9a-z]{5}\b", "$1-<pod>"),
    (r"\b(crm-\d+)-[0-9a-f]{8}\b", "$1-<uid>"),
    (r"\b[0-9a-f]{16}\b", "<hash>"),
    (r"\b(\d{1,3}\.){3}\d{1,3}\b", "<address>"),
    (r"\b\d+\.\d+ s\b", "<seconds> s"),
    (r"(Seconds: +)\d+(\.\d+)?", "$1<seconds>"),
    (r"(Bytes: +)\d+", "$1<bytes>"),
];

/// `kubectl get apps,releases,migrations,backups`.
pub(crate) fn listed(context: &Context, file: &str) -> Result<()> {
    let text = run(kubectl(context).args(["get", "apps,releases,migrations,backups"]))?;
    let tables = text.split("\n\n").map(|table| realigned(context, table));
    compared(file, &tables.collect::<Result<Vec<_>>>()?.join("\n"))
}

/// The status of an object, as `kubectl describe` shows it.
pub(crate) fn described(context: &Context, kind: &str, name: &str, file: &str) -> Result<()> {
    let text = run(kubectl(context).args(["describe", "--show-events=false", kind, name]))?;
    let (_, status) = text
        .split_once("\nStatus:\n")
        .with_context(|| format!("no status in {text}"))?;
    compared(file, &general(context, status)?)
}

fn kubectl(context: &Context) -> Command {
    let mut kubectl = context.target.kubectl();
    kubectl.args(["--namespace", &context.namespace]);
    kubectl
}

fn general(context: &Context, text: &str) -> Result<String> {
    let mut text = text
        .replace(&context.target.registry(), "registry.example.com")
        .replace(&context.namespace, "shop");
    for (pattern, placeholder) in PLACEHOLDERS {
        text = Regex::new(pattern)?.replace_all(&text, *placeholder).into_owned();
    }
    Ok(text)
}

/// A table of kubectl's with its columns as wide as what stands for their content.
fn realigned(context: &Context, table: &str) -> Result<String> {
    let header = table.lines().next().unwrap_or_default();
    let column = Regex::new(r"\S+ *")?;
    let columns: Vec<_> = column.find_iter(header).map(|found| found.range()).collect();
    let mut rows: Vec<Vec<String>> = Vec::new();
    for line in table.lines() {
        let cells = columns.iter().enumerate().map(|(index, range)| {
            let end = if index + 1 == columns.len() {
                line.len()
            } else {
                range.end
            };
            let cell = line
                .get(range.start..end.min(line.len()))
                .unwrap_or_default()
                .trim();
            match header[range.clone()].trim() {
                "AGE" if cell != "AGE" => Ok("<age>".to_owned()),
                "BYTES" if cell.parse::<u64>().is_ok() => Ok("<bytes>".to_owned()),
                _ => general(context, cell),
            }
        });
        rows.push(cells.collect::<Result<_>>()?);
    }
    let width = |index: usize| rows.iter().map(|row| row[index].len()).max().unwrap_or_default();
    let line = |row: &Vec<String>| {
        let cells = row.iter().enumerate();
        let cells: String = cells
            .map(|(index, cell)| format!("{cell:<0$}   ", width(index)))
            .collect();
        cells.trim_end().to_owned() + "\n"
    };
    Ok(rows.iter().map(line).collect())
}

/// Fails unless the file holds the text. With `FAIRWAY_WRITE_GOLDEN` it is written instead.
fn compared(file: &str, text: &str) -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/stories/shown")
        .join(file);
    if std::env::var_os("FAIRWAY_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    }
    let expected = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    ensure!(
        expected == text,
        "{} is not what kubectl shows; run the test with FAIRWAY_WRITE_GOLDEN=1 and look at the difference:\n{text}",
        path.display()
    );
    Ok(())
}
