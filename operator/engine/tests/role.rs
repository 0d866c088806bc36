//! The chart's role gives the operator what the table of kinds asks for, and no more.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "the role is a file of the chart")]

use fairway_engine::kinds::{Kind, OwnKind};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Verbs by `group/resource` of the first role in the template. Its rules are plain YAML, one list a line.
fn granted() -> BTreeMap<String, BTreeSet<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts/fairway/templates/rbac.yaml");
    let text = std::fs::read_to_string(path).unwrap();
    let rules = text.split("\nrules:\n").nth(1).unwrap();
    let rules = rules.split("\n---").next().unwrap();
    let mut granted = BTreeMap::new();
    let (mut groups, mut resources) = (Vec::new(), Vec::new());
    for line in rules.lines() {
        let line = line.trim_start_matches(['-', ' ']);
        match line.split_once(": ") {
            Some(("apiGroups", list)) => groups = words(list),
            Some(("resources", list)) => resources = words(list),
            Some(("verbs", list)) => {
                for (group, resource) in groups
                    .iter()
                    .flat_map(|group| resources.iter().map(move |resource| (group, resource)))
                {
                    let verbs: &mut BTreeSet<String> =
                        granted.entry(format!("{group}/{resource}")).or_default();
                    verbs.extend(words(list));
                }
            }
            _ => assert!(line.is_empty() || line.starts_with('#'), "cannot read {line:?}"),
        }
    }
    granted
}

fn words(list: &str) -> Vec<String> {
    let list = list.trim_start_matches('[').trim_end_matches(']');
    list.split(',')
        .map(|word| word.trim().trim_matches('"').to_owned())
        .collect()
}

fn verbs(verbs: &[&str]) -> BTreeSet<String> {
    verbs.iter().map(|verb| (*verb).to_owned()).collect()
}

#[test]
fn the_role_fits_the_table_of_kinds() {
    let mut expected = BTreeMap::new();
    for kind in Kind::ALL {
        let resource = kind.api_resource();
        let read = ["list", "watch"].iter().chain(kind.verbs());
        let name = format!("{}/{}", resource.group, resource.plural);
        expected.insert(name, verbs(&read.copied().collect::<Vec<_>>()));
    }
    for kind in OwnKind::ALL {
        let resource = kind.kind().api_resource();
        let name = format!("{}/{}", resource.group, resource.plural);
        expected.insert(format!("{name}/status"), verbs(&["update"]));
        // For the admission plugin OwnerReferencesPermissionEnforcement.
        expected.insert(format!("{name}/finalizers"), verbs(&["update"]));
    }
    // What is no kind that is watched.
    expected.insert("/persistentvolumeclaims".to_owned(), verbs(&["get"]));
    expected.insert("events.k8s.io/events".to_owned(), verbs(&["create"]));
    assert_eq!(granted(), expected);
}
