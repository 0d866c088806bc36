//! What is generated from the types is what the repository holds, and every schema is one that a reviewer
//! of the Kubernetes API would pass.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail as the test does")]

use fairway_crds::generate::{self, Error, File, Mode};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use rstest::rstest;
use std::path::{Path, PathBuf};
use std::process::Command;

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

#[test]
fn the_charts_manifests_are_what_the_types_say() {
    let folder = repository("charts/fairway-crds/templates");
    generate::settle(&folder, &generate::manifests(), Mode::Check, "crds").unwrap();
}

#[test]
fn the_api_reference_is_what_the_types_say() {
    generate::settle(
        &repository("docs/reference"),
        &[generate::reference()],
        Mode::Check,
        "docs",
    )
    .unwrap();
}

#[rstest]
#[case::changed(|folder: &Path| std::fs::write(folder.join("apps.yaml"), "kind: Other\n").unwrap(), "apps.yaml is")]
#[case::missing(|folder: &Path| std::fs::remove_file(folder.join("backups.yaml")).unwrap(), "backups.yaml is")]
#[case::of_a_kind_that_is_gone(|folder: &Path| std::fs::write(folder.join("olds.yaml"), "").unwrap(), "olds.yaml is")]
fn the_drift_check_names_a_manifest_that_differs(#[case] spoil: fn(&Path), #[case] named: &str) {
    let folder = tempfile::tempdir().unwrap();
    generate::settle(folder.path(), &generate::manifests(), Mode::Write, "crds").unwrap();
    assert!(crdgen(&["--check"], folder.path()).0, "nothing has drifted yet");
    spoil(folder.path());
    let (passed, said) = crdgen(&["--check"], folder.path());
    assert!(
        !passed && said.contains(named) && said.contains("run `make crds`"),
        "{said}"
    );
    assert!(crdgen(&[], folder.path()).0, "writing fixes it");
    assert!(crdgen(&["--check"], folder.path()).0, "and then the check passes");
}

/// Runs the binary as `make check` does: whether it passed, and what it said.
fn crdgen(arguments: &[&str], folder: &Path) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_crdgen"))
        .args(arguments)
        .arg(folder)
        .output()
        .unwrap();
    (output.status.success(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_folder_that_is_not_there_is_an_error_and_not_a_pass() {
    let file = File {
        name: "a.yaml".into(),
        text: String::new(),
    };
    let error = generate::settle(Path::new("/nowhere/at/all"), &[file], Mode::Check, "crds").unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
}

#[test]
fn an_object_that_nobody_has_reconciled_says_so() {
    for crd in fairway_crds::all_crds() {
        let status = &schema(&crd, "status");
        let default = status.default.as_ref().map(|default| default.0.clone());
        assert_eq!(
            default,
            Some(serde_json::json!({"observedGeneration": -1})),
            "{}",
            crd.spec.names.kind
        );
    }
}

#[test]
fn helm_finds_nothing_to_expand_in_a_manifest() {
    for file in generate::manifests() {
        assert!(!file.text.contains("{{"), "{}", file.name);
    }
}

#[test]
fn every_field_is_explained_and_none_is_nullable() {
    for crd in fairway_crds::all_crds() {
        for part in ["spec", "status"] {
            walk(part, &schema(&crd, part), &mut |path, field| {
                let of = &crd.spec.names.kind;
                // What a key's value means is said by the map, and what an element means by the list.
                let element = path.ends_with(']');
                assert!(
                    element || field.description.is_some(),
                    "{of}: {path} has no description"
                );
                assert_eq!(
                    field.nullable, None,
                    "{of}: {path}: has() would be true of a null"
                );
                assert!(
                    field
                        .format
                        .as_deref()
                        .is_none_or(|format| !format.starts_with('u')),
                    "{of}: {path}"
                );
            });
        }
    }
}

/// The cost of a rule is estimated from these limits, and etcd takes no object of any size.
#[test]
fn everything_that_a_person_writes_has_a_limit() {
    for crd in fairway_crds::all_crds() {
        walk("spec", &schema(&crd, "spec"), &mut |path, field| {
            let limited = match field.type_.as_deref() {
                Some("string") => field.max_length.is_some() || field.enum_.is_some(),
                Some("array") => field.max_items.is_some(),
                Some("integer") => field.maximum.is_some() || path.ends_with("hostPort"),
                Some("object") => field.additional_properties.is_none() || field.max_properties.is_some(),
                _ => true,
            };
            // Labels and annotations have the limits of metadata, which the Deployment's dry run checks.
            let template = path.contains(".metadata.");
            assert!(
                limited || template,
                "{}: {path} has no limit",
                crd.spec.names.kind
            );
        });
    }
}

/// A Release names the image of each container: what an App may have, a Release must be able to name.
#[test]
fn w20a_a_release_has_room_for_the_images_of_every_container() {
    let [app, release] = ["App", "Release"].map(|kind| {
        let crds = fairway_crds::all_crds();
        let crd = crds.into_iter().find(|crd| crd.spec.names.kind == kind).unwrap();
        schema(&crd, "spec")
    });
    let components = &app.properties.as_ref().unwrap()["components"];
    let (mut containers, mut images) = (0, None);
    walk("", components, &mut |path, field| {
        if path.ends_with("ontainers") {
            containers += field.max_items.unwrap();
        }
    });
    walk("", &release, &mut |path, field| {
        if path == ".images" {
            images = field.max_properties;
        }
    });
    assert_eq!(images, Some(components.max_items.unwrap() * containers));
}

/// A rule without a message would show the user the rule itself.
#[test]
fn every_rule_has_a_message_with_a_fix() {
    for crd in fairway_crds::all_crds() {
        walk("", &root(&crd), &mut |path, field| {
            for rule in field.x_kubernetes_validations.iter().flatten() {
                let message = rule.message.as_deref().unwrap_or_default();
                assert!(
                    message.contains(';') && !message.ends_with('.'),
                    "{}: {path}: {message:?}",
                    crd.spec.names.kind
                );
            }
        });
    }
}

#[test]
fn categories_and_short_names_collide_with_nobody() {
    for crd in fairway_crds::all_crds() {
        let names = crd.spec.names;
        assert_eq!(
            names.categories,
            Some(vec!["fairway".to_owned()]),
            "`kubectl get all` is not ours"
        );
        // CloudNativePG and Velero have kinds named Backup too.
        assert!(
            names
                .short_names
                .iter()
                .flatten()
                .all(|name| name.starts_with('f')),
            "{:?}",
            names.short_names
        );
    }
}

fn root(crd: &CustomResourceDefinition) -> JSONSchemaProps {
    crd.spec.versions[0]
        .schema
        .as_ref()
        .unwrap()
        .open_api_v3_schema
        .clone()
        .unwrap()
}

fn schema(crd: &CustomResourceDefinition, part: &str) -> JSONSchemaProps {
    root(crd).properties.unwrap().remove(part).unwrap()
}

/// Calls for a schema and each one within it, with its path.
fn walk(path: &str, schema: &JSONSchemaProps, see: &mut impl FnMut(&str, &JSONSchemaProps)) {
    see(path, schema);
    for (name, property) in schema.properties.iter().flatten() {
        walk(&format!("{path}.{name}"), property, see);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &schema.items {
        walk(&format!("{path}[]"), items, see);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &schema.additional_properties {
        walk(&format!("{path}[key]"), values, see);
    }
}

/// S2, S5: what an object holds is bounded by its schema, but for pod templates, which the operator bounds as it reads.
#[test]
fn s5_every_string_list_and_map_is_bounded() {
    let mut unbounded = Vec::new();
    for crd in fairway_crds::all_crds() {
        for part in ["spec", "status"] {
            let path = format!("{}.{part}", crd.spec.names.kind);
            walk(&path, &schema(&crd, part), &mut |path, schema| {
                let is_bounded = match schema.type_.as_deref() {
                    Some("string") => {
                        schema.max_length.is_some() || schema.enum_.is_some() || schema.format.is_some()
                    }
                    Some("array") => schema.max_items.is_some(),
                    Some("object") => {
                        schema.additional_properties.is_none() || schema.max_properties.is_some()
                    }
                    _ => true,
                };
                let is_open = schema.x_kubernetes_preserve_unknown_fields == Some(true);
                if !is_bounded || is_open && !path.contains(".template") {
                    unbounded.push(path.to_owned());
                }
            });
        }
    }
    assert!(unbounded.is_empty(), "{unbounded:#?}");
}
