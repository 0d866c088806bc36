//! What the documents show works: the API server takes their objects, and their commands name what exists.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use fairway_crds::app::annotation::FINAL_BACKUP;
use fairway_crds::release::annotation;
use fairway_e2e::command::{feed, last_lines, run};
use fairway_e2e::install::OPERATOR_NAMESPACE;
use fairway_e2e::paths::repository;
use fairway_e2e::target::Target;
use serde_json::{Value, json};

use super::ANY;

/// A document, or what Helm prints, by its name.
struct Document {
    name: String,
    text: String,
}

/// A fenced block: its language and its lines.
struct Block {
    language: String,
    text: String,
}

fn documents() -> Result<Vec<Document>> {
    let root = repository();
    let mut files: Vec<PathBuf> = [
        "README.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "e2e/README.md",
        "operator/ARCHITECTURE.md",
    ]
    .map(|name| root.join(name))
    .to_vec();
    let mut folders = vec![root.join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                files.push(path);
            }
        }
    }
    files
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            let name = path.strip_prefix(&root).unwrap_or(&path).display().to_string();
            Ok(Document { name, text })
        })
        .collect()
}

/// What `helm install` prints with these values.
pub(crate) fn notes(values: &[&str]) -> Result<String> {
    let target = Target::from_env()?;
    let printed = run(target
        .helm()
        .args([
            "install",
            "fairway",
            "--dry-run=client",
            "--output=json",
            "--namespace",
            OPERATOR_NAMESPACE,
        ])
        .args(["--set", "image.repository=registry.example.com/fairway"])
        .args(values)
        .arg(repository().join("charts/fairway")))?;
    let release: Value = serde_json::from_str(&printed).context("parse what Helm printed")?;
    let notes = release["info"]["notes"].as_str();
    Ok(notes.context("Helm printed no notes")?.to_owned())
}

impl Document {
    fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut open: Option<Block> = None;
        for line in self.text.lines() {
            match (line.trim_start().strip_prefix("```"), open.take()) {
                (Some(language), None) => {
                    let language = language.trim().to_owned();
                    open = Some(Block {
                        language,
                        text: String::new(),
                    });
                }
                (Some(_), Some(block)) => blocks.push(block),
                (None, Some(mut block)) => {
                    block.text.push_str(line);
                    block.text.push('\n');
                    open = Some(block);
                }
                (None, None) => {}
            }
        }
        blocks
    }

    /// Each YAML text: a block of its own, or what a shell is fed with.
    fn yaml(&self) -> Vec<String> {
        let mut found = Vec::new();
        for block in self.blocks() {
            match block.language.as_str() {
                "yaml" => found.push(block.text),
                "sh" => {
                    let mut rest = block.text.as_str();
                    while let Some((before, fed)) = rest.split_once("<<'YAML'") {
                        let (_, fed) = fed.split_once('\n').unwrap_or_default();
                        let (yaml, after) = fed.split_once("\nYAML").unwrap_or((fed, ""));
                        // A field manager of its own takes some fields of an object that is there.
                        if !before
                            .lines()
                            .last()
                            .unwrap_or_default()
                            .contains("--field-manager")
                        {
                            found.push(yaml.to_owned());
                        }
                        rest = after;
                    }
                }
                _ => {}
            }
        }
        found
    }

    /// Each command of a block or between backticks, one a line.
    fn commands(&self) -> Vec<String> {
        let blocks = self.blocks();
        let fenced = blocks
            .iter()
            .filter(|block| block.language != "yaml")
            .flat_map(|block| block.text.lines());
        let indented = self.text.lines().filter(|line| line.starts_with("    "));
        let inline = self
            .text
            .lines()
            .flat_map(|line| line.split('`').skip(1).step_by(2));
        fenced
            .chain(indented)
            .chain(inline)
            .map(|line| line.split(" #").next().unwrap_or(line).trim().to_owned())
            .collect()
    }
}

/// The objects of some YAML that are whole; part of one has no kind.
fn objects(document: &Document, yaml: &str) -> Result<Vec<Value>> {
    let parsed: Vec<Value> = serde_saphyr::from_multiple(yaml)
        .with_context(|| format!("{}: this is no YAML:\n{yaml}", document.name))?;
    Ok(parsed
        .into_iter()
        .filter(|object| object["apiVersion"].is_string() && object["kind"].is_string())
        .collect())
}

/// Whether this cluster has such a kind: Fairway's own, and Kubernetes' own.
fn served(object: &Value) -> bool {
    let version = object["apiVersion"].as_str().unwrap_or_default();
    let group = version.split_once('/').map_or("", |(group, _)| group);
    group == "fairway.dev" || group.ends_with(".k8s.io") || !group.contains('.')
}

/// Applies objects as a reader would, without storing them.
pub(crate) fn apply(target: &Target, name: &str, mut objects: Vec<Value>) -> Result<()> {
    for object in &mut objects {
        if object["kind"] != "Namespace" {
            // The documents' namespaces are not there.
            object["metadata"]["namespace"] = json!(ANY);
        }
    }
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    let mut kubectl = target.kubectl();
    kubectl.args([
        "apply",
        "--server-side",
        "--force-conflicts",
        "--dry-run=server",
        "--validate=strict",
        "-f",
        "-",
    ]);
    let output = feed(kubectl, list.to_string().as_bytes())?;
    ensure!(
        output.status.success(),
        "{name}: {}",
        last_lines(&output.stderr, 10)
    );
    Ok(())
}

#[test]
fn documented_objects_are_accepted_and_other_blocks_are_yaml() -> Result<()> {
    let target = Target::from_env()?;
    let mut ours = BTreeSet::new();
    for document in documents()? {
        let mut all = Vec::new();
        for yaml in document.yaml() {
            all.extend(objects(&document, &yaml)?.into_iter().filter(served));
        }
        let fairways = all
            .iter()
            .filter(|object| object["apiVersion"] == "fairway.dev/v1alpha1");
        ours.extend(fairways.map(|object| (document.name.clone(), object["kind"].to_string())));
        if !all.is_empty() {
            apply(&target, &document.name, all)?;
        }
    }
    // What is read from the documents is all that they show.
    let shown = [
        ("README.md", "\"App\""),
        ("docs/getting-started.md", "\"App\""),
        ("docs/single-server.md", "\"App\""),
        ("docs/runbooks/AwaitingRelease.md", "\"Release\""),
        ("docs/runbooks/ReleaseDeleted.md", "\"Release\""),
    ];
    assert_eq!(
        ours,
        shown
            .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
            .into()
    );
    Ok(())
}

/// What a reader of the notes pastes into a file.
#[test]
fn the_apiserver_takes_the_app_of_the_charts_notes() -> Result<()> {
    let target = Target::from_env()?;
    for values in [&[][..], &["--set", "watchNamespaces={shop}"]] {
        let notes = notes(values)?;
        let block: String = notes
            .lines()
            .skip_while(|line| !line.starts_with("  apiVersion:"))
            .take_while(|line| line.starts_with("  "))
            .map(|line| format!("{line}\n"))
            .collect();
        let app: Value = serde_saphyr::from_str(&block).with_context(|| format!("parse {block}"))?;
        assert_eq!(app["kind"], "App");
        apply(&target, "NOTES.txt", vec![app])?;
    }
    Ok(())
}

#[test]
fn every_make_target_that_is_named_exists() -> Result<()> {
    let makefile = std::fs::read_to_string(repository().join("Makefile"))?;
    let targets: BTreeSet<&str> = makefile
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(target, _)| target)
        .collect();
    let mut named = 0;
    for document in documents()? {
        for command in document.commands() {
            let Some(words) = command.strip_prefix("make ") else {
                continue;
            };
            for target in words.split_whitespace().filter(|word| !word.contains('=')) {
                ensure!(
                    targets.contains(target),
                    "{}: `{command}`: there is no target {target}",
                    document.name
                );
                named += 1;
            }
        }
    }
    ensure!(named > 20, "only {named} were found");
    Ok(())
}

/// The verbs of kubectl in the documents, and whether the words after one name kinds.
const VERBS: &[(&str, bool)] = &[
    ("annotate", true),
    ("apply", false),
    ("auth", false),
    ("create", false),
    ("delete", true),
    ("describe", true),
    ("edit", true),
    ("events", false),
    ("exec", false),
    ("explain", true),
    ("get", true),
    ("label", false),
    ("logs", false),
    ("patch", true),
    ("port-forward", false),
    ("rollout", false),
    ("scale", true),
    ("set", false),
    ("wait", true),
];

/// The names by which this cluster knows a kind.
fn kinds(target: &Target) -> Result<BTreeSet<String>> {
    let table = run(target.kubectl().args(["api-resources", "--no-headers"]))?;
    let mut kinds = BTreeSet::new();
    for line in table.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [plural, short @ .., version, _, kind] = words.as_slice() else {
            continue;
        };
        let group = version.split_once('/').map_or("", |(group, _)| group);
        for name in [*plural, &kind.to_lowercase()] {
            kinds.insert(name.to_owned());
            kinds.insert(format!("{name}.{group}"));
        }
        kinds.extend(
            short
                .iter()
                .flat_map(|short| short.split(','))
                .map(ToOwned::to_owned),
        );
    }
    // All of ours, and all that belongs to a namespace: categories, which the table does not show.
    kinds.extend(["fairway", "all"].map(ToOwned::to_owned));
    Ok(kinds)
}

#[test]
fn kinds_and_annotations_in_documented_commands_exist() -> Result<()> {
    let target = Target::from_env()?;
    let kinds = kinds(&target)?;
    let annotations = [
        annotation::ABORT,
        annotation::ROLLBACK,
        annotation::RETRY,
        annotation::RESOLVE,
        FINAL_BACKUP,
    ];
    let mut commands = 0;
    for document in documents()? {
        for command in document.commands() {
            let Some(words) = command.strip_prefix("kubectl ") else {
                continue;
            };
            let place = || format!("{}: `{command}`", document.name);
            let mut words = words.split_whitespace();
            // Options may come before the verb: a namespace is the only one that does.
            let verb = match words.next() {
                Some("-n" | "--namespace") => words.nth(1),
                verb => verb,
            };
            let verb = verb.with_context(place)?;
            let known = VERBS.iter().find(|(known, _)| *known == verb);
            let (_, of_kinds) = known.with_context(|| format!("{}: there is no verb {verb}", place()))?;
            let keys = words.clone().filter(|word| word.starts_with("fairway.dev/"));
            for key in keys.filter(|_| verb == "annotate") {
                let key = key.split(['=', ':']).next().unwrap_or(key).trim_end_matches('-');
                ensure!(annotations.contains(&key), "{}: nothing reads {key}", place());
            }
            // An address follows.
            if words.clone().any(|word| word == "--raw") {
                continue;
            }
            let named = words.find(|word| !word.starts_with('-'));
            for name in named
                .filter(|_| *of_kinds)
                .into_iter()
                .flat_map(|named| named.split(','))
            {
                // `release/crm-42`, and `app.spec` in `explain`.
                let kind = name.split('/').next().unwrap_or(name);
                let kind = match verb {
                    "explain" => kind.split('.').next().unwrap_or(kind),
                    _ => kind,
                };
                ensure!(
                    kinds.contains(kind) || kind.starts_with('<'),
                    "{}: there is no kind {kind}",
                    place()
                );
            }
            commands += 1;
        }
    }
    ensure!(commands > 100, "only {commands} were found");
    Ok(())
}
