//! Where the agent's pods run, and as whom.

#![allow(clippy::unwrap_used, reason = "a fixture that does not parse fails its test")]

use fairway_crds::agent::AgentPods;
use fairway_crds::backup::BackupSet;
use fairway_crds::{App, Backup, Migration, Release};
use fairway_plan::build::agent::{self, Pull};
use fairway_plan::build::control;
use fairway_plan::observed::{ProbeIdentity, Settings};
use fairway_plan::snapshot::Snapshot;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, PodTemplateSpec};
use rstest::rstest;
use serde_json::{Value, json};

fn settings() -> Settings {
    Settings {
        agent_image: "registry.example/fairway:0.1.0".to_owned(),
        agent_pull_secrets: vec!["fairway-pull".to_owned()],
        agent_pull_policy: "IfNotPresent".to_owned(),
        agent_pods: AgentPods::default(),
        agent_of_app: AgentPods::default(),
        probe_key: fairway_plan::probe_token::ProbeKey::new([1; 32]),
    }
}

/// What ties a component to its place, as members of a PodSpec.
fn ties() -> Value {
    json!({
        "nodeSelector": {"pool": "crm"},
        "affinity": {
            "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}
            ]}},
            "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "kubernetes.io/hostname"}]}
        },
        "tolerations": [{"key": "pool", "operator": "Equal", "value": "crm", "effect": "NoSchedule"}],
        "runtimeClassName": "gvisor",
        "schedulerName": "volcano",
        "priorityClassName": "team",
        "hostAliases": [{"ip": "2001:db8::5", "hostnames": ["db.corp"]}],
        "dnsPolicy": "None",
        "dnsConfig": {"nameservers": ["2001:db8::53"], "options": [{"name": "ndots", "value": "1"}]},
        "imagePullSecrets": [{"name": "crm-pull"}],
        "serviceAccountName": "crm"
    })
}

fn app(template: Value) -> App {
    let mut spec = template;
    spec["containers"] = json!([{
        "name": "app",
        "image": "ghcr.io/acme/crm:2",
        "volumeMounts": [{"name": "ca", "mountPath": "/etc/ca"}]
    }]);
    spec["volumes"] = json!([{"name": "ca", "projected": {"sources": [
        {"serviceAccountToken": {"path": "token"}},
        {"configMap": {"name": "crm-ca"}},
        {"downwardAPI": {"items": []}}
    ]}}]);
    serde_json::from_value(json!({
        "apiVersion": "fairway.dev/v1alpha1",
        "kind": "App",
        "metadata": {"name": "crm", "namespace": "shop", "uid": "app-uid"},
        "spec": {
            "components": [
                {"name": "static", "template": {"spec": {"containers": [{"name": "nginx", "image": "nginx:1"}]}}},
                {
                    "name": "web",
                    "serves": {"service": "crm", "port": 80, "targetPort": 3000},
                    "health": {"http": [{"path": "/", "headers": [
                        {"name": "Authorization", "valueFrom": {"secretKeyRef": {"name": "crm-probe", "key": "token"}}}
                    ]}]},
                    "template": {"spec": spec}
                }
            ],
            "database": {
                "image": "postgres:16",
                "connection": {"urlFrom": {"secretKeyRef": {"name": "crm-db", "key": "url"}}}
            },
            "migration": {"component": "web", "command": ["migrate"]},
            "backup": {"store": {"volume": {"claimName": "crm-backups"}}}
        }
    }))
    .unwrap()
}

fn migration(form: Value) -> Migration {
    let mut spec = json!({
        "app": "crm", "release": "crm-1", "component": "web", "timeout": "20m",
        "image": format!("ghcr.io/acme/crm@sha256:{}", "1".repeat(64)),
    });
    spec.as_object_mut()
        .unwrap()
        .extend(form.as_object().unwrap().clone());
    serde_json::from_value(json!({
        "apiVersion": "fairway.dev/v1alpha1", "kind": "Migration",
        "metadata": {"name": "crm-1", "namespace": "shop", "uid": "migration-uid"},
        "spec": spec,
    }))
    .unwrap()
}

/// The spec of every pod of the agent that a release of this App may have, by what it does.
fn pods(settings: &Settings, app: &App) -> Vec<(&'static str, PodSpec)> {
    let templates = templates(settings, app).into_iter();
    templates
        .map(|(task, template)| (task, template.spec.unwrap()))
        .collect()
}

/// Every pod of the agent that a release of this App may have, by what it does.
fn templates(settings: &Settings, app: &App) -> Vec<(&'static str, PodTemplateSpec)> {
    let of_job = |job: Job| job.spec.unwrap().template;
    let of_pod = |pod: Pod| PodTemplateSpec {
        metadata: Some(pod.metadata),
        spec: pod.spec,
    };
    let snapshot = Snapshot::of(&app.spec);
    let mut release: Release = control::release(app, 1, "hash", snapshot.images(), "AppEdited", None);
    release.metadata.uid = Some("release-uid".to_owned());
    let backup: Backup = serde_json::from_value(json!({
        "apiVersion": "fairway.dev/v1alpha1", "kind": "Backup",
        "metadata": {"name": "crm-1-release0", "namespace": "shop", "uid": "backup-uid"},
        "spec": {"app": "crm", "release": "crm-1"}
    }))
    .unwrap();
    let identity = ProbeIdentity {
        name: "crm-1-probe-1".to_owned(),
        token: settings.probe_key.token("shop", "crm-1", 1),
    };
    let by_command = migration(json!({"command": ["migrate"]}));
    let on_start = migration(json!({"onStart": {}}));
    let to = app.spec.backup.clone().unwrap();
    let set = BackupSet {
        store: to.store.clone(),
        path: agent::set_path(&backup),
    };
    let pulls = Pull::all(&snapshot, &snapshot.images());
    let pull = pulls
        .iter()
        .find(|pull| pull.images.contains_key("web/app"))
        .unwrap();
    let run = agent::migration_job(settings, &by_command, Some(&release), &snapshot, 1).unwrap();
    let guarded = agent::migration_pod(settings, &on_start, Some(&release), &snapshot, 1).unwrap();
    vec![
        ("pin", of_pod(agent::pin_pod(settings, &release, pull, 1))),
        (
            "preflight",
            of_job(agent::preflight_job(settings, &release, &snapshot, Some(&to), 1)),
        ),
        (
            "backup",
            of_job(agent::backup_job(
                settings,
                &backup,
                &snapshot,
                &to,
                &snapshot.images(),
                1,
            )),
        ),
        (
            "prune",
            of_job(agent::prune_job(settings, &backup, &snapshot, &set, 1)),
        ),
        ("migrate", of_job(run)),
        ("guard", of_pod(guarded)),
        (
            "settle",
            of_job(agent::settle_job(settings, &by_command, &snapshot, None, 1)),
        ),
        (
            "probe",
            of_pod(agent::probe_pod(settings, &release, &snapshot, None, &identity).unwrap()),
        ),
    ]
}

fn fairways<'a>(task: &str, pod: &'a PodSpec) -> Vec<&'a Container> {
    let is_own = |container: &&Container| match task {
        // The team's command runs in it.
        "migrate" => container.name != "agent",
        "guard" => container.name == "agent",
        _ => true,
    };
    pod.init_containers
        .iter()
        .flatten()
        .chain(&pod.containers)
        .filter(is_own)
        .collect()
}

#[test]
fn f12_every_pod_of_the_agent_runs_where_its_component_runs() {
    for (task, pod) in pods(&settings(), &app(ties())) {
        let mut found = serde_json::to_value(&pod).unwrap();
        let mut expected = ties();
        expected["nodeSelector"]["kubernetes.io/os"] = json!("linux");
        expected["imagePullSecrets"]
            .as_array_mut()
            .unwrap()
            .push(json!({"name": "fairway-pull"}));
        // What ties pods to each other is for those that stay.
        let affinity = expected["affinity"].as_object_mut().unwrap();
        if task != "pin" {
            affinity.remove("podAntiAffinity");
        }
        for (member, value) in expected.as_object().unwrap() {
            assert_eq!(found[member].take(), *value, "{task}: {member}");
        }
    }
}

/// F11: where anti-affinity excludes the candidate's pods from the nodes of the previous ones, the pod that pulls its images
/// is excluded too, so that it is found before anything is changed.
#[rstest]
#[case::beside_the_previous_version("BlueGreen", json!({"topologyKey": "kubernetes.io/hostname"}), true)]
#[case::after_the_previous_version("Recreate", json!({"topologyKey": "kubernetes.io/hostname"}), false)]
#[case::within_one_version("BlueGreen", json!({"topologyKey": "kubernetes.io/hostname", "matchLabelKeys": ["pod-template-hash"]}), false)]
fn f11_the_pin_pod_is_kept_apart_as_the_candidate_is(
    #[case] strategy: &str,
    #[case] term: Value,
    #[case] is_apart: bool,
) {
    let required = json!({"requiredDuringSchedulingIgnoredDuringExecution": [term]});
    let mut app = app(json!({"affinity": {"podAntiAffinity": required}}));
    for component in &mut app.spec.components {
        component.strategy = serde_json::from_value(json!(strategy)).unwrap();
    }
    let pods = pods(&settings(), &app);
    let (_, pin) = pods.iter().find(|(task, _)| *task == "pin").unwrap();
    let apart = pin
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.pod_anti_affinity.clone());
    let expected = is_apart.then(|| serde_json::from_value(required).unwrap());
    assert_eq!(apart, expected);
}

#[test]
fn f12_the_agents_own_pods_are_for_linux_and_get_no_token() {
    for (task, pod) in pods(&settings(), &app(json!({}))) {
        assert_eq!(pod.node_selector.unwrap()["kubernetes.io/os"], "linux", "{task}");
        if !["migrate", "guard"].contains(&task) {
            assert_eq!(pod.os.unwrap().name, "linux", "{task}");
            assert_eq!(pod.automount_service_account_token, Some(false), "{task}");
        }
    }
}

#[test]
fn f12_files_of_a_projected_volume_are_there_but_no_token() {
    for (task, pod) in pods(&settings(), &app(json!({}))) {
        if !["preflight", "backup", "settle"].contains(&task) {
            continue;
        }
        let volume = pod
            .volumes
            .unwrap()
            .into_iter()
            .find(|volume| volume.projected.is_some());
        let sources = volume.unwrap().projected.unwrap().sources.unwrap();
        assert_eq!(
            serde_json::to_value(sources).unwrap(),
            json!([{"configMap": {"name": "crm-ca", "optional": true}}]),
            "{task}"
        );
        assert!(
            pod.containers[0]
                .volume_mounts
                .iter()
                .flatten()
                .any(|mount| mount.mount_path == "/etc/ca"),
            "{task}"
        );
    }
}

fn agent(settings: Value) -> AgentPods {
    serde_json::from_value(settings).unwrap()
}

#[rstest]
#[case::by_the_chart(true)]
#[case::by_the_app(false)]
fn f12_resources_and_user_can_be_set(#[case] by_chart: bool) {
    let said = agent(json!({
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
        "user": {"id": 1001},
    }));
    let mut settings = settings();
    let mut app = app(json!({}));
    if by_chart {
        settings.agent_pods = said;
    } else {
        app.spec.agent = Some(said);
    }
    for (task, pod) in pods(&settings.of_app(Some(&app)), &app) {
        for container in fairways(task, &pod) {
            let resources = serde_json::to_value(&container.resources).unwrap();
            let expected =
                json!({"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}});
            assert_eq!(resources, expected, "{task}: {}", container.name);
        }
        assert_eq!(users(task, &pod), [1001], "{task}");
    }
}

#[test]
fn f12_the_cluster_assigns_the_user_where_the_app_says_so() {
    let mut settings = settings();
    settings.agent_pods = agent(json!({"user": {"id": 1001}}));
    let mut app = app(json!({}));
    app.spec.agent = Some(agent(json!({"user": {"assigned": {}}})));
    for (task, pod) in pods(&settings.of_app(Some(&app)), &app) {
        assert_eq!(users(task, &pod), [0; 0], "{task}");
        let text = serde_json::to_string(&pod).unwrap();
        assert!(
            !text.contains("fsGroup") && !text.contains("runAsGroup"),
            "{task}: {text}"
        );
        assert!(text.contains(r#""runAsNonRoot":true"#), "{task}: {text}");
    }
}

/// The users that a pod names, for itself or a container.
fn users(task: &str, pod: &PodSpec) -> Vec<i64> {
    let of_pod = pod
        .security_context
        .as_ref()
        .and_then(|context| context.run_as_user);
    let of_containers = fairways(task, pod);
    let of_containers = of_containers
        .into_iter()
        .filter_map(|container| container.security_context.as_ref()?.run_as_user);
    let mut users: Vec<_> = of_pod.into_iter().chain(of_containers).collect();
    users.dedup();
    users
}

#[test]
fn f12_a_limit_alone_is_the_request_too() {
    let mut settings = settings();
    settings.agent_pods = agent(json!({"resources": {"limits": {"memory": "8Mi"}}}));
    let pods = pods(&settings, &app(json!({})));
    let resources = pods[0].1.containers[0].resources.clone().unwrap();
    assert_eq!(
        serde_json::to_value(resources).unwrap(),
        json!({"requests": {"cpu": "5m"}, "limits": {"memory": "8Mi"}})
    );
}

#[test]
fn f12_placement_can_be_set() {
    let mut settings = settings();
    settings.agent_pods = agent(json!({
        "nodeSelector": {"kubernetes.io/arch": "amd64", "pool": "any"},
        "tolerations": [{"key": "arch", "operator": "Exists"}],
        "priorityClassName": "low",
    }));
    let mut app = app(ties());
    app.spec.agent = Some(agent(json!({
        "nodeSelector": {"pool": "tools"},
        "tolerations": [{"key": "tools", "operator": "Exists"}],
        "priorityClassName": "high",
    })));
    for (task, pod) in pods(&settings.of_app(Some(&app)), &app) {
        // What shows where the component's images run stays there.
        let follows = ["pin", "migrate", "guard"].contains(&task);
        let nodes = pod.node_selector.unwrap();
        assert_eq!(nodes["pool"], if follows { "crm" } else { "tools" }, "{task}");
        assert_eq!(nodes["kubernetes.io/arch"], "amd64", "{task}");
        assert_eq!(pod.affinity.is_some(), follows, "{task}");
        let tolerations = pod.tolerations.unwrap();
        let keys: Vec<_> = tolerations
            .iter()
            .map(|toleration| toleration.key.as_deref().unwrap())
            .collect();
        assert_eq!(keys, ["pool", "arch", "tools"], "{task}");
        let priority = if ["migrate", "guard"].contains(&task) {
            "team"
        } else {
            "high"
        };
        assert_eq!(pod.priority_class_name.as_deref(), Some(priority), "{task}");
    }
}

#[test]
fn w20b_each_component_is_pulled_in_its_own_place() {
    let app = app(ties());
    let snapshot = Snapshot::of(&app.spec);
    let pulls = Pull::all(&snapshot, &snapshot.images());
    let images: Vec<Vec<_>> = pulls
        .iter()
        .map(|pull| pull.images.keys().map(String::as_str).collect())
        .collect();
    assert_eq!(images, [["static/nginx"], ["web/app"]]);
    let release = control::release(&app, 1, "hash", snapshot.images(), "AppEdited", None);
    let of = |pull: &Pull| {
        let pod = agent::pin_pod(&settings(), &release, pull, 1);
        (pod.metadata.name.unwrap(), pod.spec.unwrap().service_account_name)
    };
    assert_eq!(of(&pulls[0]), ("crm-1-pin-1".to_owned(), None));
    assert_eq!(
        of(&pulls[1]),
        ("crm-1-pin-1-2".to_owned(), Some("crm".to_owned()))
    );
}

#[test]
fn components_of_one_place_are_pulled_by_one_pod() {
    let app = app(json!({}));
    let snapshot = Snapshot::of(&app.spec);
    assert_eq!(Pull::all(&snapshot, &snapshot.images()).len(), 1);
}

/// What a pod says to injectors: its labels and annotations that do.
fn said_to_injectors(template: &PodTemplateSpec) -> Value {
    let mut meta = serde_json::to_value(&template.metadata).unwrap();
    for kind in ["labels", "annotations"] {
        if let Some(map) = meta[kind].as_object_mut() {
            map.retain(|key, _| key.contains("inject"));
        }
    }
    json!({"labels": meta["labels"], "annotations": meta["annotations"]})
}

#[test]
fn f12_injectors_are_kept_out_of_the_agents_own_pods() {
    let kept_out = json!({
        "labels": {"sidecar.istio.io/inject": "false", "kuma.io/sidecar-injection": "disabled"},
        "annotations": {
            "sidecar.istio.io/inject": "false", "linkerd.io/inject": "disabled",
            "consul.hashicorp.com/connect-inject": "false", "sidecar.opentelemetry.io/inject": "false",
        },
    });
    let mut own = templates(&settings(), &app(ties()));
    // What migrates is made from the team's template.
    own.retain(|(task, _)| !["migrate", "guard"].contains(task));
    assert_eq!(own.len(), 5);
    for (task, template) in own {
        assert_eq!(said_to_injectors(&template), kept_out, "{task}");
    }
}

#[test]
fn f12_work_on_the_database_joins_a_mesh_where_the_component_says_so() {
    let mut app = app(ties());
    for component in &mut app.spec.components {
        component.template["metadata"] = json!({
            "labels": {"sidecar.istio.io/inject": "true"}, "annotations": {"linkerd.io/inject": "enabled"},
        });
    }
    for (task, template) in templates(&settings(), &app) {
        let said = said_to_injectors(&template);
        let joins = task != "pin";
        assert_eq!(
            said["labels"]["sidecar.istio.io/inject"] == "true",
            joins,
            "{task}"
        );
        assert_eq!(
            said["annotations"]["sidecar.istio.io/inject"].is_null(),
            joins,
            "{task}"
        );
        assert_eq!(
            said["annotations"]["linkerd.io/inject"] == "enabled",
            joins,
            "{task}"
        );
    }
}
