//! The objects that Fairway writes, as a reviewer wants to see them. Names differ from the product's on purpose,
//! so that swapped values show.

#![allow(clippy::unwrap_used, reason = "a fixture that does not parse fails its test")]

use fairway_crds::app::BackupSettings;
use fairway_crds::backup::{BackupSet, Level};
use fairway_crds::database::CloneSettings;
use fairway_crds::{App, Backup, Migration, Release};
use fairway_plan::build::agent::{self, Pull};
use fairway_plan::build::deployment::{self, DeploymentInput};
use fairway_plan::build::nodes::Nodes;
use fairway_plan::build::{InvalidTemplate, control, service};
use fairway_plan::observed::{ProbeIdentity, Settings};
use fairway_plan::probe_token::ProbeKey;
use fairway_plan::protocol::{Resolution, Task};
use fairway_plan::snapshot::Snapshot;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Container, PodSpec, Service};
use kube::ResourceExt;
use rstest::rstest;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

const WEB: &str = "sha256:1111111111111111111111111111111111111111111111111111111111111111";
const PROXY: &str = "sha256:2222222222222222222222222222222222222222222222222222222222222222";

fn settings() -> Settings {
    Settings {
        agent_image: "registry.example/fairway:0.1.0".to_owned(),
        agent_pull_secrets: vec!["fairway-pull".to_owned()],
        agent_pull_policy: "IfNotPresent".to_owned(),
        agent_pods: Default::default(),
        agent_of_app: Default::default(),
        probe_key: ProbeKey::new([1; 32]),
    }
}

fn app() -> App {
    serde_json::from_value(json!({
        "apiVersion": "fairway.dev/v1alpha1",
        "kind": "App",
        "metadata": {"name": "crm", "namespace": "shop", "uid": "app-uid", "generation": 3},
        "spec": {
            "components": [
                {
                    "name": "web",
                    "replicas": 2,
                    "serves": {"service": "crm-http", "port": 80, "targetPort": 3000},
                    "health": {"http": [
                        {"path": "/api/health", "json": {"/ok": "true"}},
                        {"path": "/admin", "port": 3001, "headers": [
                            {"name": "Authorization", "valueFrom": {"secretKeyRef": {"name": "crm-probe", "key": "token"}}},
                            {"name": "X-Tenant", "value": "acme"}
                        ]}
                    ], "period": "500ms"},
                    "template": {
                        "metadata": {
                            "labels": {"app": "crm", "argocd.argoproj.io/instance": "crm-argo"},
                            "annotations": {"team": "sales", "meta.helm.sh/release-name": "crm-helm"}
                        },
                        "spec": {
                            "serviceAccountName": "crm-account",
                            "imagePullSecrets": [{"name": "crm-pull"}],
                            "nodeSelector": {"disk": "fast"},
                            "initContainers": [
                                {"name": "agent", "image": "ghcr.io/acme/wait:1", "command": ["wait-for", "db"]}
                            ],
                            "containers": [
                                {
                                    "name": "app",
                                    "image": "ghcr.io/acme/crm:2.11.0",
                                    "command": ["node", "server.js"],
                                    "ports": [{"containerPort": 3000}],
                                    "envFrom": [{"secretRef": {"name": "crm-env"}}],
                                    "env": [{"name": "FAIRWAY_TASK", "value": "not ours"}, {"name": "MODE", "value": "production"}],
                                    "livenessProbe": {"httpGet": {"path": "/live", "port": 3000}},
                                    "resources": {"limits": {"memory": "512Mi"}},
                                    "volumeMounts": [
                                        {"name": "ca", "mountPath": "/etc/crm/ca"},
                                        {"name": "uploads", "mountPath": "/uploads"}
                                    ]
                                },
                                {
                                    "name": "proxy",
                                    "image": "envoyproxy/envoy:v1",
                                    "lifecycle": {"preStop": {"exec": {"command": ["drain"]}}}
                                }
                            ],
                            "volumes": [
                                {"name": "ca", "configMap": {"name": "crm-ca"}},
                                {"name": "uploads", "persistentVolumeClaim": {"claimName": "crm-uploads"}}
                            ]
                        }
                    }
                },
                {
                    "name": "worker",
                    "strategy": "Recreate",
                    "template": {"spec": {
                        "terminationGracePeriodSeconds": 120,
                        "containers": [{"name": "worker", "image": "ghcr.io/acme/crm:2.11.0"}]
                    }}
                }
            ],
            "database": {
                "image": "postgres:16",
                "connection": {"urlFrom": {"secretKeyRef": {"name": "crm-db", "key": "url"}}}
            },
            "migration": {"component": "web", "command": ["sh", "-c", "migrate $(DATABASE_URL)"], "timeout": "20m"},
            "backup": {"scratch": {"size": "20Gi"}, "store": {"volume": {"claimName": "crm-backups"}}}
        }
    }))
    .unwrap()
}

fn snapshot() -> Snapshot {
    Snapshot::of(&app().spec)
}

fn digests() -> BTreeMap<String, String> {
    [
        ("web/agent", format!("ghcr.io/acme/wait@{PROXY}")),
        ("web/app", format!("ghcr.io/acme/crm@{WEB}")),
        ("web/proxy", format!("envoyproxy/envoy@{PROXY}")),
        ("worker/worker", format!("ghcr.io/acme/crm@{WEB}")),
    ]
    .map(|(container, image)| (container.to_owned(), image))
    .into()
}

fn release() -> Release {
    let snapshot = snapshot();
    let mut release = control::release(&app(), 42, &snapshot.hash(), snapshot.images(), "AppEdited", None);
    release.metadata.uid = Some("release-uid".to_owned());
    release.status = Some(fairway_crds::ReleaseStatus {
        digests: digests(),
        ..Default::default()
    });
    release
}

fn backup() -> Backup {
    serde_json::from_value(json!({
        "apiVersion": "fairway.dev/v1alpha1", "kind": "Backup",
        "metadata": {"name": "crm-42-release0", "namespace": "shop", "uid": "backup-uid"},
        "spec": {"app": "crm", "release": "crm-42"}
    }))
    .unwrap()
}

fn migration(form: Value) -> Migration {
    let mut migration: Value = json!({
        "apiVersion": "fairway.dev/v1alpha1", "kind": "Migration",
        "metadata": {"name": "crm-42", "namespace": "shop", "uid": "migration-uid"},
        "spec": {
            "app": "crm", "release": "crm-42", "component": "web", "timeout": "20m",
            "image": format!("ghcr.io/acme/crm@{WEB}"),
            "checks": [{"name": "no-orphans", "sql": "select $$x$$", "expect": "x"}]
        },
        "status": {"runId": "0123456789abcdef"}
    });
    migration["spec"]
        .as_object_mut()
        .unwrap()
        .extend(form.as_object().unwrap().clone());
    serde_json::from_value(migration).unwrap()
}

fn by_command() -> Migration {
    migration(json!({"command": ["sh", "-c", "migrate $(DATABASE_URL)"]}))
}

fn component_deployment(name: &str, replicas: i32) -> Deployment {
    deployment_on(Nodes::Any, name, replicas)
}

fn deployment_on(nodes: Nodes, name: &str, replicas: i32) -> Deployment {
    let (release, snapshot, images) = (release(), snapshot(), digests());
    deployment::deployment(&DeploymentInput {
        name: &format!("crm-{name}-42"),
        app: "crm",
        namespace: "shop",
        release: &release,
        revision: Some(&revision()),
        component: snapshot.component(name).unwrap(),
        images: &images,
        nodes,
        replicas,
        drain: Duration::from_millis(9_500),
    })
    .unwrap()
}

fn crm_service(release: &str, existing: Option<&Service>) -> Service {
    let (app, snapshot) = (app(), snapshot());
    let web = snapshot.component("web").unwrap();
    service::service(&app, web, web.serves.as_ref().unwrap(), release, existing)
}

/// The task that a container's agent finds after the kubelet has expanded the variable.
fn task(container: &Container) -> Task {
    let variables = container.env.iter().flatten();
    let found: Vec<_> = variables
        .filter(|variable| variable.name == "FAIRWAY_TASK")
        .collect();
    assert_eq!(found.len(), 1, "one task");
    let value = found[0].value.as_ref().unwrap();
    assert!(!value.replace("$$", "").contains('$'), "a lone $ in {value}");
    serde_json::from_str(&value.replace("$$", "$")).unwrap()
}

#[test]
fn a_serving_component() {
    insta::assert_yaml_snapshot!(component_deployment("web", 2));
}

fn revision() -> fairway_plan::ObjectRef {
    fairway_plan::ObjectRef {
        kind: fairway_plan::object::Kind::ControllerRevision,
        namespace: "shop".into(),
        name: "crm-42".into(),
        uid: "revision-uid".into(),
        resource_version: None,
    }
}

#[test]
fn a_component_that_never_runs_twice() {
    insta::assert_yaml_snapshot!(component_deployment("worker", 1));
}

#[test]
fn replicas_are_not_part_of_the_applied_hash() {
    let (two, three) = (component_deployment("web", 2), component_deployment("web", 3));
    assert!(!deployment::needs_apply(&three, Some(&two)));
    assert!(deployment::needs_apply(&two, None));
    let mut other = two.clone();
    other.metadata.annotations = None;
    assert!(deployment::needs_apply(&two, Some(&other)));
}

#[test]
fn pods_that_share_a_claim_of_one_node_run_beside_each_other() {
    let on_one = deployment_on(Nodes::One, "web", 2);
    insta::assert_yaml_snapshot!(on_one.spec.unwrap().template.spec.unwrap().affinity);
}

#[test]
fn an_invalid_template_is_refused_with_what_to_correct() {
    let mut snapshot = snapshot();
    snapshot.components[0].template = json!({"spec": {"containers": [{"name": "app", "ports": "3000"}]}});
    let (release, images) = (release(), digests());
    let error = deployment::deployment(&DeploymentInput {
        name: "crm-web-42",
        app: "crm",
        namespace: "shop",
        release: &release,
        revision: Some(&revision()),
        component: &snapshot.components[0],
        images: &images,
        nodes: Nodes::Any,
        replicas: 1,
        drain: Duration::ZERO,
    })
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "The template of component web is not a pod template: a value has the wrong type, expected a sequence. \
         Correct it in the App."
    );
}

#[test]
fn a_service_of_its_own() {
    insta::assert_yaml_snapshot!(crm_service("crm-42", None));
}

#[test]
fn a_service_of_the_team_only_gets_its_selector() {
    let theirs: Service =
        serde_json::from_value(json!({"metadata": {"name": "crm-http"}, "spec": {"ports": [{"port": 80}]}}))
            .unwrap();
    insta::assert_yaml_snapshot!(crm_service("crm-42", Some(&theirs)));
}

#[test]
fn a_changed_selector_is_applied_again() {
    let (before, after) = (crm_service("crm-41", None), crm_service("crm-42", None));
    assert_eq!(service::selected_release(&before), Some("crm-41"));
    assert!(service::needs_apply(&after, Some(&before)));
    assert!(!service::needs_apply(&after, Some(&after)));
    let mut meddled = after.clone();
    meddled.spec.as_mut().unwrap().selector = before.spec.unwrap().selector;
    assert!(service::needs_apply(&after, Some(&meddled)));
}

#[test]
fn a_release_and_its_snapshot() {
    let revision = control::controller_revision(&app(), "crm-42", 42, &snapshot());
    assert_eq!(control::snapshot_of(&revision).unwrap(), snapshot());
    insta::assert_yaml_snapshot!((
        control::release(&app(), 42, "abcd", snapshot().images(), "Retry", Some("crm-41")),
        revision.metadata
    ));
}

#[test]
fn the_pod_that_pulls_images() {
    let pulls = Pull::all(&snapshot(), &snapshot().images());
    insta::assert_yaml_snapshot!(agent::pin_pod(&settings(), &release(), &pulls[0], 1));
}

#[test]
fn the_preflight() {
    let to = app().spec.backup.unwrap();
    insta::assert_yaml_snapshot!(agent::preflight_job(
        &settings(),
        &release(),
        &snapshot(),
        Some(&to),
        2
    ));
}

#[test]
fn a_backup_with_scratch() {
    let to = app().spec.backup.unwrap();
    insta::assert_yaml_snapshot!(agent::backup_job(
        &settings(),
        &backup(),
        &snapshot(),
        &to,
        &digests(),
        1
    ));
}

/// Restoring a dump runs its code: the container in which that happens has nothing to steal.
#[test]
fn the_clone_has_no_secret_and_the_agent_has_not_its_data() {
    let mut app = app();
    app.spec.backup.as_mut().unwrap().store = serde_json::from_value(json!({"s3": {
        "bucket": "b", "region": "r", "endpoint": "https://s3.example",
        "credentialsFrom": {
            "accessKeyId": {"secretKeyRef": {"name": "s3", "key": "id"}},
            "secretAccessKey": {"secretKeyRef": {"name": "s3", "key": "secret"}}
        },
        "caFrom": {"secretKeyRef": {"name": "s3", "key": "ca"}}
    }}))
    .unwrap();
    let mut snapshot = Snapshot::of(&app.spec);
    let database = snapshot.database.as_mut().unwrap();
    database.clone = serde_json::from_value(json!({
        "settings": {"shared_preload_libraries": "$(FAIRWAY_DATABASE_URL)"},
        "resources": {"limits": {"memory": "1Gi"}},
        "withoutExtensions": ["timescaledb"]
    }))
    .unwrap();
    let to = app.spec.backup.unwrap();
    let job = agent::backup_job(&settings(), &backup(), &snapshot, &to, &digests(), 1);
    let template = job.spec.unwrap().template;
    let annotations = template.metadata.unwrap().annotations.unwrap();
    assert_eq!(annotations["eks.amazonaws.com/skip-containers"], "clone");
    let pod = template.spec.unwrap();
    let init = pod.init_containers.unwrap();
    let clone = init.iter().find(|container| container.name == "clone").unwrap();
    assert_eq!(clone.restart_policy.as_deref(), Some("Always"));
    assert_eq!(clone.image, pod.containers[0].image);
    let env = clone.env.clone().unwrap();
    assert!(
        env.iter().all(|variable| variable.value_from.is_none()),
        "{env:?}"
    );
    assert_eq!(env.len(), 1);
    assert!(
        env[0].value.as_ref().unwrap().contains("$$(FAIRWAY"),
        "nothing is expanded: {env:?}"
    );
    assert_eq!(
        clone.resources.clone().unwrap().limits.unwrap()["memory"].0,
        "1Gi"
    );
    let secret: Vec<_> = pod
        .volumes
        .unwrap()
        .into_iter()
        .filter(|volume| volume.empty_dir.is_none())
        .map(|volume| volume.name)
        .collect();
    assert!(!secret.is_empty());
    let mounts = clone.volume_mounts.clone().unwrap();
    assert!(
        mounts.iter().all(|mounted| !secret.contains(&mounted.name)),
        "{mounts:?}"
    );
    let writable: Vec<_> = mounts
        .iter()
        .filter(|mounted| mounted.read_only.is_none())
        .map(|mounted| &*mounted.mount_path)
        .collect();
    assert_eq!(writable, ["/etc/passwd", "/clone", "/clone-data"]);
    let agents = pod.containers[0].volume_mounts.clone().unwrap();
    assert!(agents.iter().all(|mounted| mounted.mount_path != "/clone-data"));
    let task = pod.containers[0].env.clone().unwrap()[0].value.clone().unwrap();
    assert!(task.contains("\"verify\":\"Restored\""), "{task}");
    assert!(task.contains("\"withoutExtensions\":[\"timescaledb\"]"), "{task}");
}

#[test]
fn a_backup_that_is_only_decoded_has_no_clone() {
    let to = BackupSettings {
        verify: Some(Level::Decoded),
        ..app().spec.backup.unwrap()
    };
    let job = agent::backup_job(&settings(), &backup(), &snapshot(), &to, &digests(), 1);
    let pod = job.spec.unwrap().template.spec.unwrap();
    assert_eq!(pod.init_containers.unwrap().len(), 1);
}

#[test]
fn an_edit_of_the_clone_is_no_release() {
    let mut app = app();
    let before = Snapshot::of(&app.spec);
    app.spec.database.as_mut().unwrap().clone = Some(CloneSettings::default());
    assert_eq!(Snapshot::of(&app.spec), before);
}

#[test]
fn the_removal_of_a_backup_needs_the_store_and_no_database() {
    let set = BackupSet {
        store: app().spec.backup.unwrap().store,
        path: agent::set_path(&backup()),
    };
    let job = agent::prune_job(&settings(), &backup(), &snapshot(), &set, 1);
    insta::assert_yaml_snapshot!(job);
}

#[test]
fn a_connection_in_parts_has_no_literal_secret() {
    let mut snapshot = snapshot();
    let database = snapshot.database.as_mut().unwrap();
    database.connection = serde_json::from_value(json!({
        "host": "db.shop", "port": 6432, "name": "crm$1",
        "userFrom": {"secretKeyRef": {"name": "crm-db", "key": "user"}},
        "passwordFrom": {"secretKeyRef": {"name": "crm-db", "key": "password"}}
    }))
    .unwrap();
    let to = BackupSettings {
        scratch: None,
        ..app().spec.backup.unwrap()
    };
    let job = agent::backup_job(&settings(), &backup(), &snapshot, &to, &digests(), 1);
    insta::assert_yaml_snapshot!(job.spec.unwrap().template.spec.unwrap().containers[0].env);
}

#[test]
fn a_migration_by_command() {
    let job = agent::migration_job(&settings(), &by_command(), Some(&release()), &snapshot(), 1).unwrap();
    insta::assert_yaml_snapshot!(job);
}

#[test]
fn a_migration_on_start() {
    let pod = agent::migration_pod(
        &settings(),
        &migration(json!({"onStart": {}})),
        Some(&release()),
        &snapshot(),
        1,
    )
    .unwrap();
    insta::assert_yaml_snapshot!(pod);
}

/// The mounts of a pod's agent that are of the team's ConfigMap.
fn mounts_of_the_team(pod: &PodSpec) -> Vec<String> {
    let agents = pod.init_containers.iter().flatten().chain(&pod.containers);
    let mounts = agents
        .filter(|container| container.name == agent::CONTAINER)
        .flat_map(|container| container.volume_mounts.clone().unwrap_or_default());
    let own = ["fairway-", "scratch", "store"];
    mounts
        .filter(|mounted| !own.iter().any(|own| mounted.name.starts_with(own)))
        .map(|mounted| mounted.mount_path)
        .collect()
}

#[test]
fn s18h_no_mount_takes_the_place_of_the_agent() {
    let mut app = app();
    let template = &mut app.spec.components[0].template;
    template["spec"]["containers"][0]["volumeMounts"] = [
        "/fairway",
        "/fairway/",
        "/fairway/fairway-agent",
        "//fairway/./fairway-agent",
        "/etc/../fairway/fairway-agent",
        "/fairway-agent",
        "/fairway-agent/",
        "/./fairway-agent",
        "/store/shop",
        "/etc/crm/ca",
    ]
    .iter()
    .map(|path| json!({"name": "ca", "mountPath": path, "subPath": "evil"}))
    .collect();
    let snapshot = Snapshot::of(&app.spec);
    let on_start = migration(json!({"onStart": {}}));
    let of_job = |job: Job| job.spec.unwrap().template.spec.unwrap();
    let run = agent::migration_job(&settings(), &by_command(), Some(&release()), &snapshot, 1).unwrap();
    let guard = agent::migration_pod(&settings(), &on_start, Some(&release()), &snapshot, 1).unwrap();
    let preflight = agent::preflight_job(&settings(), &release(), &snapshot, None, 1);
    let settle = agent::settle_job(&settings(), &by_command(), &snapshot, None, 1);
    for pod in [of_job(preflight), of_job(settle), guard.spec.unwrap()] {
        assert_eq!(mounts_of_the_team(&pod), ["/etc/crm/ca"]);
    }
    // In the team's own image the agent is in its folder alone.
    let run = mounts_of_the_team(&of_job(run));
    assert!(run.iter().all(|path| !path.contains("/fairway/")), "{run:?}");
    assert!(run.contains(&"/etc/crm/ca".to_owned()));
}

#[test]
fn the_kubelet_does_not_expand_a_command() {
    let job = agent::migration_job(&settings(), &by_command(), Some(&release()), &snapshot(), 1).unwrap();
    let pod = job.spec.unwrap().template.spec.unwrap();
    let Task::Migrate(task) = task(&pod.containers[0]) else {
        panic!("a migration")
    };
    assert_eq!(task.command, ["sh", "-c", "migrate $(DATABASE_URL)"]);
    assert_eq!(task.run.checks[0].sql, "select $$x$$");
    assert_eq!(
        (
            task.run.identity.run_id.as_str(),
            task.run.identity.image_digest.as_str()
        ),
        ("0123456789abcdef", WEB)
    );
}

#[test]
fn settling_with_a_verdict() {
    let verdict = Some((Resolution::NotApplied, "1763700000".to_owned()));
    insta::assert_yaml_snapshot!(agent::settle_job(
        &settings(),
        &by_command(),
        &snapshot(),
        verdict,
        3
    ));
}

fn identity() -> ProbeIdentity {
    ProbeIdentity {
        name: "crm-42-probe-01234567".to_owned(),
        token: settings().probe_key.token("shop", "crm-42", 1),
    }
}

/// S1: only the hash of the token stands in the pod.
#[test]
fn s1_a_probe_pod_holds_no_token() {
    let pod = agent::probe_pod(&settings(), &release(), &snapshot(), None, &identity());
    let text = serde_json::to_string(&pod).unwrap();
    assert!(text.contains(&identity().token.sha256()) && !text.contains(identity().token.secret()));
}

#[test]
fn the_pod_that_asks_with_headers_from_secrets() {
    insta::assert_yaml_snapshot!(agent::probe_pod(
        &settings(),
        &release(),
        &snapshot(),
        None,
        &identity()
    ));
}

#[test]
fn no_probe_pod_without_a_header_from_a_secret() {
    let mut snapshot = snapshot();
    snapshot.components[0].health.as_mut().unwrap().http.pop();
    assert_eq!(
        agent::probe_pod(&settings(), &release(), &snapshot, None, &identity()),
        None
    );
}

#[rstest]
#[case::component_is_missing(json!({"component": "db", "command": ["x"]}), InvalidTemplate::NoComponent { component: "db".into() })]
#[case::health_is_missing(json!({"component": "worker", "onStart": {}}), InvalidTemplate::NoHealth { component: "worker".into() })]
fn an_impossible_migration_says_what_is_missing(#[case] form: Value, #[case] expected: InvalidTemplate) {
    let migration = migration(form);
    let (settings, release, snapshot) = (settings(), release(), snapshot());
    let error = match migration.spec.on_start {
        Some(_) => agent::migration_pod(&settings, &migration, Some(&release), &snapshot, 1).unwrap_err(),
        None => agent::migration_job(&settings, &migration, Some(&release), &snapshot, 1).unwrap_err(),
    };
    assert_eq!(error, expected);
}

#[test]
fn names_of_objects_fit_their_limits() {
    let name = "x".repeat(52);
    let mut backup = backup();
    backup.metadata.name = Some(name.clone());
    let to = app().spec.backup.unwrap();
    let job = agent::backup_job(&settings(), &backup, &snapshot(), &to, &digests(), 300);
    assert!(job.name_any().len() <= 63, "{}", job.name_any());
}
