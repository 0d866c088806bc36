//! Objects as tenants can make them.

use super::*;
use crate::kinds::*;
use rstest::rstest;
use serde_json::{Value, json};

fn bytes(object: &Value) -> Vec<u8> {
    serde_json::to_vec(object).unwrap()
}

fn metadata(name: &str) -> Value {
    json!({"namespace": "shop", "name": name, "uid": name, "resourceVersion": "7", "labels": {"fairway.dev/app": "crm"}})
}

fn app(template: &Value) -> Value {
    json!({
        "apiVersion": "fairway.dev/v1alpha1", "kind": "App", "metadata": metadata("crm"),
        "spec": {"components": [{"name": "web", "template": template}]},
    })
}

fn made_by_fairway(name: &str) -> Value {
    let mut metadata = metadata(name);
    metadata["managedFields"] =
        json!([{"manager": "kube-controller-manager"}, {"manager": "fairway", "fieldsV1": {"f:spec": {}}}]);
    metadata
}

#[track_caller]
fn unreadable<K: Cached>(json: &[u8]) -> (ObjectMeta, String) {
    match read::<K>(json) {
        Reading::Unreadable(metadata, why) => (metadata, why),
        other => panic!("{other:?}"),
    }
}

fn nested(levels: usize) -> Value {
    (0..levels).fold(json!(0), |inner, _| json!({"a": inner}))
}

/// S2: a template 140 levels deep, which serde_json alone refuses for the whole list, is unreadable by itself.
#[test]
fn s2_a_template_that_is_nested_too_deep_is_unreadable() {
    for levels in [70, 140, 100_000] {
        // Built as text, since a tree that deep cannot even be dropped.
        let deep = format!("{}0{}", r#"{"a":"#.repeat(levels), "}".repeat(levels));
        let text = String::from_utf8(bytes(&app(&json!("DEEP"))))
            .unwrap()
            .replace("\"DEEP\"", &deep);
        let (metadata, why) = unreadable::<App>(text.as_bytes());
        assert_eq!(metadata.name.as_deref(), Some("crm"));
        assert_eq!(metadata.resource_version.as_deref(), Some("7"));
        assert!(why.starts_with("it is nested deeper than 64 levels"), "{why}");
    }
    assert!(matches!(
        read::<App>(&bytes(&app(&nested(50)))),
        Reading::Object(_)
    ));
}

/// S5: 1.3 MB of empty objects, which take a hundred times that in memory.
#[test]
fn s5_a_template_of_empty_objects_is_unreadable() {
    let many = vec![json!({"": 0}); 160_000];
    let (metadata, why) = unreadable::<App>(&bytes(&app(&json!({"a": many}))));
    assert_eq!(metadata.name.as_deref(), Some("crm"));
    assert!(
        why.starts_with("it is too large: what Fairway reads of it takes more than 4096 KiB"),
        "{why}"
    );
}

/// S5: what planners do not look at is not read, whatever its size and depth.
#[test]
fn s5_what_nobody_looks_at_is_skipped() {
    let deployment = json!({
        "metadata": made_by_fairway("crm-web-1"),
        "spec": {"selector": {}, "template": {"spec": {
            "containers": [{"name": "web", "image": "crm:1", "env": [{"name": "A", "value": "x".repeat(900_000)}]}],
            "volumes": vec![json!({"": 0}); 100_000],
        }}},
    });
    let Reading::Object(deployment) = read::<Deployment>(&bytes(&deployment)) else {
        panic!("unreadable")
    };
    let kept = deployment.keep().unwrap();
    assert!(serde_json::to_vec(&*kept).unwrap().len() < 1000);
}

/// S5: also what is read has a bound.
#[test]
fn s5_a_deployment_of_a_thousand_containers_is_unreadable() {
    let container = json!({"name": "web", "image": "x".repeat(100)});
    let deployment = json!({
        "metadata": made_by_fairway("crm-web-1"),
        "spec": {"selector": {}, "template": {"spec": {"containers": vec![container; 1000]}}},
    });
    let (metadata, why) = unreadable::<Deployment>(&bytes(&deployment));
    assert_eq!(metadata.labels.unwrap()["fairway.dev/app"], "crm");
    assert!(why.starts_with("it is too large"), "{why}");
}

/// S5: of kinds that Fairway alone makes, the label does not make an object Fairway's.
#[rstest]
#[case::by_its_field_manager(made_by_fairway("crm-web-1"), true)]
#[case::by_its_owner({
    let mut metadata = metadata("crm-web-1");
    metadata["ownerReferences"] = json!([{"apiVersion": "fairway.dev/v1alpha1", "kind": "Release", "name": "crm-1", "uid": "r-1"}]);
    metadata
}, true)]
#[case::of_another_owner({
    let mut metadata = metadata("crm-web-1");
    metadata["ownerReferences"] = json!([{"apiVersion": "fairway.development/v1", "kind": "Release", "name": "crm-1", "uid": "r-1"}]);
    metadata
}, false)]
#[case::by_its_label_alone(metadata("crm-web-1"), false)]
fn s5_only_what_fairway_made_is_kept(#[case] metadata: Value, #[case] kept: bool) {
    let object = bytes(&json!({"metadata": metadata, "spec": {"selector": {}, "template": {}}}));
    let is_kept = match read::<Deployment>(&object) {
        Reading::Object(object) => {
            assert_eq!(object.keep().unwrap().metadata.managed_fields, None);
            true
        }
        Reading::Foreign(metadata) => {
            assert_eq!(metadata.name.as_deref(), Some("crm-web-1"));
            false
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(is_kept, kept);
}

#[test]
fn pods_are_kept_whoever_made_them() {
    let pod = bytes(&json!({"metadata": metadata("crm-web-1-x"), "spec": {"containers": []}}));
    assert!(matches!(read::<Pod>(&pod), Reading::Object(_)));
}

/// S2: what identifies an object is found although everything else is wrong.
#[rstest]
#[case::of_another_shape(r#"{"metadata": META, "spec": 3}"#)]
#[case::with_metadata_last(r#"{"spec": {"components": 7}, "metadata": META}"#)]
#[case::cut_off(r#"{"kind": "App", "metadata": META, "spec": {"components": [{"name": "we"#)]
#[case::with_labels_that_are_none(
    r#"{"metadata": {"name": "crm", "labels": {"fairway.dev/app": 3}}, "spec": 3}"#
)]
fn s2_an_unreadable_object_is_named(#[case] object: &str) {
    let object = object.replace("META", &metadata("crm").to_string());
    let (metadata, _) = unreadable::<App>(object.as_bytes());
    assert_eq!(metadata.name.as_deref(), Some("crm"));
}

/// S2: an unreadable object whose labels take more than there is room for.
#[test]
fn s2_an_object_of_labels_is_named() {
    let labels: serde_json::Map<_, _> = (0..20_000)
        .map(|number| (format!("fairway.dev/{number}"), json!("x".repeat(40))))
        .collect();
    let object =
        json!({"metadata": {"name": "crm", "namespace": "shop", "resourceVersion": "7", "labels": labels}});
    let (metadata, _) = unreadable::<Pod>(&bytes(&object));
    assert_eq!(metadata.name.as_deref(), Some("crm"));
}

#[rstest]
#[case("")]
#[case("7")]
#[case("[]")]
#[case("{}")]
#[case(r#"{"metadata": {"namespace": "shop"}}"#)]
#[case(r#"{"metadata": {"name": "crm""#)]
fn what_has_no_name_is_no_object(#[case] object: &str) {
    assert!(
        matches!(read::<App>(object.as_bytes()), Reading::Nameless(_)),
        "{object}"
    );
}

#[test]
fn s7_a_value_is_not_repeated() {
    let (_, why) = unreadable::<App>(&bytes(
        &app(&json!({"spec": 1}))
            .as_object()
            .map(|app| {
                let mut app = app.clone();
                app["spec"]["components"][0]["replicas"] = json!("hunter2");
                Value::Object(app)
            })
            .unwrap(),
    ));
    assert!(!why.contains("hunter2"), "{why}");
}

/// S5: an answer to a write, and a claim that is read by name.
#[test]
fn s5_an_answer_is_bounded() {
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata("data"), "spec": {"accessModes": ["ReadWriteOnce"]}});
    let read = read_found(&bytes(&claim)).unwrap();
    assert_eq!(read.data["spec"]["accessModes"][0], "ReadWriteOnce");
    let mut large = claim;
    large["spec"]["a"] = Value::from(vec![json!({"": 0}); 10_000]);
    assert!(read_found(&bytes(&large)).is_err());
    let answer = read_answer(&bytes(&large)).unwrap();
    assert_eq!(answer.metadata.resource_version.as_deref(), Some("7"));
    assert!(answer.data.get("spec").is_none());
}

/// S5: a tenant labels many pods and gives each 256 KiB of annotations that begin as Fairway's do: few are read, and none that
/// is long.
#[rstest]
#[case::of_other_names((0..4000).map(|number| (format!("fairway.dev/{number}"), "x".repeat(50))).collect())]
#[case::that_are_long(fairway_plan::labels::READ_ANNOTATIONS.map(|name| (name.to_owned(), "x".repeat(25_000))).into())]
fn s5_annotations_of_a_labelled_pod_are_not_kept(
    #[case] annotations: std::collections::BTreeMap<String, String>,
) {
    let mut metadata = metadata("crm-web-1-x");
    metadata["annotations"] = json!(annotations);
    metadata["annotations"]["fairway.dev/application"] = json!("web");
    let pod = json!({"metadata": metadata, "spec": {"containers": []}});
    let Reading::Object(read) = read::<Pod>(&bytes(&pod)) else {
        panic!("it cannot be read")
    };
    let text = |pod: &Pod| -> usize {
        let annotations = pod.metadata.annotations.iter().flatten();
        annotations.map(|(_, value)| value.len()).sum()
    };
    assert_eq!(text(&read), "web".len());
    let kept = |pod: Pod| pod.keep().unwrap().metadata.annotations.clone().unwrap();
    let expected = [("fairway.dev/application".to_owned(), "web".to_owned())].into();
    assert_eq!(kept(read), expected);
    let fed: Pod = serde_json::from_value(pod).unwrap();
    assert_eq!(kept(fed), expected);
}

/// What is read is what caches keep: whoever feeds the engine by other ways, as the simulator does, sees no more.
#[test]
fn s5_what_is_read_is_what_is_kept() {
    #[track_caller]
    fn same<K: Cached>(mut object: Value) {
        let mut metadata = made_by_fairway("crm-web-1");
        metadata["finalizers"] = json!(["a"]);
        metadata["generateName"] = json!("crm-");
        metadata["generation"] = json!(3);
        metadata["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
        metadata["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        metadata["deletionGracePeriodSeconds"] = json!(3);
        metadata["annotations"] = json!({"fairway.dev/applied-hash": "a", "other.dev/a": "b"});
        metadata["labels"]["app"] = json!("crm");
        metadata["ownerReferences"] =
            json!([{"apiVersion": "fairway.dev/v1alpha1", "kind": "Release", "name": "crm-1", "uid": "r-1"}]);
        object["metadata"] = metadata;
        let Reading::Object(read) = read::<K>(&bytes(&object)) else {
            panic!("unreadable {object}")
        };
        let fed: K = serde_json::from_value(object).unwrap();
        let kept = |object: K| serde_json::to_value(&*object.keep().unwrap()).unwrap();
        assert_eq!(kept(read), kept(fed));
    }
    let container = json!({"name": "web", "image": "crm:1", "restartPolicy": "Always", "command": ["a"], "env": [{"name": "A", "value": "b"}]});
    let pod = json!({
        "containers": [container], "initContainers": [container], "nodeName": "n", "restartPolicy": "Never",
        "serviceAccountName": "a", "volumes": [{"name": "v", "emptyDir": {}}], "nodeSelector": {"a": "b"},
    });
    let template = json!({"metadata": {"name": "x", "labels": {"a": "b"}, "annotations": {"fairway.dev/a": "b", "c": "d"}}, "spec": pod});
    same::<Deployment>(json!({
        "spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "template": template, "paused": true,
                 "strategy": {"type": "Recreate"}, "minReadySeconds": 3, "revisionHistoryLimit": 0, "progressDeadlineSeconds": 4},
        "status": {"replicas": 2, "observedGeneration": 3, "conditions": [{"type": "Available", "status": "True"}]},
    }));
    same::<Job>(json!({
        "spec": {"parallelism": 1, "completions": 1, "backoffLimit": 0, "activeDeadlineSeconds": 9, "suspend": false,
                 "selector": {"matchLabels": {"a": "b"}}, "template": template, "ttlSecondsAfterFinished": 5, "completionMode": "Indexed"},
        "status": {"active": 1, "conditions": [{"type": "Failed", "status": "True"}]},
    }));
    same::<Pod>(
        json!({"spec": pod, "status": {"phase": "Running", "podIP": "10.0.0.1", "containerStatuses": [
            {"name": "web", "image": "crm:1", "imageID": "x", "ready": true, "restartCount": 1, "state": {"running": {}}},
        ]}}),
    );
    same::<Service>(json!({
        "spec": {"selector": {"a": "b"}, "ports": [{"port": 80, "targetPort": "http"}], "type": "LoadBalancer"},
        "status": {"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}]}},
    }));
    same::<EndpointSlice>(json!({
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": true}, "nodeName": "n", "zone": "z", "hostname": "h",
                       "hints": {"forZones": [{"name": "z"}]}, "targetRef": {"kind": "Pod", "name": "crm-web-1-x", "uid": "u"}}],
        "ports": [{"port": 3000, "protocol": "TCP"}],
    }));
    let mut app = app(&json!({"spec": pod}));
    app["status"] = json!({"revision": 3, "conditions": []});
    same::<App>(app);
    same::<Release>(json!({
        "apiVersion": "fairway.dev/v1alpha1", "kind": "Release", "spec": {"app": "crm", "revision": 1},
    }));
}

/// S14: of who owns which field is kept what tells that another manager has changed a Deployment's spec.
#[rstest]
#[case::of_an_image(json!({"f:spec": {"f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"web\"}": {"f:image": {}}}}}}}), true)]
#[case::of_a_label_of_pods(json!({"f:spec": {"f:template": {"f:metadata": {"f:labels": {"f:team": {}}}}}}), true)]
#[case::of_an_annotation_of_pods(json!({"f:spec": {"f:template": {"f:metadata": {"f:annotations": {".": {}, "f:a": {}}}}}}), true)]
#[case::of_the_strategy(json!({"f:spec": {"f:strategy": {"f:type": {}}}}), true)]
#[case::of_a_restart(json!({"f:spec": {"f:template": {"f:metadata": {"f:annotations": {".": {}, "f:kubectl.kubernetes.io/restartedAt": {}}}}}}), false)]
#[case::of_the_replicas(json!({"f:spec": {"f:replicas": {}}}), false)]
#[case::of_a_pause(json!({"f:spec": {"f:paused": {}}}), false)]
#[case::of_the_status(json!({"f:metadata": {"f:annotations": {}}, "f:status": {"f:replicas": {}}}), false)]
fn s14_a_change_of_another_manager_is_kept(#[case] owned: Value, #[case] counts: bool) {
    let mut metadata = made_by_fairway("crm-web-1");
    let managers = metadata["managedFields"].as_array_mut().unwrap();
    managers.push(json!({"manager": "kubectl-set", "operation": "Update", "fieldsV1": owned}));
    let deployment = json!({"metadata": metadata, "spec": {"selector": {}, "template": {}}});
    let Reading::Object(deployment) = read::<Deployment>(&bytes(&deployment)) else {
        panic!("it cannot be read")
    };
    let kept = deployment.keep().unwrap();
    let expected: &[&str] = if counts { &["kubectl-set"] } else { &[] };
    assert_eq!(fairway_plan::build::deployment::changed_by(&kept), expected);
}

/// F15: of a Deployment that a user has labelled so that a component takes over from it, little is kept; one that only claims
/// to be Fairway's is not kept at all (S5).
#[rstest]
#[case::of_a_component(json!({"fairway.dev/component": "web"}), true)]
#[case::without_a_component(json!({}), false)]
#[case::of_a_release(json!({"fairway.dev/component": "web", "fairway.dev/release": "crm-1"}), false)]
fn f15_a_deployment_of_the_team_is_kept_without_its_template(#[case] labels: Value, #[case] kept: bool) {
    let mut metadata = metadata("old-web");
    metadata["labels"]
        .as_object_mut()
        .unwrap()
        .extend(labels.as_object().unwrap().clone());
    metadata["managedFields"] =
        json!([{"manager": "kubectl-edit", "fieldsV1": {"f:spec": {"f:template": {"f:spec": {}}}}}]);
    let container = json!({"name": "web", "image": "crm:0"});
    let template = json!({"metadata": {"labels": {"app": "old-web"}}, "spec": {"containers": [container]}});
    let selector = json!({"matchLabels": {"app": "old-web"}});
    let object =
        json!({"metadata": metadata, "spec": {"replicas": 2, "selector": selector, "template": template}});
    let found = match read::<Deployment>(&bytes(&object)) {
        Reading::Object(object) => object.keep(),
        Reading::Foreign(_) => None,
        other => panic!("{other:?}"),
    };
    assert_eq!(found.is_some(), kept);
    let Some(found) = found else { return };
    let spec = found.spec.clone().unwrap();
    assert_eq!((spec.replicas, spec.template), (Some(2), Default::default()));
    assert_eq!(spec.selector.match_labels.unwrap()["app"], "old-web");
    assert_eq!(found.metadata.managed_fields, None);
}
