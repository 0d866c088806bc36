//! Every reason that a user can meet has a runbook page, and the documents' links lead somewhere.
#![allow(
    clippy::disallowed_methods,
    reason = "the planners read no files; this test reads documents"
)]
#![allow(clippy::unwrap_used, reason = "in a test")]

use fairway_crds::Reason;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use strum::IntoEnumIterator;

/// The headings of a page, in their order.
const HEADINGS: [&str; 5] = [
    "## What it means",
    "## What Fairway did and did not do",
    "## What to check",
    "## How to fix it",
    "## What happens next",
];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{} cannot be read: {error}", path.display()))
}

/// Files below a folder with that extension, hidden folders and builds left out.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries =
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{} cannot be read: {error}", folder.display()));
    let paths = entries.map(|entry| entry.unwrap().path()).filter(|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        !name.starts_with('.') && name != "target" && name != "node_modules"
    });
    paths
        .flat_map(|path| match path.is_dir() {
            true => files(&path, extension),
            false if path.extension().is_some_and(|found| found == extension) => vec![path],
            false => Vec::new(),
        })
        .collect()
}

/// The pages, by reason.
fn pages() -> BTreeMap<String, String> {
    files(&repository().join("docs/runbooks"), "md")
        .into_iter()
        .map(|path| {
            (
                path.file_stem().unwrap().to_string_lossy().into_owned(),
                read(&path),
            )
        })
        .filter(|(name, _)| name != "README")
        .collect()
}

#[test]
fn every_reason_has_a_runbook_page_and_every_page_a_reason() {
    let reasons: BTreeSet<String> = Reason::iter().map(String::from).collect();
    let pages: BTreeSet<String> = pages().into_keys().collect();
    let missing: Vec<_> = reasons.difference(&pages).collect();
    assert!(
        missing.is_empty(),
        "write docs/runbooks/<reason>.md for {missing:?}"
    );
    let orphans: Vec<_> = pages.difference(&reasons).collect();
    assert!(orphans.is_empty(), "no reason has these pages: {orphans:?}");
}

#[test]
fn a_page_begins_with_the_doc_comment_of_its_reason() {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let pages = pages();
    let mut different = Vec::new();
    for reason in Reason::iter() {
        let page = &pages[reason.as_str()];
        let body = page
            .split_once("## What it means\n\n")
            .map_or("", |(_, body)| body);
        let paragraph = body.split("\n\n").next().unwrap_or_default();
        if words(paragraph) != words(reason.meaning()) {
            different.push(format!(
                "{reason}:\n  page: {}\n  enum: {}",
                words(paragraph),
                words(reason.meaning())
            ));
        }
    }
    assert!(
        different.is_empty(),
        "the first paragraph of a page and the doc comment in crds/src/reason.rs differ:\n{}",
        different.join("\n")
    );
}

#[test]
fn every_page_has_its_headings_and_is_in_the_index() {
    let index = read(&repository().join("docs/runbooks/README.md"));
    for (name, text) in pages() {
        assert!(
            text.starts_with(&format!("# {name}\n")),
            "{name}: the title is not the reason"
        );
        let headings: Vec<&str> = text.lines().filter(|line| line.starts_with("## ")).collect();
        assert_eq!(headings, HEADINGS, "{name}");
        assert!(
            index.contains(&format!("| [{name}]({name}.md) |")),
            "{name} is not in docs/runbooks/README.md"
        );
    }
}

#[test]
fn links_of_the_documents_lead_somewhere() {
    let root = repository();
    let documents = files(&root.join("docs"), "md").into_iter().chain(
        [
            "README.md",
            "CONTRIBUTING.md",
            "SECURITY.md",
            "CHANGELOG.md",
            "e2e/README.md",
            "operator/ARCHITECTURE.md",
        ]
        .map(|name| root.join(name)),
    );
    let mut broken = Vec::new();
    for document in documents {
        for target in links(&read(&document)) {
            let (path, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let file = match path {
                "" => document.clone(),
                path => document.parent().unwrap().join(path),
            };
            let reached = file.exists() && (anchor.is_empty() || anchors(&read(&file)).contains(anchor));
            if !reached {
                broken.push(format!(
                    "{} -> {target}",
                    document.strip_prefix(&root).unwrap().display()
                ));
            }
        }
    }
    assert!(broken.is_empty(), "broken links:\n{}", broken.join("\n"));
}

/// Targets of inline links that stay in the repository.
fn links(text: &str) -> Vec<String> {
    prose(text)
        .flat_map(|line| {
            line.split("](")
                .skip(1)
                .filter_map(|rest| rest.split(')').next())
                .collect::<Vec<_>>()
        })
        .filter(|target| !target.contains("://") && !target.starts_with("mailto:"))
        .map(str::to_owned)
        .collect()
}

/// The anchors that a forge makes of headings.
fn anchors(text: &str) -> BTreeSet<String> {
    prose(text)
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            title
                .chars()
                .filter_map(|letter| match letter {
                    ' ' => Some('-'),
                    letter if letter.is_alphanumeric() || letter == '-' || letter == '_' => Some(letter),
                    _ => None,
                })
                .collect()
        })
        .collect()
}

/// Lines outside code blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut code = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        !code && !fence
    })
}
