//! The random stories edit every field of the API, also one that is added later.

use crate::random::{APPS, EDITS, EVENTS};
use fairway_crds::{App, Backup, Migration, Release, Restore};
use fairway_sim::script::Story;
use fairway_sim::wire::Fault;
use fairway_sim::{Sim, Turns};
use kube::CustomResourceExt;
use serde_json::Value;
use std::collections::BTreeSet;

/// Fields that no random story edits, and why.
const NOT_EDITED: [(&str, &str); 3] = [
    ("App.backup.store.webdav.caFrom.configMapKeyRef.key", OF_S3),
    ("App.backup.store.webdav.caFrom.configMapKeyRef.name", OF_S3),
    ("App.traffic.driver", "it has one value"),
];
const OF_S3: &str = "edited in the other store that has it";

/// Fields of a kind's spec that hold values, by their paths; `[]` stands for the elements of a list.
fn fields<T: CustomResourceExt>() -> BTreeSet<String> {
    let crd = serde_json::to_value(T::crd()).unwrap();
    let kind = crd["spec"]["names"]["kind"].as_str().unwrap();
    let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let mut fields = BTreeSet::new();
    add_fields(kind.to_owned(), spec, &mut fields);
    fields
}

fn add_fields(path: String, schema: &Value, fields: &mut BTreeSet<String>) {
    // A pod template is Kubernetes' own, and one field here.
    let is_template = path.ends_with(".template");
    if let (Some(properties), false) = (schema["properties"].as_object(), is_template) {
        for (name, schema) in properties {
            add_fields(format!("{path}.{name}"), schema, fields);
        }
    } else if schema["items"]["properties"].is_object() {
        add_fields(format!("{path}[]"), &schema["items"], fields);
    } else {
        fields.insert(path);
    }
}

/// Values of a field of a spec.
fn values<'a>(spec: &'a Value, field: &str) -> Vec<&'a Value> {
    let segments = field.split('.').skip(1);
    segments.fold(vec![spec], |found, segment| {
        let (name, is_list) = segment
            .strip_suffix("[]")
            .map_or((segment, false), |name| (name, true));
        let members = found.into_iter().filter_map(|value| value.get(name));
        if is_list {
            members.filter_map(Value::as_array).flatten().collect()
        } else {
            members.collect()
        }
    })
}

/// Specs of all objects of our own kinds after these commands, in which no operator acts.
fn specs(commands: &[&str]) -> Vec<(&'static str, Value)> {
    let mut sim = Sim::new(Fault::None, Turns::Alone);
    let text: String = commands.iter().map(|command| format!("> {command}\n")).collect();
    let (_, result) = Story::parse(&text).play(&mut sim, 0, |_, _| {});
    result.unwrap();
    let objects = sim.cluster.objects();
    let mut specs = Vec::new();
    macro_rules! add {
        ($kind:literal, $store:ident) => {
            let all = objects.$store.values();
            specs.extend(all.map(|object| ($kind, serde_json::to_value(&object.spec).unwrap())));
        };
    }
    add!("App", apps);
    add!("Release", releases);
    add!("Migration", migrations);
    add!("Backup", backups);
    add!("Restore", restores);
    specs
}

/// Fields whose values differ between an App and the same App after an edit.
fn edited(fields: &BTreeSet<String>) -> BTreeSet<String> {
    let edits = EDITS.iter().map(|edit| format!("edit {edit}"));
    let events = EVENTS.iter().filter(|event| event.starts_with("edit "));
    let edits: Vec<String> = edits.chain(events.map(|edit| (*edit).to_owned())).collect();
    let mut edited = BTreeSet::new();
    for app in APPS {
        let before = specs(&[app]);
        for edit in &edits {
            let after = specs(&[app, edit]);
            let differ = |field: &&String| values(&before[0].1, field) != values(&after[0].1, field);
            edited.extend(fields.iter().filter(differ).cloned());
        }
    }
    edited
}

/// Fields that an object which somebody applies sets. Other kinds than Apps cannot be edited.
fn applied(fields: &BTreeSet<String>) -> BTreeSet<String> {
    let is_apply = |event: &&&str| event.starts_with("apply ") || event.starts_with("release ");
    let events: Vec<&str> = EVENTS.iter().filter(is_apply).copied().collect();
    let specs = specs(&events);
    let is_set = |field: &&String| {
        specs
            .iter()
            .any(|(kind, spec)| field.starts_with(&format!("{kind}.")) && !values(spec, field).is_empty())
    };
    fields.iter().filter(is_set).cloned().collect()
}

#[test]
fn random_stories_edit_every_field_of_the_api() {
    let of_apps = fields::<App>();
    let of_others = [
        fields::<Release>(),
        fields::<Migration>(),
        fields::<Backup>(),
        fields::<Restore>(),
    ]
    .into_iter()
    .flatten()
    .collect::<BTreeSet<_>>();
    let mut missing: BTreeSet<String> = of_apps.difference(&edited(&of_apps)).cloned().collect();
    missing.extend(of_others.difference(&applied(&of_others)).cloned());
    let expected = NOT_EDITED.iter().map(|(field, _)| (*field).to_owned()).collect();
    assert_eq!(
        missing, expected,
        "add what edits a new field to EDITS or EVENTS in random.rs, or list it in NOT_EDITED with the reason"
    );
}
