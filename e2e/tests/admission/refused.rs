//! Bad input is refused with one message that names the field and the fix.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "the helpers of a test fail as the test does"
)]

use super::{ANY, Effect, app, client, create, migration, release};
use anyhow::Result;
use rstest::rstest;
use serde_json::{Value, json};

/// What a case changes in an object that is fine.
type Spoil = fn(&mut Value);

#[rstest]
// Names
#[case::the_name_is_too_long(|app: &mut Value| app["metadata"]["name"] = json!("a".repeat(31)),
    "", "use a-z, 0-9 and -")]
#[case::the_name_has_dots(|app: &mut Value| app["metadata"]["name"] = json!("crm.shop"),
    "", "must be a DNS label of at most 30 characters")]
#[case::the_name_of_a_component_is_too_long(|app: &mut Value| component(app)["name"] = json!("a-component-too-long"),
    "spec.components[0].name", "may not be more than 16")]
#[case::the_name_of_a_component_is_no_label(|app: &mut Value| { app["spec"]["migration"]["component"] = json!("Web"); component(app)["name"] = json!("Web"); },
    "spec.components[0].name", "use a-z, 0-9 and -")]
// Components
#[case::no_component(|app: &mut Value| { app["spec"] = json!({"components": []}); },
    "spec.components", "should have at least 1 items")]
#[case::two_components_serve_one_service(|app: &mut Value| {
        let mut twin = component(app).clone();
        twin["name"] = json!("twin");
        app["spec"]["components"].as_array_mut().unwrap().push(twin);
    }, "spec.components", "two components serve the same Service; give each its own serves.service")]
#[case::a_serving_component_without_health(|app: &mut Value| { component(app).as_object_mut().unwrap().remove("health"); },
    "spec.components[0].serves", "add health.http with at least one path")]
#[case::no_replicas_of_what_serves(|app: &mut Value| component(app)["replicas"] = json!(0),
    "spec.components[0].replicas", "set replicas to 1 or more, or remove serves")]
#[case::too_many_replicas(|app: &mut Value| component(app)["replicas"] = json!(1001),
    "spec.components[0].replicas", "less than or equal to 1000")]
#[case::health_without_serves_and_port(|app: &mut Value| { component(app).as_object_mut().unwrap().remove("serves"); },
    "spec.components[0].health", "add one, such as port: 3000")]
#[case::another_strategy(|app: &mut Value| component(app)["strategy"] = json!("Kill"),
    "spec.components[0].strategy", "supported values: \"BlueGreen\", \"Recreate\"")]
// Health
#[case::no_health_request(|app: &mut Value| component(app)["health"]["http"] = json!([]),
    "spec.components[0].health.http", "should have at least 1 items")]
#[case::a_health_path_that_is_a_url(|app: &mut Value| component(app)["health"]["http"][0]["path"] = json!("http://crm/health"),
    "spec.components[0].health.http[0].path", "must be a path that starts with /, such as /api/health")]
#[case::a_status_that_there_is_not(|app: &mut Value| component(app)["health"]["http"][0]["status"] = json!(99),
    "spec.components[0].health.http[0].status", "greater than or equal to 100")]
#[case::a_duration_that_does_not_parse(|app: &mut Value| component(app)["health"]["period"] = json!("one second"),
    "spec.components[0].health.period", "use whole numbers with ms, s, m or h, such as 1s")]
#[case::a_duration_without_unit(|app: &mut Value| component(app)["health"]["deadline"] = json!("5"),
    "spec.components[0].health.deadline", "use whole numbers with ms, s, m or h, such as 5m")]
#[case::a_duration_out_of_range(|app: &mut Value| component(app)["health"]["period"] = json!("1ms"),
    "spec.components[0].health.period", "must be a duration from 100ms to 5m")]
#[case::a_deadline_over_before_any_pod_could_pass(|app: &mut Value| { component(app)["health"]["period"] = json!("2m"); component(app)["health"]["successThreshold"] = json!(3); },
    "spec.components[0].health.deadline", "set it to more than period times successThreshold")]
#[case::a_header_with_value_and_value_from(|app: &mut Value| header(app)["valueFrom"] = json!({"secretKeyRef": {"name": "a", "key": "b"}}),
    "spec.components[0].health.http[1].headers[0]", "exactly one of value and valueFrom; set one")]
#[case::a_header_with_neither(|app: &mut Value| { header(app).as_object_mut().unwrap().remove("value"); },
    "spec.components[0].health.http[1].headers[0]", "exactly one of value and valueFrom; set one")]
#[case::a_header_of_two_lines(|app: &mut Value| header(app)["value"] = json!("a\r\nHost: b"),
    "spec.components[0].health.http[1].headers[0].value", "remove the line break")]
#[case::the_host_header_as_a_header(|app: &mut Value| header(app)["name"] = json!("Host"),
    "spec.components[0].health.http[1].headers[0].name", "and set the Host header in the field host")]
// The template
#[case::host_network(|app: &mut Value| pod(app)["hostNetwork"] = json!(true),
    "spec.components[0].template.spec.hostNetwork", "remove it and use serves")]
#[case::a_host_port(|app: &mut Value| pod(app)["containers"][0]["ports"][0]["hostPort"] = json!(80),
    "spec.components[0].template.spec.containers", "hostPort is not allowed")]
#[case::a_host_port_of_a_sidecar(|app: &mut Value| pod(app)["initContainers"] = json!([{"name": "a", "ports": [{"containerPort": 80, "hostPort": 80}]}]),
    "spec.components[0].template.spec.initContainers", "hostPort is not allowed")]
#[case::no_container(|app: &mut Value| pod(app)["containers"] = json!([]),
    "spec.components[0].template.spec.containers", "should have at least 1 items")]
#[case::a_digest_that_does_not_parse(|app: &mut Value| pod(app)["containers"][0]["image"] = json!("crm@sha256:abc"),
    "spec.components[0].template.spec.containers[0].image", "repository@sha256: with all 64 hex digits")]
#[case::labels_of_fairway(|app: &mut Value| component(app)["template"]["metadata"]["labels"] = json!({"fairway.dev/app": "other"}),
    "spec.components[0].template.metadata.labels", "reserved, because Services select pods by them; remove them")]
// Database, migration and backup
#[case::a_url_and_a_host(|app: &mut Value| app["spec"]["database"]["connection"]["host"] = json!("crm-db"),
    "spec.database.connection", "exactly one of urlFrom and host; set urlFrom alone")]
#[case::neither_url_nor_host(|app: &mut Value| app["spec"]["database"]["connection"] = json!({}),
    "spec.database.connection", "exactly one of urlFrom and host; set urlFrom alone")]
#[case::a_host_without_the_other_parts(|app: &mut Value| app["spec"]["database"]["connection"] = json!({"host": "crm-db", "name": "crm"}),
    "spec.database.connection.host", "add the missing fields")]
#[case::a_url_with_a_part(|app: &mut Value| app["spec"]["database"]["connection"]["port"] = json!(5432),
    "spec.database.connection.urlFrom", "remove those fields, or urlFrom")]
#[case::an_image_with_spaces(|app: &mut Value| app["spec"]["database"]["image"] = json!("postgres: 16"),
    "spec.database.image", "without spaces")]
#[case::a_migration_of_a_component_that_is_not_there(|app: &mut Value| app["spec"]["migration"]["component"] = json!("wbe"),
    "spec.migration.component", "does not exist; set it to the name of a component in spec.components")]
#[case::a_migration_in_a_container_that_is_not_there(|app: &mut Value| app["spec"]["migration"]["container"] = json!("wbe"),
    "spec.migration.container", "does not exist; set it to the name of a container in the template")]
#[case::a_command_and_on_start(|app: &mut Value| app["spec"]["migration"]["onStart"] = json!({}),
    "spec.migration", "exactly one of command")]
#[case::neither_command_nor_on_start(|app: &mut Value| { app["spec"]["migration"].as_object_mut().unwrap().remove("command"); },
    "spec.migration", "exactly one of command")]
#[case::on_start_without_health(|app: &mut Value| app["spec"]["migration"] = json!({"component": "worker", "onStart": {}}),
    "spec.migration.onStart", "requires health on its component")]
#[case::a_timeout_without_end(|app: &mut Value| app["spec"]["migration"]["timeout"] = json!("48h"),
    "spec.migration.timeout", "must be a duration from 10s to 24h")]
#[case::a_migration_without_a_database(|app: &mut Value| remove(app, "database"),
    "spec.migration", "add it with image and connection")]
#[case::a_migration_without_a_backup(|app: &mut Value| remove(app, "backup"),
    "spec.migration", "requires spec.backup.store")]
#[case::a_backup_without_a_database(|app: &mut Value| { remove(app, "database"); remove(app, "migration"); },
    "spec.backup", "requires spec.database")]
#[case::a_scratch_that_is_no_size(|app: &mut Value| app["spec"]["backup"]["scratch"]["size"] = json!("twenty"),
    "spec.backup.scratch.size", "use a number with Mi, Gi or Ti, such as 20Gi")]
#[case::restored_without_scratch(|app: &mut Value| { app["spec"]["backup"].as_object_mut().unwrap().remove("scratch"); app["spec"]["backup"]["verify"] = json!("Restored"); },
    "spec.backup.verify", "requires backup.scratch")]
#[case::a_setting_with_a_line_break(|app: &mut Value| app["spec"]["database"]["clone"] = json!({"settings": {"jit": "on\nfsync = on"}}),
    "spec.database.clone.settings", "remove the line break")]
#[case::a_claim_with_its_namespace(|app: &mut Value| app["spec"]["backup"]["store"]["volume"]["claimName"] = json!("shop/backups"),
    "spec.backup.store.volume.claimName", "without a namespace")]
#[case::two_stores(|app: &mut Value| app["spec"]["backup"]["store"]["s3"] = json!({"bucket": "backups", "region": "eu-central-1"}),
    "spec.backup.store", "exactly one of volume, s3 and webdav")]
#[case::no_store(|app: &mut Value| app["spec"]["backup"]["store"] = json!({}),
    "spec.backup.store", "exactly one of volume, s3 and webdav")]
#[case::a_bucket_with_its_folder(|app: &mut Value| app["spec"]["backup"]["store"] = json!({"s3": {"bucket": "backups/crm", "region": "eu-central-1"}}),
    "spec.backup.store.s3.bucket", "set the folder in prefix")]
#[case::a_bucket_nowhere(|app: &mut Value| app["spec"]["backup"]["store"] = json!({"s3": {"bucket": "backups"}}),
    "spec.backup.store.s3", "requires an endpoint, or the region")]
#[case::an_endpoint_with_a_password(|app: &mut Value| app["spec"]["backup"]["store"] = json!({"s3": {"bucket": "backups", "endpoint": "https://user:secret@minio:9000"}}),
    "spec.backup.store.s3.endpoint", "without path, user and password")]
#[case::a_prefix_that_leads_out(|app: &mut Value| app["spec"]["backup"]["store"] = json!({"s3": {"bucket": "backups", "region": "x", "prefix": "a/../b"}}),
    "spec.backup.store.s3.prefix", "must be a folder such as")]
#[case::a_share_with_a_user_alone(|app: &mut Value| app["spec"]["backup"]["store"] = json!({"webdav": {"endpoint": "https://dav.example.com", "userFrom": {"secretKeyRef": {"name": "dav", "key": "user"}}}}),
    "spec.backup.store.webdav", "requires userFrom and passwordFrom together")]
#[case::certificates_from_nowhere(|app: &mut Value| app["spec"]["backup"]["store"] = json!({"webdav": {"endpoint": "https://dav.example.com", "caFrom": {}}}),
    "spec.backup.store.webdav.caFrom", "exactly one of configMapKeyRef and secretKeyRef")]
#[case::a_schedule_with_seconds(|app: &mut Value| app["spec"]["backup"]["schedule"] = json!({"cron": "0 15 2 * * *"}),
    "spec.backup.schedule.cron", "such as 15 2 * * *, without seconds")]
#[case::a_schedule_by_name(|app: &mut Value| app["spec"]["backup"]["schedule"] = json!({"cron": "@reboot"}),
    "spec.backup.schedule.cron", "without names such as @daily")]
#[case::a_schedule_with_its_zone(|app: &mut Value| app["spec"]["backup"]["schedule"] = json!({"cron": "15 2 * * * Europe/Warsaw"}),
    "spec.backup.schedule.cron", "must be five fields of cron")]
#[case::a_retention_that_keeps_nothing(|app: &mut Value| app["spec"]["backup"]["keep"] = json!({"last": 0}),
    "spec.backup.keep.last", "greater than or equal to 1")]
#[case::a_zone_with_spaces(|app: &mut Value| app["spec"]["backup"]["schedule"] = json!({"cron": "15 2 * * *", "timeZone": "Europe / Warsaw"}),
    "spec.backup.schedule.timeZone", "use one such as Europe/Warsaw, or UTC")]
// Traffic and policy
#[case::another_driver(|app: &mut Value| app["spec"]["traffic"]["driver"] = json!("Gateway"),
    "spec.traffic.driver", "supported values: \"Service\"")]
#[case::a_drain_too_long(|app: &mut Value| app["spec"]["traffic"]["drain"] = json!("1h"),
    "spec.traffic.drain", "must be a duration from 0s to 10m")]
#[case::a_bake_that_does_not_parse(|app: &mut Value| app["spec"]["policy"]["bake"]["for"] = json!("1d"),
    "spec.policy.bake.for", "use whole numbers with ms, s, m or h, such as 10m")]
#[tokio::test]
async fn an_app(#[case] spoil: Spoil, #[case] field: &str, #[case] message: &str) -> Result<()> {
    refused(app(), spoil, field, message).await
}

#[rstest]
#[case::whose_name_is_not_its_app_and_revision(|release: &mut Value| release["metadata"]["name"] = json!("crm-43"),
    "", "for app crm and revision 42 use crm-42")]
#[case::whose_name_is_of_another_app(|release: &mut Value| release["metadata"]["name"] = json!("shop-42"),
    "", "for app crm and revision 42 use crm-42")]
#[case::of_revision_zero(|release: &mut Value| { release["spec"]["revision"] = json!(0); release["metadata"]["name"] = json!("crm-0"); },
    "spec.revision", "greater than or equal to 1")]
#[case::with_a_digest_that_does_not_parse(|release: &mut Value| release["spec"]["images"]["web"] = json!("crm@sha256:ABC"),
    "spec.images[web]", "repository@sha256: with all 64 hex digits")]
#[tokio::test]
async fn a_release(#[case] spoil: Spoil, #[case] field: &str, #[case] message: &str) -> Result<()> {
    refused(release(), spoil, field, message).await
}

#[rstest]
#[case::without_a_digest(|migration: &mut Value| migration["spec"]["image"] = json!("crm:2"),
    "spec.image", "so that the image that ran is known")]
#[case::with_command_and_on_start(|migration: &mut Value| migration["spec"]["onStart"] = json!({}),
    "spec", "exactly one of command and onStart; set one")]
#[case::with_a_name_too_long(|migration: &mut Value| migration["metadata"]["name"] = json!("a".repeat(53)),
    "", "at most 52 characters")]
#[tokio::test]
async fn a_migration(#[case] spoil: Spoil, #[case] field: &str, #[case] message: &str) -> Result<()> {
    refused(migration(), spoil, field, message).await
}

/// A field with a typo is named by strict validation, which kubectl asks for.
#[rstest]
#[case::in_a_component(|app: &mut Value| component(app)["replica"] = json!(3), "spec.components[0].replica")]
#[case::in_on_start(|app: &mut Value| app["spec"]["migration"] = json!({"component": "web", "onStart": {"after": "1s"}}), "spec.migration.onStart.after")]
#[case::of_a_later_version(|app: &mut Value| app["spec"]["backup"]["drill"] = json!({"cron": "0 2 * * *"}), "spec.backup.drill")]
#[tokio::test]
async fn an_unknown_field(#[case] spoil: Spoil, #[case] field: &str) -> Result<()> {
    let mut object = app();
    spoil(&mut object);
    let answer = create(&client().await?, ANY, &object, Effect::DryRun, None).await?;
    let refusal = answer.expect_err("it was let in");
    assert!(
        refusal.message.contains(&format!("unknown field \"{field}\"")),
        "{refusal:?}"
    );
    Ok(())
}

async fn refused(mut object: Value, spoil: Spoil, field: &str, message: &str) -> Result<()> {
    spoil(&mut object);
    let answer = create(&client().await?, ANY, &object, Effect::DryRun, None).await?;
    let refusal = answer.expect_err("it was let in");
    assert_eq!(refusal.code, 422, "{refusal:?}");
    // The API server adds that it could not check further rules, which is no cause of its own.
    let causes: Vec<_> = refusal
        .causes
        .iter()
        .filter(|(_, message)| !message.contains("some validation rules were not checked"))
        .collect();
    let [(named, said)] = causes[..] else {
        panic!("not one message: {refusal:?}")
    };
    assert!(said.contains(message), "{refusal:?}");
    let named = if named == "<nil>" { "" } else { named };
    assert_eq!(named, field, "{refusal:?}");
    Ok(())
}

fn component(app: &mut Value) -> &mut Value {
    &mut app["spec"]["components"][0]
}

fn pod(app: &mut Value) -> &mut Value {
    &mut component(app)["template"]["spec"]
}

fn header(app: &mut Value) -> &mut Value {
    &mut component(app)["health"]["http"][1]["headers"][0]
}

fn remove(app: &mut Value, field: &str) {
    app["spec"].as_object_mut().unwrap().remove(field);
}
