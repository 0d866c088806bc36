//! For tests: an engine, and a fake API server that shows what was asked and gives the answer of the test.

use fairway_engine::kinds::Release;
use fairway_engine::{Cached, Engine, ForKind, Now, for_each};
use fairway_plan::observed::Settings;
use http_body_util::BodyExt as _;
use hyper::{Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tower_test::mock::Handle;

/// An engine that has seen nothing yet.
pub(crate) fn engine() -> Engine {
    let settings = Settings {
        agent_image: "fairway".into(),
        agent_pull_secrets: Vec::new(),
        agent_pull_policy: "IfNotPresent".into(),
        probe_token_sha256: "0".repeat(64),
    };
    Engine::new(settings, 1)
}

/// Ends the first list of every kind; none holds an object.
pub(crate) fn complete(engine: &mut Engine, now: Now) {
    struct Complete<'a>(&'a mut Engine, Now);

    impl ForKind for Complete<'_> {
        fn visit<K: Cached>(&mut self) {
            self.0.listed::<K>(&BTreeSet::new(), self.1);
        }
    }

    for_each(&mut Complete(engine, now));
}

/// A Release of App crm that has just been created.
pub(crate) fn release(name: &str) -> Release {
    serde_json::from_value(json!({
        "apiVersion": "fairway.dev/v1alpha1", "kind": "Release",
        "metadata": {"namespace": "shop", "name": name, "uid": name, "resourceVersion": "2"},
        "spec": {"app": "crm", "revision": 1},
    }))
    .unwrap()
}

/// The API server's side.
pub(crate) struct Apiserver {
    requests: Handle<Request<Body>, Response<Body>>,
}

/// A request as the API server saw it.
#[derive(Debug)]
pub(crate) struct Asked {
    /// `PATCH /apis/apps/v1/namespaces/shop/deployments/crm-web-2`
    pub(crate) what: String,
    /// Query parameters in the order of their names.
    pub(crate) query: Vec<String>,
    /// The body; null when there was none.
    pub(crate) body: Value,
}

/// A client and its API server.
pub(crate) fn apiserver() -> (Client, Apiserver) {
    let (service, requests) = tower_test::mock::pair();
    (Client::new(service, "default"), Apiserver { requests })
}

/// An error answer.
pub(crate) fn failure(code: u16, reason: &str) -> (u16, Value) {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
        "message": format!("the fake says {reason}"),
    });
    (code, status)
}

impl Apiserver {
    /// Takes the next request and answers it.
    pub(crate) async fn answer(&mut self, (code, body): (u16, Value)) -> Asked {
        let (request, respond) = self.requests.next_request().await.expect("the client asks");
        let (parts, asked) = request.into_parts();
        let asked = asked.collect().await.unwrap().to_bytes();
        let answer = serde_json::to_vec(&body).unwrap();
        respond.send_response(Response::builder().status(code).body(Body::from(answer)).unwrap());
        let mut query: Vec<String> = parts
            .uri
            .query()
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(str::to_owned)
            .collect();
        query.sort();
        Asked {
            what: format!("{} {}", parts.method, parts.uri.path()),
            query,
            body: serde_json::from_slice(&asked).unwrap_or_default(),
        }
    }
}
