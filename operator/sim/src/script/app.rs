//! The App of a story: made from the pairs of a command, and edited by them.

use fairway_crds::AppSpec;
use fairway_crds::backup::Level;
use fairway_crds::component::Component;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Name of the App of every story.
pub const APP: &str = "crm";

/// The spec that the pairs of a command describe.
pub(super) fn spec(pairs: &BTreeMap<String, String>) -> AppSpec {
    let get = |key: &str| pairs.get(key).map(String::as_str);
    let number =
        |key: &str, otherwise: i32| get(key).map_or(otherwise, |text| text.parse().unwrap_or(otherwise));
    let mut components = Vec::new();
    if let Some(image) = get("web") {
        let mut web = component("web", image);
        web["replicas"] = json!(number("replicas", 2));
        if get("serves") != Some("no") {
            web["serves"] = serves(get("service").unwrap_or(APP));
        }
        let mut headers = Vec::new();
        if let Some(secret) = get("secret") {
            let key = json!({"name": secret, "key": "probe"});
            headers.push(json!({"name": "Authorization", "valueFrom": {"secretKeyRef": key}}));
        }
        let request = json!({"path": "/health", "port": 3000, "headers": headers});
        web["health"] = json!({"http": [request], "deadline": get("deadline").unwrap_or("2m")});
        if let Some(strategy) = get("strategy") {
            web["strategy"] = json!(strategy);
        }
        if let Some(label) = get("label") {
            web["template"]["metadata"] = json!({"labels": {"app": label}});
        }
        if let Some(claim) = get("mounts") {
            mount(&mut web, claim);
        }
        components.push(web);
    }
    if let Some(image) = get("api") {
        components.push(api(image));
    }
    if let Some(image) = get("worker") {
        let mut worker = worker(image);
        worker["strategy"] = json!(get("worker-strategy").unwrap_or("Recreate"));
        worker["replicas"] = json!(number("workers", 1));
        components.push(worker);
    }
    let mut spec = json!({
        "components": components,
        "policy": {"bake": {"for": get("bake").unwrap_or("1m")}},
    });
    if let Some(migration) = get("migration") {
        migrate(&mut spec, migration);
    }
    if let Some(schedule) = get("schedule") {
        change(&mut spec, "schedule", schedule);
    }
    serde_json::from_value(spec).unwrap_or_else(|error| panic!("the App of a story is invalid: {error}"))
}

fn component(name: &str, image: &str) -> Value {
    let mut container = json!({"name": name});
    if image != "?" {
        container["image"] = json!(image);
    }
    json!({"name": name, "replicas": 1, "template": {"spec": {"containers": [container]}}})
}

fn serves(service: &str) -> Value {
    json!({"service": service, "port": 80, "targetPort": 3000})
}

fn api(image: &str) -> Value {
    let mut api = component("api", image);
    api["serves"] = serves("crm-api");
    api["health"] = json!({"http": [{"path": "/health", "port": 3000}]});
    api
}

fn worker(image: &str) -> Value {
    let mut worker = component("worker", image);
    worker["strategy"] = json!("Recreate");
    worker
}

/// How the database follows the application; `none` for an App without a database.
fn migrate(spec: &mut Value, migration: &str) {
    if migration == "none" {
        for field in ["database", "backup", "migration"] {
            spec[field] = Value::Null;
        }
        return;
    }
    let url = json!({"urlFrom": {"secretKeyRef": {"name": "crm-db", "key": "url"}}});
    spec["database"] = json!({"image": "postgres:16", "connection": url});
    spec["backup"] = json!({"store": {"volume": {"claimName": "backups"}}});
    spec["migration"] = match migration {
        "onStart" => json!({"component": "web", "onStart": {}, "timeout": "1m"}),
        _ => json!({"component": "web", "command": ["migrate"], "timeout": "1m"}),
    };
}

/// Edits one field of a spec.
pub(super) fn change(spec: &mut Value, key: &str, value: &str) {
    if let Some(path) = key.strip_prefix('/') {
        set(
            spec,
            path,
            serde_json::from_str(value).unwrap_or_else(|_| json!(value)),
        );
        return;
    }
    match key {
        "suspend" => spec["suspend"] = json!(value == "true"),
        "bake" => spec["policy"]["bake"]["for"] = json!(value),
        "drain" => spec["traffic"]["drain"] = json!(value),
        "migration" => migrate(spec, value),
        "replicas" | "workers" => {
            let of_web = key == "replicas";
            for component in of(spec, if of_web { "web" } else { "worker" }) {
                component["replicas"] = json!(value.parse::<i32>().unwrap_or(1));
            }
        }
        "web" | "worker" | "api" if value == "none" => {
            if let Some(components) = spec["components"].as_array_mut() {
                components.retain(|component| component["name"] != key);
            }
        }
        "worker" | "api" if of(spec, key).next().is_none() => {
            let added = if key == "api" { api(value) } else { worker(value) };
            if let Some(components) = spec["components"].as_array_mut() {
                components.push(added);
            }
        }
        "image" | "web" | "worker" | "api" => {
            for component in of(spec, key) {
                component["template"]["spec"]["containers"][0]["image"] = json!(value);
            }
        }
        "strategy" => {
            for component in of(spec, "web") {
                component["strategy"] = json!(value);
            }
        }
        "worker-strategy" => {
            for component in of(spec, "worker") {
                component["strategy"] = json!(value);
            }
        }
        "serves" => {
            for component in of(spec, "web") {
                component["serves"] = if value == "no" { Value::Null } else { serves(APP) };
            }
        }
        "service" => {
            for component in of(spec, "web") {
                component["serves"] = serves(value);
            }
        }
        "api-service" => {
            for component in of(spec, "api") {
                component["serves"] = serves(value);
            }
        }
        "target-port" => {
            for component in of(spec, "web") {
                if !component["serves"].is_null() {
                    component["serves"]["targetPort"] = json!(value.parse::<u16>().unwrap_or(3000));
                }
            }
        }
        "health" => {
            for component in of(spec, "web") {
                component["health"] = match value {
                    "none" => Value::Null,
                    _ => json!({"http": [{"path": "/health", "port": 3000}], "deadline": "2m"}),
                };
            }
        }
        "worker-health" => {
            for component in of(spec, "worker") {
                component["health"] = match value {
                    "none" => Value::Null,
                    _ => json!({"http": [{"path": "/health", "port": 3000}], "deadline": "2m"}),
                };
            }
        }
        "deadline" | "period" | "successThreshold" | "failureThreshold" => {
            let value = value
                .parse::<u32>()
                .map_or_else(|_| json!(value), |number| json!(number));
            for component in of(spec, "web").filter(|component| !component["health"].is_null()) {
                component["health"][key] = value.clone();
            }
        }
        "path" => {
            for component in of(spec, "web").filter(|component| !component["health"].is_null()) {
                component["health"]["http"][0]["path"] = json!(value);
            }
        }
        "timeout" | "migrates" => {
            let field = if key == "timeout" { "timeout" } else { "component" };
            if !spec["migration"].is_null() {
                spec["migration"][field] = json!(value);
            }
        }
        "command" => {
            if !spec["migration"]["command"].is_null() {
                spec["migration"]["command"] = json!([value]);
            }
        }
        "database" if value == "none" => spec["database"] = Value::Null,
        "database" => {
            if !spec["database"].is_null() {
                spec["database"]["image"] = json!(value);
            }
        }
        "store" if value == "none" => spec["backup"] = Value::Null,
        "store" => {
            if !spec["database"].is_null() {
                spec["backup"] = json!({"store": {"volume": {"claimName": value}}});
            }
        }
        // `15_2_*_*_*@Europe/Warsaw`.
        "schedule" => {
            let (cron, zone) = value.split_once('@').unwrap_or((value, "UTC"));
            let schedule = json!({"cron": cron.replace('_', " "), "timeZone": zone});
            if !spec["backup"].is_null() {
                spec["backup"]["schedule"] = if value == "none" { Value::Null } else { schedule };
            }
        }
        "agent-node" => spec["agent"] = json!({"nodeSelector": {"node": value}}),
        "variable" => {
            for component in of(spec, "image") {
                component["template"]["spec"]["containers"][0]["env"] =
                    json!([{"name": "MODE", "value": value}]);
            }
        }
        "label" => {
            for component in of(spec, "web") {
                component["template"]["metadata"] = match value {
                    "none" => json!({}),
                    value => json!({"labels": {"app": value}}),
                };
            }
        }
        "mounts" => {
            for component in of(spec, "web") {
                mount(component, value);
            }
        }
        _ => panic!("nobody knows how to edit {key}"),
    }
}

/// Sets the field at a path, on which an element of a list is given by its name or its number. Nothing is set when there is
/// no such element.
fn set(spec: &mut Value, path: &str, value: Value) {
    let mut place = spec;
    for segment in path.split('/') {
        let next = match place {
            Value::Array(elements) => match segment.parse::<usize>() {
                Ok(number) => elements.get_mut(number),
                Err(_) => elements.iter_mut().find(|element| element["name"] == segment),
            },
            object => Some(&mut object[segment]),
        };
        let Some(next) = next else { return };
        place = next;
    }
    *place = value;
}

fn mount(component: &mut Value, claim: &str) {
    let source = json!({"claimName": claim});
    component["template"]["spec"]["volumes"] = json!([{"name": "files", "persistentVolumeClaim": source}]);
}

/// The component of that name; all of them for `image`.
fn of<'a>(spec: &'a mut Value, name: &'a str) -> impl Iterator<Item = &'a mut Value> {
    let components = spec["components"].as_array_mut().into_iter().flatten();
    components.filter(move |component| name == "image" || component["name"] == name)
}

/// What the schema of an App demands beyond types, as far as edits of stories can break it.
pub(super) fn admit(spec: &AppSpec) -> Result<(), &'static str> {
    let components = &spec.components;
    if components.is_empty() {
        return Err("an App has at least one component");
    }
    for component in components {
        if component.serves.is_some() && component.health.is_none() {
            return Err("a component with serves requires health");
        }
        if component.serves.is_some() && component.replicas == 0 {
            return Err("a component with serves requires at least one pod");
        }
        let mut requests = component.health.iter().flat_map(|health| &health.http);
        if component.serves.is_none() && requests.any(|request| request.port.is_none()) {
            return Err("each health request of a component without serves requires a port");
        }
        let serve = |other: &&Component| {
            let service =
                |component: &Component| component.serves.as_ref().map(|serves| serves.service.clone());
            service(other).is_some() && service(other) == service(component)
        };
        if components.iter().filter(serve).count() > 1 {
            return Err("two components serve the same Service");
        }
    }
    let mut connections = spec.database.iter().map(|database| &database.connection);
    if connections.any(|found| found.url_from.is_some() == found.host.is_some()) {
        return Err("database.connection requires exactly one of urlFrom and host");
    }
    let restores_nothing = spec
        .backup
        .as_ref()
        .is_some_and(|backup| backup.verify == Some(Level::Restored) && backup.scratch.is_none());
    if restores_nothing {
        return Err("backup.verify: Restored requires backup.scratch");
    }
    let Some(migration) = &spec.migration else {
        return match (&spec.backup, &spec.database) {
            (Some(_), None) => Err("backup requires spec.database"),
            _ => Ok(()),
        };
    };
    let component = components
        .iter()
        .find(|component| component.name == migration.component)
        .ok_or("migration.component does not exist")?;
    let containers = component.template["spec"]["containers"].as_array();
    let mut containers = containers.into_iter().flatten();
    if let Some(container) = &migration.container
        && !containers.any(|found| found["name"] == **container)
    {
        return Err("migration.container does not exist");
    }
    if migration.on_start.is_some() && component.health.is_none() {
        return Err("migration.onStart requires health on its component");
    }
    if spec.database.is_none() || spec.backup.is_none() {
        return Err("migration requires spec.database and spec.backup");
    }
    Ok(())
}
