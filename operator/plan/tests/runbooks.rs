//! Every reason that a person can meet has a runbook page, and the documents' links lead somewhere.
//!
//! Reasons are collected from the sources themselves: every string literal that has the form of a reason is one,
//! unless it is listed in [`NOT_REASONS`]. So a new reason fails this test until its page is written, and a page
//! whose reason is gone fails it too.
#![allow(
    clippy::disallowed_methods,
    reason = "the planners read no files; this test reads sources and documents"
)]
#![allow(clippy::unwrap_used, reason = "in a test")]

use fairway_plan::protocol::reason;
use fairway_plan::release::{BACKWARD, FORWARD};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Words in the sources that have the form of a reason and are none. The rungs of the ladders need not be listed.
const NOT_REASONS: &[&str] = &[
    // Kinds.
    "App",
    "Backup",
    "ControllerRevision",
    "Deployment",
    "EndpointSlice",
    "Job",
    "Migration",
    "Pod",
    "Release",
    "Service",
    // Condition types and values of them, ours and Kubernetes'.
    "Available",
    "Complete",
    "DisruptionTarget",
    "False",
    "PodScheduled",
    "Ready",
    "ReplicaFailure",
    "True",
    "Unknown",
    // Triggers of a Release, and the level of a Backup.
    "AppEdited",
    "Retry",
    "Decoded",
    // Kubernetes' own words for what keeps a container or a write from going through: they end in our messages.
    "AlreadyExists",
    "ContainerCannotRun",
    "ContainerCreating",
    "CrashLoopBackOff",
    "ErrImageNeverPull",
    "ErrImagePull",
    "FieldManagerConflict",
    "ImagePullBackOff",
    "NamespaceTerminating",
    "PodInitializing",
    "StartError",
    "Unschedulable",
    // Values of fields.
    "Always",
    "IfNotPresent",
    "Never",
    "OnRootMismatch",
    "ReadOnlyMany",
    "ReadWriteMany",
    "Recreate",
    "RollingUpdate",
    "RuntimeDefault",
    // Others: an Event's types and action, HTTP, messages, a framework's table.
    "Bearer",
    "Connection",
    "Normal",
    "Reconcile",
    "SequelizeMeta",
    "Token",
    "Warning",
];

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

/// `MigrationFailed`, `Live`: letters only, capitals at the start of words of at least two letters.
fn has_form_of_reason(text: &str) -> bool {
    let starts = |pair: [char; 2]| pair[0].is_ascii_uppercase() && !pair[1].is_ascii_lowercase();
    let letters: Vec<char> = text.chars().collect();
    letters.len() > 1
        && letters[0].is_ascii_uppercase()
        && letters.iter().all(char::is_ascii_alphabetic)
        && letters[letters.len() - 1].is_ascii_lowercase()
        && !letters.windows(2).any(|pair| starts([pair[0], pair[1]]))
}

/// The sources of the operator and its planners, with their paths, without what is compiled for tests only.
fn sources() -> Vec<(String, String)> {
    let root = repository();
    let all: Vec<(String, String)> = ["operator/plan/src", "operator/src"]
        .into_iter()
        .flat_map(|folder| files(&root.join(folder), "rs"))
        .map(|path| {
            (
                path.strip_prefix(&root).unwrap().to_string_lossy().into_owned(),
                read(&path),
            )
        })
        .collect();
    let for_tests: BTreeSet<String> = all.iter().flat_map(|(_, text)| modules_for_tests(text)).collect();
    all.into_iter()
        .filter(|(path, _)| {
            let path = Path::new(path.strip_suffix(".rs").unwrap_or(path));
            !path
                .components()
                .any(|part| for_tests.contains(&*part.as_os_str().to_string_lossy()))
        })
        .map(|(path, text)| {
            let compiled = text
                .split("#[cfg(test)]\nmod tests {")
                .next()
                .unwrap_or_default()
                .to_owned();
            (path, compiled)
        })
        .collect()
}

/// Modules in files of their own that are declared under a condition: for tests, or for a feature of tests.
fn modules_for_tests(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines
        .windows(2)
        .filter(|pair| pair[0].starts_with("#[cfg("))
        .filter_map(|pair| {
            pair[1]
                .trim_start_matches("pub ")
                .strip_prefix("mod ")?
                .strip_suffix(';')
                .map(str::to_owned)
        })
        .collect()
}

/// The literals of that form in what is compiled into the operator, with the files that hold them.
fn candidates() -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, text) in sources() {
        let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        for literal in lines.flat_map(|line| line.split('"').skip(1).step_by(2)) {
            if has_form_of_reason(literal) {
                found.entry(literal.to_owned()).or_default().insert(path.clone());
            }
        }
    }
    found
}

/// Whether a word that has the form of a reason is something else.
fn is_none(word: &str) -> bool {
    FORWARD.iter().chain(BACKWARD).any(|rung| rung.name == word) || NOT_REASONS.contains(&word)
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
fn every_reason_has_a_runbook_page() {
    let pages = pages();
    let missing: Vec<String> = candidates()
        .into_iter()
        .filter(|(name, _)| !pages.contains_key(name) && !is_none(name))
        .map(|(name, files)| format!("{name} in {}", files.into_iter().collect::<Vec<_>>().join(", ")))
        .collect();
    assert!(
        missing.is_empty(),
        "write docs/runbooks/<reason>.md, or list what is no reason in NOT_REASONS:\n{}",
        missing.join("\n")
    );
    let unwritten: Vec<_> = reason::ALL
        .into_iter()
        .filter(|name| !pages.contains_key(*name))
        .collect();
    assert!(
        unwritten.is_empty(),
        "reasons of the agent without a page: {unwritten:?}"
    );
}

#[test]
fn no_page_outlives_its_reason() {
    let candidates = candidates();
    let orphans: Vec<_> = pages()
        .into_keys()
        .filter(|name| !candidates.contains_key(name))
        .collect();
    assert!(
        orphans.is_empty(),
        "no source says these any more; remove their pages: {orphans:?}"
    );
    let both: Vec<_> = pages().into_keys().filter(|name| is_none(name)).collect();
    assert!(
        both.is_empty(),
        "these have a page, so they are reasons: {both:?}"
    );
}

#[test]
fn every_page_says_what_it_must_and_is_in_the_index() {
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
