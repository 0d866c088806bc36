//! Objects as users write them are accepted.

use super::{ANY, DIGEST, Effect, Refusal, app, backup, client, create, migration, release};
use anyhow::Result;
use rstest::rstest;
use serde_json::{Value, json};

#[rstest]
#[case::an_app_with_everything(app())]
#[case::a_release_by_hand(release())]
#[case::a_migration(migration())]
#[case::a_backup_by_hand(backup())]
#[case::the_smallest_app(json!({
    "apiVersion": "fairway.dev/v1alpha1", "kind": "App", "metadata": {"name": "hello"},
    "spec": {"components": [{"name": "web", "template": {"spec": {"containers": [{"name": "web"}]}}}]}
}))]
#[case::on_start(edited(app(), |spec| {
    spec["migration"] = json!({"component": "web", "onStart": {}});
}))]
#[case::a_connection_by_parts(edited(app(), |spec| {
    let from = |key: &str| json!({"secretKeyRef": {"name": "crm-db", "key": key}});
    spec["database"]["connection"] = json!({
        "host": "crm-db", "port": 5432, "name": "crm", "userFrom": from("user"), "passwordFrom": from("password")
    });
}))]
#[case::a_database_address_of_version_six(edited(app(), |spec| {
    let from = |key: &str| json!({"secretKeyRef": {"name": "crm-db", "key": key}});
    spec["database"]["connection"] = json!({
        "host": "fd00::12", "name": "crm", "userFrom": from("user"), "passwordFrom": from("password")
    });
}))]
#[case::several_components_that_serve(edited(app(), |spec| {
    let mut api = spec["components"][0].clone();
    api["name"] = json!("api");
    api["serves"]["service"] = json!("crm-api");
    spec["components"].as_array_mut().unwrap().push(api);
}))]
#[case::durations_of_every_unit(edited(app(), |spec| {
    spec["components"][0]["health"]["period"] = json!("500ms");
    spec["components"][0]["health"]["deadline"] = json!("1h30m");
    spec["policy"]["bake"]["for"] = json!("0s");
}))]
#[case::a_schedule_in_utc(edited(app(), |spec| {
    spec["backup"]["schedule"] = json!({"cron": "*/30 8-18 * jan-nov MON,5"});
    spec["backup"]["keep"] = json!({"last": 3, "daily": 7, "weekly": 4, "monthly": 6, "yearly": 0});
}))]
#[case::a_backup_that_is_restored(edited(app(), |spec| {
    spec["backup"]["verify"] = json!("Restored");
    spec["database"]["clone"] = json!({
        "settings": {"shared_preload_libraries": "timescaledb", "timescaledb.max_background_workers": "4"},
        "resources": {"limits": {"memory": "1Gi"}}, "withoutExtensions": ["pg_cron"]
    });
}))]
#[case::everything_a_pod_may_have(edited(app(), |spec| {
    spec["components"][0]["template"]["spec"]["volumes"] = json!([{"name": "tmp", "emptyDir": {}}]);
    spec["components"][0]["template"]["spec"]["initContainers"] = json!([
        {"name": "proxy", "image": "proxy:1", "restartPolicy": "Always", "ports": [{"containerPort": 15000}]}
    ]);
    spec["components"][0]["template"]["spec"]["containers"][0]["readinessProbe"] = json!({"httpGet": {"path": "/", "port": 3000}});
}))]
// The API server drops a null of a field that is not nullable: Helm charts and scripts write them.
#[case::nulls_are_fields_not_given(edited(app(), |spec| {
    spec["components"][1]["serves"] = Value::Null;
    spec["components"][1]["health"] = Value::Null;
    spec["migration"]["onStart"] = Value::Null;
}))]
#[case::the_longest_names(edited(json!({
    "apiVersion": "fairway.dev/v1alpha1", "kind": "Release", "metadata": {"name": format!("{}-999999", "a".repeat(30))}, "spec": {}
}), |spec| *spec = json!({"app": "a".repeat(30), "revision": 999_999})))]
#[tokio::test]
async fn it_is_let_in(#[case] object: Value) -> Result<()> {
    let answer = create(&client().await?, ANY, &object, Effect::DryRun, None).await?;
    assert!(answer.is_ok(), "{answer:?}");
    Ok(())
}

#[tokio::test]
async fn what_is_not_given_has_its_default() -> Result<()> {
    let object = json!({
        "apiVersion": "fairway.dev/v1alpha1", "kind": "App", "metadata": {"name": "hello"},
        "spec": {"components": [{
            "name": "web",
            "serves": {"service": "hello", "port": 80, "targetPort": 8080},
            "health": {"http": [{"path": "/"}]},
            "template": {"spec": {"containers": [{"name": "web", "image": format!("hello@{DIGEST}")}]}}
        }]}
    });
    let stored = expect(create(&client().await?, ANY, &object, Effect::DryRun, None).await?);
    let spec = &stored["spec"];
    assert_eq!(spec["suspend"], json!(false));
    assert_eq!(spec["policy"], json!({"bake": {"for": "10m"}}));
    assert_eq!(spec["traffic"], json!({"driver": "Service", "drain": "10s"}));
    let component = &spec["components"][0];
    assert_eq!(
        (&component["replicas"], &component["strategy"]),
        (&json!(1), &json!("BlueGreen"))
    );
    let health = json!({
        "http": [{"path": "/", "status": 200, "scheme": "HTTP"}],
        "successThreshold": 3, "failureThreshold": 3, "period": "1s", "deadline": "5m"
    });
    assert_eq!(component["health"], health);
    Ok(())
}

fn expect(answer: Result<Value, Refusal>) -> Value {
    answer.unwrap_or_else(|refusal| panic!("refused: {refusal:?}"))
}

fn edited(mut object: Value, edit: impl FnOnce(&mut Value)) -> Value {
    edit(&mut object["spec"]);
    object
}
